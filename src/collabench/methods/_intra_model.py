"""The four losses of Fang & Lin 2021 as functions of tensors, unweighted unless a weight is an argument.

Everything is computed in float32 or wider, also under autocast. Values and gradients are finite for every finite input:
where an equation divides by zero (a constant map, a vector that is zero after centring, a constant row of weights) the
value and its gradient are 0.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm

from collabench.methods.losses import at_least_float32, consensus, hard_cross_entropy, soft_cross_entropy
from collabench.models.convolution.products import matmul


def out_terms(
    logits: Tensor,
    labels: Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
    gradient_through_target: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Hard and soft part of L_out (eq. 4), means over the predictions, without their weights.

    ``hard = mean_i CE(onehot(y), z^(i); 1)``; ``soft = mean_i CE(q^(i), z^(i); T)`` with ``q^(i) = softmax(mean over
    j != i of z^(j); T)``, a constant unless ``gradient_through_target``. One prediction has no soft part (None).

    Args:
        logits: (P, B, m) of P predictions.
        labels: (B,) int64, or probabilities (B, m).
    """
    hard = hard_cross_entropy(logits.flatten(0, 1), _repeated(labels, len(logits)), label_smoothing)
    if len(logits) == 1:
        return hard, None
    source = logits if gradient_through_target else logits.detach()
    return hard, soft_cross_entropy(consensus(source, temperature), logits, temperature)


def _repeated(labels: Tensor, times: int) -> Tensor:
    """The labels of a batch, so many times one after the other."""
    return labels.repeat(times, *(1 for _ in labels.shape[1:]))


def mid_targets(
    logits: Tensor,
    temperature: float,
    include_own: bool = False,
    divisor: Literal["count", "printed"] = "count",
    output: Tensor | None = None,
) -> list[Tensor | None]:
    """q^(i) (B, m) of every layer (eq. 6), without gradient; None where there is no deeper layer.

    By default the softened mean of the deeper layers' logits. ``include_own``: the sum runs over j = i..N, as printed;
    its divisor is the number of logits summed (N - i + 1), or N - i with ``divisor="printed"``.

    Args:
        logits: (N, B, m), from the first layer to the last.
        output: (B, m), the network's own logits, if they count as layer N + 1.
    """
    deeper = list(at_least_float32(logits).detach())
    if output is not None:
        deeper.append(at_least_float32(output).detach())
    targets: list[Tensor | None] = [None] * len(deeper)
    summed = torch.zeros_like(deeper[-1])
    for layer in reversed(range(len(deeper))):
        above = len(deeper) - 1 - layer
        with_own = summed + deeper[layer]
        if above:
            mean = (with_own if include_own else summed) / (above + (include_own and divisor == "count"))
            targets[layer] = torch.softmax(mean / temperature, dim=-1)
        summed = with_own
    return targets[: len(logits)]


def mid_terms(
    logits: Tensor,
    labels: Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
    include_own: bool = False,
    divisor: Literal["count", "printed"] = "count",
    output: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Hard and soft part of L_mid (eqs. 5 to 7), summed over the layers, without their weights.

    ``hard = sum_i CE(onehot(y), z^(i); T)``, ``soft = sum_i CE(q^(i), z^(i); T)`` over the layers that have a target
    (:func:`mid_targets`); 0 where none has.

    Args:
        logits: (N, B, m), from the first layer to the last.
        labels: (B,) int64, or probabilities (B, m).
    """
    layers = len(logits)
    hard = layers * hard_cross_entropy(logits.flatten(0, 1), _repeated(labels, layers), label_smoothing, temperature)
    targets = [q for q in mid_targets(logits, temperature, include_own, divisor, output) if q is not None]
    if not targets:
        return hard, hard.new_zeros(())
    return hard, len(targets) * soft_cross_entropy(torch.stack(targets), logits[: len(targets)], temperature)


def deviations(maps: Tensor) -> Tensor:
    """The standard deviation (B, C) of every channel's map over height and width. A constant map has gradient 0.

    A map counts as constant if its pixels differ by no more than their rounding error.

    Args:
        maps: (B, C, H, W).
    """
    pixels = at_least_float32(maps).flatten(2)
    mean = pixels.mean(dim=2, keepdim=True)
    centred = pixels - mean
    length, farthest = _length(centred, dim=2)
    constant = farthest <= _rounding(pixels.dtype) * (mean.detach().abs() + farthest)
    return (length / sqrt(pixels.shape[2])).masked_fill(constant, 0.0).squeeze(2)


def similarities(vectors: Tensor, centre: Literal["batch", "sample"] = "batch") -> Tensor:
    """S (eq. 8): cosine similarity (B, B) of centred vectors; 0 for a vector that is zero after centring.

    A centred vector counts as zero if it is no longer than the rounding error of the longest vector. Otherwise
    identical samples would be described by rounding errors.

    Args:
        vectors: (B, d).
        centre: subtract the mean over the batch of every component, or the mean over the components of every sample.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = at_least_float32(vectors)
        centred = vectors - vectors.mean(dim=0 if centre == "batch" else 1, keepdim=True)
        unit = _unit(centred, _length(vectors.detach(), dim=1)[0].max())
        return matmul(unit, unit.mT)


def frobenius_distance(first: Tensor, second: Tensor) -> Tensor:
    """``||first - second||_F`` of two (B, B), a scalar; gradient 0 where they are equal."""
    distance: Tensor = vector_norm(first - second)
    return distance


def linear_weights(first: float, last: float, layers: int) -> list[float]:
    """One weight per layer, linear from ``first`` to ``last``. A single layer has the weight ``last``."""
    if layers == 1:
        return [last]
    return [first + (last - first) * layer / (layers - 1) for layer in range(layers)]


def kernel_term(weight: Tensor) -> Tensor:
    """L_kernel (eq. 10) of one convolution: ``||C - diag(C)||_F``, ``C = W W^T / G``, a scalar.

    The rows of W (F, G) are standardised to mean 0 and population deviation 1; a constant row becomes 0.

    Args:
        weight: (F, C, kh, kw), or (F, G).
    """
    with torch.autocast(weight.device.type, enabled=False):
        rows = at_least_float32(weight).flatten(1)
        # The length of a row is its deviation times the square root of G. Dividing by the length therefore standardises
        # the row and divides C by G.
        unit = _unit(rows - rows.mean(dim=1, keepdim=True), _length(rows.detach(), dim=1)[0])
        covariance = matmul(unit, unit.mT)
        own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        term: Tensor = vector_norm(covariance.masked_fill(own, 0.0))
    return term


def _length(vectors: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Euclidean length along ``dim`` (kept) and the largest absolute component (no gradient).

    The components are divided by the largest one before they are squared, so that no square over- or underflows.
    """
    low, high = vectors.detach().aminmax(dim=dim, keepdim=True)
    largest = torch.maximum(-low, high)
    scale = torch.where(largest == 0, 1.0, largest)
    return scale * vector_norm(vectors / scale, dim=dim, keepdim=True), largest


def _unit(centred: Tensor, size: Tensor) -> Tensor:
    """Rows (B, d) divided by their lengths; 0 for a row that is no longer than the rounding error of vectors of length
    ``size``."""
    length, _ = _length(centred, dim=1)
    empty = length <= _rounding(centred.dtype) * size
    return (centred / torch.where(empty, 1.0, length)).masked_fill(empty, 0.0)


def _rounding(dtype: torch.dtype) -> float:
    return 16 * torch.finfo(dtype).eps

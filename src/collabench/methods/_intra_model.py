"""The four losses of Fang & Lin 2021 as functions of tensors, unweighted unless a weight is an argument.

Everything is computed in float32 or wider, also under autocast. Values and gradients are finite for every finite input:
where an equation divides by zero (a constant map, a vector that is zero after centring, a constant row of weights) the
value and its gradient are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import vector_norm

from collabench.methods._descriptors import rounding
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
) -> Tensor:
    """q^(i) of eq. 6, (T, B, m) without gradient, of the first T layers: those with a deeper one.

    By default the softened mean of the deeper layers' logits. ``include_own``: the sum runs over j = i..N, as printed;
    its divisor is the number of logits summed (N - i + 1), or N - i with ``divisor="printed"``.

    Args:
        logits: (N, B, m), from the first layer to the last.
        output: (B, m), the network's own logits, if they count as layer N + 1. T is then N, else N - 1.
    """
    deeper = at_least_float32(logits).detach()
    if output is not None:
        deeper = torch.cat([deeper, at_least_float32(output).detach()[None]])
    with torch.autocast(deeper.device.type, enabled=False):
        layer = torch.arange(len(deeper), dtype=deeper.dtype, device=deeper.device)
        own = layer[:-1, None]
        summed = layer >= own if include_own else layer > own
        weights = summed / (len(deeper) - 1 - own + (include_own and divisor == "count"))
        means = matmul(weights, deeper.flatten(1)).view(-1, *deeper.shape[1:])
        return torch.softmax(means / temperature, dim=-1)


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
    targets = mid_targets(logits, temperature, include_own, divisor, output)
    if not len(targets):
        return hard, hard.new_zeros(())
    return hard, len(targets) * soft_cross_entropy(targets, logits[: len(targets)], temperature)


def similarities(
    vectors: Tensor, centre: Literal["batch", "sample"] = "batch", present: Tensor | None = None
) -> Tensor:
    """S (eq. 8): cosine similarity (…, B, B) of centred vectors; 0 for a vector that is zero after centring.

    A centred vector counts as zero if it is no longer than the rounding error of the longest vector. Otherwise
    identical samples would be described by rounding errors.

    Args:
        vectors: (B, d), or (N, B, d) of N layers.
        centre: subtract the mean over the batch of every component, or the mean over the components of every sample.
        present: (N, d) bool: the components that a layer has; the others are 0.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = at_least_float32(vectors)
        if centre == "batch":
            centred = vectors - vectors.mean(dim=-2, keepdim=True)
        elif present is None:
            centred = vectors - vectors.mean(dim=-1, keepdim=True)
        else:
            exists = present.unsqueeze(-2)
            centred = vectors - exists * (vectors.sum(dim=-1, keepdim=True) / exists.sum(dim=-1, keepdim=True))
        unit = _unit(centred, _length(vectors.detach()).amax(dim=-2, keepdim=True))
        return _gram(unit)


def frobenius_distance(first: Tensor, second: Tensor) -> Tensor:
    """``||first - second||_F`` of matrices (…, B, B); gradient 0 where they are equal."""
    distance: Tensor = vector_norm(first - second, dim=(-2, -1))
    return distance


def linear_weights(first: float, last: float, layers: int, like: Tensor) -> Tensor:
    """One weight per layer (N,), linear from ``first`` to ``last``. A single layer has the weight ``last``.

    like: a tensor of the device and the type of the result.
    """
    # Made on the device, so that a GPU does not wait for a copy.
    return torch.linspace(last if layers == 1 else first, last, layers, dtype=like.dtype, device=like.device)


def kernel_terms(weights: Sequence[Tensor]) -> Tensor:
    """L_kernel (eq. 10) of convolutions, ``||C - diag(C)||_F`` with ``C = W W^T / G``: (N,).

    The rows of each W (F, G) are standardised to mean 0 and population deviation 1; a constant row becomes 0. The terms
    are in the order of the shapes: weights of one shape are computed at once.

    Args:
        weights: (F, C, kh, kw) or (F, G) of each convolution.
    """
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        by_shape.setdefault(weight.shape, []).append(weight)
    with torch.autocast(weights[0].device.type, enabled=False):
        return torch.cat([_kernel_terms(torch.stack(alike).flatten(2)) for alike in by_shape.values()])


def _kernel_terms(weights: Tensor) -> Tensor:
    """:func:`kernel_terms` of convolutions of one shape, (N, F, G)."""
    rows = at_least_float32(weights)
    # The length of a row is its deviation times the square root of G. Dividing by the length therefore standardises
    # the row and divides C by G.
    unit = _unit(rows - rows.mean(dim=-1, keepdim=True), _length(rows.detach()))
    covariance = _gram(unit)
    own = torch.eye(rows.shape[-2], dtype=torch.bool, device=rows.device)
    terms: Tensor = vector_norm(covariance.masked_fill(own, 0.0), dim=(-2, -1))
    return terms


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length of vectors (…, d), (…, 1), without gradient."""
    scale, scaled_length, _ = _scaled(vectors)
    return scale * scaled_length


def _scaled(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale (…, 1), length after division by it (…, 1), and the divided vectors (…, d).

    Components are divided by the largest one before they are squared, so that no square over- or underflows.
    """
    scale = vectors.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    scaled = vectors / scale
    return scale, vector_norm(scaled, dim=-1, keepdim=True), scaled


def _unit(centred: Tensor, size: Tensor) -> Tensor:
    """Vectors (…, d) divided by their lengths; 0 for a vector that is no longer than the rounding error of vectors of
    length ``size``."""
    unit: Tensor = _Unit.apply(centred, size)  # type: ignore[no-untyped-call] # torch's has no types
    return unit


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, centred: Tensor, size: Tensor) -> Tensor:
        scale, scaled_length, unit = _scaled(centred)
        length = scale * scaled_length
        empty = length <= rounding(centred.dtype) * size
        # inf: an empty vector becomes 0, and so does its gradient
        unit /= scaled_length.masked_fill(empty, inf)
        ctx.save_for_backward(unit, length.masked_fill_(empty, inf))
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        unit, length = ctx.saved_tensors
        along = (unit * gradient).sum(dim=-1, keepdim=True)
        return (gradient - unit * along) / length, None


def _gram(vectors: Tensor) -> Tensor:
    """All inner products (…, B, B) of vectors (…, B, d)."""
    products: Tensor = _Gram.apply(vectors)  # type: ignore[no-untyped-call] # torch's has no types
    return products


class _Gram(torch.autograd.Function):
    """One matrix product in the backward pass, where autograd would compute one for each of the two factors."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return matmul(vectors, vectors.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (vectors,) = ctx.saved_tensors
        return matmul(gradient + gradient.mT, vectors)

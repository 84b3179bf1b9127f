"""How L_pull_push describes feature maps: by the standard deviations of the channels (Fang & Lin 2021, eq. 8).

An operation costs a GPU's host as much for a small tensor as for a large one. So only what needs a layer's own maps is
computed layer by layer: the moments. The rest is computed for all layers at once, first on their channels side by side
(B, sum of C_i), then with every layer padded to the widest, (B, N, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from collabench.methods.losses import at_least_float32


def rounding(dtype: torch.dtype) -> float:
    """The relative size below which a difference counts as a rounding error."""
    return 16 * torch.finfo(dtype).eps


class Moments(NamedTuple):
    """Of every channel's map, each (B, C). ``mean`` and ``farthest`` have no gradient.

    deviation: the population's standard deviation of the pixels, rounding errors included.
    farthest: the largest distance of a pixel from the mean.
    """

    deviation: Tensor
    mean: Tensor
    farthest: Tensor


def moments(maps: Tensor) -> Moments:
    """The moments of maps (B, C, H, W), in float32 or wider."""
    found = _Moments.apply(at_least_float32(maps))  # type: ignore[no-untyped-call] # torch's has no types
    return Moments(*found)


def deviations(found: Moments | Tensor) -> Tensor:
    """The standard deviation (B, C) of every channel's map over height and width. A constant map has gradient 0.

    A map counts as constant if its pixels differ by no more than their rounding error.

    Args:
        found: moments, or maps (B, C, H, W).
    """
    deviation, mean, farthest = moments(found) if isinstance(found, Tensor) else found
    constant = farthest <= rounding(deviation.dtype) * (mean.abs() + farthest)
    return deviation.masked_fill(constant, 0.0)


def side_by_side(layers: Sequence[Moments]) -> Moments:
    """The moments of all layers' channels, each (B, sum of C_i)."""
    return Moments(*(torch.cat(one, dim=1) for one in zip(*layers, strict=True)))


class Padding(nn.Module):
    """The channels of N layers side by side, (B, sum of C_i) → (B, N, C) with every layer in the width of the widest.

    Zeros stand where a layer has no channel. No weights, no state.

    Args:
        widths: C_i, the number of channels of each layer.
    """

    present: Tensor  # (N, C) bool: where a layer has a channel
    _source: Tensor  # (N * C,): the channel that stands there; one behind the last where none does
    _places: Tensor  # (sum of C_i,): where each channel stands

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        # From numbers, not by an index of truth values, which has no length on the fake tensors that count costs.
        widest, total, source, places = max(widths), 0, list[int](), list[int]()
        for width in widths:
            places += range(len(source), len(source) + width)
            source += [*range(total, total + width), *[sum(widths)] * (widest - width)]
            total += width
        present = torch.arange(widest) < torch.tensor(widths)[:, None]
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("_source", torch.tensor(source), persistent=False)
        self.register_buffer("_places", torch.tensor(places), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with_zeros = nn.functional.pad(x, (0, 1))
        padded: Tensor = _Placed.apply(with_zeros, self._source, self._places)  # type: ignore[no-untyped-call] # torch's has no types
        return torch.unflatten(padded, 1, self.present.shape)


class _Placed(torch.autograd.Function):
    """Columns of (B, P + 1) in another order. The last one, zeros, may be taken often; it has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, source: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(1, source)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return nn.functional.pad(gradient.index_select(1, places), (0, 1)), None, None


class _Moments(torch.autograd.Function):
    """:func:`moments`. The centred maps are divided by their largest component before they are squared, so that no
    square over- or underflows, and are kept in this form: the gradient is a multiple of it."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = maps.flatten(2)
        mean = pixels.mean(dim=2, keepdim=True)
        unit = pixels - mean
        # Not a vector_norm, which takes 10 to 50 times as long on a CPU where the pixels are not adjacent in memory.
        farthest = unit.abs().amax(dim=2, keepdim=True)
        scale = farthest.clamp_min(torch.finfo(unit.dtype).tiny)
        unit /= scale
        # In units of scale^2. A map that is not constant has a component of at least eps.
        variance = unit.square().mean(dim=2, keepdim=True)
        variance.clamp_min_(torch.finfo(unit.dtype).eps ** 2 / unit.shape[2])
        # Not sqrt, which MKL computes on a CPU, with other last bits on other processors.
        inverse = variance.rsqrt()
        ctx.save_for_backward(unit, inverse)
        ctx.shape = maps.shape
        mean, farthest = mean.squeeze(2), farthest.squeeze(2)
        ctx.mark_non_differentiable(mean, farthest)
        ctx.set_materialize_grads(False)
        return (variance.mul_(inverse) * scale).squeeze(2), mean, farthest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, *_: Tensor | None) -> Tensor | None:
        if gradient is None:
            return None
        unit, inverse = ctx.saved_tensors
        # d sigma / d x = (x - mean) / (n sigma), and 0 for a map of equal pixels.
        factor = gradient.unsqueeze(2) * inverse / unit.shape[2]
        found: Tensor = (unit * factor).view(ctx.shape)
        return found

"""Matrix products of portable arithmetic, and the linear layers and methods that are made of them.

MKL chooses its products' loops by the processor's vendor. These have one order of their sums everywhere
(:mod:`.product_loops`). They are float32 on a CPU; of all else torch computes the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from collabench.models.convolution import product_loops
from collabench.models.convolution.compiled import function
from collabench.models.convolution.product_loops import MOST_COLUMNS, MOST_ROWS
from collabench.models.convolution.scratch import room

_portable = False


@contextmanager
def portable_products(portable: bool = True) -> Iterator[None]:
    """While this lasts, :func:`matmul` is portable, or torch's."""
    global _portable
    before, _portable = _portable, portable
    try:
        yield
    finally:
        _portable = before


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices (M, K) and (K, N), or of batches of them (B, M, K) and (B, K, N); portable where
    :func:`portable_products` says so."""
    return product(a, b) if _portable and are_portable(a, b) else a @ b


def are_portable(a: Tensor, b: Tensor) -> bool:
    """Whether loops have been written for them: float32 on a CPU."""
    return a.dtype == b.dtype == torch.float32 and a.device.type == b.device.type == "cpu"


def product(a: Tensor, b: Tensor) -> Tensor:
    """The same, always portable; differentiable as often as asked for."""
    if a.dim() not in (2, 3) or a.dim() != b.dim() or a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        raise ValueError(f"no product of {tuple(a.shape)} and {tuple(b.shape)}: (M, K) and (K, N), or batches of them")
    found: Tensor = _Product.apply(a, b)
    return found


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return multiply(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad
        return product(gradient, b.mT) if of_a else None, product(a.mT, gradient) if of_b else None


class PortableLinear(nn.Linear):
    """A linear layer whose products are portable, in float32 on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not are_portable(x, self.weight) or x.shape[-1] != self.in_features:
            return super().forward(x)
        flat = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        y: Tensor = _Linear.apply(flat, self.weight, self.bias)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = multiply(x, weight.T)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight) if of_x else None,
            product(gradient.T, x) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Of matrices or batches of them in any layout; no gradients."""
    depth, columns = b.shape[-2:]
    if a.dim() == 2:
        batches, rows, sizes = 1, len(a), (0, *a.stride(), 0, *b.stride())
        c = a.new_empty(rows, columns)
    else:
        (batches, rows, _), sizes = a.shape, (*a.stride(), *b.stride())
        c = a.new_empty(batches, rows, columns)
    high, wide = rows + MOST_ROWS, columns + MOST_COLUMNS
    scratch = room("panels", (high + wide) * depth + high * wide)
    panels_b = scratch + 4 * high * depth
    tiles = panels_b + 4 * wide * depth
    _loops()(a.data_ptr(), b.data_ptr(), c.data_ptr(), scratch, panels_b, tiles, batches, rows, columns, depth, *sizes)
    return c


@cache
def _loops() -> Any:
    return function(product_loops.product)

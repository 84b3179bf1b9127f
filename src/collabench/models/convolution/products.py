"""Matrix products of portable arithmetic, and the linear layer that uses them.

MKL chooses the loops of its products by the processor's vendor. The loops here (:mod:`.product_loops`) add their terms
in the same order on every processor. They are for float32 on a CPU; torch computes all other products.
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
    """Within the block, :func:`matmul` is portable, or torch's own product if ``portable`` is False."""
    global _portable
    before, _portable = _portable, portable
    try:
        yield
    finally:
        _portable = before


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of matrices (M, K) and (K, N), or of batches of them, (B, M, K) and (B, K, N).

    Within :func:`portable_products` it is portable if both are float32 on a CPU; otherwise torch computes it.
    """
    return product(a, b) if _portable and are_portable(a, b) else a @ b


def are_portable(a: Tensor, b: Tensor) -> bool:
    """Return whether the project's loops can multiply two tensors: both must be float32 on a CPU."""
    return a.dtype == b.dtype == torch.float32 and a.device.type == b.device.type == "cpu"


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the same product as :func:`matmul`, always portable. It can be differentiated any number of times.

    Raises ValueError if the shapes do not fit.
    """
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
    """A linear layer whose products are portable for float32 on a CPU."""

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
    """Return the portable product of matrices, or of batches of them, with any strides. It has no gradient."""
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

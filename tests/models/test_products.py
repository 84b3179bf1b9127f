"""Portable matrix products against torch's in float64: values, first and second derivatives, bits, memory layouts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from collabench.models.convolution import compiled, product_loops, products
from collabench.models.convolution.portable import make_portable
from collabench.models.convolution.products import matmul, multiply, portable_products, product

#: Batches (0: none), rows, terms of a sum, columns: single numbers, whole tiles and rests, several blocks of terms.
SIZES = [
    (0, 1, 1, 1),
    (0, 64, 64, 10),
    (0, 13, 600, 33),
    (0, 48, 256, 64),
    (3, 4, 7, 5),
    (64, 4, 16, 4),
    (0, 5, 0, 3),
    (0, 0, 4, 3),
]
TOLERANCE = 3e-6


def operands(batches, rows, terms, columns):
    generator = torch.Generator().manual_seed(rows)
    batch = (batches,) if batches else ()
    a = torch.randn(*batch, rows, terms, generator=generator)
    return a, torch.randn(*batch, columns, terms, generator=generator).mT


def close(actual, expected) -> bool:
    return torch.allclose(
        actual.double(), expected, rtol=0, atol=TOLERANCE * float(expected.abs().amax() if expected.numel() else 1)
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients(sizes):
    a, b = (x.requires_grad_() for x in operands(*sizes))
    y, expected = product(a, b), a.double() @ b.double()
    gradient = torch.randn(expected.shape)
    assert y.shape == expected.shape and close(y.detach(), expected.detach())
    found = torch.autograd.grad(y, (a, b), gradient)
    wanted = torch.autograd.grad(expected, (a, b), gradient.double())
    assert all(close(one, other.double()) for one, other in zip(found, wanted, strict=True))


def test_gradients_of_gradients():
    a, b = (x[:3, :3].double().float().requires_grad_() for x in operands(0, 5, 5, 5))
    torch.autograd.gradgradcheck(
        product, (a, b), eps=1e-2, atol=1e-2, rtol=1e-2, nondet_tol=0, check_fwd_over_rev=False
    )


@pytest.mark.parametrize("sizes", SIZES[1:6], ids=str)
def test_bits_depend_on_neither_registers_nor_layout(sizes, monkeypatch):
    a, b = operands(*sizes)
    value = multiply(a, b)
    assert torch.equal(multiply(a.clone(), b.contiguous()), value)
    assert torch.equal(multiply(a.mT.contiguous().mT, b), value)
    monkeypatch.setattr(compiled, "lanes", lambda: 8)
    products._loops.cache_clear()
    assert torch.equal(multiply(a, b), value)
    products._loops.cache_clear()


def test_a_product_is_torchs_unless_asked_for():
    a, b = operands(0, 8, 600, 8)
    assert torch.equal(matmul(a, b), a @ b)
    with portable_products():
        assert torch.equal(matmul(a, b), multiply(a, b))
        assert torch.equal(matmul(a.double(), b.double()), a.double() @ b.double())
        with portable_products(False):
            assert torch.equal(matmul(a, b), a @ b)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"no product of \(2, 3\) and \(2, 3\)"):
        product(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64, 40), (3, 16, 40), (40,)], ids=str)
def test_a_linear_layer(shape, bias):
    layer = nn.Linear(40, 7, bias=bias)
    x = torch.randn(shape).requires_grad_()
    expected = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    gradient = torch.randn(expected.shape)
    wanted = torch.autograd.grad(expected, (x, *layer.parameters()), gradient.double())
    make_portable(layer)
    y = layer(x)
    assert close(y.detach(), expected.detach())
    found = torch.autograd.grad(y, (x, *layer.parameters()), gradient)
    assert all(close(one, other.double()) for one, other in zip(found, wanted, strict=True))


def test_the_products_loops_are_fused():
    for lanes in (8, 16):
        text = compiled.assembly(product_loops.product, lanes)
        assert "vfmadd" in text and "vmulps" not in text

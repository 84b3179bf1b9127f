"""Networks on torch's meta device: names and shapes only, without memory and arithmetic.

torch answers some calls on this device by importing its compiler, which takes longer than opening a whole study. These
calls are answered here instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from collabench.models import Backbone, ModelSettings, build_backbone


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within it, networks are built on the meta device and applied to tensors of that device without the compiler."""
    with torch.device("meta"), torch.no_grad(), _WithoutCompiler():
        yield


def backbone_on_meta(model: ModelSettings, shape: tuple[int, int, int], classes: int) -> Backbone:
    """The backbone of these settings on the meta device.

    Args:
        shape: (C, H, W) of an image.

    Raises ConfigError if the model does not fit the input size or the number of classes.
    """
    with shapes_only():
        return build_backbone(model, shape, classes, weights_seed=0)


class _WithoutCompiler(TorchFunctionMode):
    """Answers for meta tensors the calls of the families here for which torch would import its compiler. All else is
    left to torch."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        answer = _ANSWERS.get(function)
        if answer is not None and isinstance(arguments[0], Tensor) and arguments[0].is_meta:
            found = answer(*arguments, **(named or {}))
            if found is not None:
                return found
        return function(*arguments, **(named or {}))


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _sum(x: Tensor, y: object, **named: Any) -> Tensor | None:
    return x if isinstance(y, Tensor) and y.shape == x.shape and not named else None


def _mean(x: Tensor, dim: object = None, **named: Any) -> Tensor | None:
    return x.select(dim, 0) if isinstance(dim, int) and not named else None


def _pooled(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *unusual: Any, dilation: Any = 1, **others: Any
) -> Tensor | None:
    step = kernel_size if stride is None else stride
    return None if unusual or any(others.values()) else _windows(x, kernel_size, step, padding, dilation)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    return x.new_empty(*x.shape[:-1], len(weight)) if x.shape[-1] == weight.shape[-1] else None


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor | None:
    if x.ndim != 4 or x.shape[1] != groups * weight.shape[1]:
        return None
    found = _windows(x, weight.shape[2:], stride, padding, dilation)
    return None if found is None else found[:, :1].expand(-1, len(weight), -1, -1)


def _windows(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Tensor | None:
    """A map (B, C, H', W') of one number per window; None for torch to say what is wrong."""
    found = _pair(kernel), _pair(stride), _pair(padding), _pair(dilation)
    if x.ndim != 4 or not all(len(pair) == 2 for pair in found):
        return None
    sides = [
        (side + 2 * pad - spread * (size - 1) - 1) // step + 1
        for side, size, step, pad, spread in zip(x.shape[2:], *found, strict=True)
    ]
    return x.new_empty(*x.shape[:2], *sides) if min(sides) > 0 else None


def _pair(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return value, value
    return tuple(value) if isinstance(value, tuple | list) else ()  # a name: "same"


#: Function → its answer from the same arguments; an answer None leaves the call to torch.
_ANSWERS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    Tensor.normal_: _same,
    Tensor.uniform_: _same,
    Tensor.add: _sum,
    Tensor.add_: _sum,
    Tensor.__add__: _sum,
    Tensor.__iadd__: _sum,
    Tensor.mean: _mean,
    torch.conv2d: _convolution,
    nn.functional.avg_pool2d: _pooled,
    nn.functional.batch_norm: _same,
    nn.functional.linear: _linear,
    nn.functional.max_pool2d: _pooled,
    nn.functional.relu: _same,
}

"""Intermediate layers: convolution, batch normalisation and activation as one module that methods can find.

Backbones that consist of such layers support methods with local losses (:func:`intermediate_layers`). :func:`tapped`
passes a layer's output to a method. The gradient of the method's loss changes the layer's own weights (convolution,
batch normalisation, and a shortcut that it adds) and nothing below. The gradient of the layer's ordinary output flows
as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from collabench.core import distributed
from collabench.models.backbone import Backbone
from collabench.models.convolution import portable
from collabench.models.pooling import every_nth_pixel

aten = torch.ops.aten


class IntermediateLayer(nn.Module):
    """``relu(norm(convolution(x)))``, optionally with an addition before the activation.

    Args:
        added: how ``skip`` is added: ``None`` (no addition), ``"identity"`` (unchanged) or ``"convolution"`` (through a
            1x1 convolution with batch normalisation, which belong to this layer).
        skip_channels: channels of ``skip`` if it is convolved.
        skip_stride: stride of that convolution.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: int = 1,
        added: str | None = None,
        skip_channels: int = 0,
        skip_stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.added, self.skip_stride = added, skip_stride
        if added == "convolution":
            # The stride is applied by _strided: in torch 2.13, oneDNN writes outside its memory in the backward pass of
            # a channels-last 1x1 convolution with a stride and few channels (uxlfoundation/oneDNN, issue 6035).
            self.shortcut_conv = nn.Conv2d(skip_channels, channels, 1, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(channels)
        self._receive: Callable[[Tensor], None] | None = None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self._receive is not None:
            apply = _apply_uncompiled if torch.compiler.is_compiling() else _apply
            output, copy = apply(self, x, skip)
            self._receive(copy)
            return output
        y = self.norm(self.conv(x))
        if self.added == "convolution":
            y = y.add_(self.shortcut_norm(self.shortcut_conv(self._strided(skip))))
        elif self.added == "identity":
            assert skip is not None, "the layer adds what it is given beside its input"
            y = y.add_(skip)
        return torch.relu_(y)

    def _strided(self, skip: Tensor | None) -> Tensor:
        assert skip is not None, "the layer adds what it is given beside its input"
        return every_nth_pixel(skip, self.skip_stride)


def intermediate_layers(backbone: Backbone) -> dict[str, IntermediateLayer]:
    """The backbone's intermediate layers by path, in order of execution. The result is empty for other backbones."""
    return {name: module for name, module in backbone.named_modules() if isinstance(module, IntermediateLayer)}


def intermediate_groups(backbone: Backbone) -> dict[str, dict[str, IntermediateLayer]]:
    """Stage → its intermediate layers by path, for the stages that have any."""
    layers = intermediate_layers(backbone)
    groups = {
        stage: {path: layer for path, layer in layers.items() if any(f"{path}.".startswith(f"{n}.") for n in names)}
        for stage, names in backbone.stages.items()
    }
    return {stage: group for stage, group in groups.items() if group}


def map_shapes(backbone: Backbone, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of every intermediate layer's output for images of ``input_shape``. The backbone stays unchanged."""
    shapes: dict[str, tuple[int, int, int]] = {}

    def note(path: str) -> Any:
        return lambda module, inputs, output: shapes.__setitem__(path, tuple(output.shape[1:]))

    hooks = [layer.register_forward_hook(note(path)) for path, layer in intermediate_layers(backbone).items()]
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            backbone.features(torch.zeros(1, *input_shape, device=next(backbone.parameters()).device))
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    return shapes


@contextmanager
def tapped(layers: Sequence[IntermediateLayer], receive: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within the block, the layer with index i calls ``receive(i, output)`` with its output (B, C, H, W) when it runs.

    A gradient that reaches this output changes that layer's own weights only. No layer runs twice, and the output uses
    no additional memory. What ``receive`` computes is differentiated just before the layer, so that at most one such
    gradient is held at a time.
    """
    for index, layer in enumerate(layers):
        layer._receive = partial(receive, index)
    try:
        yield
    finally:
        for layer in layers:
            layer._receive = None


# ------------------------------------------------------------------------------------------------- two gradients


class _Path(NamedTuple):
    """One convolution with its batch normalisation; a layer adds up one or two of them."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d


class _Saved(NamedTuple):
    """What one path's backward pass needs in addition to the saved tensors."""

    batch_norm: int
    training: bool
    needs_input: bool


def _apply(layer: IntermediateLayer, x: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor]:
    """The layer's output, twice: for the network and for the layer's own loss."""
    paths, tensors = [_Path(layer.conv, layer.norm)], [x]
    if layer.added == "convolution":
        paths.append(_Path(layer.shortcut_conv, layer.shortcut_norm))
        tensors.append(layer._strided(skip))
    weights = [w for path in paths for w in (path.conv.weight, path.norm.weight, path.norm.bias)]
    identity = skip if layer.added == "identity" else None
    return _TwoGradients.apply(paths, identity, *tensors, *weights)


#: In a compiled network, tapped layers run uncompiled. The first call imports the compiler, which takes a second.
_apply_uncompiled = _disable_dynamo(_apply)


class _TwoGradients(torch.autograd.Function):
    """``relu(sum over paths of norm(conv(x)) + identity)`` as two outputs that share their storage.

    With the gradients g of the first output and l of the second, weights get the gradient of g + l and inputs that of
    g. The operations are those of ``nn.Conv2d`` and ``nn.BatchNorm2d``, so that without l the result is identical to
    theirs.
    """

    @staticmethod
    def forward(ctx: Any, paths: list[_Path], identity: Tensor | None, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        device = tensors[0].device.type
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        inputs, weights = tensors[: len(paths)], tensors[len(paths) :]
        kept: list[Tensor | None] = []
        saved: list[_Saved] = []
        total: Tensor | None = None
        with torch.autocast(device, enabled=False):
            for index, (path, x) in enumerate(zip(paths, inputs, strict=True)):
                weight, scale, shift = weights[3 * index : 3 * index + 3]
                if narrow is not None:
                    x, weight = x.to(narrow), weight.to(narrow)
                conv, norm = path
                before = portable.convolve(conv, x, weight)
                assert norm.momentum is not None and norm.num_batches_tracked is not None, (
                    "as IntermediateLayer makes them"
                )
                if norm.training:
                    norm.num_batches_tracked.add_(1)
                after, mean, deviation, reserve, kind = distributed.batch_norm_forward(
                    before, scale, shift, norm.running_mean, norm.running_var, norm.training, norm.momentum, norm.eps,
                    torch.backends.cudnn.enabled,
                )  # fmt: skip
                total = after if total is None else total.add_(after)
                kept += [x, weight, before, scale, norm.running_mean, norm.running_var, mean, deviation, reserve]
                saved.append(_Saved(kind, norm.training, ctx.needs_input_grad[2 + index]))
            assert total is not None, "a layer has at least one path"
            if identity is not None:
                total = total.add_(identity)
            output = total.relu_()
        ctx.paths, ctx.saved, ctx.identity = paths, saved, identity is not None
        ctx.types = [tensor.dtype for tensor in tensors]
        ctx.save_for_backward(output, *kept)
        ctx.set_materialize_grads(False)
        return output, output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, local: Tensor | None) -> tuple[Tensor | None, ...]:
        output, *kept = ctx.saved_tensors
        with torch.autocast(output.device.type, enabled=False):
            if gradient is not None:
                gradient = aten.threshold_backward(gradient, output, 0)
            if local is not None:
                local = aten.threshold_backward(local, output, 0)
                local = local if gradient is None else local.add_(gradient)
            inputs: list[Tensor | None] = []
            weights: list[Tensor | None] = []
            for index, (path, saved) in enumerate(zip(ctx.paths, ctx.saved, strict=True)):
                found = _path_backward(
                    path.conv, path.norm.eps, saved, gradient, local, kept[9 * index : 9 * index + 9]
                )
                inputs.append(found[0])
                weights += found[1:]
            gradients = [
                None if value is None else value.to(type)
                for value, type in zip([*inputs, *weights], ctx.types, strict=True)
            ]
        return None, gradient if ctx.identity else None, *gradients


def _path_backward(
    conv: nn.Conv2d, eps: float, saved: _Saved, gradient: Tensor | None, both: Tensor | None, kept: list[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of one path: input, convolution, scale and shift. both: g + l, or None if there is no l."""
    x, weight, before, scale, running_mean, running_var, mean, deviation, reserve = kept

    def norm_backward(of: Tensor, wanted: list[bool]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return distributed.batch_norm_backward(
            saved.batch_norm, before, of, scale, running_mean, running_var, mean, deviation, saved.training, eps,
            wanted, reserve,
        )  # fmt: skip

    received = gradient if both is None else both
    if received is None:
        return None, None, None, None
    of_weights, scale_gradient, shift_gradient = norm_backward(received, [True, True, True])
    assert of_weights is not None, "it was asked for"
    if both is None:
        x_gradient, weight_gradient = portable.gradients(conv, of_weights, x, weight, saved.needs_input, True)
        return x_gradient, weight_gradient, scale_gradient, shift_gradient
    _, weight_gradient = portable.gradients(conv, of_weights, x, weight, False, True)
    x_gradient = None
    if gradient is not None and saved.needs_input:
        del of_weights
        of_input = norm_backward(gradient, [True, False, False])[0]
        assert of_input is not None, "it was asked for"
        x_gradient, _ = portable.gradients(conv, of_input, x, weight, True, False)
    return x_gradient, weight_gradient, scale_gradient, shift_gradient

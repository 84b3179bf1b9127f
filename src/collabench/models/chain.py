"""Models from elsewhere as a chain of stages, accepted only if the chain reproduces the model bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from collabench.core.errors import ConfigError
from collabench.models.backbone import Backbone, ModelSettings

#: The word that stands for ``torch.flatten(x, 1)`` in a list of modules.
FLATTEN = "flatten"

Stages = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], Annotated[tuple[str, ...], Field(min_length=1)]],
    Field(min_length=2),
]


class ChainSettings(ModelSettings):
    """Settings of a family whose stages the configuration names.

    stages: stage → its modules in order of execution, by attribute name (``layer1``) or path (``features.3``). The word
    ``flatten`` stands for flattening.
    """

    def __hash__(self) -> int:  # a mapping has no hash, but settings are used as keys
        return hash(self.model_dump_json())


_reproduced: set[tuple[ChainSettings, tuple[int, int, int], int]] = set()


def one_line(error: BaseException) -> str:
    """The first line of an exception's text, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def chain(
    settings: ChainSettings,
    name: str,
    model: nn.Module,
    stages: Mapping[str, Sequence[str]],
    input_shape: tuple[int, int, int],
    classes: int,
) -> Backbone:
    """``model`` as a backbone with these stages. It shares the model's modules, and its state dict has the same keys.

    The check runs a batch of two images through the model and through the chain, once in training mode (from the same
    random state, which covers dropout) and once in eval mode, and leaves the model unchanged. A combination that passed
    is not checked again in the same process. On meta or fake tensors, which hold no numbers, only names and shapes are
    checked.

    Raises:
        ConfigError: a module is missing, used twice or left out; the model does not take the input size; the output is
            not (B, classes); or the chain's output differs from the model's own.
    """
    # takes a second to import and is needed by these families only
    from torch._subclasses.fake_tensor import FakeTensor

    backbone = Backbone(_modules(name, model, stages), stages)
    if (settings, input_shape, classes) in _reproduced:
        return backbone
    named = backbone.state_dict().keys()
    left_out = [key for key in model.state_dict() if key not in named]
    if left_out:
        raise ConfigError(f"{name}: no stage has {left_out[0].rpartition('.')[0] or left_out[0]}; "
                          "the stages must name every module that has weights")  # fmt: skip
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.get_default_device()
    real = device.type != "meta" and not any(isinstance(tensor, FakeTensor) for tensor in tensors)
    statistics = {buffer: buffer.clone() for buffer in model.buffers()} if real else {}  # training updates them
    images = torch.empty(2, *input_shape, device=device)
    if real:
        images.normal_(generator=torch.Generator(device).manual_seed(0))
    was_training = model.training
    try:
        for training in (True, False):
            model.train(training)
            backbone.train(training)
            expected = _run(name, "the model", model, images, input_shape)
            _check_logits(name, expected, classes)
            _restore(statistics)
            actual = _run(name, "the chain of its stages", backbone, images, input_shape)
            _restore(statistics)
            if actual.shape != expected.shape:
                raise ConfigError(f"{name}: chaining the stages gives an output of shape {tuple(actual.shape)}, the "
                                  f"model itself {tuple(expected.shape)}; the stages miss something that it "
                                  "does")  # fmt: skip
            if real and not torch.equal(actual, expected):
                raise ConfigError(f"{name}: chaining the stages does not reproduce the model's own output "
                                  f"{'in training' if training else 'in evaluation'} (largest difference "
                                  f"{(actual - expected).abs().max().item():.3g}); the model does something that no "
                                  "stage names, or in another order")  # fmt: skip
    finally:
        _restore(statistics)
        model.train(was_training)
        backbone.train(was_training)
    if real:
        _reproduced.add((settings, input_shape, classes))
    return backbone


def _restore(statistics: Mapping[Tensor, Tensor]) -> None:
    for buffer, value in statistics.items():
        buffer.copy_(value)


def _modules(name: str, model: nn.Module, stages: Mapping[str, Sequence[str]]) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {}
    for stage, paths in stages.items():
        for path in paths:
            if path in modules:
                raise ConfigError(f"{name}: stage {stage} uses {path!r}, which an earlier place already uses")
            try:
                modules[path] = model.get_submodule(path)
            except AttributeError:
                if path != FLATTEN:
                    children = ", ".join(child for child, _ in model.named_children())
                    raise ConfigError(f"{name}: stage {stage} names {path!r}, which the model does not have; "
                                      f"its modules: {children}, and the word {FLATTEN}") from None  # fmt: skip
                modules[path] = nn.Flatten()
    for path in modules:
        inner = next((other for other in modules if other.startswith(f"{path}.")), None)
        if inner is not None:
            raise ConfigError(f"{name}: {inner!r} is a part of {path!r}; the stages can name only one of them")
    return modules


def _run(
    name: str, what: str, network: Callable[[Tensor], Any], images: Tensor, input_shape: tuple[int, int, int]
) -> Any:
    channels, height, width = input_shape
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return network(images.clone())
    except Exception as error:  # a user's module can raise anything
        raise ConfigError(f"{name}: {what} does not take images of {height}x{width} pixels and {channels} "
                          f"channels ({one_line(error)})") from None  # fmt: skip


def _check_logits(name: str, output: Any, classes: int) -> None:
    if not isinstance(output, Tensor):
        raise ConfigError(f"{name}: the model gives a {type(output).__name__}, not one tensor of logits (B, {classes})")
    if tuple(output.shape) != (2, classes):
        raise ConfigError(f"{name}: the model gives an output of shape {tuple(output.shape)} for a batch of two, "
                          f"it must be (2, {classes}): one logit per class")  # fmt: skip

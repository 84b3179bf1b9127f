"""Dropout that draws from a run's own streams, one for each copy of a network, instead of torch's global generator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from collabench.core import distributed
from collabench.core.errors import ConfigError
from collabench.models.chain import one_line


class SeededDropout(nn.Module):
    """Dropout: in training numbers are zeroed with ``probability`` and the others are divided by ``1 - probability``.

    ``generator`` is on the training device. The trainer sets it (:func:`assign_generators`) and reseeds it. ``copy`` is
    the number of the backbone's copy that the layer belongs to (:func:`number_copy`): each copy draws from its own
    stream.

    Args:
        leading: the number of leading dimensions with independent decisions. ``None``: every number by itself. 2: a
            channel's map is zeroed as a whole. 1: all of an image.

    Raises ValueError if the probability is not in [0, 1).
    """

    def __init__(self, probability: float, leading: int | None = None) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"the probability of dropout lies in [0, 1), not {probability}")
        self.probability, self.leading = probability, leading
        self.generator: torch.Generator | None = None
        self.copy = 0
        #: Numbers that :class:`DrawnAhead` has drawn for this pass, the next one last. None: the layer draws itself.
        self.ahead: list[Tensor] | None = None

    def extra_repr(self) -> str:
        return f"probability={self.probability}, leading={self.leading}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        shape: tuple[int, ...] = x.shape
        if self.leading is not None:
            shape = (*shape[: self.leading], *(1 for _ in shape[self.leading :]))
        return x * self.kept(shape, x.device) / (1 - self.probability)

    def kept(self, shape: tuple[int, ...], device: torch.device, dim: int = 0) -> Tensor:
        """The next mask of this shape: True where a number is kept. ``dim`` counts the images."""
        if self.ahead is not None:
            return self.ahead.pop() >= self.probability
        if self.generator is None:
            raise RuntimeError("SeededDropout has no generator; call assign_generators before training")
        return distributed.rand(shape, self.generator, device, dim) >= self.probability


def dropout_layers(network: nn.Module) -> list[SeededDropout]:
    """Every :class:`SeededDropout` of a network."""
    return [module for module in network.modules() if isinstance(module, SeededDropout)]


def set_dropout_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let every :class:`SeededDropout` of a network draw from ``generator``."""
    for layer in dropout_layers(network):
        layer.generator = generator


def number_copy(backbone: nn.Module, copy: int) -> None:
    """Set the number of the copy of a run's backbone. Its layers keep the number in every training network."""
    for layer in dropout_layers(backbone):
        layer.copy = copy


def assign_generators(network: nn.Module, device: torch.device) -> dict[int, torch.Generator]:
    """Give every copy's layers their own generator. Returns number of the stream → generator.

    The first copy with dropout has stream 0. Every further copy has the stream of its own number
    (:func:`collabench.core.seeding.dropout_seed`). No copy changes the state of another copy's generator, so that the
    first copy's masks are those of the network trained alone.
    """
    layers = dropout_layers(network)
    first = min((layer.copy for layer in layers), default=0)
    generators = {0: torch.Generator(device=device)}
    for layer in layers:
        number = 0 if layer.copy == first else layer.copy
        layer.generator = generators.setdefault(number, torch.Generator(device=device))
    return generators


class SameMasks:
    """Repeats dropout masks. Create it before a network's pass over a batch; within ``with``, another pass has the same
    masks.

    After the block the generators have the state that the first pass left, so that the repetition uses no random
    numbers.
    """

    def __init__(self, network: nn.Module) -> None:
        generators = {layer.generator for layer in dropout_layers(network) if layer.generator is not None}
        self._before = {generator: generator.get_state() for generator in generators}

    def __enter__(self) -> None:
        self._after = {generator: generator.get_state() for generator in self._before}
        self._go_to(self._before)

    def __exit__(self, *_: object) -> None:
        self._go_to(self._after)

    def _go_to(self, states: dict[torch.Generator, Tensor]) -> None:
        for generator, state in states.items():
            generator.set_state(state)


class _Drawing(NamedTuple):
    """One mask of a pass: the layer, and what it asks :func:`collabench.core.distributed.rand` for."""

    layer: SeededDropout
    shape: tuple[int, ...]
    device: torch.device
    dim: int


class DrawnAhead:
    """Draws a network's dropout numbers before a pass, for a pass that must not draw: one that is compiled.

    The numbers and their order are those of a pass that draws by itself. Which masks a pass needs is found by an
    additional pass for each shape of images; it changes neither generators nor running statistics.

    Args:
        forward: the network's pass over a batch of images (B, C, H, W).
    """

    def __init__(self, network: nn.Module, forward: Callable[[Tensor], object]) -> None:
        self._network, self._forward = network, forward
        self._layers = dropout_layers(network)
        self._plans: dict[tuple[int, ...], list[_Drawing]] = {}

    @contextmanager
    def for_pass(self, images: Tensor) -> Iterator[None]:
        """Within the block, one training pass over ``images`` finds its numbers drawn."""
        if not self._layers:
            yield
            return
        shape = tuple(images.shape)
        if shape not in self._plans:
            self._plans[shape] = self._plan(images)
        for layer in self._layers:
            layer.ahead = []
        for one in self._plans[shape]:
            assert one.layer.ahead is not None
            one.layer.ahead.insert(0, distributed.rand(one.shape, one.layer.generator, one.device, one.dim))
        try:
            yield
        finally:
            for layer in self._layers:
                layer.ahead = None

    def _plan(self, images: Tensor) -> list[_Drawing]:
        plan: list[_Drawing] = []

        def note(layer: SeededDropout, shape: tuple[int, ...], device: torch.device, dim: int = 0) -> Tensor:
            plan.append(_Drawing(layer, tuple(shape), device, dim))
            return torch.ones(shape, dtype=torch.bool, device=device)

        before = [buffer.clone() for buffer in self._network.buffers()]
        for layer in self._layers:
            layer.kept = partial(note, layer)  # type: ignore[method-assign]
        try:
            with torch.no_grad():
                self._forward(images)
        finally:
            for layer in self._layers:
                del layer.kept
            for buffer, value in zip(self._network.buffers(), before, strict=True):
                buffer.copy_(value)
        return plan


_drawing_nothing_else: set[Hashable] = set()


def seed_dropout(network: nn.Module, name: str, input_shape: tuple[int, int, int], key: Hashable) -> None:
    """Let the dropout layers of a network from elsewhere draw from a run's stream.

    ``nn.Dropout``, ``nn.Dropout1d`` to ``3d`` and torchvision's ``StochasticDepth`` in mode ``row`` draw from torch's
    global generator. They become :class:`SeededDropout`. They have no weights, so that the keys of the state dict do
    not change. A training pass of two images (C, H, W) on a copy, on the CPU, shows whether anything else draws random
    numbers. It runs once per ``key``, and not on fake tensors, which hold no numbers.

    Raises ConfigError (one line) if something else draws, because two trainings with one seed would then differ, or if
    the network uses its dropout layers in another way than calling them.
    """
    # takes a second to import and is needed by these networks only
    from torch._subclasses.fake_tensor import FakeTensor

    for parent in list(network.modules()):
        for child, module in parent._modules.items():
            if module is not None and (seeded := _seeded(module)) is not None:
                parent._modules[child] = seeded.train(module.training)
    if key in _drawing_nothing_else or any(isinstance(p, FakeTensor) for p in network.parameters()):
        return
    probe = copy.deepcopy(network).train()
    set_dropout_generator(probe, torch.Generator())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        before = torch.random.get_rng_state()
        try:
            probe(torch.zeros(2, *input_shape))
        except Exception as error:  # a user's module can raise anything
            raise ConfigError(f"{name}: it does not run with dropout layers that draw from the run's stream; a layer "
                              f"may only be called ({one_line(error)})") from None  # fmt: skip
        if not torch.equal(before, torch.random.get_rng_state()):
            raise ConfigError(f"{name}: in training it draws random numbers from torch's global generator, so that no "
                              "seed fixes a run; what draws must be nn.Dropout, nn.Dropout1d to 3d or torchvision's "
                              "StochasticDepth in mode row")  # fmt: skip
    _drawing_nothing_else.add(key)


def _seeded(module: Any) -> SeededDropout | None:
    """The replacement of a layer; None if the layer stays, because it does not draw or is not known."""
    leading: int | None
    if type(module) is nn.Dropout:
        leading = None
    elif type(module) in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
        leading = 2
    elif _is_stochastic_depth(module) and module.mode == "row":
        leading = 1
    else:
        return None
    return SeededDropout(module.p, leading) if 0 < module.p < 1 else None


def _is_stochastic_depth(module: nn.Module) -> bool:
    """Compares names, because importing torchvision takes a second and most networks do not need it."""
    return (type(module).__module__, type(module).__name__) == ("torchvision.ops.stochastic_depth", "StochasticDepth")

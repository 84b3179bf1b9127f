"""Dropout that draws from a run's own streams, one for each copy of a network, instead of torch's global generator."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from collabench.core import distributed
from collabench.core.errors import ConfigError
from collabench.models.chain import one_line


class SeededDropout(nn.Module):
    """In training, numbers are zeroed with ``probability`` and the others divided by ``1 - probability``.

    ``generator`` lies on the training device; the trainer sets it (:func:`copy_generators`) and reseeds it. ``copy`` is
    the number of the copy of a backbone that the layer belongs to (:func:`number_copy`): each copy draws from a stream
    of its own.

    Args:
        leading: what is zeroed together: ``None``, every number by itself; 2, a channel's map; 1, all of an image (the
            number of leading dimensions that have a decision of their own).
    """

    def __init__(self, probability: float, leading: int | None = None) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"the probability of dropout lies in [0, 1), not {probability}")
        self.probability, self.leading = probability, leading
        self.generator: torch.Generator | None = None
        self.copy = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        if self.generator is None:
            raise RuntimeError("SeededDropout has no generator; call copy_generators before training")
        shape: tuple[int, ...] = x.shape
        if self.leading is not None:
            shape = (*shape[: self.leading], *(1 for _ in shape[self.leading :]))
        kept = distributed.rand(shape, self.generator, x.device) >= self.probability
        return x * kept / (1 - self.probability)


def dropout_layers(network: nn.Module) -> list[SeededDropout]:
    """Every :class:`SeededDropout` of a network."""
    return [module for module in network.modules() if isinstance(module, SeededDropout)]


def set_dropout_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let every :class:`SeededDropout` of a network draw from ``generator``."""
    for layer in dropout_layers(network):
        layer.generator = generator


def number_copy(backbone: nn.Module, copy: int) -> None:
    """Say which copy of a run's backbone this one is. Its layers keep the number, in whatever training network they
    end."""
    for layer in dropout_layers(backbone):
        layer.copy = copy


def assign_generators(network: nn.Module, device: torch.device) -> dict[int, torch.Generator]:
    """The generators from which a network's layers draw from now on, each copy from its own: number of the stream
    (:func:`collabench.core.seeding.dropout_seed`) → generator.

    The first copy with dropout has stream 0, every further one that of its own number. Nothing that another copy draws
    moves a copy's generator: the first one's masks are those of the network trained alone.
    """
    layers = dropout_layers(network)
    first = min((layer.copy for layer in layers), default=0)
    generators = {0: torch.Generator(device=device)}
    for layer in layers:
        number = 0 if layer.copy == first else layer.copy
        layer.generator = generators.setdefault(number, torch.Generator(device=device))
    return generators


class SameMasks:
    """Made before a network's pass over a batch; ``with`` it, another pass over the batch has the same masks.

    The generators then stand where the first pass left them: to be asked again costs a network no random numbers.
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


_drawing_nothing_else: set[Hashable] = set()


def seed_dropout(network: nn.Module, name: str, input_shape: tuple[int, int, int], key: Hashable) -> None:
    """Let a network that somebody else wrote draw from a run's stream: its ``nn.Dropout``, ``nn.Dropout1d`` to ``3d``
    and torchvision's ``StochasticDepth`` by images, which draw from torch's global generator, become
    :class:`SeededDropout`.

    They have no weights: the keys of the state dict stay what they are. Whether anything else draws is tried once for a
    ``key``, on the CPU, by a training pass of two images (C, H, W) on a copy; not on fake tensors, which hold no
    numbers.

    Raises ConfigError (one line) where it does, since two trainings with one seed would differ, or where the network
    asks more of its dropout layers than to be called.
    """
    from torch._subclasses.fake_tensor import FakeTensor  # a second's import, needed by foreign networks only

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
        except Exception as error:  # whatever a user's module raises
            raise ConfigError(f"{name}: it does not run with dropout layers that draw from the run's stream; a layer "
                              f"may only be called ({one_line(error)})") from None  # fmt: skip
        if not torch.equal(before, torch.random.get_rng_state()):
            raise ConfigError(f"{name}: in training it draws random numbers from torch's global generator, so that no "
                              "seed fixes a run; what draws must be nn.Dropout, nn.Dropout1d to 3d or torchvision's "
                              "StochasticDepth in mode row")  # fmt: skip
    _drawing_nothing_else.add(key)


def _seeded(module: Any) -> SeededDropout | None:
    """What takes the place of a layer; None where it stays, because it draws nothing or because it isn't known."""
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
    """By name: torchvision takes a second to import, and most networks do without it."""
    return (type(module).__module__, type(module).__name__) == ("torchvision.ops.stochastic_depth", "StochasticDepth")

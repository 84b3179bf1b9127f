"""What a method is: the contract between a method's file and the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from collabench.core.record import Record
from collabench.models import Backbone

#: A method's training network.
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Requirement:
    """A run that must be finished first (a teacher, an ensemble's member).

    ``None`` means: the same as in the run that requires it. ``member`` 0 has that run's own seed; the others have seeds
    derived from it that no table uses (:func:`collabench.config.configuration.member_seed`).
    """

    method: str
    model: str | None = None
    recipe: str | None = None
    member: int = 0


class MethodSettings(Record):
    """Settings that every method has. A subclass adds its own, with its paper's symbol and default in the docstring.

    ``label_smoothing``: the one-hot target of every hard cross entropy becomes
    ``(1 - label_smoothing) * onehot(y) + label_smoothing / m``.
    """

    if TYPE_CHECKING:
        method: str  #: A ``Literal`` of the subclass: the name of the method's file.
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)

    def references(self) -> tuple[tuple[str, str, str], ...]:
        """Names from other sections of ``params.yaml`` that these settings use: (field, section, name)."""
        return ()

    def requires(self) -> tuple[Requirement, ...]:
        """Runs that must be finished before this one."""
        return ()

    def passes(self) -> tuple[str | None, ...]:
        """Models (None: the run's own) whose layers see a batch: one entry for every copy of a network or of a part of
        it, and one more for each time that a copy is asked again. Where dropout is in several, a run's identity says
        how they draw (:data:`collabench.config.configuration.DROPOUT_REVISION`)."""
        return (None,)

    def identity(self) -> dict[str, Any]:
        """What of the settings can change numbers. Names are replaced by the runs and models that they stand for."""
        return self.model_dump(exclude={name for name, _, _ in self.references()})

    def with_absolute_paths(self, folder: Path) -> Self:
        """These settings with every path that is not absolute beginning at ``folder``, that of ``params.yaml``."""
        return self

    def check_files(self, make_backbone: Callable[[str | None], Backbone] | None) -> None:
        """Raise ConfigError (one line) if a file that training reads is missing or not the one meant.

        make_backbone(model): the model of this name (None: the run's own) on the meta device; None where the form of
        the data set is known from its files only.
        """

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        """Raise ValueError (one line) if the settings make no sense for this backbone (on the meta device: names and
        shapes, no numbers), precision or shape (C, H, W) of the images. Asked for the run's own model and for every
        other one that the settings name."""


@dataclass
class Batch:
    """One mini-batch on the training device.

    images: (B, C, H, W) float, normalised; labels: (B,) int64, noisy where the run has noise;
    generator: the stream ``dropout`` of the first copy, on the training device, for a method's own random decisions.
    """

    images: Tensor
    labels: Tensor
    generator: torch.Generator


class Update(Protocol):
    """One optimizer step: backward of ``loss`` into ``parameters`` (default: all), then the update.

    Parameters that are not listed keep no gradient at all (``None``), so that neither momentum nor weight decay moves
    them.
    """

    def __call__(self, loss: Tensor, parameters: Sequence[nn.Parameter] | None = None) -> None: ...


@dataclass
class Context:
    """What a method may know of its run.

    make_backbone(copy, model=None): a fresh backbone on the CPU. Copy 0 has the weights that individual training of the
    same seed begins with, and its dropout draws the same masks; every other copy is drawn independently. ``model``
    names another model of ``params.yaml`` that the settings refer to. make_layers(name, make): ``make()``, a method's
    layers beside the backbones, on the CPU, with weights that depend on the run's seed and on ``name`` alone.
    teachers: the deployed networks of ``settings.requires()``, in order, frozen, in eval mode.
    """

    make_backbone: Callable[..., Backbone]
    make_layers: Callable[[str, Callable[[], Any]], Any]
    input_shape: tuple[int, int, int]
    classes: int
    epochs: int
    teachers: Sequence[nn.Module] = field(default_factory=tuple)


class Method(ABC, Generic[Network]):
    """One training method.

    ``revision`` enters a run's identity; raise it whenever the numbers that the method computes change.
    ``trains`` is False for a method that only combines finished runs (the ensemble).
    ``reading`` says, for a method whose paper's text is not at hand, what has to stand wherever its results are shown.
    """

    revision: ClassVar[int] = 1
    trains: ClassVar[bool] = True
    reading: ClassVar[str | None] = None

    def __init__(self, settings: MethodSettings, context: Context) -> None:
        self.settings, self.context = settings, context

    @abstractmethod
    def build(self) -> Network:
        """The training network, on the CPU. Its parameters are the ones that the optimizer updates."""

    @abstractmethod
    def losses(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted loss terms (scalars, mean over the batch); their sum is what is minimised."""

    def step(self, network: Network, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Train on one batch and return the loss terms. Override only where a batch needs several updates."""
        terms = self.losses(network, batch)
        update(total(terms))
        return terms

    @abstractmethod
    def predict(self, network: Network, images: Tensor) -> Tensor:
        """Logits (heads, B, m) of every head or network in eval mode; the first is the one that is deployed."""

    @abstractmethod
    def deploy(self, network: Network) -> nn.Module:
        """What is kept after training: by rule a plain :class:`Backbone` whose output equals ``predict(…)[0]``.
        Called after every epoch that is evaluated, too: the network that is trained stays as it is.

        What it copies it clones, tensor by tensor: costs are counted on fake tensors, and a ``deepcopy`` of those
        damages the process's memory (torch 2.13; it ended some time later, in unrelated work).
        """


def total(terms: dict[str, Tensor]) -> Tensor:
    """Sum of the loss terms, in the order in which the method names them."""
    values = iter(terms.values())
    result = next(values)
    for value in values:
        result = result + value
    return result

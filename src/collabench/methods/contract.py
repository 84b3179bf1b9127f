"""The contract between a training method and the trainer."""

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
    """A run that must be finished before another one (a teacher, or a member of an ensemble).

    ``None`` means: the same as in the run that requires it. ``member`` 0 has that run's own seed. The other members
    have derived seeds that no table uses (:func:`collabench.config.configuration.member_seed`).
    """

    method: str
    model: str | None = None
    recipe: str | None = None
    member: int = 0


class MethodSettings(Record):
    """Settings that every method has. A subclass adds its own; its docstring gives the paper's symbols and the
    defaults.

    ``label_smoothing``: the one-hot target of every hard cross entropy becomes ``(1 - label_smoothing) * onehot(y) +
    label_smoothing / m``.
    """

    if TYPE_CHECKING:
        method: str  #: A ``Literal`` of the subclass: the name of the method's file.
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)

    def references(self) -> tuple[tuple[str, str, str], ...]:
        """Names from other sections of ``params.yaml`` that these settings use, as (field, section, name)."""
        return ()

    def requires(self) -> tuple[Requirement, ...]:
        """The runs that must be finished before this one."""
        return ()

    def passes(self) -> tuple[str | None, ...]:
        """The models (None: the run's own) whose layers process a batch, one entry for every pass.

        Every copy of a network or of a part of it is one entry, and so is every repeated pass of a copy. If several
        entries have dropout, the run's identity includes how they draw
        (:data:`collabench.config.configuration.DROPOUT_REVISION`).
        """
        return (None,)

    def identity(self) -> dict[str, Any]:
        """The settings that can change numbers, as plain data. Names are replaced by the runs and models that they
        refer to."""
        return self.identity_fields(exclude=(name for name, _, _ in self.references()))

    def revisions(self) -> dict[str, int]:
        """Revisions of parts of the method that these settings use: ``{"alternating": 2}``, by default none.

        If only some settings compute other numbers, raise the revision of their part, not the method's own
        ``revision``: the other settings then keep their ids.
        """
        return {}

    def for_images(self, input_shape: tuple[int, int, int]) -> Self:
        """These settings with the defaults filled in that depend on the images (C, H, W).

        The plan calls it for every configuration, so that identities say what is computed.
        """
        return self

    def readings(self) -> tuple[str, ...]:
        """How these settings read what a paper's text leaves open: sentences without a full stop, which stand wherever
        results of them are shown."""
        return ()

    def without_effect(self) -> dict[str, str]:
        """The settings that nothing reads beside the others, each with what it belongs to.

        A plan refuses other values than their defaults: they would enter the run's identity and change no number.
        """
        return {}

    def with_absolute_paths(self, folder: Path) -> Self:
        """These settings with every relative path resolved against ``folder``, the folder of ``params.yaml``."""
        return self

    def check_files(self, make_backbone: Callable[[str | None], Backbone] | None) -> None:
        """Raise ConfigError (one line) if a file that training reads is missing or has other content than declared.

        make_backbone(model): the model of this name (None: the run's own) on the meta device. None if the shape of the
        data set is known from its files only.
        """

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        """Raise ValueError (one line) if the settings do not fit this backbone, precision or image shape (C, H, W).

        The backbone is on the meta device: names and shapes without numbers. Called for the run's own model and for
        every other model that the settings name.
        """


@dataclass
class Batch:
    """One mini-batch on the training device.

    images: (B, C, H, W) float, normalised.
    labels: (B,) int64, noisy if the run has noise; or, if images are mixed, probabilities (B, m).
    generator: the dropout stream of the first copy, on the training device, for a method's own random decisions.
    epoch: the number of epochs that were finished before: 0 in the first one.
    """

    images: Tensor
    labels: Tensor
    generator: torch.Generator
    epoch: int = 0


class Update(Protocol):
    """One optimizer step: the gradient of ``loss`` with respect to ``parameters`` (default: all), then the update.

    Parameters that are not listed have no gradient (``None``), so that neither momentum nor weight decay changes them.
    """

    def __call__(self, loss: Tensor, parameters: Sequence[nn.Parameter] | None = None) -> None: ...


@dataclass
class Context:
    """What a method can use of its run.

    make_backbone(copy, model=None): a new backbone on the CPU. Copy 0 has the initial weights and the dropout masks of
    individual training with the same seed. Every other copy is initialised independently. ``model`` names another model
    of ``params.yaml`` that the settings refer to.
    make_layers(name, make): ``make()``, a method's additional layers, on the CPU. Their weights depend on the run's
    seed and on ``name`` only.
    input_shape: (C, H, W) of the images that the network receives.
    teachers: the deployed networks of ``settings.requires()``, in order, frozen and in eval mode.
    """

    make_backbone: Callable[..., Backbone]
    make_layers: Callable[[str, Callable[[], Any]], Any]
    input_shape: tuple[int, int, int]
    classes: int
    epochs: int
    teachers: Sequence[nn.Module] = field(default_factory=tuple)


class Method(ABC, Generic[Network]):
    """One training method.

    ``revision`` is part of a run's identity. Raise it whenever the method computes other numbers
    (:meth:`MethodSettings.revisions` if only some settings do).
    ``trains`` is False for a method that only combines finished runs (the ensemble).
    ``reading``: what must be stated wherever results are shown, for a method whose paper's text is not available.
    """

    revision: ClassVar[int] = 1
    trains: ClassVar[bool] = True
    reading: ClassVar[str | None] = None

    def __init__(self, settings: MethodSettings, context: Context) -> None:
        self.settings, self.context = settings, context

    @abstractmethod
    def build(self) -> Network:
        """The training network, on the CPU. The optimizer updates its parameters."""

    @abstractmethod
    def losses(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted loss terms: scalars, means over the batch. Their sum is minimised."""

    def step(self, network: Network, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Train on one batch and return the loss terms. Override this only if a batch needs several updates."""
        terms = self.losses(network, batch)
        update(total(terms))
        return terms

    @abstractmethod
    def predict(self, network: Network, images: Tensor) -> Tensor:
        """Logits (heads, B, m) of every head or network in eval mode. The first one is deployed."""

    @abstractmethod
    def deploy(self, network: Network) -> nn.Module:
        """The network that is kept after training: usually a plain :class:`Backbone` whose output equals
        ``predict(…)[0]``.

        It is also called after every evaluated epoch and must not change the training network. A copy must clone tensor
        by tensor: costs are counted on fake tensors, and ``deepcopy`` of fake tensors corrupts the process's memory
        (torch 2.13).
        """


def total(terms: dict[str, Tensor]) -> Tensor:
    """Sum of the loss terms, in the order of the dictionary."""
    values = iter(terms.values())
    result = next(values)
    for value in values:
        result = result + value
    return result

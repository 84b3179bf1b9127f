"""A network as a chain of named stages, at which training graphs can split it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self

from torch import Tensor, nn

from collabench.core.record import LATER, Record
from collabench.models.pretrained import PretrainedWeights


class ModelSettings(Record):
    """Settings that every model has; a family's file adds its own.

    ``family``: a ``Literal`` of the subclass, the name of the family's file. ``draws_dropout``: whether a model with
    these settings can have dropout layers. ``weights``: those that training begins with, in place of random ones.
    """

    if TYPE_CHECKING:
        family: str

        @property
        def draws_dropout(self) -> bool: ...

    weights: Annotated[PretrainedWeights | None, LATER] = None

    def identity(self) -> dict[str, Any]:
        """The settings that can change numbers, as plain data: of pretrained weights their checksum."""
        fields = self.identity_fields(exclude=("weights",))
        return fields if self.weights is None else fields | {"weights": self.weights.identity()}

    def with_absolute_paths(self, folder: Path) -> Self:
        """These settings with every relative path resolved against ``folder``, the folder of ``params.yaml``."""
        if self.weights is None:
            return self
        return self.model_copy(update={"weights": self.weights.with_absolute_path(folder)})


class _Staged(Protocol):
    """The attributes that :meth:`Backbone.run` needs. Deployed networks that are no backbones can have them, too."""

    stages: dict[str, tuple[str, ...]]

    def module_at(self, path: str) -> nn.Module: ...


class Backbone(nn.Module):
    """A chain of stages, each a chain of modules.

    The last stage, the classifier, maps the penultimate features (B, features) to logits (B, classes). The keys of the
    state dict are ``<module name>.…`` and do not depend on the stages: a plain network with modules of the same names
    (for example a torchvision model) loads it directly.

    Args:
        modules: the network's modules in order of execution, by attribute name or by path (``features.3``).
        stages: stage name → names of its modules. By default every module is a stage of its own.

    Raises ValueError if the stages do not list all modules in order.
    """

    def __init__(self, modules: Mapping[str, nn.Module], stages: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__()
        for path, module in modules.items():
            *parents, name = path.split(".")
            parent: nn.Module = self
            for inner in parents:
                if inner not in parent._modules:
                    parent._modules[inner] = nn.Module()
                parent = _child(parent, inner)
            parent._modules[name] = module  # add_module rejects the name "features", which many networks have
        self.stages: dict[str, tuple[str, ...]]
        named = {name: tuple(names) for name, names in (stages or {n: (n,) for n in modules}).items()}
        object.__setattr__(self, "stages", named)  # torch refuses the name where a module has it, as in ConvNeXt
        flat = [name for names in self.stages.values() for name in names]
        if flat != list(modules):
            raise ValueError(f"the stages {flat} are not the modules {list(modules)} in their order")

    @property
    def stage_names(self) -> tuple[str, ...]:
        """All stages in order of execution; a training graph can split after any but the last."""
        return tuple(self.stages)

    def module_at(self: nn.Module, path: str) -> nn.Module:
        """The module of this name or path."""
        module: nn.Module = self
        for name in path.split("."):
            module = _child(module, name)
        return module

    def run(self: _Staged, stages: Iterable[str], x: Tensor) -> Tensor:
        """Apply the named stages one after the other."""
        for stage in stages:
            for name in self.stages[stage]:
                x = self.module_at(name)(x)
        return x

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (B, features) of images (B, C, H, W)."""
        return self.run(self.stage_names[:-1], images)

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, classes) from penultimate features."""
        return self.run(self.stage_names[-1:], features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        return self.run(self.stage_names, images)

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> Tensor: ...


def _child(parent: nn.Module, name: str) -> nn.Module:
    child = parent._modules[name]
    assert child is not None, f"the place {name!r} holds no module"
    return child

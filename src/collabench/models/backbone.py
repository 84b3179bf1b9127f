"""A network as a chain of named stages: the form in which training graphs can split it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn


class Backbone(nn.Module):
    """A chain of stages, each a chain of modules.

    The last stage, the classifier, maps the penultimate features (B, features) to logits (B, classes). The state dict
    has the keys ``<module name>.…`` and knows nothing of stages: a plain network with modules of the same names (a
    torchvision model, say) loads it directly.

    Args:
        modules: the network's modules in order of execution, by attribute name or by path (``features.3``).
        stages: stage name → names of its modules. By default every module is a stage of its own.
    """

    def __init__(self, modules: Mapping[str, nn.Module], stages: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__()
        for path, module in modules.items():
            *parents, name = path.split(".")
            parent: nn.Module = self
            for inner in parents:
                parent = parent._modules.setdefault(inner, nn.Module())
            parent._modules[name] = module  # add_module refuses "features", which many networks have
        self.stages = {name: tuple(names) for name, names in (stages or {n: (n,) for n in modules}).items()}
        flat = [name for names in self.stages.values() for name in names]
        if flat != list(modules):
            raise ValueError(f"the stages {flat} are not the modules {list(modules)} in their order")

    @property
    def stage_names(self) -> tuple[str, ...]:
        """All stages in order of execution; a training graph can split after any but the last."""
        return tuple(self.stages)

    def module_at(self, path: str) -> nn.Module:
        """The module that was given under this name or path."""
        module: nn.Module = self
        for name in path.split("."):
            module = module._modules[name]
        return module

    def run(self, stages: Iterable[str], x: Tensor) -> Tensor:
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
        return self.run(self.stage_names, images)

"""Networks of timm (``pip install 'collabench[timm]'``), without pretrained weights: ``{family: timm, name: resnet18}``

The state dict has timm's own keys. By default the stages are those that timm's ``feature_info`` names: ``stage1`` ends
with the first module that it lists, ``stage2`` with the second …; then come ``pool`` (what lies between the last one
and the classifier) and ``classifier``. They are accepted only if their chain is the network, bit for bit. Where it is
not, ``stages`` names the modules as for ``torchvision_model``. Weights that timm or others offer are loaded from a
file, by ``weights``.

Dropout layers are made to draw from the run's own stream (:func:`collabench.models.dropout.seed_dropout`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from collabench.core.errors import ConfigError
from collabench.core.torchvision_import import import_torchvision
from collabench.models.backbone import Backbone
from collabench.models.chain import FLATTEN, ChainSettings, Stages, chain, one_line
from collabench.models.dropout import seed_dropout


class Settings(ChainSettings):
    """
    name: as timm calls it (``resnet18d``).
    stages: see :mod:`collabench.models.chain`; by default those of timm's ``feature_info``.
    """

    draws_dropout: ClassVar[bool] = True
    family: Literal["timm"]
    name: str = Field(min_length=1, max_length=200)
    stages: Stages | None = None


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Raises ConfigError if timm is not installed or has no such network, if the network does not
    take the images, and if the stages do not reproduce it.

    The network is made on the CPU, with numbers, even if only names and shapes are needed, so that a plan rejects what
    could not be trained.
    """
    timm, name = _import_timm(), settings.name
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"timm {timm.__version__} has no network {name!r}{hint}")
    with torch.device("cpu"):
        try:
            model = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=input_shape[0])
        except Exception as error:  # each of timm's functions raises its own
            raise ConfigError(f"timm cannot make {name} for {classes} classes and images of {input_shape[0]} channels "
                              f"({one_line(error)})") from error  # fmt: skip
        stages = settings.stages or default_stages(name, model)
        backbone = chain(settings, name, model, stages, input_shape, classes)
        seed_dropout(backbone, name, input_shape, (settings, input_shape, classes))
    return backbone.to(torch.get_default_device())


def _import_timm() -> Any:
    import_torchvision()  # timm imports it
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"family: timm needs the package {error.name}; install it: pip install 'collabench[timm]'"
        ) from None
    return timm


def default_stages(name: str, model: Any) -> dict[str, tuple[str, ...]]:
    """The stages of timm's ``feature_info``. Raises ConfigError if a network has none."""
    listed = getattr(model, "feature_info", None)
    points = [entry["module"] for entry in (getattr(listed, "info", listed) or ())]
    classifier = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    order = list(_in_order(model, "", {*points, classifier}))
    if not points or classifier not in order or any(point not in order for point in points):
        children = ", ".join(child for child, _ in model.named_children())
        raise ConfigError(f"{name} needs stages, since timm does not say where they end: name its modules ({children}; "
                          f"{FLATTEN} where it flattens) in order")  # fmt: skip
    ends = sorted({order.index(point) + 1 for point in points})
    last = order.index(classifier)
    stages = {
        f"stage{number}": tuple(order[begin:end])
        for number, (begin, end) in enumerate(zip([0, *ends], ends, strict=False), start=1)
    }
    stages |= {"pool": tuple(order[ends[-1] : last]), "classifier": tuple(order[last:])}
    return {stage: modules for stage, modules in stages.items() if modules}


def _in_order(module: nn.Module, path: str, wanted: set[str | None]) -> Iterator[str]:
    """Paths of the modules in their order: as few as possible, so that every wanted one is a path of its own."""
    for name, child in module.named_children():
        inner = f"{path}{name}"
        if inner not in wanted and any(point and point.startswith(f"{inner}.") for point in wanted):
            yield from _in_order(child, f"{inner}.", wanted)
        else:
            yield inner

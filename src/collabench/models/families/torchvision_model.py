"""Classification models of torchvision, without pretrained weights, e.g. ``{family: torchvision_model, name:
resnet50}``.

The state dict has torchvision's own keys. Residual networks (ResNet, ResNeXt, wide) come with the stages ``stem``,
``layer1`` … ``layer4``, ``pool``, ``classifier``; for other models the configuration names them, for example for
vgg11::

    stages: {features: [features], pool: [avgpool, flatten], hidden: [classifier.0, …], classifier: [classifier.6]}

Their dropout layers and stochastic depth are made to draw from the run's own stream
(:func:`collabench.models.dropout.seed_dropout`); residual networks have none.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from collabench.core.errors import ConfigError
from collabench.core.torchvision_import import import_torchvision
from collabench.models.backbone import Backbone
from collabench.models.chain import FLATTEN, ChainSettings, Stages, chain
from collabench.models.classifier import classifier_stages
from collabench.models.dropout import seed_dropout

RESNET_STAGES = {
    "stem": ("conv1", "bn1", "relu", "maxpool"),
    **{f"layer{number}": (f"layer{number}",) for number in (1, 2, 3, 4)},
    "pool": ("avgpool", FLATTEN),
    "classifier": ("fc",),
}


class Settings(ChainSettings):
    """
    name: as torchvision calls it (``resnet50``).
    stages: see :mod:`collabench.models.chain`; by default those of a residual network.
    small_stem: residual networks only. A 3x3 convolution of stride 1 without pooling, for images smaller than
    ImageNet's.
    hidden: residual networks only. The classifier of the families ``vgg`` and ``resnet`` instead of the model's own,
    with hidden layers of this width and dropout (stages ``hidden1``, ``hidden2``).
    """

    family: Literal["torchvision_model"]
    name: str
    stages: Stages | None = None
    small_stem: bool = False
    hidden: int | None = Field(default=None, ge=1, le=65_536, exclude_if=lambda value: value is None)

    @property
    def draws_dropout(self) -> bool:
        return self.hidden is not None or self.stages is not None


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Raises ConfigError for an unknown name, an input size that the model does not take, and stages
    that are missing or do not reproduce the model.

    If the user names stages, the model is made on the CPU, with numbers, even if only names and shapes are needed, so
    that a plan rejects what could not be trained.
    """
    if settings.stages is None:
        return _build(settings, input_shape, classes)
    with torch.device("cpu"):
        backbone = _build(settings, input_shape, classes)
        seed_dropout(backbone, settings.name, input_shape, (settings, input_shape, classes))
    return backbone.to(torch.get_default_device())


def _build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    models = import_torchvision().models
    name = settings.name
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise ConfigError(f"torchvision has no classification model {name!r}"
                          + (f"; did you mean {' or '.join(near)}?" if near else "; it has "
                                                                                 f"{', '.join(known)}"))  # fmt: skip
    if input_shape[0] != 3:
        raise ConfigError(f"{name} takes images of 3 channels, these have {input_shape[0]}")
    model = models.get_model(name, weights=None, num_classes=classes)
    residual = isinstance(model, models.ResNet)
    if settings.hidden is not None and (not residual or settings.stages):
        raise ConfigError(f"hidden is for residual networks in their own stages, not for {name}")
    if settings.small_stem:
        if not residual:
            raise ConfigError(f"small_stem is for residual networks, not for {name}")
        _make_stem_small(model)
    if residual:
        _check_size(name, settings.small_stem, input_shape)
    stages: Any = settings.stages or (RESNET_STAGES if residual else None)
    if stages is None:
        children = ", ".join(child for child, _ in model.named_children())
        raise ConfigError(f"{name} needs stages: name its modules ({children}; {FLATTEN} where it flattens) in order")
    backbone = chain(settings, name, model, stages, input_shape, classes)
    return backbone if settings.hidden is None else _with_hidden_layers(backbone, settings.hidden, classes)


def _with_hidden_layers(backbone: Backbone, hidden: int, classes: int) -> Backbone:
    *stages, classifier = backbone.stage_names
    linear: Any = backbone.module_at(*backbone.stages[classifier])
    layers = classifier_stages(linear.in_features, hidden, classes)
    del layers["pool"]  # the backbone has its own
    kept = {stage: backbone.stages[stage] for stage in stages}
    modules = {name: backbone.module_at(name) for names in kept.values() for name in names}
    return Backbone(modules | layers, kept | {name: (name,) for name in layers})


def _make_stem_small(model: Any) -> None:
    """Replace the stem. The modules keep their names, so that the state dict keeps its keys (one shape differs)."""
    first = model.conv1
    model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _check_size(name: str, small_stem: bool, input_shape: tuple[int, int, int]) -> None:
    """Raise ConfigError for images that are too small: the last stages' 3x3 convolutions would see a single pixel."""
    _, height, width = input_shape
    least = 8 if small_stem else 32  # the product of the strides
    if min(height, width) < least:
        remedy = "" if small_stem else " (with small_stem: true, at least 8x8)"
        raise ConfigError(
            f"{name} needs images of at least {least}x{least} pixels, these have {height}x{width}{remedy}"
        )

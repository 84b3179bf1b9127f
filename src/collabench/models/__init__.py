"""Backbones, one family per file: ``Settings`` (its entry in ``params.yaml``) and ``build``.

``Settings.draws_dropout`` says whether a model with these settings can have dropout layers. ``build(settings,
input_shape, classes) -> Backbone`` makes the network with weights from torch's global generator. :func:`build_backbone`
seeds that generator from a named stream for the call, so that nothing outside can influence the weights.
"""

from __future__ import annotations

from collabench.core.errors import ConfigError
from collabench.core.registry import Registry
from collabench.models.backbone import Backbone, ModelSettings

FAMILIES = Registry("collabench.models.families", "family")

__all__ = ["FAMILIES", "Backbone", "ModelSettings", "build_backbone"]


def build_backbone(
    settings: ModelSettings, input_shape: tuple[int, int, int], classes: int, weights_seed: int
) -> Backbone:
    """A backbone for images of ``input_shape`` (channels, height, width), initialised from ``weights_seed`` only.

    Raises ConfigError if the model does not fit the input size or the number of classes.
    """
    import torch

    if classes < 2:
        raise ConfigError(f"a classifier needs at least two classes, the data set has {classes}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        backbone: Backbone = FAMILIES[settings.family].build(settings, input_shape, classes)
    return backbone

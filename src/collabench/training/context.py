"""The context of a method: networks, layers and teachers, with weights from named random streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from collabench.config.configuration import Configuration
from collabench.core.seeding import stream_seed
from collabench.methods import METHODS, Context, Method
from collabench.models import Backbone, build_backbone
from collabench.models.dropout import number_copy
from collabench.models.pretrained import load_pretrained


def make_context(
    configuration: Configuration,
    input_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    teachers: Sequence[nn.Module] = (),
) -> Context:
    """The context of a method. Weights and dropout of a backbone depend on the seed and its copy number only."""

    def make_backbone(copy: int, model: str | None = None) -> Backbone:
        settings = configuration.model if model is None else configuration.peer_models[model]
        backbone = build_backbone(settings, input_shape, classes, stream_seed(seed, "init", copy))
        if settings.weights is not None:
            load_pretrained(backbone, settings.weights)
        number_copy(backbone, copy)
        return backbone

    def make_layers(name: str, make: Callable[[], Any]) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "init", name))
            return make()

    return Context(make_backbone, make_layers, input_shape, classes, configuration.recipe.epochs, tuple(teachers))


def make_method(configuration: Configuration, context: Context) -> Method:
    """The configuration's method, ready to build its network."""
    method: Method = METHODS[configuration.method.method].Method(configuration.method, context)
    return method

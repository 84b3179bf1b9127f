"""Every method with its defaults, on the first small model that it accepts: configurations, teachers, trainings."""

from __future__ import annotations

import torch

from collabench.config.configuration import Configuration, RequiredRun, Run
from collabench.core.seeding import stream_seed
from collabench.models import build_backbone
from collabench.training import train_run
from tests.support.synthetic import CLASSES, SMALL_MODELS, blobs, configuration_of, model_of, settings_of

SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


def configuration(method: str, **recipe: object) -> Configuration:
    """The method with its default settings on the first small model that it accepts."""
    settings = settings_of(method)
    refusals = []
    for values in SMALL_MODELS:
        model = model_of(values)
        with torch.device("meta"):
            backbone = build_backbone(model, SHAPE, CLASSES, 0)
        try:
            settings.check_fits(backbone, "float32", SHAPE)
        except ValueError as error:
            refusals.append(str(error))
            continue
        plain = configuration_of(settings_of("individual"), model, **recipe)
        requires = tuple(RequiredRun(configuration=plain, member=r.member) for r in settings.requires())
        return configuration_of(settings, model, requires=requires, **recipe)
    raise AssertionError(f"{method} accepts none of the small models: {refusals}")


def teachers(run: Run, classes: int = CLASSES) -> list[torch.nn.Module]:
    return [
        build_backbone(required.configuration.model, SHAPE, classes, stream_seed(required.seed, "init", 0)).eval()
        for required in run.requires()
    ]


def train(run: Run, **options: object):
    return train_run(run, blobs(), device=CPU, teachers=teachers(run), **options)


def content(trained) -> tuple:
    weights = trained.weights or {}
    return (
        trained.result.model_dump_json(),
        {key: value.numpy().tobytes() for key, value in weights.items()},
        {key: value.numpy().tobytes() for key, value in trained.logits.items()},
    )

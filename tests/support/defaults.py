"""Every method with its defaults, on the first small model that it accepts: configurations, teachers, trainings."""

from __future__ import annotations

import torch

from collabench.config.configuration import Run
from collabench.core.seeding import stream_seed
from collabench.models import build_backbone
from collabench.study.gpu_check.cases import CLASSES, SHAPE, configuration
from collabench.training import train_run
from tests.support.synthetic import blobs

__all__ = ["CPU", "SHAPE", "configuration", "content", "teachers", "train"]

CPU = torch.device("cpu")


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

"""Settings drawn at random, on every kind of backbone: what isn't refused in one line before anything runs, trains."""

from __future__ import annotations

import math
import random
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError

from collabench.config import compatibility
from collabench.config.configuration import RequiredRun, Run
from collabench.core.errors import ConfigError
from collabench.core.seeding import stream_seed
from collabench.methods import METHODS
from collabench.models import build_backbone
from collabench.training import train_run
from tests.support.synthetic import CLASSES, SMALL_MODELS, blobs, configuration_of, model_of, settings_of

SHAPE = (1, 8, 8)
MAPS = {"stages": {"body": ("conv", "pool"), "classifier": ("flatten", "fc")}}
CUSTOM = {
    "family": "custom",
    "import": "tests.support.networks:make",
    "stages": {"body": ("conv",), "pool": ("pool", "flatten"), "classifier": ("fc",)},
}
MODELS = (
    *SMALL_MODELS,
    {"family": "densenet", "depth": 10, "growth": 3},
    {"family": "densenet", "depth": 10, "growth": 3, "dropout": 0.2},
    {"family": "densenet", "depth": 10, "growth": 3, "bottleneck": True, "compression": 0.5},
    {"family": "vgg", "blocks": (1,), "width": 1, "poolings": 0, "hidden": 3},
    {"family": "vgg", "blocks": (1, 1, 1, 1), "width": 2, "poolings": 3, "hidden": 4},
    {"family": "resnet", "blocks": (1,), "width": 2, "hidden": 3},
    CUSTOM,
    CUSTOM | MAPS,
)
STAGES = (
    "input",
    "stem",
    "stage1",
    "stage2",
    "block1",
    "block2",
    "activation1",
    "transition1",
    "pool",
    "hidden1",
    "body",
    "classifier",
)
SEVERAL = (*((stage,) for stage in STAGES), ("stage1", "stage2"), ("stem", "stage2"), ("stage2", "stage1"))

#: What is tried of settings that are neither switches nor numbers with a range; of an integer, these instead of its
#: range.
VALUES: dict[str, tuple[Any, ...]] = {
    "split_after": SEVERAL,
    "one.split_after": STAGES,
    "okddip.split_after": STAGES,
    "after": SEVERAL,
    "splits": (({"after": "stem", "branches": 2}, {"after": "stage1", "branches": 3}), ({"after": "input",
    "branches": 2},)),
    "peers": (("first",), ("first", "second"), ("second", "second")),
    "losses": (("out",), ("mid",), ("pull_push",), ("kernel",), ("out", "kernel"), ("mid", "pull_push")),
    "heads": (1, 2, 3, 4, 5, 8),
    "networks": (2, 3),
    "members": (2, 3),
    "teacher_members": (1, 2),
    "out_branches": (1, 2, 3),
    "kernel_groups": (None, 1, 2),
    "projection_channels": (None, 1, 3),
    "attention_divisor": (None, 1, 3),
    "input_descriptor": (None, "std", "pixels"),
    "ramp_epochs": (0, 1, 5),
    "ramp_of": (None, 1, 300),
    "auxiliary.after": (*SEVERAL, None, "every"),
    **dict.fromkeys(("attention_width", "n_slots", "width", "mid_side", "mid_channels"), (1, 3, 64)),
}  # fmt: skip
#: What names something else, and has tests of its own.
ELSEWHERE = ("method", "of", "teacher", "teacher_model", "teacher_recipe", "teacher_file", "teacher_sha256")


def values_of(method: str, name: str) -> tuple[Any, ...]:
    """Switches: all; real numbers: both ends of their range, at most 100, and one between; else :data:`VALUES`."""
    field = METHODS[method].Settings.model_fields[name]
    chosen = VALUES.get(f"{method}.{name}", VALUES.get(name))
    if chosen is not None:
        return chosen
    if field.annotation is bool:
        return (False, True)
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    assert field.annotation is float, f"{method}.{name}: say in VALUES what of it is tried"
    low, high = (next((getattr(m, side) for m in field.metadata if hasattr(m, side)), None) for side in ("ge", "le"))
    return (low, 0.4, min(high, 100.0) if high is not None else 0.9)


def settings_at_random(draw: random.Random) -> tuple[str, dict[str, Any]]:
    method = draw.choice(list(METHODS))
    names = [name for name in METHODS[method].Settings.model_fields if name not in ELSEWHERE]
    chosen = draw.sample(names, draw.randint(0, min(6, len(names))))
    return method, {name: draw.choice(values_of(method, name)) for name in chosen}


def attempt(method: str, values: dict[str, Any], model: dict, peers: dict[str, dict]) -> bool:
    """Train one epoch of three batches, the last one of a single image; False where it is refused."""
    try:
        settings = settings_of(method, **values)
    except ValidationError:
        return False
    recipe = {"batch_size": 4, "epochs": 1, "learning_rate": 0.001}
    plain = configuration_of(settings_of("individual"), model_of(model), **recipe)
    configuration = configuration_of(
        settings,
        model_of(model),
        requires=tuple(RequiredRun(configuration=plain, member=needed.member) for needed in settings.requires()),
        peer_models={name: model_of(peers[name]) for name in dict.fromkeys(getattr(settings, "peers", ()))},
        **recipe,
    )
    try:
        compatibility.check(configuration)
    except ConfigError as error:
        assert "\n" not in str(error)
        return False
    run = Run(configuration, 3)
    teachers = [
        build_backbone(needed.configuration.model, SHAPE, CLASSES, stream_seed(needed.seed, "init", 0)).eval()
        for needed in run.requires()
    ]
    result = train_run(run, blobs(9, 5), device=torch.device("cpu"), teachers=teachers).result
    assert all(math.isfinite(value) for losses in result.curves.losses.values() for value in losses)
    return True


def check(seed: int, count: int) -> None:
    draw, trained = random.Random(seed), 0
    for _ in range(count):
        method, values = settings_at_random(draw)
        model, *others = draw.choices(MODELS, k=3)
        peers = dict(zip(("first", "second"), others, strict=True))
        try:
            trained += attempt(method, values, model, peers)
        except Exception as error:
            raise AssertionError(f"{method} {values} on {model}, peers {peers}: {error!r}") from error
    assert count / 5 < trained < count


def test_every_setting_has_values_to_try():
    for method in METHODS:
        for name in METHODS[method].Settings.model_fields:
            assert name in ELSEWHERE or len(values_of(method, name)) > 1, (method, name)


def test_what_is_not_refused_trains():
    check(seed=0, count=30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_what_is_not_refused_trains_at_length(seed):
    check(seed, count=500)

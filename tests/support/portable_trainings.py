"""What short portable trainings end with, as digests: equal on every processor.

``python -m tests.support.portable_trainings [NAME ...]`` prints a line for each case; ``--write`` renews the committed
digests, after a change of what is computed. One process, no children, so that it
also runs under an emulated processor: ``qemu-x86_64 -cpu Haswell python -m tests.support.portable_trainings``.
"""

from __future__ import annotations

from collabench.core import arithmetic  # isort: skip  (before torch)

import hashlib
import json
import sys
from pathlib import Path

import torch

from collabench.config.configuration import RequiredRun, Run
from collabench.core.seeding import stream_seed
from collabench.models import build_backbone
from collabench.training.loop import train_run
from tests.support.synthetic import CLASSES, blobs, configuration_of, model_of, settings_of

RESNET8 = {"family": "cifar_resnet", "depth": 8, "width": 16}
NARROW = {"family": "cifar_resnet", "depth": 8, "width": 5}
VGG = {"family": "vgg", "blocks": (2, 2, 2), "width": 16, "poolings": 2, "hidden": 64}
RESNET18 = {"family": "resnet", "blocks": (1, 1, 1), "width": 16, "hidden": 64}
DENSENET = {"family": "densenet", "depth": 10, "growth": 12, "bottleneck": True, "compression": 0.5}
PLAIN_DENSENET = {"family": "densenet", "depth": 10, "growth": 12}
DIGITS, COLOURS = (1, 8, 8), (3, 16, 16)

#: Name → method, its settings, model, image shape.
CASES: dict[str, tuple[str, dict, dict, tuple[int, int, int]]] = {
    "resnet8": ("individual", {}, RESNET8, DIGITS),
    "narrow": ("individual", {}, NARROW, DIGITS),
    "vgg": ("individual", {}, VGG, DIGITS),
    "resnet18": ("individual", {}, RESNET18, DIGITS),
    "densenet": ("individual", {}, DENSENET, DIGITS),
    "colours": ("song2018", {}, RESNET8, COLOURS),
    "colours-densenet": ("individual", {}, PLAIN_DENSENET, COLOURS),
    "kd": ("kd", {}, RESNET8, DIGITS),
    "dml": ("dml", {}, RESNET8, DIGITS),
    "auxiliary": ("auxiliary", {}, RESNET8, DIGITS),
    "one": ("one", {}, RESNET8, DIGITS),
    "one-as-published": ("one", {"heads": 3, "gate": "normalised", "ramp_epochs": 2}, RESNET8, DIGITS),
    "okddip": ("okddip", {}, RESNET8, DIGITS),
    "okddip-as-published": (
        "okddip",
        {"target_average": "logits", "attention_divisor": 8, "ramp_epochs": 2, "gradient_through_target": True},
        RESNET8,
        DIGITS,
    ),
    "wang2018": ("wang2018", {"consensus_weight": 1.0}, RESNET8, DIGITS),
    "fang2021-vgg": ("fang2021", {}, VGG, DIGITS),
    "fang2021-resnet18": ("fang2021", {"kernel_shortcuts": True, "kernel_groups": None}, RESNET18, DIGITS),
}
#: Name → what its recipe has beside stochastic gradient descent.
RECIPES: dict[str, dict] = {
    "adamw": {
        "optimizer": "adamw", "nesterov": False, "learning_rate": 0.01, "schedule": "cosine", "warmup_epochs": 1,
        "epochs": 2, "clip_gradient_norm": 0.5, "ema_decay": 0.9, "mixup_alpha": 0.4,
        "augmentation": {"shift": 1, "cutout": 3},
    },
    "one-cycle": {"schedule": "one_cycle", "clip_gradient_norm": 0.1, "ema_decay": 0.5},
}  # fmt: skip
PREACT = {"family": "preact_resnet", "blocks": (1, 1), "width": 8}
WIDE = {"family": "wide_resnet", "depth": 10, "widening": 1, "dropout": 0.3}
CASES |= {"preact": ("song2018", {}, PREACT, DIGITS), "wide": ("individual", {}, WIDE, DIGITS)}
CASES |= {"adamw": ("individual", {}, RESNET8, DIGITS), "one-cycle": ("song2018", {}, RESNET8, DIGITS)}
#: Cases with 64 images and batches of 32: the loops of convolutions over many images. The others have 32 and 16,
#: because an emulated processor takes a second for ten milliseconds.
MANY_IMAGES = ("resnet8", "vgg", "densenet")
SEED = 3
DIGESTS = Path(__file__).with_suffix(".json")


def digest(name: str) -> str:
    """SHA-256 of the weights and logits that a case ends with."""
    images = 64 if name in MANY_IMAGES else 32
    method, values, model_values, shape = CASES[name]
    settings, model = settings_of(method, **values), model_of(model_values)
    plain = configuration_of(settings_of("individual"), model)
    requires = tuple(RequiredRun(configuration=plain, member=r.member) for r in settings.requires())
    recipe = {"epochs": 1, "batch_size": images // 2, "arithmetic": "portable"} | RECIPES.get(name, {})
    run = Run(configuration_of(settings, model, requires=requires, **recipe), SEED)
    teachers = [
        build_backbone(model, shape, CLASSES, stream_seed(SEED + 1 + 10_000 * number, "init", 0))
        for number, required in enumerate(run.configuration.requires)
    ]
    trained = train_run(run, blobs(images, 20, shape), device=torch.device("cpu"), teachers=teachers)
    found = hashlib.sha256()
    for tensors in (trained.weights or {}, trained.logits):
        for key, value in sorted(tensors.items()):
            found.update(key.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def committed() -> dict[str, str]:
    """Name of a case → its digest, as it was found on several processors."""
    found: dict[str, str] = json.loads(DIGESTS.read_text())
    return found


if __name__ == "__main__":
    if problem := arithmetic.refusal():
        sys.exit(problem)
    if sys.argv[1:] == ["--write"]:
        DIGESTS.write_text(json.dumps({case: digest(case) for case in CASES}, indent=1) + "\n")
    else:
        for case in sys.argv[1:] or CASES:
            print(case, digest(case), flush=True)

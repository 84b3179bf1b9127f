"""A ``params.yaml`` that loads, with entries of every kind, for tests that put a mistake into it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from collabench.core.errors import ConfigError
from collabench.methods import METHODS
from collabench.study.study import load_study
from tests.support.mutations import KeyPath, render

SHA = "0123456789abcdef" * 4

#: A file that loads. Every entry called ``tried`` stands in the table, so that a plan builds it.
GOOD: dict[str, Any] = {
    "datasets": {"tried": {"source": "digits", "train_images": 100}},
    "noise": {"clean": {"kind": "none"}, "tried": {"kind": "uniform", "rate": 0.25}},
    "models": {"tried": {"family": "cifar_resnet", "depth": 8, "width": 4}},
    "recipes": {"tried": {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "milestones": [2]}},
    "methods": {"individual": {"method": "individual"}, "tried": {"method": "song2018"}},
    "profiles": {
        "tiny": {
            "description": "a test",
            "seeds": 2,
            "papers": ["paper"],
            "tables": [
                {"name": "one", "title": "One", "datasets": ["tried"], "noise": ["tried"], "models": ["tried"],
                 "recipes": ["tried"], "methods": ["individual", "tried"], "baseline": "individual", "family": "all",
                 "seeds": 1},
            ],
        },
    },
}  # fmt: skip

#: More entries ``tried``, so that every class is seen with every part of it: section → entries.
ENTRIES: dict[str, list[dict[str, Any]]] = {
    "datasets": [
        {"source": "digits", "train_images": 100, "test_on_rest": True, "title": "Digits", "split_seed": 3},
        {"source": "cifar10", "mirrors": ["https://example.org/a"], "path": "cifar", "test_images": 100},
        {"source": "images", "path": "photos", "sha256": SHA, "resize": 32},
        {"source": "images", "path": "photos", "sha256": SHA, "test_fraction": 0.2, "split_seed": 1},
        {"source": "images", "path": "photos", "sha256": SHA, "split_file": "split.csv"},
        {"source": "images", "path": "photos", "sha256": SHA, "test_path": "checked", "labels": "noisy"},
    ],
    "noise": [
        {"kind": "asymmetric", "rate": 0.4, "pairs": {"0": "1", "2": "3"}},
        {"kind": "uniform", "rate": 0.4, "when": "per_epoch", "hit": "fixed", "count": "bernoulli"},
        {"kind": "matrix", "rows": [[0.5 if column in (row, 0) else 0.0 for column in range(10)] if row else
         [1.0] + [0.0] * 9 for row in range(10)]},
        {"kind": "instance", "rate": 0.3},
        {"kind": "matrix", "path": "matrix.csv", "sha256": SHA},
        {"kind": "file", "path": "labels.csv", "sha256": SHA, "key": "worst"},
    ],
    "recipes": [
        {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "milestones": [2, 3], "nesterov": True,
         "validation_fraction": 0.1, "validation_noisy": True, "augmentation": {"shift": 1, "flip": True}},
        {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "augmentation": {"random_resized_crop": 32, "cutout": 8}},
        {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "schedule": "cosine", "warmup_epochs": 1,
         "optimizer": "adamw", "betas": [0.8, 0.9], "eps": 1e-6, "clip_gradient_norm": 1.5, "ema_decay": 0.9,
         "mixup_alpha": 0.2, "augmentation": {"randaugment": {"operations": 1, "magnitude": 5}},
         "validation_fraction": 0.2, "early_stopping": {"patience": 2}},
    ],
    "models": [
        {"family": "cifar_resnet", "depth": 8},
        {"family": "densenet", "depth": 10, "growth": 4, "bottleneck": True, "compression": 0.5, "stem_channels": 4},
        {"family": "vgg", "blocks": [1, 1], "width": 4, "poolings": 2, "hidden": 8},
        {"family": "resnet", "blocks": [1, 1], "width": 4, "hidden": 8},
        {"family": "cifar_resnet", "depth": 8, "width": 4,
         "weights": {"path": "weights.safetensors", "sha256": SHA, "fresh": ["classifier"]}},
        {"family": "timm", "name": "resnet18"},
        {"family": "preact_resnet", "blocks": [1, 1], "width": 4},
        {"family": "wide_resnet", "depth": 10, "widening": 1, "dropout": 0.3},
        {"family": "torchvision_model", "name": "resnet18", "small_stem": True},
        {"family": "custom", "import": "tests.support.networks:make", "arguments": {"width": 4, "sizes": [1, 2]},
         "stages": {"body": ["conv", "pool", "flatten"], "classifier": ["fc"]}, "revision": 1},
    ],
    "methods": [
        *({"method": name} for name in METHODS),
        {"method": "song2018", "splits": [{"after": "stage1", "branches": 2}, {"after": "stage2", "branches": 2}]},
        {"method": "song2018", "split_after": ["stage1", "stage2"], "heads": 4},
        {"method": "kd", "teacher": "individual", "teacher_model": "tried", "teacher_recipe": "tried"},
        {"method": "dml", "peers": ["tried", "tried"]},
        {"method": "ensemble", "of": "individual", "members": 3},
        {"method": "auxiliary", "after": ["stage1", "stage2"]},
        {"method": "one", "split_after": "stage1"},
        {"method": "fang2021", "losses": ["out", "mid"]},
    ],
    "remotes": [{"url": "https://example.org/runs", "lock": "https://example.org/dvc.lock"}],
}  # fmt: skip


def base_with(section: str, entry: dict[str, Any]) -> dict[str, Any]:
    base = copy.deepcopy(GOOD)
    base.setdefault(section, {})["tried"] = entry
    if section == "models":
        base["methods"]["tried"] = {"method": "individual", "label_smoothing": 0.1}  # fits every model
        if entry["family"] in ("torchvision_model", "custom", "timm"):
            base["datasets"]["tried"] = {"source": "cifar10"}
    if section == "methods" and entry["method"] == "fang2021":
        base["models"]["tried"] = {"family": "vgg", "blocks": [1, 1], "width": 4, "poolings": 1, "hidden": 8}
    if section == "noise" and entry.get("pairs"):
        base["datasets"]["tried"] = {"source": "digits"}
    return base


def outcome(folder: Path, value: Any) -> tuple[str | None, dict[KeyPath, int]]:
    """The message with which the file is refused (None if it gives a plan), and where its keys stand."""
    text, where = render(value)
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    about = folder / "papers" / "paper" / "paper.yaml"
    if not about.exists():
        about.parent.mkdir(parents=True)
        about.write_text("{title: A paper, authors: Somebody, published: somewhere, sources: {}}\n")
    try:
        load_study(folder, "tiny")
    except ConfigError as error:
        return str(error), where
    return None, where

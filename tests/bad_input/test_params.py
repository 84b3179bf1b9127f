"""``params.yaml`` with every mistake that its schema can be given: one line with file, line and key, or a plan."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collabench.config.params import Params
from collabench.core.errors import ConfigError
from collabench.methods import METHODS
from collabench.models import FAMILIES
from collabench.study.study import load_study
from tests.bad_input.mutations import (
    NO_NAME,
    Fault,
    KeyPath,
    faults,
    fields_of,
    mutated,
    one_of_every_kind,
    render,
    wrong_answer,
)

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
    ],
    "noise": [
        {"kind": "asymmetric", "rate": 0.4, "pairs": {"0": "1", "2": "3"}},
        {"kind": "uniform", "rate": 0.4, "when": "per_epoch", "hit": "fixed", "count": "bernoulli"},
    ],
    "recipes": [
        {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "milestones": [2, 3], "nesterov": True,
         "validation_fraction": 0.1, "validation_noisy": True, "augmentation": {"shift": 1, "flip": True}},
        {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "augmentation": {"random_resized_crop": 32}},
    ],
    "models": [
        {"family": "cifar_resnet", "depth": 8},
        {"family": "densenet", "depth": 10, "growth": 4, "bottleneck": True, "compression": 0.5, "stem_channels": 4},
        {"family": "vgg", "blocks": [1, 1], "width": 4, "poolings": 2, "hidden": 8},
        {"family": "resnet", "blocks": [1, 1], "width": 4, "hidden": 8},
        {"family": "torchvision_model", "name": "resnet18", "small_stem": True},
        {"family": "custom", "import": "tests.bad_input.networks:make", "arguments": {"width": 4, "sizes": [1, 2]},
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
}  # fmt: skip

#: Lists in which an element may stand twice: each stands for one more network, block, argument.
REPEATS = {"peers", "blocks", "arguments"}

#: Text and lists of text that name something: a name that does not exist is refused.
REFERENCES = {
    "datasets", "noise", "models", "recipes", "methods", "baseline", "papers", "teacher", "teacher_model",
    "teacher_recipe", "peers", "of", "after", "split_after", "import", "stages", "pairs",
}  # fmt: skip

#: What is a user's own: the number that tells two versions of a network apart, and what a network's function is given.
UNLIMITED = {"revision", "arguments"}


def base_with(section: str, entry: dict[str, Any]) -> dict[str, Any]:
    base = copy.deepcopy(GOOD)
    base[section]["tried"] = entry
    if section == "models":
        base["methods"]["tried"] = {"method": "individual", "label_smoothing": 0.1}  # fits every model
        if entry["family"] in ("torchvision_model", "custom"):
            base["datasets"]["tried"] = {"source": "cifar10"}
    if section == "methods" and entry["method"] == "fang2021":
        base["models"]["tried"] = {"family": "vgg", "blocks": [1, 1], "width": 4, "poolings": 1, "hidden": 8}
    if section == "noise" and entry.get("pairs"):
        base["datasets"]["tried"] = {"source": "digits"}
    return base


def everything() -> Iterator[tuple[dict[str, Any], Fault]]:
    for fault in faults(Params, GOOD):
        yield GOOD, fault
    for section, entries in ENTRIES.items():
        kind = Params.model_fields[section].annotation.__args__[1]
        for entry in entries:
            base = base_with(section, entry)
            for fault in faults(kind, entry, (section, "tried")):
                yield base, fault


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


def check(folder: Path, base: dict[str, Any], fault: Fault) -> str | None:
    """What is wrong with how the mistake is answered; None if nothing."""
    message, where = outcome(folder, mutated(base, fault))
    if message is not None:
        return wrong_answer(message, folder / "params.yaml", where, fault)
    words = [part for part in fault.key if isinstance(part, str)]
    last = words[-1] if words else ""
    unanswered = (
        fault.refused
        or (fault.what == "the same twice" and not REPEATS & set(words))
        or (fault.value == NO_NAME and (last in REFERENCES or (words[0] == "models" and last == "name")))
        or (fault.what == "huge" and not UNLIMITED & set(words))
        or (fault.what in ("empty text", "a sentence", "long") and last in ("title", "description"))
    )
    return "is accepted" if unanswered else None


def problems(folder: Path, chosen: Iterable[tuple[dict[str, Any], Fault]]) -> list[str]:
    return [f"{fault} {wrong}" for base, fault in chosen if (wrong := check(folder, base, fault)) is not None]


def test_the_good_files_are_good(tmp_path):
    for base in [GOOD, *(base_with(section, entry) for section, entries in ENTRIES.items() for entry in entries)]:
        assert outcome(tmp_path, base)[0] is None


def test_every_field_is_tried():
    tried = {fault.field for _, fault in everything()}
    missed = fields_of(Params) - tried
    assert not missed, sorted(f"{record.__module__}.{record.__qualname__}.{name}" for record, name in missed)
    assert {entry["family"] for entry in ENTRIES["models"]} == set(FAMILIES)


def test_every_field_with_one_mistake_of_every_kind(tmp_path):
    chosen = one_of_every_kind(everything())
    assert len(chosen) > 100
    assert problems(tmp_path, chosen) == []


@pytest.mark.slow
def test_every_field_with_every_mistake(tmp_path):
    assert problems(tmp_path, everything()) == []

"""``params.yaml`` with every mistake that its schema can be given: one line with file, line and key, or a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collabench.config.params import Params
from collabench.models import FAMILIES
from tests.support.good_params import ENTRIES, GOOD, base_with, outcome
from tests.support.mutations import (
    NO_NAME,
    Fault,
    faults,
    fields_of,
    mutated,
    one_of_every_kind,
    wrong_answer,
)

#: Lists in which an element may stand twice: each stands for one more network, block, argument.
REPEATS = {"peers", "blocks", "arguments"}

#: Text and lists of text that name something: a name that does not exist is refused.
REFERENCES = {
    "datasets", "noise", "models", "recipes", "methods", "baseline", "papers", "teacher", "teacher_model",
    "teacher_recipe", "peers", "of", "after", "split_after", "import", "stages", "pairs", "replicates",
}  # fmt: skip

#: What is a user's own: the number that tells two versions of a network apart, and what a network's function is given.
UNLIMITED = {"revision", "arguments"}


def everything() -> Iterator[tuple[dict[str, Any], Fault]]:
    for fault in faults(Params, GOOD):
        yield GOOD, fault
    for section, entries in ENTRIES.items():
        kind = Params.model_fields[section].annotation.__args__[1]
        for entry in entries:
            base = base_with(section, entry)
            for fault in faults(kind, entry, (section, "tried")):
                yield base, fault


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

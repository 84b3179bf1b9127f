"""The files under ``papers/`` with every mistake that their schemas can be given: one line with file, line and key."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from collabench.config.params import Params, load_params
from collabench.core.errors import ConfigError
from collabench.papers.claim_schema import Claims
from collabench.papers.claims import load_claims
from collabench.papers.schema import About, PublishedTable, Quotes
from collabench.papers.tables import load_papers
from tests.support.mutations import (
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
from tests.support.params import params_yaml, profile, table

PARAMS = params_yaml(
    {"tiny": profile(table("individual tree"), seeds=2), "other": profile(table("individual"), seeds=2, first_seed=9)},
    noise={"clean": "", "noisy": "{kind: uniform, rate: 0.2}"},
    methods="individual tree",
)

WORDS = {"file": "text.txt", "words": "a gain of 2.5%", "number": 1}
SOURCE = {"file": "text.txt", "table": "TABLE I"}
NAMES = {"dataset": "digits", "noise": "clean", "model": "small", "recipe": "fast"}

#: File under papers/ → its content. Together they have every field of every schema.
GOOD: dict[str, Any] = {
    "one/paper.yaml": {
        "title": "A paper", "authors": "Somebody", "published": "somewhere", "sources": {"text.txt": "all of it"},
        "note": "a note",
    },
    "one/table.yaml": {
        "kind": "table", "title": "Errors", "metric": "top1_error", "source": SOURCE, "baseline": "plain",
        "protocol": {"runs": 3, "epoch": "best", "split": "test", "source": WORDS}, "configuration": NAMES,
        "columns": {
            "plain": {"title": "plain", "configuration": {"method": "individual"}, "metric": "top1_error"},
            "tree": {"title": "L_tree", "configuration": {"method": "tree"}, "not_run": "no reason"},
        },
        "row_titles": ["Noise"], "margin": 0.5, "note": "a note", "chosen_here": "all", "reported_by": "somebody",
        "rows": {
            "noisy": {"labels": ["noisy"], "values": {"plain": 11.5, "tree": "unknown"}, "metric": "top1_error",
                      "configuration": {"noise": "noisy"}, "source": SOURCE, "not_run": "no reason",
                      "cells": {"tree": {"configuration": {"noise": "noisy"}, "source": WORDS, "metric": "top5_error",
                                         "not_run": "no reason"}}},
            "clean": {"labels": ["clean"], "values": {"plain": 6, "tree": 5.25}, "spreads": {"plain": 0.5,
            "tree": 0.25}},
        },
    },
    "one/figure.yaml": {
        "kind": "figure", "title": "A figure", "metric": "memory", "source": WORDS, "axes": {"x": "noise",
        "y": "error"},
        "protocol": {"runs": "unknown", "epoch": "unknown"}, "not_run": "no reason",
        "columns": {"point": {"title": "0 %"}},
        "row_titles": ["Series"], "rows": {"plain": {"labels": ["plain"], "values": {"point": 3.0}}},
    },
    "one/quotes.yaml": {
        "kind": "quotes", "title": "Quotes",
        "quotes": {"gain": {"what": "the gain", "value": 2.5, "relation": "difference", "decimals": 1,
                            "before": {"table": "table", "row": "noisy", "columns": ["plain"]},
                            "after": {"table": "table", "row": "clean", "columns": ["plain", "tree"]},
                            "sources": [WORDS]}},
    },
    "claims.yaml": {
        "designs": {"tiny": {"looks": [2, 8], "spend": [0.25, 0.5], "error": 0.05, "fresh_from": ["other"]}},
        "scopes": {
            "here": {"profile": "tiny", "published": False, "declared_after_runs": True, "dataset": "digits",
                     "noise": ["clean"], "model": "small", "recipe": "fast", "wide_model": "small",
                     "wide_recipe": "fast",
                     "metric": "error", "smallest_effect": 0.25, "pilot": "on other seeds"},
            "slope": {"dataset": "digits", "noise": ["clean", "noisy"], "model": "small", "recipe": "fast"},
        },
        "claims": [
            {"id": "lower-error", "paper": "one", "statement": "It is lower.", "reading": "ours", "quantity": "error",
             "source": {"file": "000_1e20208135b2abb2.txt", "place": "first line", "words": "lower"},
             "hypothesis": "lower",
             "combine": "mean", "smallest_effect": 0.1, "published_effects": {"here": [-1.0, -2]}, "scopes": ["here"],
             "compare": [{"method": "tree", "baseline": "individual", "head": 1},
                         {"method": "tree", "baseline": "individual", "head": 0, "wide_baseline": True}]},
            {"id": "no-worse", "paper": "one", "statement": "It is no worse.", "quantity": "error_growth",
             "source": {"file": "000_1e20208135b2abb2.txt", "place": "first line", "words": "lower"},
             "hypothesis": "no_worse", "margin": 0.5, "scopes": ["slope"],
             "compare": [{"method": "tree", "baseline": "individual"}]},
            {"id": "faster", "paper": "one", "statement": "It is faster.", "quantity": "epochs_to_level",
             "source": {"file": "000_1e20208135b2abb2.txt", "place": "first line", "words": "lower"},
             "hypothesis": "lower",
             "smallest_effect": 1, "levels": {"here": 5.0}, "scopes": ["here"],
             "compare": [{"method": "tree", "baseline": "individual"}]},
        ],
        "untested": [
            {"paper": "one", "statement": "It is elegant.", "reason": "No number says so.",
             "source": {"file": "000_1e20208135b2abb2.txt", "place": "last line", "words": "elegant"}},
        ],
    },
}  # fmt: skip

SCHEMAS: dict[str, Any] = {
    "one/paper.yaml": About, "one/table.yaml": PublishedTable, "one/figure.yaml": PublishedTable,
    "one/quotes.yaml": Quotes, "claims.yaml": Claims,
}  # fmt: skip

#: Lists in which an element may stand twice: headings, and numbers that are equal by chance.
REPEATS = {"row_titles", "labels", "published_effects"}

#: Text and lists of text that name something: a name that does not exist is refused.
REFERENCES = {
    "file", "baseline", "dataset", "noise", "model", "recipe", "method", "table", "row", "columns", "profile", "scopes",
    "wide_model", "wide_recipe", "levels", "published_effects", "values", "spreads", "cells", "paper",
    "designs", "fresh_from",
}  # fmt: skip

#: A caption or words of a text, which stand outside the files, and what ``not_run`` takes out of use.
FREE = {"table", "values"}


def everything() -> Iterator[tuple[str, Fault]]:
    for file, value in GOOD.items():
        for fault in faults(SCHEMAS[file], value):
            yield file, fault


@cache
def params_in(folder: Path) -> Params:
    (folder / "params.yaml").write_text(PARAMS)
    return load_params(folder / "params.yaml")


def outcome(folder: Path, content: dict[str, Any], changed: str) -> tuple[str | None, dict[KeyPath, int]]:
    """The message with which a folder of papers is refused, and where the keys of the changed file stand."""
    params, keys = params_in(folder), {}
    for file, value in content.items():
        path = folder / "papers" / file
        if file == changed or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            text, where = render(value)
            path.write_text(text, encoding="utf-8")
            keys[file] = where
    try:
        if changed != "claims.yaml":
            load_papers(folder / "papers", params)
        if changed in ("claims.yaml", "one/paper.yaml"):
            load_claims(folder / "papers", params)
    except ConfigError as error:
        return str(error), keys[changed]
    return None, keys[changed]


def check(folder: Path, file: str, fault: Fault) -> str | None:
    """What is wrong with how the mistake is answered; None if nothing."""
    content = {**copy.deepcopy(GOOD), file: mutated(GOOD[file], fault)}
    message, where = outcome(folder, content, file)
    (folder / "papers" / file).write_text(render(GOOD[file])[0], encoding="utf-8")
    path = folder / "papers" / file
    if message is not None:
        others = [folder / "papers" / other for other in GOOD if other != file]
        if not fault.refused and any(message.startswith(f"{other}:") for other in others):
            return None if message.isprintable() else f"is no single line: {message!r}"  # the file that names it
        return wrong_answer(message, path, where, fault)
    words = [part for part in fault.key if isinstance(part, str)]
    unanswered = (
        fault.refused
        or (fault.what == "the same twice" and not REPEATS & set(words))
        or (fault.value == NO_NAME and words[-1] in REFERENCES - FREE)
    )
    return "is accepted" if unanswered else None


def problems(folder: Path, chosen: Iterable[tuple[str, Fault]]) -> list[str]:
    return [f"{file}: {fault} {wrong}" for file, fault in chosen if (wrong := check(folder, file, fault)) is not None]


def test_the_good_files_are_good(tmp_path):
    for file in GOOD:
        assert outcome(tmp_path, GOOD, file)[0] is None


def test_every_field_is_tried():
    tried = {fault.field for _, fault in everything()}
    missed = set().union(*(fields_of(schema) for schema in SCHEMAS.values())) - tried
    assert not missed, sorted(f"{record.__qualname__}.{name}" for record, name in missed)


def test_every_field_with_one_mistake_of_every_kind(tmp_path):
    chosen = one_of_every_kind(everything())
    assert len(chosen) > 70
    assert problems(tmp_path, chosen) == []


@pytest.mark.slow
def test_every_field_with_every_mistake(tmp_path):
    assert problems(tmp_path, everything()) == []

"""The five names of a configuration stand in one place; what must spell them out has the same ones."""

from __future__ import annotations

import inspect

from collabench.config.configuration import CONDITION, PARTS, SECTIONS
from collabench.config.params import Params
from collabench.config.plan import resolve
from collabench.papers.schema import Names


def test_everyone_has_the_same_parts_in_the_same_order():
    assert (*CONDITION, "method") == PARTS
    assert tuple(Names.model_fields) == PARTS
    assert tuple(name for name in inspect.signature(resolve).parameters if name in SECTIONS) == PARTS
    assert set(SECTIONS.values()) == set(Params.model_fields) - {"profiles", "remotes"}

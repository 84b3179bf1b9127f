"""Typed records: what of them enters an identity."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from collabench.core.record import LATER, Record


class Example(Record):
    first: int
    usual: bool = False
    added: Annotated[int | None, Field(ge=1), LATER] = None


def test_a_field_that_came_later_enters_an_identity_only_where_it_is_set():
    assert Example(first=1).identity_fields() == {"first": 1, "usual": False}
    assert Example(first=1, added=None).identity_fields() == {"first": 1, "usual": False}
    assert Example(first=1, added=2).identity_fields() == {"first": 1, "usual": False, "added": 2}
    assert Example(first=1, added=2).identity_fields(exclude=("first",)) == {"usual": False, "added": 2}

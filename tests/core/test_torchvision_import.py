"""torchvision is imported as it is; only where its operators do not fit torch are two of them declared."""

from __future__ import annotations

import builtins
import sys
import types

import pytest
import torch

from collabench.core import torchvision_import
from collabench.core.torchvision_import import import_torchvision


@pytest.fixture
def importing(monkeypatch):
    """Calls of ``import torchvision`` in order: an exception is raised, a module is returned."""
    outcomes: list[object] = []
    original = builtins.__import__

    def pretended(name: str, *arguments: object, **options: object) -> object:
        if name != "torchvision":
            return original(name, *arguments, **options)
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    declared: list[object] = []
    monkeypatch.setattr(torchvision_import, "_declared", declared)
    monkeypatch.setattr(torch.library, "Library", lambda *_: types.SimpleNamespace(define=declared.append))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(builtins, "__import__", pretended)
    return outcomes, declared


def test_a_torchvision_that_fits_is_left_as_it_is(importing):
    outcomes, declared = importing
    outcomes.append(fits := types.ModuleType("torchvision"))
    assert import_torchvision() is fits and declared == []


def test_operators_are_declared_where_the_builds_differ(importing):
    outcomes, declared = importing
    outcomes += [RuntimeError("operator torchvision::nms does not exist"), mended := types.ModuleType("torchvision")]
    assert import_torchvision() is mended and len(declared) == 3  # two operators, and the library that keeps them


@pytest.mark.parametrize("error", [RuntimeError("something else"), ModuleNotFoundError("no torchvision")])
def test_other_errors_are_the_users_to_see(importing, error):
    outcomes, declared = importing
    outcomes.append(error)
    with pytest.raises(type(error)):
        import_torchvision()
    assert declared == []

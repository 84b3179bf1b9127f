"""``import collabench`` takes a moment; its names are those of ``collabench.api``."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import collabench
from collabench import api
from tests.support.project import ROOT


def test_importing_the_package_imports_nothing_large():
    code = (
        "import sys, collabench; print(*sorted({'torch', 'pandas', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout == "\n"


def test_every_name_of_the_interface_is_there_at_the_top():
    assert set(collabench.__all__) == {*api.__all__, "__version__", "arithmetic"}
    assert all(getattr(collabench, name) is getattr(api, name) for name in api.__all__)
    assert set(api.__all__) <= set(dir(collabench))


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(AttributeError, match="has no attribute 'load_run'"):
        collabench.load_run  # noqa: B018


def test_the_reference_names_the_interface_with_its_signatures():
    """What breaks this test breaks somebody's code: it needs another version, or a default with the old meaning."""
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    named = re.findall(r"^\| `(\w+)(\([^`]*\))?` \|", page, re.MULTILINE)
    found = dict(named[: len(api.__all__)])
    assert set(found) == set(api.__all__)
    for name, written in found.items():
        if written:
            signature = inspect.signature(getattr(api, name))
            bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
            assert str(inspect.Signature(bare)) == written


def test_the_reference_names_every_part_of_what_is_returned():
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    parts = {name for kind in (api.Finished, api.Learner) for name in dir(kind) if not name.startswith("_")}
    parts |= set(api.Finished.__dataclass_fields__)
    assert sorted(name for name in parts if f"`{name}" not in page and f".{name}" not in page) == []

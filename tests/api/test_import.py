"""``import collabench`` takes a moment; its names are those of ``collabench.api``."""

from __future__ import annotations

import subprocess
import sys

import pytest

import collabench
from collabench import api


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

"""Execution of a notebook, in a kernel with this tree's library, and what its cells print.

``python -m tests.support.notebooks`` executes the committed notebooks and writes their outputs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.support.project import ROOT, environment

FOLDER = ROOT / "docs" / "notebooks"


class _OwnKernel(NotebookClient):
    """Starts the kernel with this interpreter, whatever kernels are installed."""

    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        manager.kernel_spec.argv[0] = sys.executable
        manager.kernel_spec.env = {}
        return manager


def execute(path: Path, folder: Path) -> Any:
    """The notebook, executed in ``folder``. Raises CellExecutionError if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    client = _OwnKernel(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, record_timing=False
    )
    given = environment(ROOT) | {"IPYTHONDIR": str(folder / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    before = dict(os.environ)
    os.environ.update(given)
    try:
        client.execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("text/html", None)  # its ids differ; the plain text says the same
    return notebook


def printed(notebook: Any) -> list[list[str]]:
    """The text of every output of every code cell."""
    return [
        [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


if __name__ == "__main__":
    import tempfile

    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as place:
            nbformat.write(execute(path, Path(place)), path)
        print(path)

"""The commands ``init`` and ``schema``: a project of one's own, and what its editor needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from collabench.cli.app import app
from collabench.core.text import counted


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to write; it must not exist yet, or be empty.")],
) -> None:
    """Write a project of your own.

    params.yaml with one data set and one method, and the workflow. Its profile smoke runs in seconds.
    """
    from collabench.study.initial import create

    names = create(folder)
    print(f"{folder}: {counted(len(names), 'file')}; README.md says what each is for")
    print(f"Next: cd {folder} && collabench run -p smoke && collabench report -p smoke")


@app.command()
def schema() -> None:
    """The JSON schema of params.yaml.

    Editors complete and check the file with it. docs/reference/params.md says how.
    """
    from collabench.config.json_schema import schema_text

    print(schema_text(), end="")

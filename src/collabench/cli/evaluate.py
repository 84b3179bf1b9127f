"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from collabench.cli.app import HERE, Profile, Root, app, open_study
from collabench.core.errors import CollabenchError


@app.command()
def evaluate(
    test_set: Annotated[Path, typer.Option(help="A folder with the files of CIFAR-10-C or CIFAR-10.1.")],
    out: Annotated[Path, typer.Option(help="The folder to write further-tests.md and further-tests.csv to.")],
    configuration: Annotated[str, typer.Option(help="A configuration id (see plan).")],
    profile: Profile = "default",
    seed: Annotated[int | None, typer.Option(help="Of the run; default: all finished ones.")] = None,
    root: Root = HERE,
) -> None:
    """Measure finished runs on further test sets.

    Test errors of the deployed heads on arrays of images in the form of CIFAR-10-C and CIFAR-10.1. Trains nothing.
    """
    from collabench.report.further_tests import write_further_tests
    from collabench.study.further_tests import evaluate as measure

    if out.is_file():
        raise CollabenchError(f"--out {out}: is a file; must be a folder")
    study = open_study(root, profile)
    found, own, tests = measure(study, configuration, test_set, seeds=None if seed is None else (seed,))
    rows = [(test.name, test.severity, test.images, test.sha256, test.errors) for test in tests]
    written = write_further_tests(out, title=found.label, own=own, rows=rows)
    print((out / "further-tests.md").read_text("utf-8"), end="")
    print(f"written: {', '.join(map(str, written))}")

"""The command ``doubts``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from collabench.cli.app import HERE, Profile, Root, app, open_study
from collabench.core.errors import CollabenchError
from collabench.core.text import counted_of


class Split(StrEnum):
    """Whose labels are doubted."""

    TRAIN = "train"
    TEST = "test"


@app.command()
def doubts(
    out: Annotated[Path, typer.Option(help="The folder to write doubts.md, doubts.csv and contact-sheet.png to.")],
    configuration: Annotated[str, typer.Option(help="A configuration id (see plan).")],
    profile: Profile = "default",
    split: Annotated[
        Split, typer.Option(help="train: by cross-validation, which trains. test: by the runs that are finished.")
    ] = Split.TRAIN,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Of cross-validation: so many trainings.")] = 5,
    seed: Annotated[int | None, typer.Option(help="Of the runs; default: all finished ones, or the first.")] = None,
    show: Annotated[int, typer.Option(min=1, max=1000, help="Images in the table and on the contact sheet.")] = 48,
    root: Root = HERE,
) -> None:
    """List the images whose labels the trained heads doubt.

    By confident learning, from probabilities of networks that were not trained on the image. Needs the package
    cleanlab: pip install 'collabench[labels]'.
    """
    from collabench.report.doubts import write_doubts
    from collabench.study.doubts import find_doubts, thumbnail

    if out.is_file():
        raise CollabenchError(f"--out {out}: is a file; must be a folder")
    study = open_study(root, profile)
    seeds = None if seed is None else (seed,)
    found = find_doubts(study, configuration, split.value, seeds=seeds, folds=folds)
    written = write_doubts(
        out,
        title=found.configuration.label,
        source=found.source,
        classes=found.classes,
        names=found.names,
        labels=found.labels,
        probabilities=found.probabilities,
        doubted=found.doubted,
        thumbnails=[thumbnail(found, int(at)) for at in found.doubted[:show]],
    )
    doubted = counted_of(len(found.doubted), len(found.labels), "label", "doubted")
    print(f"{doubted}: {', '.join(map(str, written))}")

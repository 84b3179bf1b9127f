"""The commands ``data list``, ``data prepare`` and ``data digest``."""

from __future__ import annotations

from typing import Annotated

import typer

from collabench.cli.app import HERE, Profile, Root, data_app, open_study
from collabench.core.errors import CollabenchError


@data_app.command("list")
def data_list(root: Root = HERE) -> None:
    """The data sets of params.yaml."""
    from collabench.config.params import load_params

    for name, dataset in load_params(root / "params.yaml").datasets.items():
        print(f"{name}: {dataset.source}{', ' + dataset.path if dataset.path else ''}")


@data_app.command("prepare")
def data_prepare(profile: Profile = "default", root: Root = HERE) -> None:
    """Prepare the data sets of a profile.

    Downloads, verifies and caches them, and draws their static noisy labels.
    """
    study = open_study(root, profile)
    study.inputs.prepare_datasets()
    study.inputs.prepare_noise()


@data_app.command("digest")
def data_digest(name: Annotated[str, typer.Argument(help="Of a data set in params.yaml.")], root: Root = HERE) -> None:
    """The checksum that pins files which you placed yourself."""
    from collabench import data
    from collabench.config.params import load_params

    params = load_params(root / "params.yaml")
    if name not in params.datasets:
        raise CollabenchError(f"{name!r} is not a data set of params.yaml; there are {', '.join(params.datasets)}")
    root = root.resolve()
    bad_files = root / "artifacts" / f"{name}-bad-files.txt"
    print(f"sha256: {data.source_digest(params.datasets[name], root, bad_files)}")

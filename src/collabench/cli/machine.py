"""The commands ``memory`` and ``doctor``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collabench.cli.app import HERE, Gpus, Root, app
from collabench.core.errors import CollabenchError, ConfigError, UnusableGpu

if TYPE_CHECKING:
    from collabench.config.configuration import Configuration
    from collabench.config.params import Params


def print_memory(
    params_path: Path, named: Sequence[str], recipe: str, batch_size: int | None, image: str | None
) -> None:
    """Print memory and arithmetic of a step of configurations named ``dataset/model/method``, relative to the first.

    image: ``3x64x64`` instead of the data set's shape. Raises ConfigError for what cannot be counted.
    """
    from tabulate import tabulate

    from collabench.config.dataset_shape import shape_or_assumed, shape_without_files
    from collabench.config.params import load_params
    from collabench.training.flops import count
    from collabench.training.memory import count_memory, parts_of

    params = load_params(params_path)
    configurations = [_named(params, name, recipe) for name in named]
    rows, tables = [], []
    for name, configuration in zip(named, configurations, strict=True):
        if image is None:
            form = shape_without_files(configuration)
            shape = form.network_shape(configuration.recipe)
        else:
            form, shape = shape_or_assumed(configuration.dataset), _image_shape(image)
        memory = count_memory(configuration, shape, form.classes, batch_size)
        rows.append((name, memory, count(configuration, shape, form.classes).training))
        parts = [[part, f"{size / 1e6:,.1f}", f"{share:.1%}"] for part, size, share in parts_of(memory)]
        tables.append(f"{name}\n" + tabulate(parts, ["where it goes", "MB", "share"], disable_numparse=True))
    _, first, flops = rows[0]
    print("\n\n".join(tables) + "\n")
    summary = [
        [
            name, f"{memory.held / 1e6:,.1f}", f"{memory.held / first.held:.3f}", f"{memory.peak / 1e6:,.1f}",
            f"{own / 1e9:,.3f}", f"{own / flops:.2f}" if flops else "–",
        ]
        for name, memory, own in rows
    ]  # fmt: skip
    head = ["configuration", "held, MB", "×", "peak, MB", "GFLOP an image", "×"]
    print(tabulate(summary, head, disable_numparse=True))
    print(
        "held: all parts together. peak: the most that lives at one time inside a step. Counted for tensors alone. "
        "GFLOP: of a whole training step, convolutions and matrix products."
    )


def _named(params: Params, name: str, recipe: str) -> Configuration:
    from collabench.config.configuration import SECTIONS
    from collabench.config.plan import resolve

    parts = name.split("/")
    if len(parts) != 3:
        raise ConfigError(f"{name!r}: a configuration is named dataset/model/method, for example cifar10/resnet32/dml")
    dataset, model, method = parts
    for part, value in {"dataset": dataset, "model": model, "method": method, "recipe": recipe}.items():
        known = getattr(params, SECTIONS[part])
        if value not in known:
            raise ConfigError(f"{value!r} is not defined under {SECTIONS[part]}; defined there: {', '.join(known)}")
    clean = next((key for key, noise in params.noise.items() if noise.kind == "none"), next(iter(params.noise)))
    return resolve(params, dataset=dataset, noise=clean, model=model, recipe=recipe, method=method)


def _image_shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,4})x(\d{1,5})x(\d{1,5})", text)
    if match is None or not all(int(number) for number in match.groups()):
        raise ConfigError(f"--image {text!r}: write channels, height and width, for example 3x64x64")
    channels, height, width = (int(number) for number in match.groups())
    return channels, height, width


@app.command()
def memory(
    configurations: Annotated[
        list[str], typer.Argument(help="DATASET/MODEL/METHOD of params.yaml; the first is 1.00 ×.")
    ],
    recipe: Annotated[str, typer.Option(help="A recipe of params.yaml: its batch size and optimizer.")],
    batch: Annotated[int | None, typer.Option(min=2, help="Images per batch instead of the recipe's.")] = None,
    image: Annotated[str | None, typer.Option(help="CHANNELSxHEIGHTxWIDTH instead of the data set's.")] = None,
    root: Root = HERE,
) -> None:
    """Training memory and arithmetic, counted without GPU or data."""
    print_memory(root.resolve() / "params.yaml", configurations, recipe, batch, image)


def examine_gpu(root: Path, gpus: str | None, as_json: bool) -> None:
    """Print every check of a GPU as it is found. Exit code 1 if one failed. Raises CollabenchError without a GPU."""
    from collabench.core import resources
    from collabench.study.gpu_check import examination, facts

    if gpus is None and not resources.visible_gpus():
        raise CollabenchError(f"doctor --gpu: {resources.seen()}; there is nothing to examine")
    try:
        chosen = resources.choose("cuda" if gpus is None else "auto", gpus=gpus)
    except UnusableGpu as error:
        checks = facts.unusable(str(error))
    else:
        if not chosen.gpus:
            raise CollabenchError(f"doctor --gpu: {resources.seen()}; there is nothing to examine")
        checks = examination.examine_gpu(chosen, root)
    failed = False
    for check in checks:
        print(check.model_dump_json() if as_json else f"{check.verdict:8}{check.part:9}{check.name}: {check.text}")
        sys.stdout.flush()
        failed |= check.verdict == "FAILED"
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(
    root: Root = HERE,
    gpu: Annotated[bool, typer.Option("--gpu", help="Examine a GPU: numbers, bytes, waits, sharing, speed.")] = False,
    gpus: Gpus = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --gpu: for scripts.")] = False,
) -> None:
    """What this machine lacks, in a line each, and how to mend it.

    With --gpu the first GPU is examined, which takes minutes: does it compute what the CPU computes, and how fast?
    """
    if gpu:
        return examine_gpu(root.resolve(), gpus, as_json)
    for name, given in {"--gpus": gpus, "--json": as_json}.items():
        if given:
            raise CollabenchError(f"{name} goes with doctor --gpu")
    from collabench.cli.doctor import examine

    findings = examine(root.resolve())
    for finding in findings:
        print(finding.line())
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)

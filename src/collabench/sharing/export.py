"""Export of a finished run's network: weights as a safetensors file, and a model card.

The card says how to load the network, what it is, how it was trained and how well it does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabench.config.configuration import READINGS, Configuration, Run, dataset_key, digest
from collabench.config.known_datasets import terms_of
from collabench.core.errors import ConfigError, ResultError
from collabench.core.text import markdown_cell, markdown_text
from collabench.report import titles
from collabench.sharing.loading_code import MODEL, NETWORK, has_memory, loading_code
from collabench.storage.files import read_json, write_atomically
from collabench.storage.results import RESULT, WEIGHTS, Measured, Result, load_measured, load_result, load_weights

if TYPE_CHECKING:
    from torch import Tensor

    from collabench.data import Manifest
    from collabench.study.study import Study

CARD = "MODEL_CARD.md"

_MEMORY = ("assistance.", "memory.")
"""Prefixes of the weights that wang2018 deploys in addition to the plain network."""

_SHOWN = 20
"""Maximum number of class names in a card."""


@dataclass(frozen=True)
class Exported:
    """model: path of the weights. error: test error in percent of the exported network."""

    model: Path
    card: Path
    error: float


def export(study: Study, configuration_id: str, seed: int, folder: Path, *, without_memory: bool = False) -> Exported:
    """Write a finished run's deployed network to ``folder``: :data:`MODEL`, :data:`CARD` and, of a network of this
    project, its code, :data:`NETWORK`.

    without_memory: export only the plain network of a network that was deployed with its frozen memory (wang2018). Its
    error is then measured on the test images, for every seed.

    Raises ConfigError for a configuration that the plan lacks or that has nothing to export, ResultError if the run is
    not finished or is damaged, DataError if the prepared data set is missing or damaged.
    """
    configurations = study.plan.configurations
    if configuration_id not in configurations:
        raise ConfigError(
            f"profile {study.workspace.profile} has no configuration {configuration_id!r}; `collabench plan` lists them"
        )
    configuration = configurations[configuration_id]
    run = Run(configuration, seed)
    result = _finished(study, run)
    if WEIGHTS not in result.files:
        raise ConfigError(f"{configuration.label} combines other runs and has no weights of its own; export those: "
                          + ", ".join(required.id for required in run.requires()))  # fmt: skip
    weights = _weights(study, run)
    if without_memory and not has_memory(weights):
        raise ConfigError(f"{configuration.label} was not deployed with a memory; export it as it is")
    manifest = _manifest(study, run)
    errors = {s: 100 * _finished(study, Run(configuration, s)).last.error for s in _seeds(study, configuration)}
    if without_memory:
        weights = _plain(weights)
        errors = {s: _plain_error(study, Run(configuration, s), manifest) for s in {*errors, seed}}
    else:
        errors[seed] = 100 * result.last.error
    content = _bytes_of(weights) if without_memory else _content(study, run)
    code, plain = loading_code(configuration, manifest, weights)
    card = _card(study, run, result, manifest, errors, content, code, without_memory)
    write_atomically(folder / MODEL, content)
    if plain is not None:
        write_atomically(folder / NETWORK, plain.encode())
    write_atomically(folder / CARD, card.encode())
    return Exported(folder / MODEL, folder / CARD, errors[seed])


# ------------------------------------------------------------------------------------------------------- what was found


def _finished(study: Study, run: Run) -> Result:
    folder = study.workspace.folder(run)
    if not (folder / RESULT).exists():
        raise ResultError(f"{run.configuration.label}, seed {run.seed}: not run ({folder / RESULT} is missing)")
    return load_result(folder, run)


def _content(study: Study, run: Run) -> bytes:
    return (study.workspace.folder(run) / WEIGHTS).read_bytes()


def _weights(study: Study, run: Run) -> dict[str, Tensor]:
    return load_weights(study.workspace.folder(run))


def _bytes_of(weights: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save(weights)


def _plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.startswith(_MEMORY)}


def _manifest(study: Study, run: Run) -> Manifest:
    """The manifest of the run's data set, with the mean and deviation of the images that the run was trained on."""
    from collabench import data
    from collabench.core.errors import DataError

    config = run.configuration.dataset
    manifest = read_json(study.workspace.datasets / dataset_key(config) / data.MANIFEST, data.Manifest, DataError)
    if config.split == "fixed":
        return manifest
    seen = study.inputs.dataset(run)
    return manifest.model_copy(update={"mean": seen.mean, "std": seen.std})


def _seeds(study: Study, configuration: Configuration) -> list[int]:
    """The configuration's finished seeds that tables show or claims have used."""
    cells = (*study.plan.cells, *study.plan.grown)
    wanted = {s for cell in cells if cell.configuration.id == configuration.id for s in cell.seeds}
    return sorted(s for s in wanted if (study.workspace.folder(Run(configuration, s)) / RESULT).exists())


def _plain_error(study: Study, run: Run, manifest: Manifest) -> float:
    """Test error in percent of a run's network without its memory, computed on the CPU."""
    import torch

    from collabench import data
    from collabench.models import build_backbone

    _finished(study, run)
    dataset, recipe = study.inputs.dataset(run), run.configuration.recipe
    shape = manifest.form.network_shape(recipe)
    network = build_backbone(run.configuration.model, shape, len(manifest.classes), weights_seed=0)
    network.load_state_dict(_plain(_weights(study, run)))
    network.eval()
    wrong, seen = 0, 0
    batches = data.open_evaluation_batches(
        dataset, "test", recipe.augmentation, recipe.evaluation_batch_size, torch.device("cpu")
    )
    with torch.inference_mode():
        for images in batches:
            labels = dataset.test_labels[seen : seen + len(images)]
            wrong += int((network(images).argmax(dim=1) != labels).sum())
            seen += len(images)
    return 100 * wrong / seen


# --------------------------------------------------------------------------------------------------------- the card


def _card(
    study: Study,
    run: Run,
    result: Result,
    manifest: Manifest,
    errors: dict[int, float],
    content: bytes,
    code: str,
    without_memory: bool,
) -> str:
    configuration = run.configuration
    names, terms = configuration.names, terms_of(configuration.dataset.source)
    kept = _kept(configuration, manifest, _weights(study, run), without_memory)
    path = study.workspace.measured_file(run)
    measured = load_measured(path, run) if path.exists() else None
    classes = markdown_text(", ".join(manifest.classes[:_SHOWN])) + (", …" if len(manifest.classes) > _SHOWN else "")
    shape = " x ".join(map(str, manifest.form.network_shape(configuration.recipe)))
    what = [
        ("network", f"{names['model']}: {_settings(configuration.model)}"),
        ("input", f"{shape} (channels, height, width)"),
        ("output", f"logits of {len(manifest.classes)} classes: {classes}"),
        ("deployed", kept),
        ("file", f"`{MODEL}`, {len(content):,} bytes, SHA-256 `{hashlib.sha256(content).hexdigest()}`"),
    ]
    noise, known = configuration.noise, configuration.dataset.training_labels
    wrong = "wrong" if known == "clean" else "others than as given"
    noisy = (
        ("none" if configuration.dataset.training_labels == "clean" else "none added")
        if noise.kind == "none"
        else f"{noise.kind}, {titles.drawn(noise)}; "
        + markdown_text(titles.asked(noise.kind, 100 * noise.rate, result.noise.flips, result.noise.classes))
        + f"; {100 * result.noise.corruption:.2f} % of the training labels were {wrong}"
    )
    trained = [
        ("method", f"{names['method']}: {_settings(configuration.method)}"),
        *([("reading", READINGS[configuration.method.method])] if configuration.method.method in READINGS else []),
        *(("reading", reading) for reading in configuration.method.readings()),
        ("recipe", f"{names['recipe']}: {_settings(configuration.recipe)}"),
        ("label noise", noisy),
        ("seed", str(run.seed)),
        ("needed first", ", ".join(f"`{required.id}`" for required in run.requires()) or "nothing"),
        ("parameters while training", f"{result.training_parameters:,}"),
    ]
    figures = [
        ("test error of this network", f"{errors[run.seed]:.2f} %, {result.test_images:,} test images, last epoch")
    ]
    figures += _over_seeds(study, configuration, errors)
    if not without_memory:
        last = result.last
        if last.top5_error is not None:
            figures.append(("top-5 error", f"{100 * last.top5_error:.2f} %"))
        figures.append(("negative log-likelihood", f"{last.negative_log_likelihood:.4f} nats an image"))
        figures.append(("expected calibration error", f"{100 * last.calibration_error:.2f} %"))
    data = [
        (
            "data set",
            f"{markdown_text(manifest.title)}, {result.train_images:,} training and {result.test_images:,} test images",
        ),
        ("labels", titles.LABELS[known]),
        ("test labels", titles.LABELS[configuration.dataset.test_labels]),
        ("origin", terms.origin),
        ("licence or terms", terms.licence),
        ("digest of the prepared data", f"`{result.dataset_digest}`"),
    ]
    where = [
        ("run", f"`{run.id}`"),
        ("configuration's digest", f"`{digest(configuration.identity())}`"),
        ("commit", "unknown" if measured is None else measured.commit_text),
        ("device", "unknown" if measured is None else markdown_text(f"{measured.device} ({measured.device_type})")),
        ("versions", _versions(measured)),
        ("bit-reproducible there", "yes" if result.deterministic else "no: some operations are not deterministic"),
        ("finished", "unknown" if measured is None else markdown_text(measured.finished)),
    ]
    parts = [
        f"# {configuration.label}, seed {run.seed}",
        "An image classifier trained by a reproducibility study with CollaBench. It was made to compare training "
        "methods, not to be used where its errors matter.",
        "## Loading",
        f"```python\n{code}\n```",
        "## What it is",
        _table(what),
        "## How it was trained",
        _table(trained),
        "## How well it does",
        _table(figures),
        "Errors are those after the last epoch: no epoch was chosen by its test error.",
        "## Data",
        _table(data),
        "## Where it comes from",
        _table(where),
    ]
    return "\n\n".join(parts) + "\n"


def _kept(configuration: Configuration, manifest: Manifest, weights: dict[str, Tensor], without_memory: bool) -> str:
    """The deployed network and the cost of a memory that is deployed with it."""
    if not has_memory(weights):
        return "the network alone"
    if without_memory:
        return "without its memory"
    from collabench.training.flops import count

    counts = count(configuration, manifest.form.network_shape(configuration.recipe), manifest.form.classes)
    numbers = sum(tensor.numel() for tensor in weights.values()) - sum(t.numel() for t in _plain(weights).values())
    return (
        f"with its frozen memory: {numbers:,} numbers beside the network's, and {counts.deployed / counts.forward:.3f} "
        "times the network's arithmetic for an image"
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = [f"| {name} | {markdown_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "| --- | --- |", *cells])


def _settings(settings: Any) -> str:
    """Settings as JSON, without the path of pretrained weights, for which their checksum stands."""
    hidden: Any = {"weights": {"path"}} if getattr(settings, "weights", None) else {"weights"}
    return f"`{json.dumps(settings.model_dump(mode='json', by_alias=True, exclude=hidden), sort_keys=True)}`"


def _over_seeds(study: Study, configuration: Configuration, errors: dict[int, float]) -> list[tuple[str, str]]:
    """Mean, standard deviation and interval over the seeds that tables show."""
    from collabench.stats import summary

    shown = _seeds(study, configuration)
    if len(shown) < 2:
        return [("over seeds", "unknown: fewer than two seeds are finished")]
    found = summary([errors[seed] for seed in shown])
    interval = "no interval: the seeds' errors are equal"
    if found.low is not None:
        interval = f"95 % interval of the mean {found.low:.2f} to {found.high:.2f} % (Student's t)"
    return [("over seeds", f"mean {found.mean:.2f} %, standard deviation {found.sd:.2f}, n = {found.n}; {interval}")]


def _versions(measured: Measured | None) -> str:
    if measured is None:
        return "unknown"
    return markdown_text(", ".join(f"{name} {version}" for name, version in sorted(measured.versions.items())))

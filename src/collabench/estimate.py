"""What a study will cost, before it is run.

Every distinct configuration is trained for about a second on random images by the training loop itself, as many of them
at once as the study will run side by side, and the time is scaled to its images and epochs. Where a batch would take
too long, a smaller one is timed. On a CPU the time is the processor's, so that other work on the machine doesn't count.
Memory and disk are counted. Runs that are finished give the predictions a test: both are shown, and sums take what was
measured.

Not in it: reading images from files on the way (ImageNet), which runs beside the arithmetic, and starting processes.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from collabench.compatibility import KNOWN_IMAGES, KNOWN_SHAPES, input_shape_of
from collabench.config import DatasetConfig, NoiseConfig
from collabench.errors import CollabenchError, ConfigError, RunFailed
from collabench.records import read_json, write_json
from collabench.resources import Resources, end_with_parent
from collabench.results import Measured
from collabench.spec import Configuration, Run, dataset_key, with_required
from collabench.strict import Strict
from collabench.study import Study

#: Seconds of training that a configuration is timed for.
TIMED_SECONDS = 1.0
#: A timed batch has at most this arithmetic: about a second of one CPU core. On a GPU: about a tenth of a second.
BATCH_FLOPS = {"cpu": 5e10, "cuda": 5e12}


class Form(Strict):
    """A data set's form: ``shape`` (channels, height, width) of an image, and how many there are of what."""

    shape: tuple[int, int, int]
    classes: int
    train_images: int
    test_images: int


class Prediction(Strict):
    """What one run of a configuration is expected to cost on a device. Seconds and bytes.

    flops: of one image in training. timed_batch: images of the batch that was timed. memory_bytes: of the process.
    """

    configuration_id: str
    device: str
    device_type: Literal["cpu", "cuda"] = "cpu"
    workers: int
    torch: str
    form: Form
    train_seconds: float
    evaluate_seconds: float
    memory_bytes: int
    disk_bytes: int
    flops: int
    timed_batch: int

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.evaluate_seconds


@dataclass(frozen=True)
class Cost:
    """A configuration's runs: what was predicted for one of them, and what those that are finished took on average."""

    configuration: Configuration
    runs: int
    predicted: Prediction
    measured_runs: int
    measured_seconds: float | None
    measured_memory: float | None

    @property
    def seconds(self) -> float:
        """Of one run: measured where runs exist on a device of this type, else predicted."""
        return self.predicted.seconds if self.measured_seconds is None else self.measured_seconds

    @property
    def error(self) -> float | None:
        """Relative error of the predicted time; None where nothing was measured, or nothing was to be trained."""
        if not self.measured_seconds:
            return None
        return self.predicted.seconds / self.measured_seconds - 1


@dataclass(frozen=True)
class Estimate:
    """A profile's costs, by configuration id, on ``workers`` processes side by side."""

    study: Study
    costs: dict[str, Cost]
    workers: int

    @cached_property
    def seconds(self) -> float:
        """Process seconds of all runs."""
        return sum(cost.seconds * cost.runs for cost in self.costs.values())

    def of_runs(self, runs: Iterable[Run]) -> tuple[float, int, int]:
        """(process seconds, bytes of the largest process, bytes on disk) of runs."""
        seconds, memory, disk = 0.0, 0, 0
        for run in runs:
            cost = self.costs[run.configuration.id]
            seconds += cost.seconds
            memory = max(memory, cost.predicted.memory_bytes)
            disk += cost.predicted.disk_bytes
        return seconds, memory, disk

    def error(self) -> float | None:
        """Relative error of the predicted time of all runs that were measured; None where none was."""
        known = [cost for cost in self.costs.values() if cost.measured_runs]
        measured = sum(cost.measured_seconds * cost.measured_runs for cost in known)
        predicted = sum(cost.predicted.seconds * cost.measured_runs for cost in known)
        return predicted / measured - 1 if measured else None

    def table_runs(self, table: str) -> list[Run]:
        """The runs of a table, and the runs that they require, once each."""
        cells = [cell for cell in self.study.plan.cells if cell.table == table]
        return with_required(Run(cell.configuration, seed) for cell in cells for seed in cell.seeds)

    def seeds_within(self, hours: float) -> dict[str, int]:
        """Table → seeds that all of its rows have after so many hours of the whole study, run in its own order."""
        left = hours * 3600 * self.workers
        done: set[str] = set()
        for run in self.study.plan.runs:
            left -= self.costs[run.configuration.id].seconds
            if left < 0:
                break
            done.add(run.id)
        complete: dict[str, int] = {}
        for cell in self.study.plan.cells:
            seeds = sum(Run(cell.configuration, seed).id in done for seed in cell.seeds)
            complete[cell.table] = min(seeds, complete.get(cell.table, seeds))
        return complete


def estimate(study: Study, resources: Resources, *, again: bool = False) -> Estimate:
    """Estimate a study on ``resources``. again: time also what was timed before on this machine.

    Raises ConfigError where a data set's form is known neither from its files nor by its name.
    """
    import torch

    from collabench.training.device import choose_device, describe

    device = describe(choose_device(resources.device))
    forms = {name: _form(study, c) for name, c in study.plan.configurations.items()}
    predictions: dict[str, Prediction] = {}
    for name, form in forms.items() if not again else ():
        path = study.workspace.estimate(name)
        if path.exists():
            known = read_json(path, Prediction)
            same = (known.device, known.workers, known.torch, known.form)
            if same == (device, resources.workers, torch.__version__, form):
                predictions[name] = known
    missing = {name: c for name, c in study.plan.configurations.items() if name not in predictions}
    for prediction in _predict_all(missing, forms, resources):
        predictions[prediction.configuration_id] = prediction
        write_json(study.workspace.estimate(prediction.configuration_id), prediction)
    runs = study.plan.seeds_of()
    return Estimate(
        study,
        {
            name: _cost(study, configuration, len(runs[name]), predictions[name], resources.device)
            for name, configuration in study.plan.configurations.items()
        },
        resources.workers,
    )


def _form(study: Study, configuration: Configuration) -> Form:
    from collabench.data.dataset import MANIFEST, Manifest

    dataset = configuration.dataset
    path = study.workspace.datasets / dataset_key(dataset) / MANIFEST
    if path.exists():
        manifest = read_json(path, Manifest)
        shape = input_shape_of(manifest.image_shape, configuration.recipe)
        train, test, classes = manifest.train_images, manifest.test_images, len(manifest.classes)
    elif dataset.source in KNOWN_IMAGES:
        shape, classes = KNOWN_SHAPES[dataset.source]
        shape = input_shape_of(shape, configuration.recipe)
        train, test = _sizes(dataset)
    else:
        raise ConfigError(
            f"{configuration.label}: how many images it has is known once the data set is prepared: "
            f"collabench data prepare -p {study.workspace.profile}"
        )
    return Form(shape=shape, classes=classes, train_images=train, test_images=test)


def _sizes(dataset: DatasetConfig) -> tuple[int, int]:
    train, test = KNOWN_IMAGES[dataset.source]
    every = train + test
    train = dataset.train_images or train
    test = every - train if dataset.test_on_rest else dataset.test_images or test
    return train, test


def _cost(study: Study, configuration: Configuration, runs: int, predicted: Prediction, device_type: str) -> Cost:
    records = []
    for seed in study.plan.seeds_of()[configuration.id]:
        path = study.workspace.measured_file(configuration.id, seed)
        if path.exists():
            record = read_json(path, Measured)
            if record.device_type == device_type:
                records.append(record)
    memory = [record.peak_memory_bytes for record in records if record.peak_memory_bytes is not None]
    seconds = [record.train_seconds + record.evaluate_seconds for record in records]
    return Cost(
        configuration=configuration,
        runs=runs,
        predicted=predicted,
        measured_runs=len(records),
        measured_seconds=sum(seconds) / len(seconds) if seconds else None,
        measured_memory=sum(memory) / len(memory) if memory else None,
    )


# ----------------------------------------------------------------------------------------------------- predicting


def _predict_all(
    configurations: dict[str, Configuration],
    forms: dict[str, Form],
    resources: Resources,
    work: Callable[[Configuration, Form, str, int], Prediction] | None = None,
) -> list[Prediction]:
    """Time configurations, as many at once as will train at once: they slow each other down as the runs will.

    A process that dies takes all the others of its pool with it, and nothing says which it was. What was not finished is then
    timed in a process of its own. Raises RunFailed naming the configuration whose process dies there again.
    """
    if not configurations:
        return []
    os.environ["OMP_NUM_THREADS"] = "1"  # before the children import torch
    workers = 1 if resources.gpus else min(resources.workers, len(configurations))
    found: dict[str, Prediction] = {}

    def timed(names: list[str], processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, end_with_parent, (os.getpid(),)) as pool:
            jobs = {
                pool.submit(
                    work or predict, configurations[name], forms[name], resources.device, resources.workers
                ): name
                for name in names
            }
            for job in as_completed(jobs):
                found[jobs[job]] = job.result()

    with suppress(BrokenProcessPool):
        timed(list(configurations), workers)
    for name in [name for name in configurations if name not in found]:
        try:
            timed([name], 1)
        except BrokenProcessPool:
            raise RunFailed(
                f"{configurations[name].label}: the process that timed it died, alone too; is there enough memory?"
            ) from None
    return [found[name] for name in configurations]


def predict(configuration: Configuration, form: Form, device_type: str, workers: int) -> Prediction:
    """Time one configuration in this process, and count its memory and files."""
    import torch

    from collabench.counting import count
    from collabench.memory import count_memory
    from collabench.training.device import choose_device, describe

    device = choose_device(device_type)
    counts = count(configuration, form.shape, form.classes)
    recipe = configuration.recipe
    affordable = int(BATCH_FLOPS[device.type] / max(counts.training, counts.predict, 1))
    share = -(-recipe.batch_size // recipe.processes)  # of one of the processes that share a batch
    batch = max(2, min(share, form.train_images, affordable))
    # After all but the last epoch only what would be deployed is evaluated.
    trials = _Trials(configuration, form, batch, device, counts.deployed / max(counts.predict, 1))
    before = _resident_bytes() if device.type == "cpu" else 0
    trained = trials.timed(counts.training > 0)
    held = count_memory(configuration, form.shape, form.classes, max(2, share)).held
    kept = int(form.train_images * (1 - recipe.validation_fraction))
    evaluated = form.test_images + form.train_images - kept
    passes = recipe.epochs if counts.training else 1
    evaluations = math.ceil(recipe.epochs / recipe.evaluate_every) if counts.training else 1
    return Prediction(
        configuration_id=configuration.id,
        device=describe(device),
        device_type=device.type,
        workers=workers,
        torch=torch.__version__,
        form=form,
        train_seconds=trained.train * kept * passes / recipe.processes,  # what they tell each other comes on top
        evaluate_seconds=trained.evaluate * evaluated * trials.evaluations(evaluations) / recipe.processes,
        memory_bytes=before + held,
        disk_bytes=trained.weights
        + trained.logits * form.test_images
        + trained.record
        + trained.record_per_epoch * recipe.epochs,
        flops=counts.training,
        timed_batch=batch,
    )


def _resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss


@dataclass(frozen=True)
class _Timed:
    """Seconds per image in training and in evaluation of all heads; bytes of weights, of logits per test image, of the record."""

    train: float
    evaluate: float
    weights: int
    logits: int
    record: int
    record_per_epoch: int


class _Trials:
    """Short trainings of a configuration on random images, by the training loop."""

    def __init__(self, configuration: Configuration, form: Form, batch: int, device, deployed_share: float) -> None:
        self._configuration, self._form, self._batch, self._device = configuration, form, batch, device
        self._deployed_share = deployed_share

    def evaluations(self, times: int) -> float:
        """What ``times`` evaluations cost, in evaluations of all heads: the last is one, the others are of what is deployed."""
        return 1 + (times - 1) * self._deployed_share

    def timed(self, trains: bool) -> _Timed:
        steps = math.ceil(self._form.train_images / self._batch)
        first = self._run(min(2, steps), 1)
        if not trains:
            return self._result(first, 0)
        again = self._run(min(2, steps), 1)  # warm: torch has chosen and cached its kernels
        per_step = max(again.measured.train_seconds / min(2, steps), 1e-4)
        wanted = max(2, round(TIMED_SECONDS / per_step))
        whole = min(steps, wanted)
        return self._result(self._run(whole, max(1, round(wanted / whole))), whole)

    def _run(self, steps: int, epochs: int):
        from collabench.training import train_run

        recipe = self._configuration.recipe.model_copy(
            update={
                "epochs": epochs, "milestones": (), "batch_size": self._batch, "evaluate_every": 1,
                "validation_fraction": 0.0, "validation_noisy": False, "processes": 1,
            }
        )  # fmt: skip
        changed = self._configuration.model_copy(update={"recipe": recipe, "noise": NoiseConfig(kind="none")})
        train = min(self._form.train_images, steps * self._batch)
        test = min(self._form.test_images, recipe.evaluation_batch_size, max(2 * train, 2))
        dataset = random_dataset(self._form, max(train, 2), max(test, 1))
        teachers = self._teachers()
        wall, processor = time.perf_counter(), time.process_time()
        trained = train_run(Run(changed, 0), dataset, device=self._device, teachers=teachers)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        # A training process on a CPU has one thread: what others took of its core meanwhile is no cost of the run.
        share = min(1.0, processor / wall) if self._device.type == "cpu" else 1.0
        times = {name: getattr(trained.measured, name) * share for name in ("train_seconds", "evaluate_seconds")}
        return replace(trained, measured=trained.measured.model_copy(update=times))

    def _teachers(self) -> list:
        from collabench.training.loop import make_context, make_method

        def deployed(configuration: Configuration):
            inner = [deployed(required.configuration) for required in configuration.requires]
            context = make_context(configuration, self._form.shape, self._form.classes, 0, inner)
            method = make_method(configuration, context)
            return method.deploy(method.build()).eval()

        return [deployed(required.configuration) for required in self._configuration.requires]

    def _result(self, trained, steps: int) -> _Timed:
        result = trained.result
        epochs = max(1, len(result.curves.learning_rate))
        record, curves = len(result.model_dump_json()), len(result.curves.model_dump_json())
        return _Timed(
            train=trained.measured.train_seconds / (epochs * result.train_images) if steps else 0.0,
            evaluate=trained.measured.evaluate_seconds / (self.evaluations(epochs) * result.test_images),
            weights=sum(t.nbytes for t in (trained.weights or {}).values()),
            logits=sum(t.nbytes for t in trained.logits.values()) // result.test_images,
            record=record - curves,
            record_per_epoch=curves // epochs,
        )


def random_dataset(form: Form, train_images: int, test_images: int):
    """A data set of random pixels and labels of this form, on the CPU."""
    import torch

    from collabench.data import Dataset

    generator = torch.Generator().manual_seed(0)
    channels, height, width = form.shape

    def split(count: int):
        images = torch.randint(0, 256, (count, height, width, channels), generator=generator, dtype=torch.uint8)
        return images, torch.randint(0, form.classes, (count,), generator=generator)

    images, labels = split(train_images)
    test, test_labels = split(test_images)
    return Dataset(
        train_images=images,
        train_labels=labels,
        test_images=test,
        test_labels=test_labels,
        classes=tuple(str(number) for number in range(form.classes)),
        digest="0" * 64,
        title="random",
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


# ------------------------------------------------------------------------------------------------------- printing


def describe_estimate(found: Estimate, budget_hours: float | None = None) -> str:
    """The estimate as text: per configuration, per table, in total; how far predictions were from what was measured."""
    from tabulate import tabulate

    from collabench.stats.power import detectable_effect

    rows = [
        [
            cost.configuration.label,
            cost.runs,
            _number(cost.predicted.flops / 1e6, 1),
            _number(cost.predicted.seconds, 1),
            _number(cost.measured_seconds, 1),
            "–" if cost.error is None else f"{cost.error:+.0%}",
            _number(cost.predicted.memory_bytes / 1e6, 0),
            _number(None if cost.measured_memory is None else cost.measured_memory / 1e6, 0),
        ]
        for cost in found.costs.values()
    ]
    head = [
        "configuration", "runs", "MFLOP an image", "predicted, s", "measured, s", "error", "memory, MB", "measured, MB",
    ]  # fmt: skip
    text = [tabulate(rows, head, disable_numparse=True)]
    tables = [*dict.fromkeys(cell.table for cell in found.study.plan.cells)]
    parts = {table: found.table_runs(table) for table in tables} | {"all, shared runs once": found.study.plan.runs}
    text.append(
        tabulate(
            [
                [
                    name,
                    len(runs),
                    _hours(seconds),
                    _hours(seconds / found.workers),
                    f"{m / 1e6:,.0f}",
                    f"{d / 1e6:,.1f}",
                ]
                for name, runs in parts.items()
                for seconds, m, d in [found.of_runs(runs)]
            ],
            ["table", "runs", "process hours", f"hours on {found.workers}", "peak memory, MB", "disk, MB"],
            disable_numparse=True,
        )
    )
    error = found.error()
    if error is not None:
        count = sum(cost.measured_runs for cost in found.costs.values())
        text.append(f"All {count} measured runs together: predicted {error:+.1%} of what was measured.")
    if budget_hours is not None:
        lines = [f"{budget_hours:g} hours on {found.workers} processes buy, by table:"]
        for table, seeds in found.seeds_within(budget_hours).items():
            wanted = max(len(cell.seeds) for cell in found.study.plan.cells if cell.table == table)
            effect = (
                f"differences of {detectable_effect(seeds):.1f} standard deviations or more are found with 80 % power"
                if seeds > 1
                else "no comparison is possible"
            )
            lines.append(f"  {table}: {seeds} of {wanted} seeds: {effect}")
        text.append("\n".join(lines))
    return "\n\n".join(text)


def as_json(found: Estimate) -> str:
    """For scripts."""
    rows = [
        {
            "configuration": name,
            "runs": cost.runs,
            "predicted": json.loads(cost.predicted.model_dump_json()),
            "measured_runs": cost.measured_runs,
            "measured_seconds": cost.measured_seconds,
        }
        for name, cost in found.costs.items()
    ]
    return json.dumps({"workers": found.workers, "process_seconds": found.seconds, "configurations": rows})


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}"


def print_estimate(
    root: Path, profile: str, cores: str | None, gpus: str | None, budget: float | None, again: bool, as_text: bool
) -> None:
    """The command ``collabench plan --estimate``. Raises ConfigError for a budget that is not positive."""
    from collabench import resources
    from collabench.study import load_study

    if budget is not None and not budget > 0:
        raise CollabenchError(f"--budget {budget:g}: a budget is a positive number of hours")
    study = load_study(root, profile)
    available = resources.choose(study.profile.device, cores=cores, gpus=gpus)
    found = estimate(study, available, again=again)
    print(describe_estimate(found, budget) if as_text else as_json(found))

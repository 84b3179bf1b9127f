"""Timing of a few training steps on random images, from which the cost of a run is predicted."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from collabench.config.batch_sizes import batch_sizes, held_out
from collabench.config.configuration import Configuration, Run
from collabench.config.data_sections import NoiseConfig
from collabench.config.dataset_shape import DatasetShape
from collabench.core.errors import RunFailed
from collabench.core.processes import end_with_parent
from collabench.core.record import Record
from collabench.core.resources import Resources
from collabench.study.needs import lease_bytes

if TYPE_CHECKING:
    import torch

#: Seconds of training for which a configuration is timed.
TIMED_SECONDS = 1.0
#: Largest arithmetic of a timed batch: about a second of one CPU core, or about a tenth of a second on a GPU.
BATCH_FLOPS = {"cpu": 5e10, "cuda": 5e12}


class Prediction(Record):
    """The expected cost of one run of a configuration on a device, in seconds and bytes.

    flops: of one image in training. timed_batch: number of images of the timed batch. memory_bytes: of the process.
    lease_bytes: what the run leases of a GPU (:mod:`collabench.study.needs`); 0 on a CPU.
    """

    configuration_id: str
    device: str
    device_type: Literal["cpu", "cuda"] = "cpu"
    workers: int
    torch: str
    form: DatasetShape
    train_seconds: float
    evaluate_seconds: float
    memory_bytes: int
    disk_bytes: int
    flops: int
    timed_batch: int
    lease_bytes: int = 0

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.evaluate_seconds


# ----------------------------------------------------------------------------------------------------- predicting


def predict_all(
    configurations: dict[str, Configuration],
    forms: dict[str, DatasetShape],
    resources: Resources,
    work: Callable[[Configuration, DatasetShape, str, int], Prediction] | None = None,
) -> list[Prediction]:
    """Time configurations, as many side by side as will train side by side, because they slow each other down.

    On GPUs each is timed in a process of its own, with the lease that its runs will have, and beside as many others: if
    there are fewer configurations than processes, they are timed several times at once, and the mean is taken.

    If a process dies, its whole pool ends, and it is unknown which configuration caused it. The unfinished
    configurations are then timed in a process of their own each. Raises RunFailed, naming the configuration, if such a
    process dies again.
    """
    if not configurations:
        return []
    os.environ["OMP_NUM_THREADS"] = "1"  # before the children import torch
    copies = -(-resources.workers // len(configurations)) if resources.gpus else 1
    workers = min(resources.workers, copies * len(configurations))
    found: dict[str, Prediction] = {}

    def timed(names: list[str], processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        once = 1 if resources.gpus else None  # CUDA and its lease end with the process
        several: dict[str, list[Prediction]] = {}
        with ProcessPoolExecutor(processes, context, end_with_parent, (os.getpid(),), max_tasks_per_child=once) as pool:
            jobs = {
                pool.submit(_with_lease, work or predict, configurations[name], forms[name], resources): name
                for name in names
            }
            for job in as_completed(jobs):
                several.setdefault(jobs[job], []).append(job.result())
                found[jobs[job]] = _mean(several[jobs[job]])

    with suppress(BrokenProcessPool):
        timed(list(configurations) * copies, workers)
    for name in [name for name in configurations if name not in found]:
        try:
            timed([name], 1)
        except BrokenProcessPool:
            raise RunFailed(
                f"{configurations[name].label}: the process that timed it died, alone too; is there enough memory?"
            ) from None
    return [found[name] for name in configurations]


def _with_lease(
    work: Callable[[Configuration, DatasetShape, str, int], Prediction],
    configuration: Configuration,
    form: DatasetShape,
    resources: Resources,
) -> Prediction:
    if not resources.gpus:
        return work(configuration, form, resources.device, resources.workers)
    need = lease_bytes(configuration, form)
    with resources.lease(need):
        found = work(configuration, form, resources.device, resources.workers)
    return found.model_copy(update={"lease_bytes": need})


def _mean(several: list[Prediction]) -> Prediction:
    """The prediction of a configuration that was timed several times at once."""
    means = {name: fmean(getattr(one, name) for one in several) for name in ("train_seconds", "evaluate_seconds")}
    return several[0].model_copy(update=means)


def predict(configuration: Configuration, form: DatasetShape, device_type: str, workers: int) -> Prediction:
    """Time one configuration in this process, and count its memory and files."""
    import torch

    from collabench.training.device import choose_device, describe, type_of
    from collabench.training.flops import count
    from collabench.training.memory import count_memory

    device = choose_device(device_type)
    recipe = configuration.recipe
    counts = count(configuration, form.network_shape(recipe), form.classes)
    affordable = int(BATCH_FLOPS[device.type] / max(counts.training, counts.predict, 1))
    share = -(-recipe.batch_size // recipe.processes)  # of one of the processes that share a batch
    batch = max(2, min(share, form.train_images, affordable))
    # After every epoch but the last one only the deployed network is evaluated.
    trials = _Trials(configuration, form, batch, device, counts.deployed / max(counts.predict, 1))
    before = _resident_bytes() if device.type == "cpu" else 0
    trained = trials.timed(counts.training > 0)
    validation = held_out(form.train_images, recipe.validation_fraction)
    sizes = batch_sizes(form.train_images - validation, recipe.batch_size, recipe.last_batch)
    largest = -(-max(recipe.batch_size, *sizes) // recipe.processes)
    held = count_memory(configuration, form.network_shape(recipe), form.classes, max(2, largest)).held
    evaluated = form.test_images + validation
    passes = recipe.epochs if counts.training else 1
    evaluations = math.ceil(recipe.epochs / recipe.evaluate_every) if counts.training else 1
    sampled = min(1.0, (recipe.evaluation_sample or form.test_images) / form.test_images)
    return Prediction(
        configuration_id=configuration.id,
        device=describe(device),
        device_type=type_of(device),
        workers=workers,
        torch=torch.__version__,
        form=form,
        # communication between the processes is not included
        train_seconds=trained.train * sum(sizes) * passes / recipe.processes,
        evaluate_seconds=trained.evaluate
        * evaluated
        * trials.evaluations(1 + (evaluations - 1) * sampled)
        / recipe.processes,
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
    """Seconds per image in training and in evaluation of all heads; bytes of weights, of logits per test image and of
    the record."""

    train: float
    evaluate: float
    weights: int
    logits: int
    record: int
    record_per_epoch: int


class _Trials:
    """Short trainings of a configuration on random images, by the training loop."""

    def __init__(
        self, configuration: Configuration, form: DatasetShape, batch: int, device, deployed_share: float
    ) -> None:
        self._configuration, self._dataset_shape, self._batch, self._device = configuration, form, batch, device
        self._deployed_share = deployed_share

    def evaluations(self, times: float) -> float:
        """The cost of ``times`` evaluations, in evaluations of all heads. The last one is of all heads, the others are
        of the deployed network."""
        return 1 + (times - 1) * self._deployed_share

    def timed(self, trains: bool) -> _Timed:
        steps = math.ceil(self._dataset_shape.train_images / self._batch)
        first = self._run(min(2, steps), 1)
        if not trains:
            return self._result(first, 0)
        again = self._run(min(2, steps), 1)  # warm-up: torch chooses and caches its kernels
        per_step = max(again.measured.train_seconds / min(2, steps), 1e-4)
        wanted = max(2, round(TIMED_SECONDS / per_step))
        whole = min(steps, wanted)
        return self._result(self._run(whole, max(1, round(wanted / whole))), whole)

    def _run(self, steps: int, epochs: int):
        from collabench.training import train_run

        recipe = self._configuration.recipe.model_copy(
            update={
                "epochs": epochs, "milestones": (), "warmup_epochs": 0, "early_stopping": None,
                "batch_size": self._batch, "evaluate_every": 1,
                "evaluation_sample": None, "validation_fraction": 0.0, "validation_noisy": False, "processes": 1,
            }
        )  # fmt: skip
        changed = self._configuration.model_copy(update={"recipe": recipe, "noise": NoiseConfig(kind="none")})
        train = min(self._dataset_shape.train_images, steps * self._batch)
        test = min(self._dataset_shape.test_images, recipe.evaluation_batch_size, max(2 * train, 2))
        dataset = random_dataset(self._dataset_shape, max(train, 2), max(test, 1))
        teachers = random_teachers(self._configuration, self._dataset_shape)
        wall, processor = time.perf_counter(), time.process_time()
        trained = train_run(Run(changed, 0), dataset, device=self._device, teachers=teachers)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        # A training process on a CPU has one thread. Time that other processes used its core is no cost of the run.
        share = min(1.0, processor / wall) if self._device.type == "cpu" else 1.0
        times = {name: getattr(trained.measured, name) * share for name in ("train_seconds", "evaluate_seconds")}
        return replace(trained, measured=trained.measured.model_copy(update=times))

    def _result(self, trained, steps: int) -> _Timed:
        result = trained.result
        epochs = max(1, len(result.curves.learning_rate))
        sizes = batch_sizes(result.train_images, self._batch, self._configuration.recipe.last_batch)
        record, curves = len(result.model_dump_json()), len(result.curves.model_dump_json())
        return _Timed(
            train=trained.measured.train_seconds / (epochs * sum(sizes)) if steps else 0.0,
            evaluate=trained.measured.evaluate_seconds / (self.evaluations(epochs) * result.test_images),
            weights=sum(t.nbytes for t in (trained.weights or {}).values()),
            logits=sum(t.nbytes for t in trained.logits.values()) // result.test_images,
            record=record - curves,
            record_per_epoch=curves // epochs,
        )


def random_teachers(configuration: Configuration, form: DatasetShape) -> list[torch.nn.Module]:
    """The deployed networks of what a configuration requires, with their initial weights, in eval mode, on the CPU."""
    from collabench.training.context import make_context, make_method

    found = []
    for required in configuration.requires:
        chosen = required.configuration
        shape = form.network_shape(chosen.recipe)
        context = make_context(chosen, shape, form.classes, 0, random_teachers(chosen, form))
        method = make_method(chosen, context)
        found.append(method.deploy(method.build()).eval())
    return found


def random_dataset(form: DatasetShape, train_images: int, test_images: int):
    """A data set of random pixels and labels of this shape, on the CPU."""
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

"""The estimated cost of a study, before it runs.

The training loop trains every distinct configuration for about a second on random images, with as many configurations
side by side as the study will have. The time is scaled to the configuration's images and epochs. If a batch takes too
long, a smaller one is timed. On a CPU, processor time is measured, so that other work on the machine does not count.
Memory and disk are counted. Finished runs test the predictions: both are shown, and sums use the measured values.

Not included: reading images from files during training (ImageNet), which runs in parallel, and starting processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from collabench.config.configuration import Configuration, Run
from collabench.config.dataset_shape import DatasetShape
from collabench.config.plan import with_required
from collabench.core.errors import ConfigError
from collabench.core.resources import Resources
from collabench.storage.files import read_json, write_json
from collabench.storage.results import load_measured
from collabench.study.study import Study
from collabench.study.timing import Prediction, predict_all


@dataclass(frozen=True)
class Cost:
    """The cost of a configuration's runs: the prediction for one run, and the averages over the finished runs."""

    configuration: Configuration
    runs: int
    predicted: Prediction
    measured_runs: int
    measured_seconds: float | None
    measured_memory: float | None

    @property
    def seconds(self) -> float:
        """Seconds of one run: measured if there are runs on a device of this type, else predicted."""
        return self.predicted.seconds if self.measured_seconds is None else self.measured_seconds

    @property
    def error(self) -> float | None:
        """Relative error of the predicted time; None if nothing was measured or nothing is trained."""
        if not self.measured_seconds:
            return None
        return self.predicted.seconds / self.measured_seconds - 1


@dataclass(frozen=True)
class Estimate:
    """A profile's costs by configuration id, with up to ``workers`` processes side by side.

    beside: configuration id → number of such runs that train side by side, where the memory of GPUs allows fewer.
    """

    study: Study
    costs: dict[str, Cost]
    workers: int
    beside: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def seconds(self) -> float:
        """Seconds of all runs, summed over the processes."""
        return sum(cost.seconds * cost.runs for cost in self.costs.values())

    def of_runs(self, runs: Iterable[Run]) -> tuple[float, int, int]:
        """Seconds summed over the processes, bytes of the largest process, and bytes on disk."""
        seconds, memory, disk = 0.0, 0, 0
        for run in runs:
            cost = self.costs[run.configuration.id]
            seconds += cost.seconds
            memory = max(memory, cost.predicted.memory_bytes)
            disk += cost.predicted.disk_bytes
        return seconds, memory, disk

    def clock_seconds(self, runs: Iterable[Run]) -> float:
        """Seconds on the clock, if all processes are busy all the time."""
        return sum(self._share(run.configuration.id) for run in runs)

    def _share(self, name: str) -> float:
        return self.costs[name].seconds / self.beside.get(name, self.workers)

    def error(self) -> float | None:
        """Relative error of the predicted time over all measured runs; None without measured runs."""
        known = [(cost, cost.measured_seconds) for cost in self.costs.values() if cost.measured_seconds is not None]
        measured = sum(seconds * cost.measured_runs for cost, seconds in known)
        predicted = sum(cost.predicted.seconds * cost.measured_runs for cost, _ in known)
        return predicted / measured - 1 if measured else None

    def table_runs(self, table: str) -> list[Run]:
        """The runs of a table and the runs that they require, each once."""
        cells = [cell for cell in self.study.plan.cells if cell.table == table]
        return with_required(Run(cell.configuration, seed) for cell in cells for seed in cell.seeds)

    def seeds_within(self, hours: float) -> dict[str, int]:
        """Table → number of seeds that all of its rows have after this many hours of the study."""
        left = hours * 3600
        done: set[str] = set()
        for run in self.study.plan.runs:
            left -= self._share(run.configuration.id)
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

    Raises ConfigError if the shape of a data set is known neither from its files nor from its source.
    """
    predictions = predictions_of(study, study.plan.configurations, resources, again=again)
    runs = study.plan.seeds_of()
    return Estimate(
        study,
        {
            name: _cost(study, configuration, len(runs[name]), predictions[name], resources.device)
            for name, configuration in study.plan.configurations.items()
        },
        resources.workers,
        {name: resources.side_by_side(predictions[name].lease_bytes) for name in predictions},
    )


def predictions_of(
    study: Study, configurations: Mapping[str, Configuration], resources: Resources, *, again: bool = False
) -> dict[str, Prediction]:
    """Configuration id → what one run of it will cost: as predicted before on this machine, or timed now.

    Raises ConfigError as :func:`estimate` does.
    """
    import torch

    from collabench.training.device import choose_device, describe

    device = describe(choose_device(resources.device))
    forms = {name: shape_of_inputs(study, c) for name, c in configurations.items()}
    predictions: dict[str, Prediction] = {}
    for name, form in forms.items() if not again else ():
        path = study.workspace.estimate(name)
        if path.exists():
            known = read_json(path, Prediction)
            same = (known.device, known.workers, known.torch, known.form)
            if same == (device, resources.workers, torch.__version__, form):
                predictions[name] = known
    missing = {name: c for name, c in configurations.items() if name not in predictions}
    for prediction in predict_all(missing, forms, resources):
        predictions[prediction.configuration_id] = prediction
        write_json(study.workspace.estimate(prediction.configuration_id), prediction)
    return predictions


def shape_of_inputs(study: Study, configuration: Configuration) -> DatasetShape:
    """The shape of a configuration's data set. Raises ConfigError if it is known once the data set is prepared."""
    form = study.inputs.shape(configuration)
    if form is None:
        raise ConfigError(
            f"{configuration.label}: how many images it has is known once the data set is prepared: "
            f"collabench data prepare -p {study.workspace.profile}"
        )
    return form


def _cost(study: Study, configuration: Configuration, runs: int, predicted: Prediction, device_type: str) -> Cost:
    records = []
    for seed in study.plan.seeds_of()[configuration.id]:
        run = Run(configuration, seed)
        path = study.workspace.measured_file(run)
        if path.exists():
            record = load_measured(path, run)
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

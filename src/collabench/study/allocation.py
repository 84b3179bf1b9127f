"""What a training job asks a cluster for: minutes and memory, from runs that are finished, else from estimates.

Seconds are those of finished runs of the configuration on this type of device, wherever they ran, or what ``collabench
estimate`` has predicted (on a node: ``srun collabench estimate -p PROFILE``). Both are what one run needs; a
job has several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from collabench.config.configuration import Configuration
from collabench.core.errors import ResultError
from collabench.storage.files import read_json
from collabench.storage.results import Measured
from collabench.study.study import Study
from collabench.study.timing import Prediction

#: How many times the expected time is asked for: nodes differ, and a job that is cut off resumes but waits again.
TIME_MARGIN = 2.0
#: Minutes beside training: starting Python twice (Snakemake's part of the job and the training process), reading the
#: data.
STARTUP_MINUTES = 5
#: How many times the counted or measured memory is asked for: what kernels need in passing isn't counted.
MEMORY_MARGIN = 1.5
#: Megabytes of Snakemake's own process in the job (about 400 are used).
SCHEDULER_MEGABYTES = 1000


@dataclass(frozen=True)
class Needs:
    """What one run is expected to need: seconds, and bytes of the host's memory (None where only a GPU's is known)."""

    seconds: float
    memory: float | None


@dataclass(frozen=True)
class Allocation:
    """What one job asks for. megabytes: of the host's memory; None where it isn't known."""

    minutes: int
    megabytes: int | None


def needs_of_run(study: Study, configuration: Configuration, device_type: str) -> Needs | None:
    """What a run of ``configuration`` needs on a device of type ``cpu`` or ``cuda``; None where neither runs nor an
    estimate say."""
    seconds, memory = _measured(study, configuration, device_type)
    prediction = _prediction(study, configuration, device_type)
    if prediction is not None:
        seconds = prediction.seconds if seconds is None else seconds
        memory = prediction.memory_bytes + _data_bytes(prediction) if memory is None else memory
    if seconds is None:
        return None
    return Needs(seconds, None if device_type == "cuda" else memory)


def allocation(needs: Needs, runs: int) -> Allocation:
    """What a job of ``runs`` runs, one after the other, asks for."""
    return Allocation(
        minutes=STARTUP_MINUTES + math.ceil(TIME_MARGIN * needs.seconds * runs / 60),
        megabytes=None if needs.memory is None else SCHEDULER_MEGABYTES + math.ceil(MEMORY_MARGIN * needs.memory / 1e6),
    )


def without_needs(study: Study, device_type: str) -> int:
    """How many configurations of the plan have neither a finished run nor an estimate on such a device."""
    return sum(needs_of_run(study, c, device_type) is None for c in study.plan.configurations.values())


def _measured(study: Study, configuration: Configuration, device_type: str) -> tuple[float | None, float | None]:
    """Longest seconds and largest memory of the finished runs; None where there is none."""
    records = []
    for path in (study.workspace.measured / configuration.id).glob("seed-*.json"):
        try:
            record = read_json(path, Measured)
        except ResultError:
            continue  # damaged: the report says so; a request needs no more than the others
        if record.device_type == device_type:
            records.append(record)
    return (
        max((record.train_seconds + record.evaluate_seconds for record in records), default=None),
        max((r.peak_memory_bytes for r in records if r.peak_memory_bytes is not None), default=None),
    )


def _prediction(study: Study, configuration: Configuration, device_type: str) -> Prediction | None:
    path = study.workspace.estimate(configuration.id)
    try:
        found = read_json(path, Prediction) if path.exists() else None
    except ResultError:
        return None  # of another version; `collabench estimate` makes it again
    return found if found is not None and found.device_type == device_type else None


def _data_bytes(prediction: Prediction) -> int:
    """Of the data set as one array of bytes, which a training process holds beside its tensors."""
    form = prediction.form
    return (form.train_images + form.test_images) * math.prod(form.shape)

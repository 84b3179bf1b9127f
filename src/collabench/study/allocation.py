"""The minutes and the memory that a training job asks a cluster for.

Seconds are those of the configuration's finished runs on this type of device, on whichever machine, or the prediction
of ``collabench estimate`` (on a node: ``srun collabench estimate -p PROFILE``). Both are for one run; a job has several
runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from collabench.config.configuration import Configuration
from collabench.config.known_datasets import DECODED_SOURCES
from collabench.core.errors import ResultError
from collabench.storage.files import read_json
from collabench.storage.results import Measured
from collabench.study.study import Study
from collabench.study.timing import Prediction

#: Factor on the expected time. Nodes differ, and a job that is cut off must wait in the queue again before it resumes.
TIME_MARGIN = 2.0
#: Minutes in addition to training: starting Python twice (Snakemake's part of the job and the training process) and
#: reading the data.
STARTUP_MINUTES = 5
#: Factor on the counted or measured memory: temporary memory of kernels is not counted.
MEMORY_MARGIN = 1.5
#: Megabytes of Snakemake's own process in the job (about 400 are used).
SCHEDULER_MEGABYTES = 1000


#: Cores of a job with a GPU: the training thread and one that copies and writes. Images that are decoded while a run
#: trains need further threads.
GPU_CORES, DECODING_CORES = 2, 8


def cores_of_job(configuration: Configuration, gpu: bool) -> int:
    """The cores that a job asks a cluster for: one, and more beside a GPU."""
    if not gpu:
        return 1
    return DECODING_CORES if configuration.dataset.source in DECODED_SOURCES else GPU_CORES


@dataclass(frozen=True)
class Needs:
    """The expected needs of one run: seconds, and bytes of the host's memory (None if only the GPU's memory is
    known).

    seconds: of the longest finished run, or predicted. usual_seconds: the mean of the finished runs, or predicted.
    """

    seconds: float
    memory: float | None
    usual_seconds: float


@dataclass(frozen=True)
class Allocation:
    """The request of one job. megabytes: of the host's memory; None if unknown."""

    minutes: int
    megabytes: int | None


def needs_of_run(study: Study, configuration: Configuration, device_type: str) -> Needs | None:
    """The needs of a run on a device of type ``cpu`` or ``cuda``; None without a finished run or an estimate."""
    times, memory = _measured(study, configuration, device_type)
    prediction = _prediction(study, configuration, device_type)
    if prediction is not None:
        times = times or [prediction.seconds]
        memory = prediction.memory_bytes + _data_bytes(prediction) if memory is None else memory
    if not times:
        return None
    return Needs(max(times), None if device_type == "cuda" else memory, fmean(times))


def allocation(needs: Needs, runs: int) -> Allocation:
    """The request of a job of ``runs`` consecutive runs."""
    return Allocation(
        minutes=STARTUP_MINUTES + math.ceil(TIME_MARGIN * needs.seconds * runs / 60),
        megabytes=None if needs.memory is None else SCHEDULER_MEGABYTES + math.ceil(MEMORY_MARGIN * needs.memory / 1e6),
    )


def without_needs(study: Study, device_type: str) -> int:
    """Number of the plan's configurations that have neither a finished run nor an estimate on such a device."""
    return sum(needs_of_run(study, c, device_type) is None for c in study.plan.configurations.values())


def _measured(study: Study, configuration: Configuration, device_type: str) -> tuple[list[float], float | None]:
    """The times of the finished runs in seconds, and their largest memory; None if it is unknown."""
    records = []
    for path in (study.workspace.measured / configuration.id).glob("seed-*.json"):
        try:
            record = read_json(path, Measured)
            if record.run_id.rpartition("-s")[0] != configuration.id:
                continue
        except ResultError:
            continue  # damaged: the report says so, and the other runs suffice for a request
        if record.device_type == device_type:
            records.append(record)
    return (
        [record.train_seconds + record.evaluate_seconds for record in records],
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
    """Bytes of the data set as one array, which a training process holds in addition to its tensors."""
    form = prediction.form
    return (form.train_images + form.test_images) * math.prod(form.shape)

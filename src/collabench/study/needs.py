"""The memory of a GPU that a run leases."""

from __future__ import annotations

import math

from collabench.config.configuration import Configuration
from collabench.config.dataset_shape import DatasetShape
from collabench.config.known_datasets import DECODED_SOURCES
from collabench.study.study import Study

#: Factor on the counted memory, and bytes beside it: workspaces and fragmentation grow with a run, a context does not.
MARGIN, CONTEXT_BYTES = 1.3, 1_000_000_000


def lease_for(study: Study, configuration: Configuration, attempt: int = 0) -> int | None:
    """Bytes of a GPU that a run of the configuration leases; None is a whole GPU.

    attempt: how often a process was short of memory, or its GPU failed, in this run. Each doubles the lease. Does not
    initialise CUDA.
    """
    form = study.inputs.shape(configuration)
    return None if form is None else lease_bytes(configuration, form) * 2**attempt


def lease_bytes(configuration: Configuration, form: DatasetShape) -> int:
    """1.3 times the counted tensors (:mod:`collabench.training.memory`) and images, and 1 GB.

    The images of a data set lie on the GPU as one array of bytes, unless they are read from files while a run trains.
    """
    from collabench.training.memory import count_memory

    peak = count_memory(configuration, form.network_shape(configuration.recipe), form.classes).peak
    return lease_of(peak, configuration, form)


def lease_of(peak: int, configuration: Configuration, form: DatasetShape) -> int:
    """:func:`lease_bytes` of a configuration whose counted tensors are known. peak: their bytes."""
    return math.ceil(MARGIN * (peak + _images_bytes(configuration, form))) + CONTEXT_BYTES


def _images_bytes(configuration: Configuration, form: DatasetShape) -> int:
    if configuration.dataset.source in DECODED_SOURCES:
        return 0
    return (form.train_images + form.test_images) * math.prod(form.shape)

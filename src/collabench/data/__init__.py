"""Data sets, label noise and batches.

:func:`prepare` turns a configuration into two files that hold a data set, :func:`load` opens them, and
:func:`open_batches` and :func:`open_evaluation_batches` give batches on the device, whether the images lie in memory or
are decoded from files on the way.
"""

from collabench.data.dataset import (
    MANIFEST,
    Dataset,
    Manifest,
    load,
    open_batches,
    open_evaluation_batches,
    prepare,
    source_digest,
    what_is_missing,
)
from collabench.data.noise import NoisyLabels
from collabench.data.splits import validation_split

__all__ = [
    "MANIFEST",
    "Dataset",
    "Manifest",
    "NoisyLabels",
    "load",
    "open_batches",
    "open_evaluation_batches",
    "prepare",
    "source_digest",
    "validation_split",
    "what_is_missing",
]

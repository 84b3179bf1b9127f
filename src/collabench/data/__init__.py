"""Data sets, label noise and batches.

:func:`prepare` stores a data set in two files and :func:`load` opens them. :func:`open_batches` and
:func:`open_evaluation_batches` produce batches on the device, from images in memory or from image files that are
decoded when needed.
"""

from collabench.data.dataset import Dataset, load, open_batches, open_evaluation_batches, split_for_seed
from collabench.data.manifest import MANIFEST, Manifest
from collabench.data.noise import NoisyLabels
from collabench.data.normalisation import pixel_statistics
from collabench.data.preparation import (
    is_pinned_source,
    names_in_source,
    path_of,
    position_in_source,
    prepare,
    source_digest,
    what_is_missing,
)
from collabench.data.splits import validation_split

__all__ = [
    "MANIFEST",
    "Dataset",
    "Manifest",
    "NoisyLabels",
    "is_pinned_source",
    "load",
    "names_in_source",
    "open_batches",
    "open_evaluation_batches",
    "path_of",
    "pixel_statistics",
    "position_in_source",
    "prepare",
    "source_digest",
    "split_for_seed",
    "validation_split",
    "what_is_missing",
]

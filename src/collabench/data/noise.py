"""Label noise.

With m classes, and one uniform number u per image, the images that are *hit* are the round(rate · n) ones with the
smallest u (``count: exact``), or those with u < rate (``bernoulli``). The label of an image that is hit:

``uniform``
    a class drawn from all m. One in m stays right, so the expected corruption is rate · (m - 1) / m.
``symmetric``
    a class drawn from the other m - 1.
``asymmetric``
    the partner of its class. ``rate`` is the share of the images *of classes that have a partner*; images of other
        classes are never hit. (CIFAR-10's default pairs cover five of ten classes: with classes of equal size a rate of
        0.4 corrupts 0.2 of all labels.)

With the same kind and seed, a higher rate hits every image that a lower rate hits, and gives it the same label. Static
noise is drawn once. Per-epoch noise depends on (seed, epoch) only and has no state. NumPy's Philox generator makes both
the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.config.known_datasets import look_alikes
from collabench.config.sections import NoiseConfig
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator
from collabench.data.tensors import read_tensors, write_tensors

FORMAT = 1


@dataclass(frozen=True)
class NoisyLabels:
    """The noisy labels of one draw.

    clean, noisy: int64 (N,).
    mask: bool (N,), True for images that were hit (their label may have stayed right).
    corruption: share of wrong labels.
    transition: float64 (m, m), the specified probability of label j (column) for an image of class i (row). Rows sum to
    1.
    """

    clean: Tensor
    noisy: Tensor
    mask: Tensor
    corruption: float
    transition: Tensor


def partners(classes: tuple[str, ...], pairs: Mapping[str, str] | None = None) -> np.ndarray:
    """For each class the index of its partner, -1 for none; int64 (m,).

    Without ``pairs``: :func:`collabench.config.known_datasets.look_alikes`. Raises DataError for a name that is not a
    class.
    """
    pairs = look_alikes(classes) if pairs is None else pairs
    number = {name: index for index, name in enumerate(classes)}
    found = np.full(len(classes), -1)
    for wrong in (name for pair in pairs.items() for name in pair if name not in number):
        raise DataError(f"pairs: {wrong!r} is not a class; classes: {', '.join(classes)}")
    for source, target in pairs.items():
        found[number[source]] = number[target]
    if (found < 0).all():
        raise DataError("pairs: names no pair, so no label could be wrong; remove it or name some")
    return found


def flips(config: NoiseConfig, classes: tuple[str, ...]) -> dict[str, str] | None:
    """Class → the class that its images are mistaken for, of the classes that asymmetric noise hits; None for another
    kind."""
    if config.kind != "asymmetric":
        return None
    found = partners(classes, config.pairs)
    return {classes[source]: classes[target] for source, target in enumerate(found) if target >= 0}


def transition_matrix(config: NoiseConfig, classes: tuple[str, ...]) -> Tensor:
    """Specified probabilities (m, m), float64: row = right class, column = label."""
    count, rate = len(classes), config.rate
    matrix = torch.eye(count, dtype=torch.float64) * (1 - rate)
    if config.kind == "none":
        return torch.eye(count, dtype=torch.float64)
    if config.kind == "uniform":
        return matrix + rate / count
    if config.kind == "symmetric":
        return matrix + rate / (count - 1) * (1 - torch.eye(count, dtype=torch.float64))
    for source, target in enumerate(partners(classes, config.pairs)):
        matrix[source, target if target >= 0 else source] += rate
    return matrix


def draw(
    config: NoiseConfig, labels: Tensor, classes: tuple[str, ...], seed: int, epoch: int | None = None
) -> NoisyLabels:
    """Noisy labels of a training split.

    labels: clean, int64 (N,), on the CPU. epoch: None for static noise (stream ``noise``), else the epoch of per-epoch
    noise (stream ``noise`` keyed by the epoch; with ``hit: fixed`` the images hit come from a key without the epoch).
    Raises DataError for pairs that name unknown classes.
    """
    clean = labels.numpy()
    count = len(classes)
    noisy, hit = clean.copy(), np.zeros(len(clean), dtype=bool)
    if config.kind != "none":
        generator = numpy_generator(seed, "noise", *(() if epoch is None else (epoch,)))
        chance = generator.random(len(clean))
        if config.kind == "uniform":
            replacement = generator.integers(0, count, len(clean))
        elif config.kind == "symmetric":
            replacement = (clean + generator.integers(1, count, len(clean))) % count
        else:
            replacement = partners(classes, config.pairs)[clean]
        if config.hit == "fixed" and epoch is not None:
            chance = numpy_generator(seed, "noise", "hit").random(len(clean))
        eligible = np.flatnonzero(replacement >= 0)
        if config.count == "exact":
            ranked = eligible[np.argsort(chance[eligible], kind="stable")]
            hit[ranked[: round(config.rate * len(eligible))]] = True
        else:
            hit[eligible] = chance[eligible] < config.rate
        noisy[hit] = replacement[hit]
    return NoisyLabels(
        clean=labels.clone(),
        noisy=torch.from_numpy(noisy),
        mask=torch.from_numpy(hit),
        corruption=float((noisy != clean).mean()) if len(clean) else 0.0,
        transition=transition_matrix(config, classes),
    )


def write_static(path: Path, drawn: NoisyLabels, config: NoiseConfig, seed: int) -> None:
    """Write static noise as a small safetensors file, atomically. The same draw gives the same bytes.

    Tensors: ``clean``, ``noisy``, ``mask``, ``transition``. Metadata: format version, kind, count, specified rate,
    realised corruption, seed, SHA-256 of all of it.
    """
    tensors = {"clean": drawn.clean, "noisy": drawn.noisy, "mask": drawn.mask, "transition": drawn.transition}
    metadata = {
        "format": FORMAT,
        "content": "noisy labels",
        "kind": config.kind,
        "count": config.count,
        "rate": config.rate,
        "corruption": drawn.corruption,
        "seed": seed,
    }
    write_tensors(path, tensors, metadata)


def read_static(path: Path, config: NoiseConfig | None = None, seed: int | None = None) -> NoisyLabels:
    """Read and verify a file of :func:`write_static`. Raises DataError naming the file if it is missing or damaged, or
    was drawn from another configuration or seed than those that are given."""
    tensors, metadata, _ = read_tensors(path)
    if metadata.get("format") != FORMAT or metadata.get("content") != "noisy labels":
        raise DataError(f"{path}: does not hold noisy labels of format {FORMAT} (written by another version?)")
    expected = {} if config is None else {"kind": config.kind, "count": config.count, "rate": config.rate}
    for name, value in (expected | ({} if seed is None else {"seed": seed})).items():
        if metadata.get(name) != value:
            raise DataError(f"{path}: holds noisy labels of {name} {metadata.get(name)}, expected {value}")
    return NoisyLabels(**tensors, corruption=metadata["corruption"])


def check_static(drawn: NoisyLabels, config: NoiseConfig, labels: Tensor, classes: tuple[str, ...], path: Path) -> None:
    """Raise DataError naming the file if the noisy labels it held belong to other clean labels, or to a noise of other
    probabilities."""
    if not torch.equal(drawn.clean, labels):
        raise DataError(f"{path}: holds noisy labels of another data set")
    if not torch.equal(drawn.transition, transition_matrix(config, classes)):
        raise DataError(f"{path}: holds noisy labels of other pairs of classes")


def labels_digest(labels: Tensor) -> str:
    """SHA-256 of training labels, as a result records which ones its run saw."""
    return hashlib.sha256(labels.to(torch.int64).numpy().astype("<i8").tobytes()).hexdigest()

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
``pair``
    the next class (of the last class: the first).

``instance`` draws every image's label by probabilities that depend on its pixels
(:mod:`collabench.data.instance_noise`).

Two kinds have no rate. ``matrix`` gives the probability T[i, j] that an image of class i gets label j. Of the n_i
images of class i, T[i, j] · n_i get it (``exact``; the largest remainders are rounded up), or every image draws its
label (``bernoulli``). ``file`` holds the labels themselves (:mod:`collabench.data.label_files`), and nothing is drawn.

With the same kind and seed, a higher rate hits every image that a lower rate hits, and gives it the same label. Static
noise is drawn once. Per-epoch noise depends on (seed, epoch) only and has no state. NumPy's Philox generator makes both
the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collabench.config.data_sections import NoiseConfig
from collabench.config.known_datasets import look_alikes
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator
from collabench.data.instance_noise import draw_labels
from collabench.data.label_files import InSource, read_labels, read_matrix
from collabench.data.tensors import read_tensors, write_tensors

FORMAT = 1


#: Kinds that have no probabilities of a class: only what was drawn, or given, has a matrix.
WITHOUT_MATRIX = ("instance", "file")


@dataclass(frozen=True)
class Seen:
    """The images that labels are drawn for. images: uint8 (N, H, W, C). mean, std: of each channel, in [0, 1]."""

    images: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class NoisyLabels:
    """The noisy labels of one draw.

    clean, noisy: int64 (N,).
    mask: bool (N,), True for images that were hit (their label may have stayed right).
    corruption: share of wrong labels.
    transition: float64 (m, m), the specified probability of label j (column) for an image of class i (row). Rows sum to
    1. Of ``instance``, and of labels that a file holds: :func:`realised`.
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
    """Specified probabilities (m, m), float64: row = right class, column = label. Not for :data:`WITHOUT_MATRIX`.

    Raises DataError for a file of the matrix that cannot be used.
    """
    count, rate = len(classes), config.rate
    matrix = torch.eye(count, dtype=torch.float64) * (1 - rate)
    if config.kind == "none":
        return torch.eye(count, dtype=torch.float64)
    if config.kind == "uniform":
        return matrix + rate / count
    if config.kind == "symmetric":
        return matrix + rate / (count - 1) * (1 - torch.eye(count, dtype=torch.float64))
    if config.kind == "pair":
        return matrix + rate * torch.eye(count, dtype=torch.float64).roll(1, dims=1)
    if config.kind == "matrix":
        return read_matrix(config, count)
    assert config.kind == "asymmetric", "the other kinds have no specified probabilities"
    for source, target in enumerate(partners(classes, config.pairs)):
        matrix[source, target if target >= 0 else source] += rate
    return matrix


def realised(clean: Tensor, noisy: Tensor, classes: int) -> Tensor:
    """Share of the images of class i (row) that are labelled j (column), float64 (m, m).

    clean, noisy: int64 (N,). The row of a class without images is that of clean labels.
    """
    counts = torch.bincount(clean * classes + noisy, minlength=classes**2).reshape(classes, classes).double()
    empty = (counts.sum(dim=1) == 0).nonzero()[:, 0]
    counts[empty, empty] = 1
    return counts / counts.sum(dim=1, keepdim=True)


def draw(
    config: NoiseConfig,
    labels: Tensor,
    classes: tuple[str, ...],
    seed: int,
    epoch: int | None = None,
    in_source: InSource | None = None,
    seen: Seen | None = None,
) -> NoisyLabels:
    """Noisy labels of a training split.

    labels: clean, int64 (N,), on the CPU. epoch: None for static noise (stream ``noise``), else the epoch of per-epoch
    noise (stream ``noise`` keyed by the epoch; with ``hit: fixed`` the images hit come from a key without the epoch).
    in_source: for labels that a file holds, which images of the source these are; None for all.
    seen: the images, for ``instance``.
    Raises DataError for pairs that name unknown classes, and for a file of a matrix or of labels that cannot be used.
    """
    clean = labels.numpy()
    if config.kind == "file":
        noisy = read_labels(config, labels, classes, in_source).numpy()
        hit = noisy != clean
        transition = realised(labels, torch.from_numpy(noisy), len(classes))
    elif config.kind == "instance":
        assert seen is not None, "labels that depend on the images need them"
        noisy = draw_labels(seen.images, clean, len(classes), config.rate, seed, seen.mean, seen.std)
        hit = noisy != clean
        transition = realised(labels, torch.from_numpy(noisy), len(classes))
    else:
        transition = transition_matrix(config, classes)
        noisy, hit = _drawn(config, clean, transition, classes, seed, epoch)
    return NoisyLabels(
        clean=labels.clone(),
        noisy=torch.from_numpy(noisy),
        mask=torch.from_numpy(hit),
        corruption=float((noisy != clean).mean()) if len(clean) else 0.0,
        transition=transition,
    )


def _drawn(
    config: NoiseConfig, clean: np.ndarray, transition: Tensor, classes: tuple[str, ...], seed: int, epoch: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 (N,) and which images were hit, bool (N,)."""
    count = len(classes)
    noisy, hit = clean.copy(), np.zeros(len(clean), dtype=bool)
    if config.kind == "none":
        return noisy, hit
    generator = numpy_generator(seed, "noise", *(() if epoch is None else (epoch,)))
    chance = generator.random(len(clean))
    if config.hit == "fixed" and epoch is not None:
        chance = numpy_generator(seed, "noise", "hit").random(len(clean))
    if config.kind == "matrix":
        noisy = _by_matrix(transition.numpy(), clean, chance, generator, exact=config.count == "exact")
        return noisy, noisy != clean
    if config.kind == "uniform":
        replacement = generator.integers(0, count, len(clean))
    elif config.kind == "symmetric":
        replacement = (clean + generator.integers(1, count, len(clean))) % count
    elif config.kind == "pair":
        replacement = (clean + 1) % count
    else:
        replacement = partners(classes, config.pairs)[clean]
    eligible = np.flatnonzero(replacement >= 0)
    if config.count == "exact":
        ranked = eligible[np.argsort(chance[eligible], kind="stable")]
        hit[ranked[: round(config.rate * len(eligible))]] = True
    else:
        hit[eligible] = chance[eligible] < config.rate
    noisy[hit] = replacement[hit]
    return noisy, hit


def _by_matrix(
    matrix: np.ndarray, clean: np.ndarray, chance: np.ndarray, generator: np.random.Generator, *, exact: bool
) -> np.ndarray:
    """Labels int64 (N,) by a matrix (m, m). The images hit are those of their class with the smallest chance (N,)."""
    noisy = clean.copy()
    for right, row in enumerate(matrix / matrix.sum(axis=1, keepdims=True)):
        images = np.flatnonzero(clean == right)
        wrong = np.delete(np.arange(len(row)), right)
        if exact:
            quotas = np.floor(row * len(images)).astype(np.int64)
            by_remainder = np.argsort(quotas - row * len(images), kind="stable")
            quotas[by_remainder[: len(images) - quotas.sum()]] += 1
            replacement = generator.permutation(np.repeat(wrong, quotas[wrong]))
            ranked = images[np.argsort(chance[images], kind="stable")]
            noisy[ranked[: len(replacement)]] = replacement
        else:
            hit = images[chance[images] < row[wrong].sum()]
            cumulated = np.cumsum(row[wrong])
            drawn = np.searchsorted(cumulated, generator.random(len(hit)) * cumulated[-1], side="right")
            noisy[hit] = wrong[np.minimum(drawn, len(wrong) - 1)]
    return noisy


def write_static(path: Path, drawn: NoisyLabels, config: NoiseConfig, seed: int) -> None:
    """Write static noise as a small safetensors file, atomically. The same draw gives the same bytes.

    Tensors: ``clean``, ``noisy``, ``mask``, ``transition``. Metadata: format version, kind, count, specified rate,
    realised corruption, seed, of ``kind: file`` checksum and key, SHA-256 of all of it.
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
        **_which_file(config),
    }
    write_tensors(path, tensors, metadata)


def read_static(path: Path, config: NoiseConfig | None = None, seed: int | None = None) -> NoisyLabels:
    """Read and verify a file of :func:`write_static`. Raises DataError naming the file if it is missing or damaged, or
    was drawn from another configuration or seed than those that are given."""
    tensors, metadata, _ = read_tensors(path)
    if metadata.get("format") != FORMAT or metadata.get("content") != "noisy labels":
        raise DataError(f"{path}: does not hold noisy labels of format {FORMAT} (written by another version?)")
    expected: dict[str, Any] = (
        {} if config is None else {"kind": config.kind, "count": config.count, "rate": config.rate}
    )
    if config is not None:
        expected |= _which_file(config)
    for name, value in (expected | ({} if seed is None else {"seed": seed})).items():
        if metadata.get(name) != value:
            raise DataError(f"{path}: holds noisy labels of {name} {metadata.get(name)}, expected {value}")
    return NoisyLabels(**tensors, corruption=metadata["corruption"])


def _which_file(config: NoiseConfig) -> dict[str, str | None]:
    return {"file": config.sha256, "key": config.key} if config.kind == "file" else {}


def check_static(drawn: NoisyLabels, config: NoiseConfig, labels: Tensor, classes: tuple[str, ...], path: Path) -> None:
    """Raise DataError naming the file if the noisy labels it held belong to other clean labels, or to a noise of other
    probabilities."""
    if not torch.equal(drawn.clean, labels):
        raise DataError(f"{path}: holds noisy labels of another data set")
    if config.kind not in WITHOUT_MATRIX and not torch.equal(drawn.transition, transition_matrix(config, classes)):
        raise DataError(f"{path}: holds noisy labels of other probabilities")


def labels_digest(labels: Tensor) -> str:
    """SHA-256 of training labels, as a result records which ones its run saw."""
    return hashlib.sha256(labels.to(torch.int64).numpy().astype("<i8").tobytes()).hexdigest()

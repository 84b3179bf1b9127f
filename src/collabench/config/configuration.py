"""A configuration, a run of it with one seed, and their identities, which determine the ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import Field

from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.config.method_files import check_methods
from collabench.config.sections import MethodConfig, ModelConfig, RecipeConfig
from collabench.core.record import Record
from collabench.methods import METHODS

#: Raise this whenever training, evaluation or data handling changes numbers for every method.
ENGINE_REVISION = 1

#: How several networks or passes draw dropout masks. Part of the identity of runs in which more than one does. 1: from
#: one stream, one after the other. 2: every copy from a stream of its own, with the same masks if it processes a batch
#: again.
DROPOUT_REVISION = 2

#: Seeds of tables are below this number, seeds of further ensemble members above it. Another step would change how
#: members draw what they share, because identities cover their seeds.
MEMBER_SEED_STEP = 100_000


#: The five names that make a configuration, each with the section of ``params.yaml`` that defines it.
SECTIONS = {"dataset": "datasets", "noise": "noise", "model": "models", "recipe": "recipes", "method": "methods"}
PARTS = tuple(SECTIONS)
#: The names that the methods of a table are compared under: all but the method's own.
CONDITION = tuple(part for part in PARTS if part != "method")


def member_seed(seed: int, member: int) -> int:
    """Seed of an ensemble's member: the run's own for member 0, else one that no table or other ensemble uses."""
    return seed + MEMBER_SEED_STEP * member


check_methods(METHODS)

#: Methods whose paper's text is not at hand → what has to stand wherever their results are shown.
READINGS = {name: reading for name, module in METHODS.items() if (reading := module.Method.reading) is not None}


class Configuration(Record):
    """Everything about a run except its seed. ``names`` are those of ``params.yaml``; they are not part of the
    identity."""

    names: dict[str, str]
    dataset: DatasetConfig
    noise: NoiseConfig
    model: ModelConfig
    recipe: RecipeConfig
    method: MethodConfig
    peer_models: dict[str, ModelConfig] = Field(default_factory=dict)
    requires: tuple[RequiredRun, ...] = ()

    def identity(self) -> dict[str, Any]:
        """The resolved values that the identity's hash covers, as plain data."""
        models = (self.model if name is None else self.peer_models[name] for name in self.method.passes())
        drawing = sum(model.draws_dropout for model in models)
        return {
            "engine": ENGINE_REVISION,
            "method_revision": METHODS[self.method.method].Method.revision,
            "dataset": self.dataset.identity(),
            "noise": self.noise.identity(),
            "model": self.model.identity(),
            "recipe": self.recipe.identity(),
            "method": {"method": self.method.method, **self.method.identity()},
            "peer_models": [model.identity() for model in self.peer_models.values()],
            "requires": [[required.configuration.id, member_seed(0, required.member)] for required in self.requires],
            **({"dropout_revision": DROPOUT_REVISION} if drawing > 1 else {}),
            **({"revisions": revisions} if (revisions := self.method.revisions()) else {}),
        }

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The run's own model and those that its method names."""
        return (self.model, *self.peer_models.values())

    @cached_property
    def id(self) -> str:
        """``<source>-<model family><depth>-<method>-<12 hexadecimal digits>``."""
        depth = getattr(self.model, "depth", None) or ""
        prefix = f"{self.dataset.source}-{self.model.family.replace('_', '')}{depth}-{self.method.method}"
        return f"{prefix.replace('_', '-')}-{digest(self.identity())[:12]}"

    @property
    def label(self) -> str:
        """``digits · uniform20 · resnet8 · fast · individual``: the names of ``params.yaml``."""
        return " · ".join(self.names[part] for part in PARTS)


class RequiredRun(Record):
    """A run of another configuration that must be finished first."""

    configuration: Configuration
    member: int = 0


def dataset_key(dataset: DatasetConfig) -> str:
    """Folder name of a prepared data set. Two names of ``params.yaml`` with the same content share it, and so do all
    splits of a pool that are drawn per seed."""
    return _key(dataset.pool())


def noise_key(dataset: DatasetConfig, noise: NoiseConfig) -> str:
    """Folder name of the static noisy labels of a data set."""
    return f"{_key(dataset)}-{noise.kind}-{digest(noise.identity())[:8]}"


def _key(dataset: DatasetConfig) -> str:
    return f"{dataset.source}-{digest(dataset.identity())[:8]}"


@dataclass(frozen=True)
class Run:
    """One training run: a configuration and a seed."""

    configuration: Configuration
    seed: int

    @property
    def id(self) -> str:
        return f"{self.configuration.id}-s{self.seed}"

    @property
    def data_seed(self) -> int:
        """The seed of noisy labels, hold-out, and a split that is drawn per seed. All members of an ensemble have the
        data of the ensemble's seed, and differ in initial weights, data order, augmentation and dropout."""
        return self.seed % MEMBER_SEED_STEP

    def requires(self) -> tuple[Run, ...]:
        """The runs whose weights or logits this one needs."""
        return tuple(
            Run(required.configuration, member_seed(self.seed, required.member))
            for required in self.configuration.requires
        )


def digest(value: Any) -> str:
    """SHA-256 of plain data in its canonical JSON form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(first: Any, second: Any, path: str = "") -> Iterator[str]:
    """The fields in which two identities differ, as ``recipe.epochs: 20 → 40``. Explains why a run is repeated."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
    elif (before := json.dumps(first)) != (after := json.dumps(second)):  # compared as JSON, where a tuple is a list
        yield f"{path}: {before} → {after}"

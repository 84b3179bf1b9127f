"""What is run: the resolved specification of a run, its identity, and the expansion of tables into runs.

``run_id`` is a readable prefix and a hash over everything that can change the numbers: the resolved data set, noise,
model, recipe, method and seed, the runs that it depends on, the method's and the engine's revision. Names in
``params.yaml``, paths, workers and devices are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import Field

from collabench.config import DatasetConfig, MethodConfig, ModelConfig, NoiseConfig, Params, ProfileConfig, RecipeConfig
from collabench.errors import ConfigError
from collabench.methods import METHODS
from collabench.strict import Strict

#: Raise whenever training, evaluation or data handling changes numbers for every method.
ENGINE_REVISION = 1

#: How several networks, or passes, draw masks of dropout; part of the identity of runs where more than one does. 1: from one
#: stream in turn. 2: every copy from a stream of its own, and the same masks for a batch that it sees again.
DROPOUT_REVISION = 2

#: Seeds that tables use lie below this; the seeds of further ensemble members above. (Another step stands for another way to draw
#: what members share, since their seeds are part of what identities cover.)
MEMBER_SEED_STEP = 100_000


def member_seed(seed: int, member: int) -> int:
    """Seed of an ensemble's member: the run's own for member 0, else one that no table and no other ensemble uses."""
    return seed + MEMBER_SEED_STEP * member


class Configuration(Strict):
    """Everything about a run but its seed. ``names`` are those of ``params.yaml``: for people, not for identity."""

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
            "noise": self.noise.model_dump(),
            "model": self.model.model_dump(),
            "recipe": self.recipe.identity(),
            "method": {"method": self.method.method, **self.method.identity()},
            "peer_models": [model.model_dump() for model in self.peer_models.values()],
            "requires": [[required.configuration.id, member_seed(0, required.member)] for required in self.requires],
            **({"dropout_revision": DROPOUT_REVISION} if drawing > 1 else {}),
        }

    @cached_property
    def id(self) -> str:
        """``<source>-<model family><depth>-<method>-<12 hexadecimal digits>``."""
        depth = getattr(self.model, "depth", None) or ""
        prefix = f"{self.dataset.source}-{self.model.family.replace('_', '')}{depth}-{self.method.method}"
        return f"{prefix.replace('_', '-')}-{digest(self.identity())[:12]}"

    @property
    def label(self) -> str:
        """``digits · uniform20 · resnet8 · fast · individual``: the names of ``params.yaml``."""
        return " · ".join(self.names[part] for part in ("dataset", "noise", "model", "recipe", "method"))


class RequiredRun(Strict):
    """A run of another configuration that must be finished first."""

    configuration: Configuration
    member: int = 0


def dataset_key(dataset: DatasetConfig) -> str:
    """Folder name of a prepared data set: the same for two names with the same content."""
    return f"{dataset.source}-{digest(dataset.identity())[:8]}"


def noise_key(dataset: DatasetConfig, noise: NoiseConfig) -> str:
    """Folder name of the static noisy labels of a data set."""
    return f"{dataset_key(dataset)}-{noise.kind}-{digest(noise.model_dump())[:8]}"


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
        """What noisy labels and the hold-out are drawn from: all members of an ensemble see the data that the seed's other runs
        see, and differ in initial weights, order, augmentation and dropout."""
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
    """The fields in which two identities differ: ``recipe.epochs: 20 → 40``. Explains why something would be rerun."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
    elif (before := json.dumps(first)) != (after := json.dumps(second)):  # as JSON: there a tuple is a list
        yield f"{path}: {before} → {after}"


#: Whether the parts of a configuration are known to fit each other. To find out is to build its network on the meta
#: device, which for the first one is a wait of seconds.
KnownToFit = Callable[[Configuration], bool]


def nothing_is_known(_: Configuration) -> bool:
    """Every configuration is to be looked at."""
    return False


def resolve(
    params: Params,
    *,
    dataset: str,
    noise: str,
    model: str,
    recipe: str,
    method: str,
    known_to_fit: KnownToFit = nothing_is_known,
) -> Configuration:
    """The configuration that five names of ``params.yaml`` stand for, with everything that it requires.

    Raises ConfigError where the parts do not fit each other.
    """
    from collabench.compatibility import check

    settings = params.methods[method]
    requires = tuple(
        RequiredRun(
            configuration=resolve(
                params,
                dataset=dataset,
                noise=noise,
                model=requirement.model or model,
                recipe=requirement.recipe or recipe,
                method=requirement.method,
                known_to_fit=known_to_fit,
            ),
            member=requirement.member,
        )
        for requirement in settings.requires()
    )
    configuration = Configuration(
        names={"dataset": dataset, "noise": noise, "model": model, "recipe": recipe, "method": method},
        dataset=params.datasets[dataset],
        noise=params.noise[noise],
        model=params.models[model],
        recipe=params.recipes[recipe],
        method=settings,
        peer_models={name: params.models[name] for _, section, name in settings.references() if section == "models"},
        requires=requires,
    )
    if not known_to_fit(configuration):
        check(configuration)
    return configuration


@dataclass(frozen=True)
class Cell:
    """One row of one condition of a table: a configuration and the seeds that the table shows."""

    table: str
    configuration: Configuration
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All that a profile asks for.

    cells: what the tables show. runs: every run, required ones included, in the order in which they are to be run: seed
    blocks first, so that a study that is stopped early compares at equal n, and requirements before what needs them.
    """

    profile: str
    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]

    @cached_property
    def configurations(self) -> dict[str, Configuration]:
        return {run.configuration.id: run.configuration for run in self.runs}

    def seeds_of(self) -> dict[str, list[int]]:
        """Configuration id → all seeds that the plan needs of it, in run order."""
        seeds: dict[str, list[int]] = {}
        for run in self.runs:
            seeds.setdefault(run.configuration.id, []).append(run.seed)
        return seeds


def make_plan(
    params: Params, profile_name: str, extra_cells: Iterable[Cell] = (), known_to_fit: KnownToFit = nothing_is_known
) -> Plan:
    """Expand the profile's tables (and ``extra_cells``, from published tables) into runs. Pure; reads no file."""
    profile = params.profiles[profile_name]
    try:
        cells = [*table_cells(params, profile, known_to_fit), *extra_cells]
    except ConfigError as error:
        raise ConfigError(f"{params.place(error.key)}profiles.{profile_name}: {error}") from None
    return Plan(profile_name, tuple(cells), tuple(order_runs(cells, profile.seeds_per_job)))


def table_cells(params: Params, profile: ProfileConfig, known_to_fit: KnownToFit = nothing_is_known) -> Iterator[Cell]:
    """The cells of the profile's own tables, in the order of the file."""
    for table in profile.tables:
        seeds = profile.seed_range(table.seeds)
        for dataset in table.datasets:
            for noise in table.noise:
                for model in table.models:
                    for recipe in table.recipes:
                        for method in table.methods:
                            try:
                                configuration = resolve(
                                    params,
                                    dataset=dataset,
                                    noise=noise,
                                    model=model,
                                    recipe=recipe,
                                    method=method,
                                    known_to_fit=known_to_fit,
                                )
                            except ConfigError as error:
                                raise ConfigError(f"table {table.name}: {error}", error.key) from None
                            yield Cell(table.name, configuration, seeds)


def order_runs(cells: Iterable[Cell], block: int) -> list[Run]:
    """Every distinct run once: by blocks of ``block`` seeds, requirements first, then in the order of the tables."""
    by_block: dict[int, list[Run]] = {}
    for cell in cells:
        for seed in cell.seeds:
            by_block.setdefault(seed // block, []).append(Run(cell.configuration, seed))
    return with_required(run for number in sorted(by_block) for run in by_block[number])


def with_required(runs: Iterable[Run]) -> list[Run]:
    """``runs`` and all that they require, each once, and what is required before what requires it."""
    ordered: dict[str, Run] = {}

    def add(run: Run) -> None:
        if run.id not in ordered:
            for required in run.requires():
                add(required)
            ordered[run.id] = run

    for run in runs:
        add(run)
    return list(ordered.values())

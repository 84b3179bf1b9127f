"""The plan of a profile: its tables resolved into configurations and expanded into runs.

``run_id`` consists of a readable prefix and a hash over everything that can change the numbers: the resolved data set,
noise, model, recipe, method and seed, the required runs, and the revisions of the method and the engine. Names in
``params.yaml``, paths, workers and devices are not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from collabench.config.configuration import Configuration, RequiredRun, Run
from collabench.config.params import Params
from collabench.config.sections import ProfileConfig
from collabench.core.errors import ConfigError

#: Tells whether the parts of a configuration are known to fit. Checking builds the network on the meta device, which
#: takes seconds for the first one.
KnownToFit = Callable[[Configuration], bool]


def nothing_is_known(_: Configuration) -> bool:
    """No configuration is known to fit: all are checked."""
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
    """The configuration for five names of ``params.yaml``, with everything that it requires.

    Raises ConfigError if the parts do not fit each other.
    """
    from collabench.config.compatibility import check

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
    """All runs that a profile needs.

    cells: the rows of the tables.
    runs: every run, including required ones, in the order of execution. Blocks of seeds come first, so that a study
    that is stopped early has equal numbers of seeds. Required runs come before the runs that need them.
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
    """Expand the profile's tables, and ``extra_cells`` from published tables, into runs. Reads no file."""
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
    """Every run once: in blocks of ``block`` seeds, required runs first, then in the order of the tables."""
    by_block: dict[int, list[Run]] = {}
    for cell in cells:
        for seed in cell.seeds:
            by_block.setdefault(seed // block, []).append(Run(cell.configuration, seed))
    return with_required(run for number in sorted(by_block) for run in by_block[number])


def with_required(runs: Iterable[Run]) -> list[Run]:
    """``runs`` and all runs that they require, each once, required runs first."""
    ordered: dict[str, Run] = {}

    def add(run: Run) -> None:
        if run.id not in ordered:
            for required in run.requires():
                add(required)
            ordered[run.id] = run

    for run in runs:
        add(run)
    return list(ordered.values())

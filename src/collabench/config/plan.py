"""The plan of a profile: its tables resolved into configurations and expanded into runs.

``run_id`` consists of a readable prefix and a hash over everything that can change the numbers: the resolved data set,
noise, model, recipe, method and seed, the required runs, and the revisions of the method and the engine. Names in
``params.yaml``, paths, workers and devices are not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from collabench.config.configuration import Configuration, RequiredRun, Run
from collabench.config.dataset_shape import shape_or_assumed
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

    shape = shape_or_assumed(params.datasets[dataset]).network_shape(params.recipes[recipe])
    settings = params.methods[method].for_images(shape)
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
class Growth:
    """How many seeds the claims' configurations have, by configuration id, counted from the profile's first seed.

    reached: the seeds that looks have used. blocks: what the next looks of undecided claims need, one mapping for each
    claim and scope, in the order in which they are trained. last: the seeds of the last look. edges: the numbers of
    seeds at which any look or table ends.
    """

    reached: Mapping[str, int]
    blocks: tuple[Mapping[str, int], ...]
    last: Mapping[str, int]
    edges: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All runs that a profile needs.

    cells: the rows of the tables. Their seeds never depend on results.
    runs: every run, including required ones, in the order of execution. Blocks of seeds come first, so that a study
    that is stopped early has equal numbers of seeds. Required runs come before the runs that need them.
    grown: the further seeds of claims' configurations, which no table shows. ahead: ids of the runs that only the next
    looks of undecided claims need; a report can be made without them. growth: the numbers behind both; None if the
    profile has no sequential design. ungrown: the plan before it grew; None for itself.
    """

    profile: str
    cells: tuple[Cell, ...]
    runs: tuple[Run, ...]
    grown: tuple[Cell, ...] = ()
    ahead: frozenset[str] = frozenset()
    growth: Growth | None = None
    ungrown: Plan | None = None
    first_seed: int = 0

    @cached_property
    def configurations(self) -> dict[str, Configuration]:
        return {run.configuration.id: run.configuration for run in self.runs}

    @property
    def of_tables(self) -> Plan:
        """The plan of the tables alone, which never depends on results."""
        return self if self.ungrown is None else self.ungrown

    @cached_property
    def due(self) -> tuple[Run, ...]:
        """The runs without which no report can be made: all but those that are ahead."""
        return tuple(run for run in self.runs if run.id not in self.ahead)

    @cached_property
    def possible(self) -> tuple[Run, ...]:
        """The runs that the plan needs now, and those that it may need once more results are there."""
        if self.growth is None:
            return self.runs
        further = _cells_of(self, self.growth.last)
        return tuple(with_required([*self.runs, *(Run(cell.configuration, s) for cell in further for s in cell.seeds)]))

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
    runs = order_runs(cells, profile.seeds_per_job)
    return Plan(profile_name, tuple(cells), tuple(runs), first_seed=profile.first_seed)


def grow(plan: Plan, growth: Growth | None, seeds_per_job: int) -> Plan:
    """The plan with the seeds that looks have used and the next looks need. Its tables stay what they are.

    seeds_per_job: as the profile says. Configurations that the plan does not have are ignored.
    """
    plan = plan.of_tables
    if growth is None:
        return plan
    reached = with_required([*plan.runs, *order_runs(_cells_of(plan, growth.reached), seeds_per_job)])
    blocks = [run for block in growth.blocks for run in order_runs(_cells_of(plan, block), seeds_per_job)]
    runs = with_required([*reached, *blocks])
    most: dict[str, int] = {}
    for numbers in (growth.reached, *growth.blocks):
        for name, number in numbers.items():
            most[name] = max(number, most.get(name, 0))
    return replace(
        plan,
        runs=tuple(runs),
        grown=tuple(_cells_of(plan, most)),
        ahead=frozenset(run.id for run in runs[len(reached) :]),
        growth=growth,
        ungrown=plan,
    )


def _cells_of(plan: Plan, numbers: Mapping[str, int]) -> list[Cell]:
    """One cell for each configuration of ``numbers``, with its first seeds, in the order of ``numbers``."""
    first = plan.first_seed
    return [
        Cell("", plan.configurations[name], tuple(range(first, first + number)))
        for name, number in numbers.items()
        if name in plan.configurations
    ]


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

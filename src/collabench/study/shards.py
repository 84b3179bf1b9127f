"""Division of a plan among hosts without a cluster: ``--shard 2/3`` is the second of three parts.

A part consists of whole configurations with all their seeds. A configuration is in the same part as those that it
requires (teachers, ensemble members), so that no run is in two parts and each part can be trained alone. The parts
depend on the tables only, never on what a host has stored or measured: every host computes the same parts. They are
balanced by the work that the tables imply: images of all epochs and seeds times the operations of the plain network. A
method's additional work is not counted.

A claim that compares configurations of several parts is decided where all of their results are. A host that has
imported the others' results continues with its part of what the claims then need.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache

from collabench.config.configuration import Configuration, Run
from collabench.config.dataset_shape import shape_or_assumed
from collabench.config.plan import Plan
from collabench.core.errors import CollabenchError
from collabench.methods import METHODS
from collabench.models import ModelSettings

#: Environment variable with the part that a study's processes train.
SHARD = "COLLABENCH_SHARD"


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count``."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse(text: str) -> Shard:
    """Parse ``2/3``. Raises CollabenchError for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise CollabenchError(f"--shard {text}: write i/k, part i of k; two hosts take 1/2 and 2/2")
    return Shard(int(match[1]), int(match[2]))


def from_environment() -> Shard | None:
    """The part that $COLLABENCH_SHARD names. Raises CollabenchError if it is not valid."""
    text = os.environ.get(SHARD)
    return parse(text) if text else None


def runs_of(plan: Plan, shard: Shard | None) -> list[Run]:
    """The plan's runs in the part, in the plan's order; all runs for None."""
    if shard is None:
        return list(plan.runs)
    inside = parts(plan, shard.count)[shard.number - 1]
    return [run for run in plan.runs if run.configuration.id in inside]


def parts(plan: Plan, count: int) -> list[set[str]]:
    """Configuration ids of each of ``count`` parts. With fewer groups than parts some parts are empty.

    Groups of configurations that require each other are assigned, largest first, to the part with the least work so
    far. No part then has more work than the mean plus the largest group.
    """
    plan = plan.of_tables
    seeds = {name: len(numbers) for name, numbers in plan.seeds_of().items()}
    works = {name: seeds[name] * work_of_run(c) for name, c in plan.configurations.items()}
    groups = _groups(plan)
    totals = [sum(works[name] for name in group) for group in groups]
    chosen: list[set[str]] = [set() for _ in range(count)]
    load = [0] * count
    for position in sorted(range(len(groups)), key=lambda i: (-totals[i], i)):
        least = load.index(min(load))
        chosen[least] |= groups[position]
        load[least] += totals[position]
    return chosen


def _groups(plan: Plan) -> list[set[str]]:
    """Groups of configurations that are connected by requirements, in the order of the plan."""
    group_of: dict[str, set[str]] = {}
    for name, configuration in plan.configurations.items():
        connected = {name}
        for required in configuration.requires:
            connected |= group_of.get(required.configuration.id, {required.configuration.id})
        connected |= group_of.get(name, set())
        for member in connected:
            group_of[member] = connected
    return list({id(group): group for group in group_of.values()}.values())


def work_of_run(configuration: Configuration) -> int:
    """Floating-point operations of a run's forward passes, as far as the plan tells.

    If only the files of a data set tell its shape, one is assumed. A wrong assumption affects the balance only.
    """
    recipe, form = configuration.recipe, shape_or_assumed(configuration.dataset)
    passes = recipe.epochs if METHODS[configuration.method.method].Method.trains else 1
    return form.train_images * passes * _forward(configuration.model, form.network_shape(recipe), form.classes)


@lru_cache(maxsize=256)
def _forward(model: ModelSettings, shape: tuple[int, int, int], classes: int) -> int:
    import torch

    from collabench.models.on_meta import backbone_on_meta
    from collabench.training.flops import flops_of

    network = backbone_on_meta(model, shape, classes).eval()
    with torch.device("meta"), torch.no_grad():
        return flops_of(lambda: network(torch.empty(1, *shape)))

"""What a profile's trainings add up to, counted without GPU, data or memory."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from collabench.config.batch_sizes import batch_sizes, held_out
from collabench.config.configuration import Configuration, digest
from collabench.config.dataset_shape import DatasetShape
from collabench.core.processes import end_with_parent
from collabench.core.text import counted
from collabench.study.estimate import shape_of_inputs
from collabench.study.needs import lease_of
from collabench.study.study import Study


@dataclass(frozen=True)
class Part:
    """The runs of one configuration.

    flops: of all its runs' training together. flops_per_image: of one image in training. lease: bytes of a GPU that a
    run leases. disk: bytes of all its runs' weights and logits.
    """

    configuration: Configuration
    trainings: int
    flops: int
    flops_per_image: int
    lease: int
    disk: int


@dataclass(frozen=True)
class Totals:
    """The sums of a profile. ``parts``: one for each configuration of the plan."""

    profile: str
    parts: tuple[Part, ...]

    @cached_property
    def trainings(self) -> int:
        """Number of runs that train something; an ensemble of trained networks does not."""
        return sum(part.trainings for part in self.parts if part.flops)

    @cached_property
    def flops(self) -> int:
        return sum(part.flops for part in self.parts)

    @cached_property
    def lease(self) -> int:
        """Bytes of a GPU that the largest run leases."""
        return max((part.lease for part in self.parts), default=0)

    @cached_property
    def disk(self) -> int:
        return sum(part.disk for part in self.parts)

    def on(self, dataset: str) -> Totals:
        """The part on one data set, by its name in ``params.yaml``."""
        return Totals(self.profile, tuple(one for one in self.parts if one.configuration.names["dataset"] == dataset))

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(part.configuration.names["dataset"] for part in self.parts))

    @property
    def line(self) -> str:
        """``560 trainings, 33.10 EFLOP; the largest run leases 3.4 GB of a GPU; results take 1.2 GB``."""
        return (
            f"{counted(self.trainings, 'training')}, {self.flops / 1e18:.2f} EFLOP; the largest run leases "
            f"{self.lease / 1e9:.1f} GB of a GPU; results take {self.disk / 1e9:.1f} GB"
        )


def totals(study: Study, workers: int = 1, known: dict[str, tuple[int, int, int]] | None = None) -> Totals:
    """Count the study's plan. Takes some seconds of a core for each network, method and shape of images.

    workers: processes that count. known: what was counted for other studies; what is counted for this one is added to
    it. Raises ConfigError if the shape of a data set is known neither from its files nor from its source.
    """
    forms = {name: shape_of_inputs(study, configuration) for name, configuration in study.plan.configurations.items()}
    counts = {} if known is None else known
    keys, waiting = {}, dict[str, tuple[Configuration, DatasetShape]]()
    for name, configuration in study.plan.configurations.items():
        identity = configuration.identity()
        counted = [identity[part] for part in identity if part not in ("dataset", "noise")]
        keys[name] = digest([forms[name].model_dump(), configuration.dataset.source, *counted])
        if keys[name] not in counts:
            waiting.setdefault(keys[name], (configuration, forms[name]))
    counts.update(zip(waiting, _count_all(list(waiting.values()), workers), strict=True))
    seeds, parts = study.plan.seeds_of(), []
    for name, configuration in study.plan.configurations.items():
        per_image, lease, disk = counts[keys[name]]
        recipe, runs = configuration.recipe, len(seeds[name])
        trained = forms[name].train_images - held_out(forms[name].train_images, recipe.validation_fraction)
        images = sum(batch_sizes(trained, recipe.batch_size, recipe.last_batch)) * recipe.epochs
        parts.append(Part(configuration, runs, per_image * images * runs, per_image, lease, disk * runs))
    return Totals(study.workspace.profile, tuple(parts))


def _count_all(chosen: list[tuple[Configuration, DatasetShape]], workers: int) -> list[tuple[int, int, int]]:
    if min(workers, len(chosen)) <= 1:
        return [_count(one) for one in chosen]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chosen)), context, end_with_parent, (os.getpid(),)) as pool:
        return list(pool.map(_count, chosen))


def _count(chosen: tuple[Configuration, DatasetShape]) -> tuple[int, int, int]:
    """FLOPs of one image in training, bytes of a GPU, and bytes of weights and logits of one run."""
    from collabench.training.memory import count_both

    configuration, form = chosen
    flops, parameters, memory = count_both(configuration, form.network_shape(configuration.recipe), form.classes)
    disk = 4 * parameters + 4 * form.test_images * form.classes
    return flops, lease_of(memory.peak, configuration, form), disk

"""What a profile's trainings add up to, counted without GPU, data or memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from collabench.config.batch_sizes import batch_sizes, held_out
from collabench.config.configuration import Configuration, digest
from collabench.config.dataset_shape import DatasetShape
from collabench.core.errors import ConfigError
from collabench.study.needs import lease_bytes
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

    @property
    def line(self) -> str:
        """``560 trainings, 33.1 EFLOP; the largest run leases 3.4 GB of a GPU; results take 1.2 GB``."""
        return (
            f"{self.trainings} trainings, {self.flops / 1e18:.1f} EFLOP; the largest run leases {self.lease / 1e9:.1f} "
            f"GB of a GPU; results take {self.disk / 1e9:.1f} GB"
        )


def totals(study: Study) -> Totals:
    """Count the study's plan. Takes about a second for each network, method and shape of images.

    Raises ConfigError if the shape of a data set is known neither from its files nor from its source.
    """
    seeds, counted, parts = study.plan.seeds_of(), dict[str, tuple[int, int, int]](), []
    for name, configuration in study.plan.configurations.items():
        form = study.inputs.shape(configuration)
        if form is None:
            raise ConfigError(
                f"{configuration.label}: how many images it has is known once the data set is prepared: "
                f"collabench data prepare -p {study.workspace.profile}"
            )
        identity = configuration.identity()
        same = digest([form.model_dump(), *(identity[part] for part in identity if part not in ("dataset", "noise"))])
        if same not in counted:
            counted[same] = _count(configuration, form)
        per_image, lease, disk = counted[same]
        recipe = configuration.recipe
        trained = form.train_images - held_out(form.train_images, recipe.validation_fraction)
        images = sum(batch_sizes(trained, recipe.batch_size, recipe.last_batch)) * recipe.epochs
        runs = len(seeds[name])
        parts.append(Part(configuration, runs, per_image * images * runs, per_image, lease, disk * runs))
    return Totals(study.workspace.profile, tuple(parts))


def _count(configuration: Configuration, form: DatasetShape) -> tuple[int, int, int]:
    from collabench.training.flops import count

    counts = count(configuration, form.network_shape(configuration.recipe), form.classes)
    disk = 4 * counts.parameters + 4 * form.test_images * form.classes
    return counts.training, lease_bytes(configuration, form), disk

r"""Knowledge distillation (Hinton, Vinyals & Dean 2015): one network learns from labels and from a finished teacher.

Loss, with the student's logits z, the teacher's softened probabilities q, weight w and temperature T::

    J = (1 - w) CE(onehot(y), z; 1) + w T^2 KL(q || softmax(z; T))

Terms: ``hard``, ``distillation``. No text of this paper is at hand: all values are defaults of this project.

======================= ==============================================================================================
``weight``              w = 0.9; with 0 training equals individual learning bit for bit
``temperature``         T = 4
``teacher``             the method of ``params.yaml`` that trains the teacher first, on the same data and noise
                        (``individual``; an ensemble's entry makes its mean prediction the teacher)
``teacher_model``       the teacher's model (default: the student's)
``teacher_recipe``      the teacher's recipe (default: the student's)
``teacher_members``     1; with k > 1 the teacher is an ensemble of k such runs
``same_initialisation`` off (default): every teacher has initial weights, data order and augmentation of its own. On:
                        the first teacher is the run of the student's own seed, so that a student of the same model
                        starts from the initial weights that its teacher started from
``teacher_average``     how the members become one teacher: ``probabilities`` (default),
                        q = mean_j softmax(z_j; T), or ``logits``, q = softmax(mean_j z_j; T)
``teacher_file``        instead of a run: a file with the weights of ``teacher_model`` (safetensors, or tensors alone by
                        ``torch.save``). A path that is not absolute begins at the folder of ``params.yaml``
``teacher_sha256``      the file's SHA-256, which stands for it in the run's identity: the path does not enter it
======================= ==============================================================================================

The teacher is frozen, in eval mode, and no part of the training network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from collabench.core.errors import ConfigError
from collabench.core.record import LATER
from collabench.methods import contract
from collabench.methods.losses import hard_cross_entropy, kullback_leibler, log_probabilities
from collabench.models import Backbone
from collabench.models.pretrained import misfits, read_weights


class Settings(contract.MethodSettings):
    method: Literal["kd"]
    weight: float = Field(default=0.9, ge=0.0, le=1.0)
    temperature: float = Field(default=4.0, ge=0.01, le=1000.0)
    teacher: str = "individual"
    teacher_model: str | None = None
    teacher_recipe: str | None = None
    teacher_members: int = Field(default=1, ge=1, le=64)
    same_initialisation: Annotated[bool, LATER] = False
    teacher_average: Literal["probabilities", "logits"] = "probabilities"
    teacher_file: str | None = Field(default=None, min_length=1)
    teacher_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.teacher_file is None) != (self.teacher_sha256 is None):
            raise ValueError("teacher_file and teacher_sha256 go together")
        shapes_a_run = ("teacher", "teacher_recipe", "teacher_members", "same_initialisation", "teacher_average")
        changed = [name for name in shapes_a_run if getattr(self, name) != type(self).model_fields[name].default]
        if self.teacher_file is not None and changed:
            raise ValueError(f"teacher_file is the whole teacher: remove {', '.join(changed)}")
        if self.teacher_members == 1 and self.teacher_average != "probabilities":
            raise ValueError("teacher_average belongs to teacher_members above 1")
        return self

    def without_effect(self) -> dict[str, str]:
        if self.weight == 1:
            return {"label_smoothing": "weight below 1"}
        return {} if self.weight else dict.fromkeys(("temperature", "teacher_average"), "weight above 0")

    def references(self) -> tuple[tuple[str, str, str], ...]:
        named = [("teacher_model", "models", self.teacher_model)]
        if self.teacher_file is None:
            named = [("teacher", "methods", self.teacher), *named, ("teacher_recipe", "recipes", self.teacher_recipe)]
        return tuple((field, section, name) for field, section, name in named if name is not None)

    def requires(self) -> tuple[contract.Requirement, ...]:
        if self.teacher_file is not None:
            return ()
        first = 0 if self.same_initialisation else 1  # member 0 has the seed of this run
        return tuple(
            contract.Requirement(self.teacher, self.teacher_model, self.teacher_recipe, member)
            for member in range(first, first + self.teacher_members)
        )

    def with_absolute_paths(self, folder: Path) -> Self:
        if self.teacher_file is None:
            return self
        return self.model_copy(update={"teacher_file": str(folder / self.teacher_file)})

    def check_files(self, make_backbone: Callable[[str | None], Backbone] | None) -> None:
        if self.teacher_file is not None and self.teacher_sha256 is not None:
            path = Path(self.teacher_file)
            weights = read_weights(path, self.teacher_sha256, "teacher_file", "teacher_sha256")
            if make_backbone is not None:
                check_weights(make_backbone(self.teacher_model), path, weights)

    def identity(self) -> dict[str, Any]:
        # The required runs and the named model are part of the run's identity themselves.
        named = ("teacher", "teacher_model", "teacher_recipe", "teacher_file", "same_initialisation")
        return self.identity_fields(exclude=named)


class Method(contract.Method[Backbone]):
    settings: Settings
    _device: torch.device | None = None

    def build(self) -> Backbone:
        return self.context.make_backbone(0)

    @cached_property
    def teachers(self) -> list[nn.Module]:
        """The members of the teacher. A file is read when the first batch needs it, so that a finished student can be
        deployed without its teacher's file."""
        settings = self.settings
        if settings.teacher_file is None or settings.teacher_sha256 is None:
            return list(self.context.teachers)
        path, teacher = Path(settings.teacher_file), self.context.make_backbone(0, model=settings.teacher_model)
        weights = read_weights(path, settings.teacher_sha256, "teacher_file", "teacher_sha256")
        check_weights(teacher, path, weights)
        teacher.load_state_dict(weights, strict=False)  # a file may lack counts of batches
        teacher.eval().requires_grad_(False)
        return [teacher.to(memory_format=torch.channels_last)]  # type: ignore[call-overload] # torch's lacks memory_format

    def _teachers_on(self, device: torch.device) -> list[nn.Module]:
        """The members of the teacher on a device, moved once: a step would look at every weight."""
        if self._device != device:
            for teacher in self.teachers:
                teacher.to(device)
            self._device = device
        return self.teachers

    def losses(self, network: Backbone, batch: contract.Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            given = torch.stack([teacher(batch.images) for teacher in self._teachers_on(batch.images.device)])
        if given.shape[-1] != self.context.classes:
            raise ConfigError(
                f"the teacher has {given.shape[-1]} classes and the data set {self.context.classes}: "
                "a teacher must be trained on the same data set"
            )
        return self.terms(network(batch.images), batch.labels, given)

    def terms(self, logits: Tensor, labels: Tensor, given: Tensor) -> dict[str, Tensor]:
        """The terms of J from the student's logits (B, m) and those of the teacher's members (k, B, m)."""
        settings, temperature = self.settings, self.settings.temperature
        target = teacher_log_probabilities(given, temperature, settings.teacher_average)
        return {
            "hard": (1 - settings.weight) * hard_cross_entropy(logits, labels, settings.label_smoothing),
            "distillation": settings.weight * temperature**2 * kullback_leibler(target, logits, temperature),
        }

    def predict(self, network: Backbone, images: Tensor) -> Tensor:
        return network(images).unsqueeze(0)

    def deploy(self, network: Backbone) -> Backbone:
        return network


def teacher_log_probabilities(logits: Tensor, temperature: float, average: str) -> Tensor:
    """log q (B, m) of a teacher from its members' logits (k, B, m). average: see ``teacher_average`` above."""
    if average == "logits":
        return log_probabilities(logits.mean(dim=0), temperature)
    return torch.logsumexp(log_probabilities(logits, temperature), dim=0) - math.log(len(logits))


def check_weights(backbone: Backbone, path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise ConfigError (one line) unless the tensors of a file have exactly the names and shapes of ``backbone``'s."""
    problems = misfits(backbone, weights)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(
            f"teacher_file: {path}: not the weights of this teacher_model on this data set: {problems[0]}{more}"
        )

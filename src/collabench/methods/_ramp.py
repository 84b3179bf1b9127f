"""The ramp of a distillation term's weight, for methods whose authors' code has one."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from collabench.core.record import LATER
from collabench.methods import contract


class RampSettings(contract.MethodSettings):
    """The weight of the distillation terms rises over the first R epochs (the sigmoid-shaped ramp of Laine & Aila
    2017). In epoch e = 0, 1, 2 … it is multiplied by::

        r(e) = exp(-5 (1 - min(e, R) / R)^2)        exp(-5) = 0.0067 in the first epoch, 1 from epoch R on

    ``ramp_epochs``: R; 0: no ramp, r = 1. ``ramp_of``: R is ``ramp_epochs`` in a run of so many epochs and the same
    share of another run's epochs: 80 of 300 are 7.47 of 28. Without it, R is ``ramp_epochs`` in every run, even a
    shorter one.
    """

    ramp_epochs: Annotated[int, Field(ge=0, le=10_000), LATER] = 0
    ramp_of: Annotated[int | None, Field(ge=1, le=10_000), LATER] = None

    @model_validator(mode="after")
    def _ramp_is_used(self) -> Self:
        if self.ramp_of is not None and not self.ramp_epochs:
            raise ValueError("ramp_of belongs to ramp_epochs above 0")
        return self

    def ramp(self, epoch: int, epochs: int) -> float:
        """r(e) in the epoch e = ``epoch``, counted from 0, of a run of ``epochs``."""
        if not self.ramp_epochs:
            return 1.0
        length = self.ramp_epochs if self.ramp_of is None else self.ramp_epochs * epochs / self.ramp_of
        return math.exp(-5.0 * (1.0 - min(epoch / length, 1.0)) ** 2)

"""Ensemble: the mean of the softmax outputs of ``members`` independent runs of the method ``of``. Nothing is trained.

Member 0 is the run with the ensemble's own seed. The other members have derived seeds that no table and no other
ensemble uses, so that ensembles of different seeds are independent. All members use the data of the ensemble's seed
(the same noisy labels, the same hold-out) and differ in initial weights, data order, augmentation and dropout.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from collabench.methods import contract


class Settings(contract.MethodSettings):
    method: Literal["ensemble"]
    members: int = Field(default=2, ge=2, le=64)
    of: str = "individual"

    @model_validator(mode="after")
    def _trains_nothing(self) -> Self:
        if self.label_smoothing:
            raise ValueError("an ensemble trains nothing: label_smoothing belongs to the method that it is of")
        return self

    def references(self) -> tuple[tuple[str, str, str], ...]:
        return (("of", "methods", self.of),)

    def requires(self) -> tuple[contract.Requirement, ...]:
        return tuple(contract.Requirement(method=self.of, member=member) for member in range(self.members))


class Members(nn.Module):
    """The members side by side. The output is the logarithm of their mean probabilities, so that its softmax is that
    mean."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        log_probabilities = torch.stack([torch.log_softmax(member(images).float(), -1) for member in self.members])
        return torch.logsumexp(log_probabilities, 0) - torch.log(torch.tensor(float(len(self.members))))


class Method(contract.Method[Members]):
    trains = False

    def build(self) -> Members:
        return Members(list(self.context.teachers))

    def losses(self, network: Members, batch: contract.Batch) -> dict[str, Tensor]:
        raise NotImplementedError("an ensemble is not trained")

    def predict(self, network: Members, images: Tensor) -> Tensor:
        logits: Tensor = network(images)
        return logits.unsqueeze(0)

    def deploy(self, network: Members) -> Members:
        return network

r"""Deep mutual learning (Zhang, Xiang, Hospedales & Lu 2018): networks that train together and match each other.

Loss of network i of n, with p_j = softmax(z^(j); T) and weight w::

    J^(i) = CE(onehot(y), z^(i); 1) + w T^2 1/(n-1) sum_{j != i} KL(p_j || p_i)

Terms, summed over the networks: ``hard``, ``mimicry``. No text of this paper is at hand: all defaults are this
project's own. The authors' public code (the repository YingZhangDUT/Deep-Mutual-Learning) trains ``in_turn``, with
fresh targets that are constants, and with the ``sum`` over the others. The entries ``dml-as-published`` (two networks,
whose sum over the others is their mean) and ``dml-4-as-published`` of ``params.yaml`` have these values.

============================ =========================================================================================
``networks``, ``peers``      2 networks of the run's model, or other models beside it
``weight``                   w = 1; with 0 network 0 trains as in individual learning, bit for bit
``temperature``              T = 1
``over_others``              ``mean`` over the other networks (default), 1/(n-1) above; ``sum``: without that divisor.
                             With two networks both are the same
``gradient_through_target``  off: p_j is a constant in J^(i) (default); on: network j also learns from J^(i)
``optimisation``             ``simultaneous``: one step on the sum; ``in_turn``: each network's own step, one after the
                             other, on its own J^(i)
``refresh_targets``          in turn only. On (default): the others' logits are computed anew after their step, with the
                             same masks of dropout; off: as they were before the batch's first step. Off equals
                             ``simultaneous``: a network's step then depends on nothing that another's step changes
============================ =========================================================================================

Network 0, the run's own model, is deployed.

Departures from the public code that are no settings: each of its networks draws a batch of its own for its step,
whereas here all steps of a round share one batch, so that every method of a table sees the same batches; it adds 1e-8
inside the divergence; its recipe (Adam, label smoothing 0.1, for finding persons in images) is another one.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from collabench.core.record import LATER
from collabench.methods import contract
from collabench.methods._networks import NetworksSettings
from collabench.methods._running_statistics import fixed_running_statistics
from collabench.methods.losses import hard_cross_entropy, kullback_leibler, log_probabilities
from collabench.models.dropout import SameMasks


class Settings(NetworksSettings):
    method: Literal["dml"]
    weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    temperature: float = Field(default=1.0, ge=0.01, le=1000.0)
    over_others: Annotated[Literal["mean", "sum"], LATER] = "mean"
    gradient_through_target: bool = False
    optimisation: Literal["simultaneous", "in_turn"] = "simultaneous"
    refresh_targets: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.optimisation == "in_turn" and self.gradient_through_target:
            raise ValueError(
                "gradient_through_target needs optimisation: simultaneous (in turn, a step moves one network alone)"
            )
        if self.optimisation != "in_turn" and not self.refresh_targets:
            raise ValueError("refresh_targets belongs to optimisation: in_turn")
        return self

    def without_effect(self) -> dict[str, str]:
        of_mimicry = ("temperature", "over_others", "gradient_through_target", "optimisation", "refresh_targets")
        if not self.weight:
            return dict.fromkeys(of_mimicry, "weight above 0")
        return {"over_others": "three networks or more"} if self.count == 2 else {}

    def passes(self) -> tuple[str | None, ...]:
        networks = super().passes()
        asked_again = networks[:-1] if self.optimisation == "in_turn" and self.refresh_targets else ()
        return networks + asked_again


class Method(contract.Method[nn.ModuleList]):
    settings: Settings

    def build(self) -> nn.ModuleList:
        return nn.ModuleList(self.settings.make(self.context))

    def losses(self, network: nn.ModuleList, batch: contract.Batch) -> dict[str, Tensor]:
        logits = self.predict(network, batch.images)
        per_network = [self.terms(logits, batch.labels, own) for own in range(len(logits))]
        return {name: torch.stack([terms[name] for terms in per_network]).sum() for name in per_network[0]}

    def step(self, network: nn.ModuleList, batch: contract.Batch, update: contract.Update) -> dict[str, Tensor]:
        if self.settings.optimisation == "simultaneous":
            return super().step(network, batch, update)
        # A network's step changes no other network, so these outputs stay valid until their own network's step.
        masks = [SameMasks(member) for member in network]
        logits = [member(batch.images) for member in network]
        sums: dict[str, Tensor] = {}
        for own, member in enumerate(network):
            terms = self.terms(torch.stack(logits), batch.labels, own)
            update(contract.total(terms), list(member.parameters()))
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach()
            logits[own] = logits[own].detach()
            if self.settings.refresh_targets and own + 1 < len(network):
                with torch.no_grad(), fixed_running_statistics(member), masks[own]:
                    logits[own] = member(batch.images)
        return sums

    def terms(self, logits: Tensor, labels: Tensor, own: int) -> dict[str, Tensor]:
        """The terms of J^(own) from all networks' logits (n, B, m)."""
        settings, temperature = self.settings, self.settings.temperature
        others = torch.stack([logits[other] for other in range(len(logits)) if other != own])
        target = log_probabilities(others if settings.gradient_through_target else others.detach(), temperature)
        divergence = kullback_leibler(target, logits[own].expand_as(target), temperature)
        factor = len(others) if settings.over_others == "sum" else 1
        return {
            "hard": hard_cross_entropy(logits[own], labels, settings.label_smoothing),
            "mimicry": factor * settings.weight * temperature**2 * divergence,
        }

    def predict(self, network: nn.ModuleList, images: Tensor) -> Tensor:
        return torch.stack([member(images) for member in network])

    def deploy(self, network: nn.ModuleList) -> nn.Module:
        return network[0]

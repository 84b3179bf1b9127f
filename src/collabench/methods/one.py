r"""ONE (Lan, Zhu & Gong 2018): branches share low stages; their gated ensemble is the teacher of each of them.

With the branches' logits z^(h), h = 1..H, and the gate's weights g (a softmax over the branches, per image)::

    z^e = sum_h g_h z^(h)
    J   = sum_h CE(onehot(y), z^(h); 1) + v CE(onehot(y), z^e; 1)
          + r w T^2 sum_h KL(softmax(z^e; T) || softmax(z^(h); T))

Terms: ``hard``, ``ensemble``, ``distillation``. No text of this paper is at hand: all defaults are this project's own.
What the authors' public code does (the repository Lan1991Xu/ONE_NeurIPS2018) stands in the last column where it
differs; the entry ``one-as-published`` of ``params.yaml`` has these values.

============================ ====================================================================== =================
setting                      default                                                                as published
============================ ====================================================================== =================
``heads``                    H = 4 branches                                                         3
``split_after``              the last shared stage; default: the last of song2018's split points
                             (``stage2``, ``transition2``, ``layer2``, ``block2``); ``input``
                             shares nothing
``gate``                     ``linear``: g = softmax(linear layer). ``normalised``: batch           ``normalised``
                             normalisation and a ReLU come between the two
``weight``                   w = 1
``ensemble_weight``          v = 1
``temperature``              T = 3
``ramp_epochs``, ``ramp_of`` none, r = 1; see :mod:`collabench.methods._ramp`                       80 of 300 epochs
``gradient_through_target``  off: the teacher's probabilities are constants (default); on: gate
                             and branches also learn through them
============================ ====================================================================== =================

Departures from the public code that are no settings: it adds 1e-7 to the teacher's probabilities; its recipe is
another one (SGD without Nesterov momentum, weight decay 5e-4), whereas here every method of a table has the table's.

The gate's input is the global average of the shared stages' output. It learns from the ensemble's
cross entropy and is dropped at deployment. Losses are summed over the branches; shared stages see the sum of their
gradients. Branch 0 is deployed. With ``weight`` and ``ensemble_weight`` 0 training equals song2018's ``simple_ilr``
with beta 1 and no scaling, and with ``split_after: input`` branch 0 equals individual learning, both bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from collabench.core.record import LATER
from collabench.methods import contract
from collabench.methods._branches import run_branches, split_point
from collabench.methods._features import pooled, stage_outputs
from collabench.methods._ramp import RampSettings
from collabench.methods.losses import hard_cross_entropy, kullback_leibler, log_probabilities
from collabench.models import Backbone
from collabench.models.tree import INPUT, TrainingTree, simple_tree


class Settings(RampSettings):
    method: Literal["one"]
    heads: int = Field(default=4, ge=2, le=64)
    split_after: str | None = None
    gate: Annotated[Literal["linear", "normalised"], LATER] = "linear"
    weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    ensemble_weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    temperature: float = Field(default=3.0, ge=0.01, le=1000.0)
    gradient_through_target: bool = False

    def without_effect(self) -> dict[str, str]:
        of_distillation = ("temperature", "gradient_through_target", "ramp_epochs", "ramp_of")
        return {} if self.weight else dict.fromkeys(of_distillation, "weight above 0")

    def passes(self) -> tuple[str | None, ...]:
        return (None,) * self.heads

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        split_point(backbone, self.split_after)


def normalised_gate(width: int, heads: int) -> nn.Module:
    """Scores (B, H) of the branches from pooled features (B, width): linear layer, batch normalisation, ReLU."""
    return nn.Sequential(nn.Linear(width, heads), nn.BatchNorm1d(heads), nn.ReLU())


#: ``gate`` → the layers between the pooled features and the softmax.
GATES: dict[str, Callable[[int, int], nn.Module]] = {"linear": nn.Linear, "normalised": normalised_gate}


class GatedBranches(nn.Module):
    """The branches and their gate."""

    def __init__(self, tree: TrainingTree, gate: nn.Module) -> None:
        super().__init__()
        self.tree, self.gate = tree, gate

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (H, B, m) of the branches and weights (B, H) of the gate."""
        outputs = run_branches(self.tree, images)
        return outputs.logits, torch.softmax(self.gate(pooled(outputs.shared)), dim=-1)


class Method(contract.Method[GatedBranches]):
    settings: Settings

    def build(self) -> GatedBranches:
        context, heads = self.context, self.settings.heads
        backbone = context.make_backbone(0)
        point = split_point(backbone, self.settings.split_after)
        tree = TrainingTree(context.make_backbone, simple_tree(point, heads))
        outputs = stage_outputs(backbone, context.input_shape)
        width = context.input_shape[0] if point == INPUT else outputs[point].width
        return GatedBranches(tree, context.make_layers("gate", partial(GATES[self.settings.gate], width, heads)))

    def losses(self, network: GatedBranches, batch: contract.Batch) -> dict[str, Tensor]:
        logits, gates = network(batch.images)
        return self.terms(logits, gates, batch.labels, self.settings.ramp(batch.epoch, self.context.epochs))

    def terms(self, logits: Tensor, gates: Tensor, labels: Tensor, ramp: float = 1.0) -> dict[str, Tensor]:
        """The terms of J from the branches' logits (H, B, m), the gate's weights (B, H) and r."""
        settings, temperature = self.settings, self.settings.temperature
        ensemble = (gates.transpose(0, 1).unsqueeze(-1) * logits).sum(dim=0)
        teacher = ensemble if settings.gradient_through_target else ensemble.detach()
        target = log_probabilities(teacher, temperature)
        hard = [hard_cross_entropy(z, labels, settings.label_smoothing) for z in logits]
        divergences = [kullback_leibler(target, z, temperature) for z in logits]
        return {
            "hard": torch.stack(hard).sum(),
            "ensemble": settings.ensemble_weight * hard_cross_entropy(ensemble, labels, settings.label_smoothing),
            "distillation": ramp * settings.weight * temperature**2 * torch.stack(divergences).sum(),
        }

    def predict(self, network: GatedBranches, images: Tensor) -> Tensor:
        return network.tree(images)

    def deploy(self, network: GatedBranches) -> Backbone:
        return network.tree.path(0)

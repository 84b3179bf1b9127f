"""Individual learning: one network trained with cross entropy, the baseline of all comparisons.

Loss: ``CE(target, z; 1)`` with ``target = onehot(y)``, smoothed by ``label_smoothing`` epsilon (0: none). The entry
``label_smoothing`` of ``params.yaml`` is this method with epsilon 0.1.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from collabench.methods import contract
from collabench.methods.losses import hard_cross_entropy
from collabench.models import Backbone


class Settings(contract.MethodSettings):
    method: Literal["individual"]


class Method(contract.Method[Backbone]):
    settings: Settings

    def build(self) -> Backbone:
        return self.context.make_backbone(0)

    def losses(self, network: Backbone, batch: contract.Batch) -> dict[str, Tensor]:
        return {"hard": hard_cross_entropy(network(batch.images), batch.labels, self.settings.label_smoothing)}

    def predict(self, network: Backbone, images: Tensor) -> Tensor:
        return network(images).unsqueeze(0)

    def deploy(self, network: Backbone) -> Backbone:
        return network

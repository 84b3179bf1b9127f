"""The classifier of VGG and ResNet-18 in Fang & Lin: three fully connected layers, with dropout after the first two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from collabench.models.dropout import SeededDropout
from collabench.models.pooling import GlobalAveragePool

#: Published: "Dropout with a probability of 0.5 is used in the first two layers of classifier".
PROBABILITY = 0.5


class HiddenLayer(nn.Module):
    """``dropout(relu(linear(x)))``."""

    def __init__(self, features_in: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features_in, features)
        self.dropout = SeededDropout(PROBABILITY)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activations(x))

    def activations(self, x: Tensor) -> Tensor:
        """The input of dropout."""
        return torch.relu_(self.linear(x))


def classifier_stages(channels: int, hidden: int, classes: int) -> dict[str, nn.Module]:
    """The stages that follow maps of ``channels`` channels, by name.

    Adaptive average pooling to 1x1, then three fully connected layers.
    """
    return {
        "pool": GlobalAveragePool(),
        "hidden1": HiddenLayer(channels, hidden),
        "hidden2": HiddenLayer(hidden, hidden),
        "classifier": nn.Linear(hidden, classes),
    }


def initialise(network: nn.Module) -> None:
    """Initialise convolutions as in the other families. Linear layers keep torch's default."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

"""Networks as a user would write them, for configurations that name one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from collabench.core.torchvision_import import import_torchvision


class Small(nn.Module):
    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv, self.pool, self.fc = (
            nn.Conv2d(channels, width, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Linear(width, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.conv(x)).flatten(1))


def make(input_shape: tuple[int, int, int], classes: int, width: int = 4, sizes: list[int] | None = None) -> nn.Module:
    """``sizes`` changes nothing: it shows that a list can be given."""
    return Small(input_shape[0], width, classes)


def no_network(input_shape: tuple[int, int, int], classes: int) -> int:
    return classes


def raises(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    raise ZeroDivisionError("division by zero")


class FunctionalDropout(nn.Module):
    """Draws from torch's global generator, and nobody can see it from outside."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, self.training)


class LookingInside(nn.Module):
    """Asks its dropout layer for what only torch's own has."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x) / self.dropout.p


LAYERS = {
    "looking inside": LookingInside,
    "dropout": lambda: nn.Dropout(0.3),
    "dropout2d": lambda: nn.Dropout2d(0.3, inplace=True),
    "stochastic depth": lambda: import_torchvision().ops.StochasticDepth(0.3, "row"),
    "nested": lambda: nn.Sequential(nn.Identity(), nn.Sequential(nn.Dropout(0.3))),
    "never": lambda: nn.Dropout(0.0),
    "always": lambda: nn.Dropout(1.0),
    "functional": FunctionalDropout,
    "alpha": lambda: nn.AlphaDropout(0.3),
    "stochastic depth of a batch": lambda: import_torchvision().ops.StochasticDepth(0.3, "batch"),
}


class Foreign(nn.Module):
    def __init__(self, channels: int, classes: int, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.layer = nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), layer
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.layer(self.norm(self.conv(x)))).flatten(1))


def with_layer(input_shape: tuple[int, int, int], classes: int, layer: str) -> nn.Module:
    return Foreign(input_shape[0], classes, LAYERS[layer]())


def entry(layer: str) -> dict:
    """A model of params.yaml: a network with one of :data:`LAYERS` in it."""
    return {
        "family": "custom",
        "import": f"{__name__}:with_layer",
        "arguments": {"layer": layer},
        "stages": {"body": ("conv", "norm", "layer"), "pool": ("pool", "flatten"), "classifier": ("fc",)},
    }

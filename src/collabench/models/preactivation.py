"""Residual blocks in which normalisation and activation come before the convolution (He et al., 2016).

They are shared by the families ``preact_resnet`` and ``wide_resnet``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from collabench.models.backbone import Backbone
from collabench.models.dropout import SeededDropout
from collabench.models.pooling import GlobalAveragePool, every_nth_pixel


class PreActivationBlock(nn.Module):
    """``x + conv2(dropout(relu(bn2(conv1(relu(bn1(x)))))))``.

    Where the shape changes, the shortcut is a 1x1 convolution of ``relu(bn1(x))``, of every ``stride``-th pixel. The
    convolution itself has stride 1: with stride 2, torch 2.13 ends the process in the backward pass of few channels.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = SeededDropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        same = stride == 1 and channels_in == channels
        self.stride = stride
        self.shortcut = None if same else nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu_(self.bn1(x))
        out = self.conv2(self.dropout(torch.relu_(self.bn2(self.conv1(active)))))
        return out + (x if self.shortcut is None else self.shortcut(every_nth_pixel(active, self.stride)))


def preactivation_network(
    channels_in: int, stem: int, widths: Sequence[int], blocks: Sequence[int], classes: int, dropout: float = 0.0
) -> Backbone:
    """Stages ``stem``, ``stage1`` …, ``pool``, ``classifier``.

    stem: channels of the first convolution. widths, blocks: of every stage. All stages but the first begin with stride
    2. The last normalisation and activation belong to the last stage.
    """
    modules: dict[str, nn.Module] = {"stem": nn.Conv2d(channels_in, stem, 3, 1, 1, bias=False)}
    channels = stem
    for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        layers: list[nn.Module] = []
        for block in range(count):
            layers.append(PreActivationBlock(channels, width, 2 if index and not block else 1, dropout))
            channels = width
        if index == len(widths) - 1:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        modules[f"stage{index + 1}"] = nn.Sequential(*layers)
    backbone = Backbone(modules | {"pool": GlobalAveragePool(), "classifier": nn.Linear(channels, classes)})
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone

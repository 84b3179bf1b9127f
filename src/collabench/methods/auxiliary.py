r"""Auxiliary classifiers (deep supervision): small classifiers on intermediate stages, dropped at deployment.

Loss, with the network's logits z, the logits z^(s) of the auxiliary classifier after stage s, and weight w::

    J = CE(onehot(y), z; 1) + w sum_s CE(onehot(y), z^(s); 1)

Terms: ``hard``, ``auxiliary``. An auxiliary classifier is global average pooling and one linear layer. Defaults of this
project:

============================ =========================================================================================
``weight``                   w = 0.3; with 0 the network trains as in individual learning, bit for bit
``after``                    stages that get a classifier. Default: the intermediate ones, which are song2018's split
                             points (``stage1`` and ``stage2``, ``transition1`` and ``transition2``, ``layer1`` and
                             ``layer2``, ``block1`` and ``block2``) but for the final features; on another backbone
                             every stage with weights whose output is a map, but the first (the stem) and the last
                             (the final features). ``every``: every stage with weights whose output is a map
============================ =========================================================================================
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from collabench.methods import contract
from collabench.methods._branches import default_split_points
from collabench.methods._features import pooled, stage_outputs
from collabench.methods.losses import hard_cross_entropy
from collabench.models import Backbone


class Settings(contract.MethodSettings):
    method: Literal["auxiliary"]
    weight: float = Field(default=0.3, ge=0.0, le=1000.0)
    after: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["every"] | None = None

    def revisions(self) -> dict[str, int]:
        # 1: the default was what is now called every.
        return {"after": 2} if self.after is None else {}

    def widths(self, backbone: Backbone, input_shape: tuple[int, int, int]) -> dict[str, int]:
        """Stage → width of the input of its auxiliary classifier. Raises ValueError for stages that do not exist."""
        outputs = stage_outputs(backbone, input_shape)
        if self.after is None or self.after == "every":
            maps = [stage for stage, output in outputs.items() if output.is_map and output.is_trained]
            inner = [stage for stage in default_split_points(backbone) if stage not in maps[-1:]] or maps[1:-1]
            chosen = maps if self.after else inner
            if not chosen:
                raise ValueError(f"no {'' if self.after else 'intermediate '}stage of this backbone puts out a map: "
                                 "name stages in after")  # fmt: skip
        else:
            chosen = list(self.after)
            unknown = [stage for stage in chosen if stage not in outputs]
            if unknown:
                raise ValueError(f"no auxiliary classifier fits after {unknown[0]!r}; stages: {', '.join(outputs)}")
            if len(set(chosen)) != len(chosen):
                raise ValueError("after names a stage twice")
        return {stage: outputs[stage].width for stage in outputs if stage in chosen}

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        self.widths(backbone, input_shape)


class DeeplySupervised(nn.Module):
    """A backbone with auxiliary classifiers after some stages.

    Args:
        classifiers: one per entry of ``stages``, in the order of execution.
    """

    def __init__(self, backbone: Backbone, stages: tuple[str, ...], classifiers: list[nn.Linear]) -> None:
        super().__init__()
        self.backbone, self.stages = backbone, stages
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, m) of the network and (S, B, m) of the auxiliary classifiers."""
        x = images
        auxiliary: list[Tensor] = []
        for stage in self.backbone.stage_names:
            x = self.backbone.run((stage,), x)
            if stage in self.stages:
                auxiliary.append(self.classifiers[len(auxiliary)](pooled(x)))
        return x, torch.stack(auxiliary)


class Method(contract.Method[DeeplySupervised]):
    settings: Settings

    def build(self) -> DeeplySupervised:
        backbone = self.context.make_backbone(0)
        widths = self.settings.widths(backbone, self.context.input_shape)
        classifiers = [
            self.context.make_layers(f"auxiliary {stage}", partial(nn.Linear, width, self.context.classes))
            for stage, width in widths.items()
        ]
        return DeeplySupervised(backbone, tuple(widths), classifiers)

    def losses(self, network: DeeplySupervised, batch: contract.Batch) -> dict[str, Tensor]:
        logits, auxiliary = network(batch.images)
        return self.terms(logits, auxiliary, batch.labels)

    def terms(self, logits: Tensor, auxiliary: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of J from logits (B, m) and the auxiliary classifiers' (S, B, m)."""
        smoothing = self.settings.label_smoothing
        return {
            "hard": hard_cross_entropy(logits, labels, smoothing),
            "auxiliary": self.settings.weight
            * torch.stack([hard_cross_entropy(z, labels, smoothing) for z in auxiliary]).sum(),
        }

    def predict(self, network: DeeplySupervised, images: Tensor) -> Tensor:
        return network.backbone(images).unsqueeze(0)

    def deploy(self, network: DeeplySupervised) -> Backbone:
        return network.backbone

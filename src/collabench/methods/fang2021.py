r"""Fang & Lin 2021, *Intra-Model Collaborative Learning*: four losses inside a single network, in any combination.

The backbone (``vgg`` and ``resnet`` here) consists of intermediate layers i = 1..N (convolution, batch normalisation,
activation) with outputs h^(i), and of a classifier with dropout. The sum of the task's cross entropy and the chosen
losses is minimised; L_out replaces the cross entropy::

    L_out    = mean_i  alpha CE(onehot(y), z^(i); 1) + (1 - alpha) CE(q^(i), z^(i); T)                          (4)
               over the K^n predictions of hierarchical dropout; q^(i) from the mean of the others' logits
    L_mid    = sum_i   alpha CE(onehot(y), z^(i); T) + beta CE(q^(i), z^(i); T)                              (5 - 7)
               z^(i) of a local classifier on h^(i); q^(i) from the mean of the deeper layers' logits
    L_pull_push = sum_i  pull_i ||S(g_i(h^(i))) - S(onehot(y))||_F - push_i ||S(g_i(h^(i))) - S(x)||_F          (8, 9)
               S: cosine similarities of the batch's samples, each described by the deviations of its maps;
               g_i: one convolution
    L_kernel = sum over convolutions  ||C - diag(C)||_F,  C the covariance of the standardised filters             (10)

L_mid and L_pull_push are local: the loss of layer i changes only the weights of layer i (its convolution and batch
normalisation; a shortcut's weights belong to the layer that adds it) and of its local classifier or projection. The
text does not say whether gradients flow through the targets q. Those of L_mid are constants, because it is local; those
of L_out are constants by default. Local classifiers and projections are dropped at deployment. Terms, all weighted:
``hard`` (cross entropy), ``out``, ``mid``, ``pull``, ``push`` (never above 0), ``kernel``.

============================ =========================================================================================
``losses``                   a set of ``out``, ``mid``, ``pull_push``, ``kernel``, not empty; default: all four
``out_branches``             K = 2 (published): masks of every branch at each of the n = 2 dropout layers
``out_temperature``          T = 2 (published)
``out_alpha``                0.5 (published). With K = 1 there is no soft part, and the hard part has weight 1
``out_temperature_squared``  factor T^2 on the soft part; default: off, as printed
``out_gradient_through_      on: the gradient also flows through q^(i) of L_out; default: off (a constant)
target``
``out_shared_masks``         on: the branches of a dropout layer share their K masks; default: off (independent masks)
``out_added``                on: L_out is added to the cross entropy, which then has a pass with masks of its own;
                             default: off (L_out replaces the cross entropy)
``mid_alpha``, ``mid_beta``  0.05, 0.05 (published)
``mid_temperature``          T = 2 (published), in the hard part too, as printed
``mid_include_own``          on: eq. 6 sums over j = i..N, as printed; default: over j > i, as its divisor N - i
                             implies
``mid_divisor``              with ``mid_include_own``: ``count`` (N - i + 1, default) or ``printed`` (N - i)
``mid_include_output``       on: the network's own logits count as layer N + 1 in eq. 6; default: off
``mid_side``                 max pooling reduces maps to at most this many pixels a side (default 4), followed by a
                             3x3 convolution and a fully connected layer (published)
``mid_channels``             channels of that convolution: default 64, but no more than the layer has itself
``pull_first``,              weights of the first and the last layer, linear and rising in between (published); the
``pull_last``                values are defaults of this project
``push_first``,              the same, falling
``push_last``
``projection_kernel``        side of g_i's kernel: default 3
``projection_channels``      channels of g_i's output: default as many as the layer's
``centre``                   vectors are centred over the ``batch`` (default) or over each ``sample``
``input_descriptor``         x is described by deviations (``std``, as printed) or by its ``pixels``. Default: ``std``;
                             ``pixels`` for images of one channel (digits). Their one deviation is one number an image:
                             S(x) then has rank 1, and says of two images only whether both have more contrast than the
                             batch's mean, or both less
``kernel_weight``            0.01 (default of this project)
``kernel_groups``            the last 2 groups of convolutions (published); null: all
``kernel_shortcuts``         on: the shortcuts' convolutions count; default: off
============================ =========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from collabench.core import distributed
from collabench.core.record import LATER, NO_BOOL
from collabench.methods import contract
from collabench.methods._descriptors import Moments, Padding, deviations, moments, side_by_side
from collabench.methods._hierarchical_dropout import hidden_stages, hierarchical_predictions
from collabench.methods._intra_model import (
    frobenius_distance,
    kernel_terms,
    linear_weights,
    mid_terms,
    out_terms,
    similarities,
)
from collabench.methods._local_layers import local_classifier, projection
from collabench.methods.losses import hard_cross_entropy
from collabench.models import Backbone
from collabench.models.intermediate import (
    IntermediateLayer,
    intermediate_groups,
    intermediate_layers,
    map_shapes,
    tapped,
)

Loss = Literal["out", "mid", "pull_push", "kernel"]

#: The losses in the order of their terms, with the prefixes of the settings that belong to them.
LOSSES: dict[Loss, tuple[str, ...]] = {
    "out": ("out_",),
    "mid": ("mid_",),
    "pull_push": ("pull_", "push_", "projection_", "centre", "input_descriptor"),
    "kernel": ("kernel_",),
}


class Settings(contract.MethodSettings):
    method: Literal["fang2021"]
    losses: tuple[Loss, ...] = Field(default=tuple(LOSSES), min_length=1)
    out_branches: int = Field(default=2, ge=1, le=8)
    out_temperature: float = Field(default=2.0, ge=0.01, le=1000.0)
    out_alpha: float = Field(default=0.5, ge=0.0, le=1.0)
    out_temperature_squared: bool = False
    out_gradient_through_target: Annotated[bool, LATER] = False
    out_shared_masks: bool = False
    out_added: bool = False
    mid_alpha: float = Field(default=0.05, ge=0.0, le=1000.0)
    mid_beta: float = Field(default=0.05, ge=0.0, le=1000.0)
    mid_temperature: float = Field(default=2.0, ge=0.01, le=1000.0)
    mid_include_own: bool = False
    mid_divisor: Literal["count", "printed"] = "count"
    mid_include_output: bool = False
    mid_side: int = Field(default=4, ge=1, le=64)
    mid_channels: int = Field(default=64, ge=1, le=4096)
    pull_first: float = Field(default=0.001, ge=0.0, le=1000.0)
    pull_last: float = Field(default=0.01, ge=0.0, le=1000.0)
    push_first: float = Field(default=0.01, ge=0.0, le=1000.0)
    push_last: float = Field(default=0.001, ge=0.0, le=1000.0)
    projection_kernel: Annotated[Literal[1, 3, 5], NO_BOOL] = 3
    projection_channels: int | None = Field(default=None, ge=1, le=4096)
    centre: Literal["batch", "sample"] = "batch"
    input_descriptor: Literal["std", "pixels"] | None = None
    kernel_weight: float = Field(default=0.01, ge=0.0, le=1000.0)
    kernel_groups: int | None = Field(default=2, ge=1, le=64)
    kernel_shortcuts: bool = False

    @field_validator("losses")
    @classmethod
    def _in_order(cls, losses: tuple[Loss, ...]) -> tuple[Loss, ...]:
        if len(set(losses)) != len(losses):
            raise ValueError("losses names a loss twice")
        return tuple(loss for loss in LOSSES if loss in losses)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for loss, beginnings in LOSSES.items():
            if loss not in self.losses:
                for name, field in type(self).model_fields.items():
                    if name.startswith(beginnings) and getattr(self, name) != field.default:
                        raise ValueError(f"{name} belongs to the loss {loss}, which losses does not name")
        of_soft_part = (
            "out_alpha", "out_temperature", "out_temperature_squared", "out_gradient_through_target",
            "out_shared_masks",
        )  # fmt: skip
        changed = [name for name in of_soft_part if getattr(self, name) != type(self).model_fields[name].default]
        if self.out_branches == 1 and changed:
            raise ValueError(f"{changed[0]} belongs to out_branches above 1: one prediction has no other to learn from")
        if self.mid_divisor != "count" and not self.mid_include_own:
            raise ValueError("mid_divisor belongs to mid_include_own: true")
        if self.pull_first > self.pull_last or self.push_first < self.push_last:
            raise ValueError("the weight of pull rises (or stays) from first to last layer, that of push falls")
        return self

    def descriptor(self, channels: int) -> Literal["std", "pixels"]:
        """What describes images of so many channels in S(x)."""
        return self.input_descriptor or ("pixels" if channels == 1 else "std")

    def for_images(self, input_shape: tuple[int, int, int]) -> Self:
        if "pull_push" not in self.losses:
            return self
        return self.model_copy(update={"input_descriptor": self.descriptor(input_shape[0])})

    def identity(self) -> dict[str, Any]:
        # Without the loss the descriptor has no effect. It stands in the identity as it did when it had one default.
        return super().identity() | ({} if "pull_push" in self.losses else {"input_descriptor": "std"})

    def revisions(self) -> dict[str, int]:
        # Revision 2 computes these losses for all layers at once.
        return {loss: 2 for loss in self.losses if loss != "out"}

    def readings(self) -> tuple[str, ...]:
        found = []
        if "out" in self.losses and self.out_branches > 1 and self.out_alpha < 1:
            found.append(
                "the gradient of L_out also flows through its targets, of which the text says nothing"
                if self.out_gradient_through_target
                else "the targets of L_out are constants; the text does not say whether gradients flow through them"
            )
        if "pull_push" in self.losses and self.input_descriptor == "pixels":
            found.append(
                "L_pull_push describes the input by its pixels, not by the deviations of its channels as printed"
            )
        return tuple(found)

    def without_effect(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.out_alpha == 1:
            of_soft_part = ("out_temperature", "out_temperature_squared", "out_gradient_through_target")
            found |= dict.fromkeys(of_soft_part, "out_alpha below 1")
        if self.mid_beta == 0:
            found |= dict.fromkeys(("mid_include_own", "mid_divisor", "mid_include_output"), "mid_beta above 0")
        if self.kernel_weight == 0:
            found |= dict.fromkeys(("kernel_groups", "kernel_shortcuts"), "kernel_weight above 0")
        return found

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        groups = intermediate_groups(backbone)
        for loss in self.losses:
            if loss != "out" and not groups:
                raise ValueError(f"the loss {loss} needs a backbone that offers its intermediate layers (convolution, "
                                 "batch normalisation, activation), which the families vgg and resnet do")  # fmt: skip
        if "out" in self.losses and not hidden_stages(backbone):
            raise ValueError("the loss out needs a backbone with dropout layers before its classifier, which the "
                             "families vgg and resnet have")  # fmt: skip
        if "kernel" in self.losses and (self.kernel_groups or 1) > len(groups):
            raise ValueError(f"kernel_groups: the backbone has {len(groups)} groups of convolutions "
                             f"({', '.join(groups)}), "
                             f"not {self.kernel_groups}")  # fmt: skip
        if self.kernel_shortcuts and not any(
            layer.added == "convolution" for layer in _last(groups, self.kernel_groups)
        ):
            raise ValueError(
                "kernel_shortcuts: the groups of convolutions that the loss kernel is about have no shortcut"
            )
        if "pull_push" in self.losses:
            for layer, (channels, height, width) in map_shapes(backbone, input_shape).items():
                if min(height, width) < 2:
                    raise ValueError("the loss pull_push describes maps by their deviations, which say nothing of the "
                                     f"map of {height}x{width} that the layer {layer} puts out; it needs at least "
                                     "2x2")  # fmt: skip
                if self.centre == "sample" and (self.projection_channels or channels) == 1:
                    raise ValueError("centre: sample leaves nothing of the one deviation that describes the layer "
                                     f"{layer}: it needs projections of at least 2 channels")  # fmt: skip
            channels, height, width = input_shape
            by_deviations = self.descriptor(channels) == "std"
            if min(height, width) < 2 and by_deviations:
                raise ValueError(f"images of {height}x{width} have no deviation: choose input_descriptor: pixels")
            if channels == 1 and by_deviations and self.centre == "sample":
                raise ValueError("centre: sample leaves nothing of the one deviation that describes an image of one "
                                 "channel: choose input_descriptor: pixels")  # fmt: skip


def _last(groups: dict[str, dict[str, IntermediateLayer]], count: int | None) -> list[IntermediateLayer]:
    """The layers of the last ``count`` groups, or of all."""
    chosen = list(groups.values())[-(count or 0) :]
    return [layer for group in chosen for layer in group.values()]


class Outputs(NamedTuple):
    """The outputs of a training pass; None for an output that no chosen loss needs.

    logits: (B, m) of one ordinary pass.
    predictions: (P, B, m) of hierarchical dropout.
    local: (N, B, m) of the local classifiers.
    described: (B, N, C), the deviations of the layers' projections, 0 beyond a layer's channels.
    """

    logits: Tensor | None
    predictions: Tensor | None
    local: Tensor | None
    described: Tensor | None


class IntraModelNetwork(nn.Module):
    """A backbone with the additional layers that the losses need.

    Args:
        classifiers, projections: one per intermediate layer, in order of execution; empty without their loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: Settings,
        classifiers: Sequence[nn.Module] = (),
        projections: Sequence[nn.Conv2d] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.settings = backbone, settings
        self.classifiers, self.projections = nn.ModuleList(classifiers), nn.ModuleList(projections)
        self.padding = Padding([projection.out_channels for projection in projections]) if projections else None

    def forward(self, images: Tensor) -> Outputs:
        settings, backbone = self.settings, self.backbone
        local: list[Tensor] = []
        projected: list[Moments] = []

        def observe(layer: int, output: Tensor) -> None:
            if self.classifiers:
                local.append(self.classifiers[layer](output))
            if self.projections:
                projected.append(moments(self.projections[layer](output)))

        observed = list(intermediate_layers(backbone).values()) if self.classifiers or self.projections else []
        hidden = hidden_stages(backbone) if "out" in settings.losses else ()
        with tapped(observed, observe):
            x = backbone.run([stage for stage in backbone.stage_names if stage not in hidden], images)
        logits = x if not hidden else backbone.run(hidden, x) if settings.out_added else None
        predictions = None
        if hidden:
            predictions = hierarchical_predictions(
                backbone, hidden, x, settings.out_branches, settings.out_shared_masks
            )
        described = None if self.padding is None else self.padding(deviations(side_by_side(projected)))
        return Outputs(logits, predictions, torch.stack(local) if local else None, described)

    def kernels(self) -> list[Tensor]:
        """Weights of the convolutions that L_kernel includes."""
        layers = _last(intermediate_groups(self.backbone), self.settings.kernel_groups)
        convolved = [layer for layer in layers if self.settings.kernel_shortcuts and layer.added == "convolution"]
        return [*(layer.conv.weight for layer in layers), *(layer.shortcut_conv.weight for layer in convolved)]


class Method(contract.Method[IntraModelNetwork]):
    settings: Settings

    def build(self) -> IntraModelNetwork:
        settings, context = self.settings, self.context
        backbone = context.make_backbone(0)
        classifiers, projections = [], []
        for path, shape in map_shapes(backbone, context.input_shape).items():
            if "mid" in settings.losses:
                make = partial(local_classifier, shape, settings.mid_side, settings.mid_channels, context.classes)
                classifiers.append(context.make_layers(f"local classifier {path}", make))
            if "pull_push" in settings.losses:
                project = partial(projection, shape[0], settings.projection_channels, settings.projection_kernel)
                projections.append(context.make_layers(f"projection {path}", project))
        return IntraModelNetwork(backbone, settings, classifiers, projections)

    def losses(self, network: IntraModelNetwork, batch: contract.Batch) -> dict[str, Tensor]:
        present = None if network.padding is None else network.padding.present
        terms = self.terms(network(batch.images), batch, present)
        if "kernel" in self.settings.losses:
            terms["kernel"] = self.settings.kernel_weight * kernel_terms(network.kernels()).sum()
        return terms

    def terms(self, outputs: Outputs, batch: contract.Batch, present: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms of one pass: all but ``kernel``.

        present: (N, C) bool: the channels of ``outputs.described`` that each layer has. None: all.
        """
        settings, labels = self.settings, batch.labels
        terms: dict[str, Tensor] = {}
        if outputs.logits is not None:
            terms["hard"] = hard_cross_entropy(outputs.logits, labels, settings.label_smoothing)
        if outputs.predictions is not None:
            hard, soft = out_terms(
                outputs.predictions, labels, settings.out_temperature, settings.label_smoothing,
                settings.out_gradient_through_target,
            )  # fmt: skip
            factor = settings.out_temperature**2 if settings.out_temperature_squared else 1.0
            weight = settings.out_alpha
            terms["out"] = hard if soft is None else weight * hard + (1 - weight) * factor * soft
        if outputs.local is not None:
            own = None
            if settings.mid_include_output:
                own = outputs.logits if outputs.predictions is None else outputs.predictions.mean(dim=0)
            hard, soft = mid_terms(
                outputs.local, labels, settings.mid_temperature, settings.label_smoothing,
                settings.mid_include_own, settings.mid_divisor, own,
            )  # fmt: skip
            terms["mid"] = settings.mid_alpha * hard + settings.mid_beta * soft
        if outputs.described is not None:
            terms |= self._pull_push(outputs.described, batch, present)
        return terms

    def _pull_push(self, layers: Tensor, batch: contract.Batch, present: Tensor | None) -> dict[str, Tensor]:
        """``pull`` and ``push`` of eq. 9, summed over the layers, from the layers' deviations (B, N, C).

        Samples are compared over the whole batch, also if several processes share it.
        """
        settings, images = self.settings, batch.images
        by_deviations = settings.descriptor(images.shape[1]) == "std"
        described = deviations(images) if by_deviations else images.flatten(1)
        described, labels = distributed.whole_batch(described), distributed.whole_batch(batch.labels)
        if not labels.is_floating_point():
            labels = nn.functional.one_hot(labels, self.context.classes)
        targets = labels.to(described.dtype)
        of_images, of_targets = similarities(described, settings.centre), similarities(targets, settings.centre)
        of_layers = similarities(distributed.whole_batch(layers).transpose(0, 1), settings.centre, present)
        ends = {"pull": (settings.pull_first, settings.pull_last), "push": (-settings.push_first, -settings.push_last)}
        terms = {}
        for name, aims in (("pull", of_targets), ("push", of_images)):
            weights = linear_weights(*ends[name], len(of_layers), of_layers)
            terms[name] = (weights * frobenius_distance(of_layers, aims)).sum()
        return terms

    def predict(self, network: IntraModelNetwork, images: Tensor) -> Tensor:
        return network.backbone(images).unsqueeze(0)

    def deploy(self, network: IntraModelNetwork) -> Backbone:
        return network.backbone

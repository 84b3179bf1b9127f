r"""Collaborative learning with a mutual knowledge base: THIS PROJECT'S READING OF AN ABSTRACT (Wang, Wang & Gao 2018).

Only the abstract is at hand. Published there: two networks of any kind, or more, train together; a mutual knowledge
base (MKB) collects mutual information and provides assistance; it is updated along with the learning and "separately
deployed when converged"; no pretraining, no roles of teacher and student. Everything below is how this project reads
that, and is to be named so wherever results of it are shown. It is no statement about the authors' own implementation.

The MKB is a learned memory of ``n_slots`` slots of width d, the rows of a matrix S, that all networks share. Network i,
with penultimate features h_i, has an encoder, a linear layer to a query of width d, and a small layer of its own back
to the features' width::

    a_i = softmax(S (encode_i h_i) / sqrt(d))           attention over the slots
    z_i = classify_i(h_i + assist_i(S^T a_i))           the read vector assists the classifier
    J   = sum_i CE(onehot(y), z_i; 1) + w T^2 sum_i KL(q_i || softmax(z_i; T))
    q_i = softmax(mean over j != i of z_j; T)           a constant

Writing is by gradient: the losses of all networks reach the same S. Terms: ``hard`` and, with w > 0, ``consensus``.

============================ =========================================================================================
``networks``, ``peers``      2 networks of the run's model, or other models beside it
``n_slots``, ``width``       64 slots, d = 64
``memory``                   ``shared``: one MKB for all (the method). ``private``: the control; every network has a
                             memory of the same size to itself, so that a gain of ``shared`` isn't mere capacity
``consensus_weight``         w = 0: off, since it makes the method resemble mutual learning
``temperature``              T = 2, of the consensus term
``deployment``               ``with_memory``: network 0 with its own frozen copy of the memory. ``without_memory``: the
                             plain network 0 alone, and all test figures without memory. Training is the same
============================ =========================================================================================

:class:`AssistedBackbone` says what the memory costs at deployment. :class:`MutualKnowledgeBase` is a module of its own:
its state dict is the MKB, and it can be deployed apart from the networks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from collabench.methods import contract
from collabench.methods._features import feature_width
from collabench.methods._networks import NetworksSettings
from collabench.methods.losses import hard_cross_entropy, kullback_leibler, log_probabilities
from collabench.models import Backbone
from collabench.models.convolution.products import matmul


class Settings(NetworksSettings):
    method: Literal["wang2018"]
    n_slots: int = Field(default=64, ge=1, le=65_536)
    width: int = Field(default=64, ge=1, le=4096)
    memory: Literal["shared", "private"] = "shared"
    consensus_weight: float = Field(default=0.0, ge=0.0, le=1000.0)
    temperature: float = Field(default=2.0, ge=0.01, le=1000.0)
    deployment: Literal["with_memory", "without_memory"] = "with_memory"

    @model_validator(mode="after")
    def _temperature_is_used(self) -> Self:
        if not self.consensus_weight and self.temperature != type(self).model_fields["temperature"].default:
            raise ValueError("temperature belongs to consensus_weight above 0")
        return self

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        feature_width(backbone, input_shape)
        taken = {"assistance", "memory"} & set(backbone._modules)
        if taken and self.deployment == "with_memory":  # the deployed network's state dict contains both
            raise ValueError(
                f"the backbone's module {min(taken)!r} has a name that the deployed memory needs: rename it"
            )


class MutualKnowledgeBase(nn.Module):
    """The memory S (n_slots, d), initialised from a standard normal distribution."""

    def __init__(self, n_slots: int, width: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(n_slots, width))

    def forward(self, query: Tensor) -> Tensor:
        """The vectors (B, d) that are read for queries (B, d)."""
        read: Tensor = matmul(self.attention(query), self.slots)
        return read

    def frozen_copy(self) -> MutualKnowledgeBase:
        """An independent, frozen copy of the memory."""
        copied = copy.copy(self)
        copied._parameters = {"slots": nn.Parameter(self.slots.detach().clone(), requires_grad=False)}
        return copied

    def attention(self, query: Tensor) -> Tensor:
        """Weights (B, n_slots) of the slots for queries (B, d)."""
        return torch.softmax(matmul(query, self.slots.T) / math.sqrt(self.slots.shape[1]), dim=-1)


class Assistance(nn.Module):
    """A network's own layers: from its features to a query, and from the read vector back to the features' width."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.encode = nn.Linear(features, width)
        self.assist = nn.Linear(width, features)

    def forward(self, features: Tensor, memory: MutualKnowledgeBase) -> Tensor:
        """Assisted features (B, features)."""
        assisted: Tensor = features + self.assist(memory(self.encode(features)))
        return assisted


class CollaboratingNetworks(nn.Module):
    """Networks, each with its own assistance layers, and one shared memory or one memory per network."""

    def __init__(
        self, backbones: list[Backbone], assistance: list[Assistance], memories: list[MutualKnowledgeBase]
    ) -> None:
        super().__init__()
        # torch's types of a ModuleList say only Module.
        self.backbones: Sequence[Backbone] = nn.ModuleList(backbones)  # type: ignore[assignment]
        self.assistance: Sequence[Assistance] = nn.ModuleList(assistance)  # type: ignore[assignment]
        self.memories: Sequence[MutualKnowledgeBase] = nn.ModuleList(memories)  # type: ignore[assignment]

    def memory_of(self, index: int) -> MutualKnowledgeBase:
        """The memory that the network ``index`` reads."""
        return self.memories[index if len(self.memories) > 1 else 0]

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> Tensor: ...

    def forward(self, images: Tensor) -> Tensor:
        """Logits (networks, B, m)."""
        logits = []
        for index, (backbone, assistance) in enumerate(zip(self.backbones, self.assistance, strict=True)):
            features = assistance(backbone.features(images), self.memory_of(index))
            logits.append(backbone.classify(features))
        return torch.stack(logits)


class AssistedBackbone(nn.Module):
    """A network deployed with a frozen memory of its own.

    Its state dict has the backbone's own keys and, in addition, ``assistance.…`` and ``memory.slots``.
    """

    module_at, run = Backbone.module_at, Backbone.run

    def __init__(self, backbone: Backbone, assistance: Assistance, memory: MutualKnowledgeBase) -> None:
        super().__init__()
        self._modules.update(backbone._modules)
        self.stages: dict[str, tuple[str, ...]]
        object.__setattr__(self, "stages", backbone.stages)  # as in Backbone
        self.assistance = assistance
        self.memory = memory.frozen_copy()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, m)."""
        *stages, classifier = self.stages
        return self.run((classifier,), self.assistance(self.run(stages, images), self.memory))


class Method(contract.Method[CollaboratingNetworks]):
    reading = "this project's reading of an abstract, all that is at hand"
    settings: Settings

    def build(self) -> CollaboratingNetworks:
        context, settings = self.context, self.settings
        backbones = settings.make(context)
        assistance = []
        for index, backbone in enumerate(backbones):
            features = feature_width(backbone, context.input_shape)
            assistance.append(context.make_layers(f"assistance {index}", partial(Assistance, features, settings.width)))
        memories = [
            context.make_layers(f"memory {index}", partial(MutualKnowledgeBase, settings.n_slots, settings.width))
            for index in range(1 if settings.memory == "shared" else len(backbones))
        ]
        return CollaboratingNetworks(backbones, assistance, memories)

    def losses(self, network: CollaboratingNetworks, batch: contract.Batch) -> dict[str, Tensor]:
        return self.terms(network(batch.images), batch.labels)

    def terms(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of J from all networks' logits (n, B, m)."""
        settings, temperature = self.settings, self.settings.temperature
        hard = [hard_cross_entropy(z, labels, settings.label_smoothing) for z in logits]
        terms = {"hard": torch.stack(hard).sum()}
        if settings.consensus_weight:
            # The target in logarithms, from the mean of the other networks' logits.
            others = [torch.cat([logits[:i], logits[i + 1 :]]).detach().mean(dim=0) for i in range(len(logits))]
            divergences = [
                kullback_leibler(log_probabilities(target, temperature), z, temperature)
                for target, z in zip(others, logits, strict=True)
            ]
            terms["consensus"] = settings.consensus_weight * temperature**2 * torch.stack(divergences).sum()
        return terms

    def predict(self, network: CollaboratingNetworks, images: Tensor) -> Tensor:
        if self.settings.deployment == "with_memory":
            return network(images)
        return torch.stack([backbone(images) for backbone in network.backbones])

    def deploy(self, network: CollaboratingNetworks) -> nn.Module:
        if self.settings.deployment == "without_memory":
            return network.backbones[0]
        return AssistedBackbone(network.backbones[0], network.assistance[0], network.memory_of(0))

r"""OKDDip (Chen et al. 2020): diverse peers teach each other by attention, and a group leader learns from their mean.

Of the heads of one tree, head 0 is the leader and heads 1..P are the peers. With q_a = softmax(z^(a); T), penultimate
features h_a and two projections L and E that all peers share::

    alpha_ab = softmax over b of (L h_a) . (E h_b)      (b runs over all peers, a included)
    t_a      = sum_b alpha_ab q_b                       a target of peer a's own
    J        = sum over all heads of CE(onehot(y), z; 1)
               + w_p T^2 sum_a KL(t_a || q_a) + w_l T^2 KL(1/P sum_a q_a || softmax(z^(0); T))

Terms: ``hard``, ``peers``, ``leader``. No text of this paper is at hand: all values are defaults of this project.

============================ =========================================================================================
``heads``                    4: the leader and P = 3 peers (with one peer its target would be its own prediction)
``split_after``              the last shared stage, as in :mod:`collabench.methods.one`
``peer_weight``              w_p = 1
``leader_weight``            w_l = 1
``temperature``              T = 3
``attention_width``          rows of L and E: 32
``gradient_through_target``  off: in the targets only L and E learn; q_b, the features and the leader's target are
                             constants (default). On: the gradient flows through all of them
============================ =========================================================================================

The leader is deployed: a plain network without L and E. With both weights 0 and ``split_after: input`` it equals
individual learning bit for bit.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from collabench.methods import contract
from collabench.methods._branches import run_branches, split_point
from collabench.methods._features import feature_width
from collabench.methods.losses import hard_cross_entropy, kullback_leibler, log_probabilities
from collabench.models import Backbone
from collabench.models.convolution.products import matmul
from collabench.models.tree import TrainingTree, simple_tree


class Settings(contract.MethodSettings):
    method: Literal["okddip"]
    heads: int = Field(default=4, ge=3, le=64)
    split_after: str | None = None
    peer_weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    leader_weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    temperature: float = Field(default=3.0, ge=0.01, le=1000.0)
    attention_width: int = Field(default=32, ge=1, le=4096)
    gradient_through_target: bool = False

    def without_effect(self) -> dict[str, str]:
        of_targets = ("temperature", "gradient_through_target")
        used = self.peer_weight or self.leader_weight
        return {} if used else dict.fromkeys(of_targets, "peer_weight or leader_weight above 0")

    def passes(self) -> tuple[str | None, ...]:
        return (None,) * self.heads

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        split_point(backbone, self.split_after)
        feature_width(backbone, input_shape)


class PeerAttention(nn.Module):
    """The projections L and E."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(features, width, bias=False)
        self.key = nn.Linear(features, width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """log alpha (B, P, P), normalised over the last dimension, from the peers' features (P, B, features)."""
        scores = matmul(self.query(features).transpose(0, 1), self.key(features).permute(1, 2, 0))
        return log_probabilities(scores, 1.0)


class LeaderAndPeers(nn.Module):
    """The tree of the leader (head 0) and the peers, and the attention over the peers."""

    def __init__(self, tree: TrainingTree, attention: PeerAttention) -> None:
        super().__init__()
        self.tree, self.attention = tree, attention


class Method(contract.Method[LeaderAndPeers]):
    settings: Settings

    def build(self) -> LeaderAndPeers:
        context, settings = self.context, self.settings
        backbone = context.make_backbone(0)
        point = split_point(backbone, settings.split_after)
        tree = TrainingTree(context.make_backbone, simple_tree(point, settings.heads))
        width = feature_width(backbone, context.input_shape)
        attention = context.make_layers("attention", partial(PeerAttention, width, settings.attention_width))
        return LeaderAndPeers(tree, attention)

    def losses(self, network: LeaderAndPeers, batch: contract.Batch) -> dict[str, Tensor]:
        outputs = run_branches(network.tree, batch.images)
        features = outputs.features[1:]
        if not self.settings.gradient_through_target:
            features = features.detach()
        return self.terms(outputs.logits, network.attention(features), batch.labels)

    def terms(self, logits: Tensor, log_attention: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of J from all heads' logits (1 + P, B, m) and log alpha (B, P, P)."""
        settings, temperature = self.settings, self.settings.temperature
        leader, peers = logits[0], logits[1:]
        source = log_probabilities(peers if settings.gradient_through_target else peers.detach(), temperature)
        # t in logarithms: (B, a, b, 1) + (B, 1, b, m), summed over b. Finite where alpha or q is 0.
        targets = torch.logsumexp(log_attention.unsqueeze(-1) + source.transpose(0, 1).unsqueeze(1), dim=2)
        divergences = [kullback_leibler(targets[:, peer], peers[peer], temperature) for peer in range(len(peers))]
        mean = torch.logsumexp(source, dim=0) - math.log(len(peers))
        hard = [hard_cross_entropy(z, labels, settings.label_smoothing) for z in logits]
        return {
            "hard": torch.stack(hard).sum(),
            "peers": settings.peer_weight * temperature**2 * torch.stack(divergences).sum(),
            "leader": settings.leader_weight * temperature**2 * kullback_leibler(mean, leader, temperature),
        }

    def predict(self, network: LeaderAndPeers, images: Tensor) -> Tensor:
        return network.tree(images)

    def deploy(self, network: LeaderAndPeers) -> Backbone:
        return network.tree.path(0)

r"""OKDDip (Chen et al. 2020): diverse peers teach each other by attention, and a group leader learns from their mean.

Of the heads of one tree, head 0 is the leader and heads 1..P are the peers. With q_a = softmax(z^(a); T), penultimate
features h_a and two projections L and E that all peers share::

    alpha_ab = softmax over b of (L h_a) . (E h_b)      (b runs over all peers, a included)
    t_a      = sum_b alpha_ab q_b                       a target of peer a's own
    t        = 1/P sum_a q_a                            the leader's target
    J        = sum over all heads of CE(onehot(y), z; 1)
               + r w_p T^2 sum_a KL(t_a || q_a) + r w_l T^2 KL(t || softmax(z^(0); T))

Terms: ``hard``, ``peers``, ``leader``. No text of this paper is at hand: all defaults are this project's own. What the
authors' public code does (the repository DefangChen/OKDDip) stands in the last column where it differs; the entry
``okddip-as-published`` of ``params.yaml`` has these values.

============================ ====================================================================== =================
setting                      default                                                                as published
============================ ====================================================================== =================
``heads``                    4: the leader and P = 3 peers (with one peer its target would be its
                             own prediction)
``split_after``              the last shared stage, as in :mod:`collabench.methods.one`
``peer_weight``              w_p = 1
``leader_weight``            w_l = 1
``temperature``              T = 3
``ramp_epochs``, ``ramp_of`` none, r = 1; see :mod:`collabench.methods._ramp`                       80 of 300 epochs
``target_average``           what the targets are means of. ``probabilities``: as above.            ``logits``
                             ``logits``: t_a = softmax(sum_b alpha_ab z^(b); T) and
                             t = softmax(1/P sum_a z^(a); T)
``attention_width``          rows of L and E: 32
``attention_divisor``        instead: L and E have so many times fewer rows than columns            8
``gradient_through_target``  off: in the targets only L and E learn; z^(b), the features and the    on
                             leader's target are constants (default). On: the gradient flows
                             through all of them
============================ ====================================================================== =================

Departures from the public code that are no settings: its leader is the last branch (a name only); it adds 1e-7 to the
targets' probabilities; its recipe is another one (weight decay 5e-4), whereas here every method of a table has the
table's. Of its two forms this is the one with branches, not the one with whole networks.

The leader is deployed: a plain network without L and E. With both weights 0 and ``split_after: input`` it equals
individual learning bit for bit.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from collabench.core.record import LATER
from collabench.methods import contract
from collabench.methods._branches import run_branches, split_point
from collabench.methods._features import feature_width
from collabench.methods._ramp import RampSettings
from collabench.methods.losses import at_least_float32, hard_cross_entropy, kullback_leibler, log_probabilities
from collabench.models import Backbone
from collabench.models.convolution.products import matmul
from collabench.models.tree import TrainingTree, simple_tree


class Settings(RampSettings):
    method: Literal["okddip"]
    heads: int = Field(default=4, ge=3, le=64)
    split_after: str | None = None
    peer_weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    leader_weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    temperature: float = Field(default=3.0, ge=0.01, le=1000.0)
    target_average: Annotated[Literal["probabilities", "logits"], LATER] = "probabilities"
    attention_width: int = Field(default=32, ge=1, le=4096)
    attention_divisor: Annotated[int | None, Field(ge=1, le=4096), LATER] = None
    gradient_through_target: bool = False

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        usual = type(self).model_fields["attention_width"].default
        if self.attention_divisor is not None and self.attention_width != usual:
            raise ValueError("attention_divisor says the width of the attention: remove attention_width")
        return self

    def rows(self, features: int) -> int:
        """Rows of L and E, which have ``features`` columns. Raises ValueError (one line) if there would be none."""
        if self.attention_divisor is None:
            return self.attention_width
        if features < self.attention_divisor:
            raise ValueError(f"attention_divisor: {self.attention_divisor} leaves no row of {features} features")
        return features // self.attention_divisor

    def without_effect(self) -> dict[str, str]:
        of_targets = ("temperature", "gradient_through_target", "target_average", "ramp_epochs", "ramp_of")
        used = self.peer_weight or self.leader_weight
        return {} if used else dict.fromkeys(of_targets, "peer_weight or leader_weight above 0")

    def passes(self) -> tuple[str | None, ...]:
        return (None,) * self.heads

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        split_point(backbone, self.split_after)
        self.rows(feature_width(backbone, input_shape))


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
    """The tree of the leader (head 0) and the peers, and the attention over the peers.

    constant_features: no gradient flows from the attention into the peers' features.
    """

    def __init__(self, tree: TrainingTree, attention: PeerAttention, constant_features: bool) -> None:
        super().__init__()
        self.tree, self.attention, self.constant_features = tree, attention, constant_features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (1 + P, B, m) of all heads and log alpha (B, P, P)."""
        outputs = run_branches(self.tree, images)
        features = outputs.features[1:]
        return outputs.logits, self.attention(features.detach() if self.constant_features else features)


class Method(contract.Method[LeaderAndPeers]):
    settings: Settings

    def build(self) -> LeaderAndPeers:
        context, settings = self.context, self.settings
        backbone = context.make_backbone(0)
        point = split_point(backbone, settings.split_after)
        tree = TrainingTree(context.make_backbone, simple_tree(point, settings.heads))
        width = feature_width(backbone, context.input_shape)
        attention = context.make_layers("attention", partial(PeerAttention, width, settings.rows(width)))
        return LeaderAndPeers(tree, attention, not settings.gradient_through_target)

    def losses(self, network: LeaderAndPeers, batch: contract.Batch) -> dict[str, Tensor]:
        logits, log_attention = network(batch.images)
        return self.terms(logits, log_attention, batch.labels, self.settings.ramp(batch.epoch, self.context.epochs))

    def terms(self, logits: Tensor, log_attention: Tensor, labels: Tensor, ramp: float = 1.0) -> dict[str, Tensor]:
        """The terms of J from all heads' logits (1 + P, B, m), log alpha (B, P, P) and r."""
        settings, temperature = self.settings, self.settings.temperature
        leader, peers = logits[0], logits[1:]
        targets, mean = self._targets(peers if settings.gradient_through_target else peers.detach(), log_attention)
        divergences = [kullback_leibler(targets[:, peer], peers[peer], temperature) for peer in range(len(peers))]
        hard = [hard_cross_entropy(z, labels, settings.label_smoothing) for z in logits]
        return {
            "hard": torch.stack(hard).sum(),
            "peers": ramp * settings.peer_weight * temperature**2 * torch.stack(divergences).sum(),
            "leader": ramp * settings.leader_weight * temperature**2 * kullback_leibler(mean, leader, temperature),
        }

    def _targets(self, peers: Tensor, log_attention: Tensor) -> tuple[Tensor, Tensor]:
        """log t_a (B, P, m) and log t (B, m) from the peers' logits (P, B, m) and log alpha (B, P, P)."""
        temperature = self.settings.temperature
        if self.settings.target_average == "logits":
            logits = at_least_float32(peers)
            # No matrix product: under autocast that would round logits to bfloat16.
            mixed = (log_attention.exp().unsqueeze(-1) * logits.transpose(0, 1).unsqueeze(1)).sum(dim=2)
            return log_probabilities(mixed, temperature), log_probabilities(logits.mean(dim=0), temperature)
        source = log_probabilities(peers, temperature)
        # t in logarithms: (B, a, b, 1) + (B, 1, b, m), summed over b. Finite where alpha or q is 0.
        targets = torch.logsumexp(log_attention.unsqueeze(-1) + source.transpose(0, 1).unsqueeze(1), dim=2)
        return targets, torch.logsumexp(source, dim=0) - math.log(len(peers))

    def predict(self, network: LeaderAndPeers, images: Tensor) -> Tensor:
        return network.tree(images)

    def deploy(self, network: LeaderAndPeers) -> Backbone:
        return network.tree.path(0)

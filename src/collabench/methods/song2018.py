r"""Song & Chai 2018: several heads of one network are trained together and learn from each other's consensus.

Training graph (their parts a to d): a tree of the backbone's stages, see :mod:`collabench.models.tree`.

Loss of head h of H (their objective; Fang & Lin's eqs. 1 to 3)::

    q^(h) = softmax(1/(H-1) sum_{j != h} z^(j); T)
    J^(h) = beta CE(onehot(y), z^(h); 1) + (1 - beta) T^2 CE(q^(h), z^(h); T)

With one head J = CE(onehot(y), z; 1). Terms: ``hard`` and, with several heads, ``soft``. Settings and their sources:

============================ =========================================================================================
``graph``, ``heads``         ``individual`` (one head), ``multi_instance``, ``simple_ilr``, ``hierarchical_ilr``
                             (published); 2 and 4 heads. ``hierarchical_ilr`` is a binary tree: 2, 4, 8 … heads need
                             1, 2, 3 … split points
``split_after``              stages after which the graph splits. Published: split points in ResNets and DenseNets; the
                             available texts do not say which. Default: ``stage1``, then ``stage2``
                             (``transition1``, ``transition2`` if the backbone has them)
``splits``                   any tree: a list of (after, branches), instead of graph, heads and split_after
``beta``                     0.5 (published in Fang & Lin as the authors' setting)
``temperature``              2 (default of this project)
``temperature_squared``      factor T^2 on the soft term: on (published, "balance objectives"); off: Fang & Lin's eq. 3
``gradient_through_target``  off: q is a constant (default of this project: the available texts do not say); on: the
                             gradient also flows through q. With alternating heads and new targets it then reaches what
                             the head shares with the others
``scaling``                  ``backprop_rescaling``: losses summed over heads, the gradient divided by the number of
                             branches at every split; ``loss_scaling``: losses averaged over heads; ``none``: summed
``optimisation``             ``simultaneous``: one step on all heads; ``alternating``: one step per head within a
                             batch, without scaling; each step changes only the parameters on that head's path.
                             Running statistics of batch normalisation move once a batch, in the first step's pass
``refresh_targets``          alternating only. On (default): the other heads' logits are computed again for each head's
                             step; off: the logits from before the batch's first step are used
============================ =========================================================================================

The authors published no code. Where an independent reimplementation (the repository qq456cvb/Collaborative-Learning)
differs from the defaults, the entry ``hierarchical-4-as-reimplemented`` of ``params.yaml`` has its values: no T^2, a
gradient through q, splits of a DenseNet before the transition's convolution (``activation1``, ``activation2``).

The first head is deployed. It is chosen before training, because choosing the best head on test data would be a leak.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from collabench.core.record import Record
from collabench.methods import contract
from collabench.methods._running_statistics import fixed_running_statistics
from collabench.methods.losses import consensus, hard_cross_entropy, soft_cross_entropy
from collabench.models import Backbone
from collabench.models.tree import INPUT, Split, TrainingTree, check_splits, heads_of

#: Default split points in order, for backbones with stages of these names. The first set that fits is used.
DEFAULT_SPLIT_POINTS = (
    ("transition1", "transition2"),
    ("stage1", "stage2"),
    ("layer1", "layer2"),
    ("block1", "block2"),
)


class SplitSettings(Record):
    after: str
    branches: int = Field(ge=1, le=64)


class Settings(contract.MethodSettings):
    method: Literal["song2018"]
    graph: Literal["individual", "multi_instance", "simple_ilr", "hierarchical_ilr"] = "hierarchical_ilr"
    heads: int = Field(default=4, ge=1, le=64)
    split_after: tuple[str, ...] | None = None
    splits: tuple[SplitSettings, ...] | None = None
    beta: float = Field(default=0.5, ge=0.0, le=1.0)
    temperature: float = Field(default=2.0, ge=0.01, le=1000.0)
    temperature_squared: bool = True
    gradient_through_target: bool = False
    scaling: Literal["backprop_rescaling", "loss_scaling", "none"] = "backprop_rescaling"
    optimisation: Literal["simultaneous", "alternating"] = "simultaneous"
    refresh_targets: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        defaults = {name: type(self).model_fields[name].default for name in ("graph", "heads", "split_after")}
        if self.splits is not None and any(getattr(self, name) != value for name, value in defaults.items()):
            raise ValueError("splits describes the whole tree: remove graph, heads and split_after")
        if (made := heads_of(self.splits or ())) > 64:
            raise ValueError(f"the splits make {made} heads; at most 64 are possible")
        if self.splits is None:
            if self.graph == "hierarchical_ilr" and self.heads & (self.heads - 1):
                raise ValueError(f"a binary tree has 1, 2, 4, 8, … heads, not {self.heads}")
            if self.graph == "individual" and self.heads not in (1, defaults["heads"]):
                raise ValueError(f"the graph individual has one head, not {self.heads}: remove heads")
            if self.split_after is not None:
                needed = {"individual": 0, "multi_instance": 0, "simple_ilr": 1}.get(
                    self.graph, self.heads.bit_length() - 1
                )
                if len(self.split_after) != needed:
                    raise ValueError(f"{self.graph} with {self.heads} heads has {needed} split points")
        if self.optimisation == "alternating" and self.scaling != type(self).model_fields["scaling"].default:
            raise ValueError("scaling belongs to optimisation: simultaneous (alternating heads scale no gradient)")
        if not self.refresh_targets and self.optimisation != "alternating":
            raise ValueError("refresh_targets belongs to optimisation: alternating")
        if not self.refresh_targets and self.gradient_through_target:
            raise ValueError("gradient_through_target needs refresh_targets: true (fixed targets are constants)")
        return self

    def tree(self, stage_names: tuple[str, ...]) -> tuple[Split, ...]:
        """The splits for a backbone with these stages. Raises ValueError if it does not have such split points."""
        if self.splits is not None:
            return tuple(Split(split.after, split.branches) for split in self.splits)
        if self.graph == "individual" or self.heads == 1:
            return ()
        if self.graph == "multi_instance":
            return (Split(INPUT, self.heads),)
        levels = 1 if self.graph == "simple_ilr" else self.heads.bit_length() - 1
        points = self.split_after
        if points is None:
            fitting = [p[:levels] for p in DEFAULT_SPLIT_POINTS if set(p) <= set(stage_names) and levels <= len(p)]
            if not fitting:
                raise ValueError(f"no default split points for {levels} splits: name them in split_after, from "
                                 f"{', '.join((INPUT, *stage_names[:-1]))}")  # fmt: skip
            points = fitting[0]
        branches = self.heads if self.graph == "simple_ilr" else 2
        return tuple(Split(point, branches) for point in points)

    def readings(self) -> tuple[str, ...]:
        if len(self.passes()) == 1 or self.beta == 1:
            return ()
        if self.gradient_through_target:
            return ("gradients also flow through the consensus, of which the available texts say nothing",)
        return ("the consensus is a constant; the available texts do not say whether gradients flow through it",)

    def without_effect(self) -> dict[str, str]:
        of_soft_term = ("temperature", "temperature_squared", "gradient_through_target", "refresh_targets")
        if len(self.passes()) == 1:
            return dict.fromkeys(("beta", *of_soft_term, "scaling", "optimisation"), "several heads")
        if self.beta == 1:
            return dict.fromkeys(of_soft_term, "beta below 1")
        if self.optimisation == "alternating" and self.splits is None and self.graph == "multi_instance":
            return {"gradient_through_target": "heads that share layers, if they alternate"}
        return {"label_smoothing": "beta above 0"} if self.beta == 0 else {}

    def revisions(self) -> dict[str, int]:
        # 2: running statistics move once a batch; in 1 they moved once in every head's step.
        alternates = self.optimisation == "alternating" and len(self.passes()) > 1
        return {"alternating": 2} if alternates else {}

    def passes(self) -> tuple[str | None, ...]:
        heads = heads_of(self.splits) if self.splits is not None else 1 if self.graph == "individual" else self.heads
        return (None,) * heads

    def check_fits(self, backbone: Backbone, precision: str, input_shape: tuple[int, int, int]) -> None:
        check_splits(backbone.stage_names, self.tree(backbone.stage_names))


class Method(contract.Method[TrainingTree]):
    settings: Settings

    def build(self) -> TrainingTree:
        settings = self.settings
        splits = settings.tree(self.context.make_backbone(0).stage_names)
        rescale = settings.optimisation == "simultaneous" and settings.scaling == "backprop_rescaling"
        return TrainingTree(self.context.make_backbone, splits, rescale)

    def losses(self, network: TrainingTree, batch: contract.Batch) -> dict[str, Tensor]:
        logits = network(batch.images)
        terms = self._terms(logits, batch.labels, self._targets(logits), range(network.heads))
        divisor = network.heads if self.settings.scaling == "loss_scaling" else 1
        return {name: term / divisor for name, term in terms.items()} if divisor > 1 else terms

    def step(self, network: TrainingTree, batch: contract.Batch, update: contract.Update) -> dict[str, Tensor]:
        if self.settings.optimisation == "simultaneous" or network.heads == 1:
            return super().step(network, batch, update)
        sums: dict[str, Tensor] = {}
        targets = None
        for head in range(network.heads):
            with fixed_running_statistics(network) if head else nullcontext():
                logits = network(batch.images)
            if targets is None or self.settings.refresh_targets:
                targets = self._targets(logits)
            terms = self._terms(logits, batch.labels, targets, [head])
            update(contract.total(terms), network.path_parameters(head))
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach()
        return sums

    def _targets(self, logits: Tensor) -> Tensor | None:
        """q (H, B, m), or None with one head."""
        if logits.shape[0] == 1:
            return None
        source = logits if self.settings.gradient_through_target else logits.detach()
        return consensus(source, self.settings.temperature)

    def _terms(
        self, logits: Tensor, labels: Tensor, targets: Tensor | None, heads: range | list[int]
    ) -> dict[str, Tensor]:
        """``hard`` and ``soft`` of J, summed over ``heads``."""
        settings = self.settings
        hard = [hard_cross_entropy(logits[head], labels, settings.label_smoothing) for head in heads]
        if targets is None:
            return {"hard": hard[0]}
        factor = settings.temperature**2 if settings.temperature_squared else 1.0
        soft = [soft_cross_entropy(targets[head], logits[head], settings.temperature) for head in heads]
        return {
            "hard": settings.beta * torch.stack(hard).sum(),
            "soft": (1 - settings.beta) * factor * torch.stack(soft).sum(),
        }

    def predict(self, network: TrainingTree, images: Tensor) -> Tensor:
        return network(images)

    def deploy(self, network: TrainingTree) -> Backbone:
        return network.path(0)

"""Training graphs: trees of heads that share their first stages.

Song & Chai's graphs are trees of a network's stages: ``multi_instance`` splits before the first stage, ``simple_ilr``
once after a named stage, ``hierarchical_ilr`` into two branches after one stage and each branch into two after a later
one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from collabench.models.backbone import Backbone

#: A split "after" this name splits at the input: nothing is shared.
INPUT = "input"


@dataclass(frozen=True)
class Split:
    """After the stage ``after`` (or :data:`INPUT`), the path continues as ``branches`` independent copies."""

    after: str
    branches: int


class _Branching(Protocol):
    @property
    def branches(self) -> int: ...


class _DivideGradient(torch.autograd.Function):
    """Identity in the forward pass; divides the gradient by ``branches`` in the backward pass (Song & Chai's
    rescaling)."""

    @staticmethod
    def forward(context: Any, x: Tensor, branches: int) -> Tensor:
        context.branches = branches
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / context.branches, None


def divide_gradient(x: Tensor, branches: int) -> Tensor:
    """``x``, with its gradient divided by ``branches``.

    In the backward pass of ``sum_h J_h`` the gradient of a shared layer then has the size of one head's gradient. With
    one branch ``x`` itself is returned.
    """
    return x if branches == 1 else _DivideGradient.apply(x, branches)


class _Node(nn.Module):
    """A sequence of stages that some heads share, and the branches that continue from its output."""

    def __init__(self, backbone: Backbone, stages: Sequence[str], children: Sequence[_Node]) -> None:
        super().__init__()
        # The stages keep the backbone's module names, so that the state dicts along a path together are the backbone's.
        self.segment = Backbone(
            {name: backbone.module_at(name) for stage in stages for name in backbone.stages[stage]},
            {stage: backbone.stages[stage] for stage in stages},
        )
        self.branches: Sequence[_Node] = nn.ModuleList(children)  # type: ignore[assignment] # torch's says only Module


class TrainingTree(nn.Module):
    """Several heads of one backbone.

    Args:
        make_backbone: returns a new, independently initialised backbone for each copy number. A node takes its stages
            from the copy with the number of its first head, so that head 0's path is the network of individual
            training.
        splits: in the order of the stages. The number of heads is the product of their branches.
        rescale: divide the gradient at every split by its number of branches.

    Raises ValueError if the backbone cannot be split like this.
    """

    def __init__(
        self, make_backbone: Callable[[int], Backbone], splits: Sequence[Split], rescale: bool = False
    ) -> None:
        super().__init__()
        first = make_backbone(0)
        check_splits(first.stage_names, splits)
        self.heads = heads_of(splits)
        self.rescale = rescale
        copies = [first, *(make_backbone(copy) for copy in range(1, self.heads))]
        self.stages = {stage: tuple(names) for stage, names in copies[0].stages.items()}
        self.stage_names = copies[0].stage_names
        #: Level → the number of stages before its split; at the end the number of all stages.
        bounds = [*(self.stage_names.index(s.after) + 1 if s.after != INPUT else 0 for s in splits), len(self.stages)]
        self.root = self._node(copies, splits, bounds, 0, 0)

    # A method and no function within __init__: a function that calls itself is a reference circle, which would hold all
    # copies' weights until Python's garbage collector runs.
    def _node(
        self, copies: Sequence[Backbone], splits: Sequence[Split], bounds: Sequence[int], level: int, first_head: int
    ) -> _Node:
        """The node below so many splits whose first head has the number ``first_head``, with everything behind it."""
        start = bounds[level - 1] if level else 0
        branches = splits[level].branches if level < len(splits) else 0
        heads_per_branch = heads_of(splits[level + 1 :])
        children = [
            self._node(copies, splits, bounds, level + 1, first_head + branch * heads_per_branch)
            for branch in range(branches)
        ]
        return _Node(copies[first_head], self.stage_names[start : bounds[level]], children)

    def shared(self, images: Tensor) -> Tensor:
        """Output of the stages that all heads share: the images themselves if the tree splits at the input."""
        return self.root.segment(images)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (H, B, features) of every head."""
        return self._run(images, self.stage_names[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """Logits (H, B, m) of every head for images (B, C, H, W)."""
        return self._run(images, self.stage_names)

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> Tensor: ...

    def _run(self, images: Tensor, stages: Sequence[str]) -> Tensor:
        return torch.stack(self._outputs(self.root, images, stages))

    def _outputs(self, node: _Node, x: Tensor, stages: Sequence[str]) -> list[Tensor]:
        """Output of every head behind a node, from the node's input."""
        x = node.segment.run([stage for stage in node.segment.stage_names if stage in stages], x)
        if not node.branches:
            return [x]
        x = divide_gradient(x, len(node.branches)) if self.rescale else x
        return [output for branch in node.branches for output in self._outputs(branch, x, stages)]

    def _nodes(self, head: int) -> list[_Node]:
        """The nodes from the root to a head."""
        node, nodes, heads = self.root, [self.root], self.heads
        while node.branches:
            heads //= len(node.branches)
            node = node.branches[head // heads]
            head %= heads
            nodes.append(node)
        return nodes

    def path_parameters(self, head: int) -> list[nn.Parameter]:
        """Parameters on the path from the input to a head."""
        return [parameter for node in self._nodes(head) for parameter in node.segment.parameters()]

    def path(self, head: int) -> Backbone:
        """The path of one head as a plain backbone. It shares the tree's parameters."""
        modules = {
            name: node.segment.module_at(name)
            for node in self._nodes(head)
            for names in node.segment.stages.values()
            for name in names
        }
        return Backbone(modules, self.stages)


def heads_of(splits: Sequence[_Branching]) -> int:
    """Number of heads of a tree with these splits."""
    heads = 1
    for split in splits:
        heads *= split.branches
    return heads


def check_splits(stage_names: Sequence[str], splits: Sequence[Split]) -> None:
    """Raise ValueError (one line) if a backbone with these stages cannot be split like this."""
    points = (INPUT, *stage_names[:-1])
    for split in splits:
        if split.after not in points:
            raise ValueError(f"the backbone has no split point {split.after!r}; split points: {', '.join(points)}")
        if split.branches < 1:
            raise ValueError(f"a split has at least one branch, not {split.branches}")
    positions = [points.index(split.after) for split in splits]
    if positions != sorted(set(positions)):
        raise ValueError(f"the splits {', '.join(s.after for s in splits)} must follow the order {', '.join(points)}")


def simple_tree(split_after: str, heads: int) -> tuple[Split, ...]:
    """One split after a stage into ``heads`` branches."""
    return (Split(split_after, heads),)

"""Compilation of a training network (``compile`` of a recipe).

What is compiled has fixed shapes and draws no random numbers:

* A graph is compiled for each size of batch that occurs more than once in an epoch. A single smaller batch, usually the
  last one, runs uncompiled: a graph of its own would cost a minute, and one graph of any size would be slower.
* Dropout's random numbers are drawn before a pass, in the order in which an uncompiled pass draws them. So masks are
  those of uncompiled training, and no recorded CUDA graph repeats a mask.
* Evaluation runs uncompiled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from collabench.config.sections import RecipeConfig
from collabench.core.errors import RunFailed
from collabench.models.dropout import DrawnAhead

#: The most graphs of one function: of every network of a run that has it, for every size of batch. More would mean that
#: something differs between steps.
MOST_GRAPHS = 256


def options_of(recipe: RecipeConfig) -> dict[str, Any]:
    """Options of torch.compile for a recipe that compiles."""
    return {"mode": "reduce-overhead"} if recipe.compile == "cuda-graphs" else {}


def compiled_sizes(sizes: Sequence[int]) -> frozenset[int]:
    """The sizes of batches that get a graph, from those of an epoch: all that occur twice, or the only one."""
    counted = Counter(sizes)
    return frozenset(size for size, count in counted.items() if count > 1 or len(counted) == 1)


@contextmanager
def compiling(recipe: RecipeConfig) -> Iterator[None]:
    """The context of a whole run: what a process compiled before has no influence.

    Raises RunFailed if torch would silently continue uncompiled, because there are too many graphs.
    """
    if not recipe.compile:
        yield
        return
    from torch._dynamo import config  # takes a second to import, and only such recipes need it
    from torch._dynamo.exc import FailOnRecompileLimitHit

    torch.compiler.reset()
    try:
        with config.patch(
            recompile_limit=MOST_GRAPHS, accumulated_recompile_limit=16 * MOST_GRAPHS, fail_on_recompile_limit_hit=True
        ):
            yield
    except FailOnRecompileLimitHit as error:
        reason = str(error).strip().splitlines()[0]
        raise RunFailed(
            f"compile: more than {MOST_GRAPHS} graphs of one function ({reason}); write compile: false"
        ) from None
    finally:
        torch.compiler.reset()


def compile_in_place(network: nn.Module, sizes: Collection[int], **options: Any) -> None:
    """Compile the training pass of the network, or of the networks in a container (``options``: as of torch.compile).

    Names of parameters do not change, and parts can still be deployed or called alone.

    Args:
        sizes: the sizes of batches to compile for; other batches run uncompiled.
    """
    if type(network).forward is nn.Module.forward or isinstance(network, nn.ModuleList):
        for part in network.children():
            compile_in_place(part, sizes, **options)
    else:
        # An attribute of the instance; hooks and torch's own calls then stay outside of what is compiled.
        network.forward = _training_pass(network, sizes, options)


def _training_pass(network: nn.Module, sizes: Collection[int], options: dict[str, Any]) -> Callable[..., Any]:
    uncompiled = network.forward
    compiled = torch.compile(uncompiled, dynamic=False, **options)
    drawn = DrawnAhead(network, uncompiled)

    def forward(images: Tensor) -> Any:
        if not network.training or len(images) not in sizes:
            return uncompiled(images)
        with drawn.for_pass(images):
            return compiled(images)

    return forward

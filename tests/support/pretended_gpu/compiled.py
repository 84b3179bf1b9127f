"""Trains every method compiled on the pretended GPU, and uncompiled on the CPU.

One line of JSON for each family: its graphs, the places where a training pass breaks, the largest difference of losses.
"""

from __future__ import annotations

import json

import torch

from collabench.training import loop, train_run
from tests.support.compilation import FAMILIES, Counted, run_of
from tests.support.defaults import teachers
from tests.support.pretended_gpu import device
from tests.support.pretended_gpu.compare import largest
from tests.support.synthetic import blobs


def main() -> None:
    assert device.MEMORY
    counted = Counted()
    loop.options_of = lambda recipe: {"backend": counted}
    for family in FAMILIES:
        counted.graphs = 0
        torch._dynamo.utils.counters.clear()
        run, plain = (run_of(family, epochs=2, batch_size=16, compile=compiled) for compiled in (True, False))
        there = train_run(run, blobs(), device=torch.device("cuda"), teachers=teachers(run)).result.curves.losses
        here = train_run(plain, blobs(), device=torch.device("cpu"), teachers=teachers(plain)).result.curves.losses
        print(json.dumps({
            "family": family,
            "graphs": counted.graphs,
            "breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
            "losses": max(largest(zip(there[term], here[term], strict=True)) for term in here),
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

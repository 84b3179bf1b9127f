"""What portable arithmetic costs or gains: training steps of several processes that take turns, on one thread each.

``python -m benchmarks.arithmetic [NAME ...]``. A process is held to its own arithmetic before it imports torch;
processor time is measured, medians over turns. Ways: torch as it is; torch held to AVX2; portable; portable with
registers of 8 numbers.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

HELD = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
_CHOICES = ("COLLABENCH_ARITHMETIC", "COLLABENCH_HELD")
PORTABLE = {**HELD, "MKL_CBWR": "COMPATIBLE"}
#: Environment, and whether the library's own loops are used.
WAYS = {
    "torch": ({"COLLABENCH_ARITHMETIC": "native"}, False),
    "torch, AVX2": ({"COLLABENCH_ARITHMETIC": "native", **HELD}, False),
    "portable": (PORTABLE, True),
    "portable, 8 lanes": ({**PORTABLE, "COLLABENCH_LANES": "8"}, True),
}
#: Shape of an image, model, training graph, batch size and steps of a turn.
CASES = {
    "digits-resnet8": ((1, 8, 8), {"family": "cifar_resnet", "depth": 8}, "individual", 64, 20),
    "digits-resnet8-hierarchical": ((1, 8, 8), {"family": "cifar_resnet", "depth": 8}, "hierarchical-4", 64, 10),
    "resnet32": ((3, 32, 32), {"family": "cifar_resnet", "depth": 32}, "individual", 128, 1),
    "resnet32-hierarchical": ((3, 32, 32), {"family": "cifar_resnet", "depth": 32}, "hierarchical-4", 128, 1),
    "densenet-40-12": ((3, 32, 32), {"family": "densenet", "depth": 40, "growth": 12}, "individual", 32, 1),
    "vgg16": ((3, 32, 32), "vgg16", "individual", 16, 1),
    "resnet18": ((3, 32, 32), "resnet18", "individual", 16, 1),
    "digits-vgg16-small": ((1, 8, 8), "vgg16-small", "individual", 64, 5),
    "digits-resnet18-small": ((1, 8, 8), "resnet18-small", "individual", 64, 5),
}


def _steps(name: str, own: bool) -> Iterator[int]:
    from benchmarks import throughput
    from benchmarks.bench import Bench

    shape, model, graph, batch, _ = CASES[name]
    bench = Bench(True, 1)
    one = bench.song(graph, {"family": "cifar_resnet", "depth": 8} if isinstance(model, str) else model, batch)
    if isinstance(model, str):
        one = one.model_copy(update={"model": bench.params.models[model]})
    return throughput.library_steps(throughput.portable(one) if own else one, shape, 4 * batch)


def _serve(own: bool) -> None:
    """One process: takes the name of a case a line, and answers with the milliseconds of a step."""
    import torch

    torch.set_num_threads(1)
    steps: dict[str, Iterator[int]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in steps:
            steps = {name: _steps(name, own)}
            for _ in range(3):
                next(steps[name])
        count = CASES[name][-1]
        begin = time.process_time()
        for _ in range(count):
            next(steps[name])
        print(json.dumps(1e3 * (time.process_time() - begin) / count), flush=True)


def measure(names: list[str], turns: int = 7) -> dict[str, dict[str, float]]:
    """Milliseconds of a step by case and way."""
    servers = {}
    for way, (environment, own) in WAYS.items():
        command = [sys.executable, "-m", "benchmarks.arithmetic", "--serve", "own" if own else "torch"]
        own_ones = {name: value for name, value in os.environ.items() if name not in (*PORTABLE, *_CHOICES)}
        variables = {"OMP_NUM_THREADS": "1", **own_ones, **environment}
        servers[way] = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    found: dict[str, dict[str, float]] = {}
    for name in names:
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(turns + 1):
            for way, server in servers.items():
                print(name, file=server.stdin, flush=True)
                value = json.loads(server.stdout.readline())
                if turn:
                    times[way].append(value)
        found[name] = {way: statistics.median(values) for way, values in times.items()}
        first = found[name]
        print(
            f"{name:30s}", *(f"{way} {value:.2f} ms |" for way, value in first.items()),
            f"portable / torch {first['torch'] / first['portable']:.2f}, "
            f"8 lanes / torch AVX2 {first['torch, AVX2'] / first['portable, 8 lanes']:.2f}", flush=True,
        )  # fmt: skip
    for server in servers.values():
        server.stdin.close()
        server.wait()
    return found


def table(quick: bool) -> tuple[list[str], list[list[str]]]:
    """Milliseconds of a training step by case and way, and how fast portable arithmetic is beside torch."""
    found = measure(list(CASES)[:1] if quick else list(CASES), 1 if quick else 7)
    rows = [
        [
            name, *(f"{ways[way]:.1f}" for way in WAYS), f"{ways['torch'] / ways['portable']:.2f}",
            f"{ways['torch, AVX2'] / ways['portable, 8 lanes']:.2f}",
        ]
        for name, ways in found.items()
    ]  # fmt: skip
    head = ["a step of", *(f"{way}, ms" for way in WAYS), "torch / portable", "torch, AVX2 / portable, 8 lanes"]
    return head, rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(sys.argv[2] == "own")
    else:
        measure(sys.argv[1:] or list(CASES))

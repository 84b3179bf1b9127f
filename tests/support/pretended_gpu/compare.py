"""Trains every method, and the switches that take other paths, on the pretended GPU and on the CPU.

One line of JSON for each configuration: its name; the largest difference of losses and of weights; what made the host
wait for the device in a training step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from collabench.config.configuration import Run
from collabench.methods import METHODS
from collabench.study.gpu_check.cases import cases
from collabench.training import checkpoint, loop, train_run
from collabench.training.history import Clock
from tests.support.defaults import teachers
from tests.support.pretended_gpu import device
from tests.support.synthetic import blobs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def waits_in_a_step(run: Run, dataset) -> dict[str, int]:
    """What makes the host wait in the second epoch, whose end waits once for the losses.

    A checkpoint is written after every step. It waits for the losses' sums, which it holds as numbers.
    """
    trainer = loop._Trainer(run, dataset, CUDA, None, teachers(run))
    trainer.evaluator.after_epoch = lambda *_: None
    trainer.train_epoch(Clock(1e9), None, None)
    with TemporaryDirectory() as folder, checkpoint.Writer(Path(folder) / "checkpoint") as writer:
        device.forget()
        trainer.train_epoch(Clock(0), writer, None)
    return {name: count for name, count in device.counts().items() if name.startswith("!")}


def largest(pairs) -> float:
    return max((abs(a - b) for a, b in pairs), default=0.0)


def main(precision: str) -> None:
    loop.check_execution = lambda *_: None  # bfloat16 on a CPU is slow, and is compared all the same
    for name, chosen in cases(epochs=2, precision=precision).items():
        dataset = blobs(shape=(3, 8, 8)) if "torchvision" in name else blobs()
        run = Run(chosen, 0)
        there = train_run(run, dataset, device=CUDA, teachers=teachers(run))
        here = train_run(run, dataset, device=CPU, teachers=teachers(run))
        curves = here.result.curves.losses
        print(json.dumps({
            "name": name,
            "losses": largest(
                pair for term in curves for pair in zip(there.result.curves.losses[term], curves[term], strict=True)
            ),
            "weights": largest(
                ((there.weights[key] - value).abs().max().item(), 0.0)
                for key, value in (here.weights or {}).items() if value.is_floating_point()
            ),
            "waits": waits_in_a_step(run, dataset) if METHODS[run.configuration.method.method].Method.trains else {},
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])

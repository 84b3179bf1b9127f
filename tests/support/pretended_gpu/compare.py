"""Trains every method, and the switches that take other paths, on the pretended GPU and on the CPU.

One line of JSON for each configuration: its name; the largest difference of losses and of weights; what made the host
wait for the device in a training step.
"""

from __future__ import annotations

import json
import sys

import torch

from collabench.config.configuration import Configuration, Run
from collabench.methods import METHODS
from collabench.training import loop, train_run
from collabench.training.history import Clock
from tests.support.defaults import configuration, teachers
from tests.support.pretended_gpu import device
from tests.support.synthetic import SMALL_MODELS, blobs, configuration_of, model_of, settings_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
VGG, RESNET = SMALL_MODELS[1], SMALL_MODELS[2]
DENSENET = {"family": "densenet", "depth": 10, "growth": 4}
TORCHVISION = {"family": "torchvision_model", "name": "resnet18", "small_stem": True}

#: Name → method, its settings, the model if it is not the first small one.
SWITCHES = {
    "song2018 alternating": ("song2018", {"optimisation": "alternating"}, None),
    "song2018 loss scaling": ("song2018", {"scaling": "loss_scaling"}, None),
    "song2018 through the target": ("song2018", {"gradient_through_target": True}, None),
    "song2018 label smoothing": ("song2018", {"label_smoothing": 0.1}, None),
    "song2018 on a VGG": ("song2018", {}, VGG),
    "dml in turn on a VGG": ("dml", {"optimisation": "in_turn"}, VGG),
    "dml through the target": ("dml", {"gradient_through_target": True}, None),
    "one through the target": ("one", {"gradient_through_target": True}, None),
    "okddip through the target": ("okddip", {"gradient_through_target": True}, None),
    "one as published": ("one", {"heads": 3, "gate": "normalised", "ramp_epochs": 2}, None),
    "okddip as published": (
        "okddip",
        {"target_average": "logits", "attention_divisor": 8, "ramp_epochs": 2, "gradient_through_target": True},
        None,
    ),
    "wang2018 consensus": ("wang2018", {"consensus_weight": 1.0}, None),
    "wang2018 without memory": ("wang2018", {"deployment": "without_memory"}, None),
    "fang2021 out on a VGG": ("fang2021", {"losses": ("out",), "out_added": True, "out_shared_masks": True}, VGG),
    "fang2021 mid on a ResNet": ("fang2021", {"losses": ("mid",), "mid_include_output": True}, RESNET),
    "fang2021 pull-push of pixels": (
        "fang2021", {"losses": ("pull_push",), "input_descriptor": "pixels", "centre": "sample"}, RESNET,
    ),
    "fang2021 kernel on all layers": (
        "fang2021", {"losses": ("kernel",), "kernel_groups": None, "kernel_shortcuts": True}, RESNET,
    ),
    "fang2021 on a ResNet": ("fang2021", {}, RESNET),
    "individual on a DenseNet": ("individual", {}, DENSENET),
    "individual on torchvision's ResNet": ("individual", {}, TORCHVISION),
}  # fmt: skip


def cases(precision: str) -> dict[str, Configuration]:
    """Name → configuration of two epochs, at a learning rate at which rounding does not grow."""
    recipe = {"epochs": 2, "learning_rate": 1e-3, "precision": precision}
    found = {name: configuration(name, **recipe) for name in METHODS}
    for name, (method, settings, model) in SWITCHES.items():
        chosen = model_of(model) if model else configuration(method).model
        found[name] = configuration_of(settings_of(method, **settings), chosen, **recipe)
    return found


def waits_in_a_step(run: Run, dataset) -> dict[str, int]:
    """What makes the host wait in the second epoch, whose end waits once for the losses."""
    trainer = loop._Trainer(run, dataset, CUDA, None, teachers(run))
    trainer.evaluator.after_epoch = lambda *_: None
    trainer.train_epoch(Clock(1e9), None, None)
    device.forget()
    trainer.train_epoch(Clock(1e9), None, None)
    return {name: count for name, count in device.counts().items() if name.startswith("!")}


def largest(pairs) -> float:
    return max((abs(a - b) for a, b in pairs), default=0.0)


def main(precision: str) -> None:
    loop.check_execution = lambda *_: None  # bfloat16 on a CPU is slow, and is compared all the same
    for name, chosen in cases(precision).items():
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

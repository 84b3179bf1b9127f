"""Fingerprints: what every method computes in its first three steps, committed, so that no change of numbers goes
unseen.

``fingerprints.json`` holds, for every case below, the method's revision, the losses of three steps in float64 and two
numbers for the weights and statistics of each layer after them: their length and their component along a fixed
direction. They are compared
with a tolerance that leaves room for another processor's rounding. Whoever changes a method's numbers raises the
``revision`` of its class, which enters every run's identity, and then calls::

    python -m tests.support.fingerprints --write

which refuses to write over numbers that changed under the same revision.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from collabench.config.configuration import RequiredRun, Run
from collabench.core.seeding import dropout_seed, stream_seed
from collabench.methods import METHODS, Batch
from collabench.models import build_backbone
from collabench.models.dropout import assign_generators
from collabench.training.context import make_context, make_method
from tests.support.synthetic import CLASSES, SMALL_MODELS, configuration_of, model_of, settings_of
from tests.support.training_cases import sgd_step

FILE = Path(__file__).with_name("fingerprints.json")
SHAPE, IMAGES, STEPS, SEED = (1, 8, 8), 8, 3, 3
#: Initial weights and images are drawn in float32, in whose last digit (6e-8) processors may differ.
TOLERANCE = 2e-5

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS
OTHER = {"family": "cifar_resnet", "depth": 8, "width": 3}
DENSENET = {"family": "densenet", "depth": 10, "growth": 3, "dropout": 0.2}

#: Name → the method's settings and the model.
CASES: dict[str, tuple[dict, dict]] = {
    "individual": ({}, RESIDUAL),
    "individual, label smoothing": ({"label_smoothing": 0.1}, RESIDUAL),
    "individual, vgg": ({}, VGG),
    "individual, resnet": ({}, SMALL_RESNET),
    "ensemble": ({}, RESIDUAL),
    "song2018": ({}, RESIDUAL),
    "song2018, multi-instance": ({"graph": "multi_instance", "heads": 3}, RESIDUAL),
    "song2018, loss scaling": ({"graph": "simple_ilr", "scaling": "loss_scaling"}, RESIDUAL),
    "song2018, no scaling": ({"scaling": "none", "temperature_squared": False}, RESIDUAL),
    "song2018, through target": ({"gradient_through_target": True}, RESIDUAL),
    "song2018, alternating": ({"optimisation": "alternating"}, RESIDUAL),
    "song2018, alternating, fixed": ({"optimisation": "alternating", "refresh_targets": False}, RESIDUAL),
    "song2018, vgg": ({}, VGG),
    "song2018, as reimplemented": (
        {"temperature_squared": False, "gradient_through_target": True, "split_after": ("activation1", "activation2")},
        DENSENET,
    ),
    "kd": ({}, RESIDUAL),
    "kd, ensemble": ({"teacher_members": 2}, RESIDUAL),
    "kd, ensemble, logits": ({"teacher_members": 2, "teacher_average": "logits"}, RESIDUAL),
    "dml": ({}, RESIDUAL),
    "dml, peer": ({"peers": ("other",), "gradient_through_target": True}, RESIDUAL),
    "dml, in turn": ({"networks": 3, "optimisation": "in_turn"}, RESIDUAL),
    "dml, as published": ({"networks": 4, "optimisation": "in_turn", "over_others": "sum"}, RESIDUAL),
    "dml, in turn, vgg": ({"networks": 3, "optimisation": "in_turn"}, VGG),
    "auxiliary": ({}, RESIDUAL),
    "auxiliary, every": ({"after": "every"}, RESIDUAL),
    "one": ({}, RESIDUAL),
    "one, through target": ({"gradient_through_target": True}, RESIDUAL),
    "one, as published": ({"heads": 3, "gate": "normalised", "ramp_epochs": 2}, RESIDUAL),
    "okddip": ({}, RESIDUAL),
    "okddip, through target": ({"gradient_through_target": True}, RESIDUAL),
    "okddip, as published": (
        {"target_average": "logits", "attention_divisor": 8, "ramp_epochs": 2, "gradient_through_target": True},
        RESIDUAL,
    ),
    "okddip, resnet": ({"split_after": "stage1"}, SMALL_RESNET),
    "wang2018": ({}, RESIDUAL),
    "wang2018, private": ({"memory": "private", "consensus_weight": 1.0}, RESIDUAL),
    "wang2018, peer": ({"peers": ("other",), "consensus_weight": 1.0}, RESIDUAL),
    "wang2018, resnet": ({"consensus_weight": 1.0}, SMALL_RESNET),
    "fang2021": ({"input_descriptor": "std"}, VGG),  # images of one channel have pixels by default
    "fang2021, resnet": ({"kernel_shortcuts": True, "input_descriptor": "std"}, SMALL_RESNET),
    "fang2021, one channel": ({}, VGG),
    "fang2021, out": ({"losses": ("out",), "out_added": True, "out_temperature_squared": True}, VGG),
    "fang2021, out, through target": ({"losses": ("out",), "out_gradient_through_target": True}, VGG),
    "fang2021, out, shared masks": ({"losses": ("out",), "out_shared_masks": True, "out_branches": 3}, VGG),
    "fang2021, mid": ({"losses": ("mid",), "mid_include_own": True, "mid_divisor": "printed"}, SMALL_RESNET),
    "fang2021, mid, output": ({"losses": ("mid",), "mid_include_output": True}, VGG),
    "fang2021, pull and push, sample": ({"losses": ("pull_push",), "centre": "sample"}, SMALL_RESNET),
    "fang2021, pull and push, pixels": ({"losses": ("pull_push",), "input_descriptor": "pixels"}, VGG),
    "fang2021, kernel": ({"losses": ("kernel",), "kernel_groups": None}, SMALL_RESNET),
}  # fmt: skip


def method_of(case: str) -> str:
    return case.split(",")[0]


# A method that is new has a case from its first day, with its default settings.
CASES |= {name: ({}, RESIDUAL) for name in METHODS if name not in map(method_of, CASES)}


def fingerprint(case: str, rounding: float = 0.0, **changed: object) -> dict:
    """Three steps of stochastic gradient descent with momentum and weight decay, in float64.

    Args:
        rounding: initial weights and images differ by so much, relatively, as on another processor.
        changed: settings that differ from the case's.
    """
    values, model = CASES[case]
    name, model = method_of(case), model_of(model)
    settings = settings_of(name, **values | changed)
    plain = configuration_of(settings_of("individual"), model)
    requires = tuple(RequiredRun(configuration=plain, member=r.member) for r in settings.requires())
    run = Run(configuration_of(settings, model, requires=requires, peer_models={"other": model_of(OTHER)}), SEED)
    teachers = [
        build_backbone(model, SHAPE, CLASSES, stream_seed(SEED + 1 + 10_000 * number, "init", 0)).double().eval()
        for number, required in enumerate(run.configuration.requires)
    ]
    method = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, SEED, teachers))
    network = method.build().double().train()
    generators = assign_generators(network, torch.device("cpu"))
    for number, generator in generators.items():
        generator.manual_seed(dropout_seed(SEED, 0, number) if number else SEED)
    draws = torch.Generator().manual_seed(SEED)
    images = [torch.randn(IMAGES, *SHAPE, generator=draws).double() for _ in range(STEPS)]
    with torch.no_grad():
        for tensor in [*network.parameters(), *images] if rounding else []:
            tensor *= 1 + rounding * (2 * torch.rand(tensor.shape, generator=draws, dtype=tensor.dtype) - 1)
    labels = [torch.arange(step, step + IMAGES) % CLASSES for step in range(STEPS)]
    losses: dict[str, list[float]] = {}
    if method.trains:
        update = sgd_step(network)
        for epoch, (x, y) in enumerate(zip(images, labels, strict=True)):
            for term, value in method.step(network, Batch(x, y, generators[0], epoch), update).items():
                losses.setdefault(term, []).append(_rounded(value.item()))
    with torch.no_grad():
        predicted = method.predict(network.eval(), images[0])
    return {
        "revision": type(method).revision + sum(settings.revisions().values()),
        "losses": losses,
        "weights": {layer: _summary(values) for layer, values in _layers(network).items()},
        "predictions": _summary(predicted),
    }


def _layers(network: nn.Module) -> dict[str, Tensor]:
    """Layer → all its weights and statistics in one row."""
    found: dict[str, list[Tensor]] = {}
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            found.setdefault(key.rpartition(".")[0], []).append(value.flatten())
    return {layer: torch.cat(values) for layer, values in found.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")


def _summary(tensor: Tensor) -> list[float]:
    """Length, and component along a direction whose entries are cos(1), cos(2) …"""
    flat = tensor.double().flatten()
    direction = torch.cos(torch.arange(1, len(flat) + 1, dtype=torch.float64))
    return [_rounded(flat.norm().item()), _rounded((flat @ direction / direction.norm()).item())]


def differences(recorded: dict, found: dict) -> list[str]:
    """What differs by more than rounding, without the revision."""
    lines: list[str] = []
    for part in ("losses", "weights"):
        if recorded[part].keys() != found[part].keys():
            names = sorted(recorded[part].keys() ^ found[part].keys())
            lines.append(f"{part}: {', '.join(names)} only in one of the two")
            continue
        lines += [
            f"{part}, {name}: {recorded[part][name]} became {found[part][name]}"
            for name in found[part]
            if not _close(recorded[part][name], found[part][name])
        ]
    if not _close(recorded["predictions"], found["predictions"]):
        lines.append(f"predictions: {recorded['predictions']} became {found['predictions']}")
    return lines


def _close(first: list[float], second: list[float]) -> bool:
    """By the tolerance, relative to the largest: a component can be small beside the length."""
    size = max(map(abs, [*first, *second]))
    return len(first) == len(second) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE * size) for a, b in zip(first, second, strict=True)
    )


def verdict(case: str, recorded: dict | None, found: dict) -> str | None:
    """What is wrong with a case, in one line; None where nothing is."""
    name = method_of(case)
    again = "python -m tests.support.fingerprints --write"
    if recorded is None:
        return f"{case}: has no fingerprint; call {again}"
    if found["revision"] < recorded["revision"]:
        return f"{case}: the revision of {name} fell from {recorded['revision']} to {found['revision']}"
    changed = differences(recorded, found)
    if found["revision"] > recorded["revision"]:
        return (
            f"{case}: the revision of {name} is {found['revision']}, the fingerprint's {recorded['revision']}; call "
            f"{again}"
        )
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        return (
            f"{case}: numbers changed: {changed[0]}{more}; if they should, raise the revision of {name} in "
            f"src/collabench/methods/{name}.py, then call {again}"
        )
    return None


def load() -> dict[str, dict]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def updated(recorded: dict[str, dict], found: dict[str, dict]) -> tuple[dict[str, dict], list[str]]:
    """The file's new content, and why it must not be written (nothing where it may). What has not changed stays as it
    is."""
    content, refusals = {}, []
    for case, fresh in found.items():
        old = recorded.get(case)
        problem = verdict(case, old, fresh)
        if old is not None and problem is not None and fresh["revision"] <= old["revision"]:
            refusals.append(problem)
        content[case] = old if old is not None and problem is None else fresh
    return content, refusals


def write() -> int:
    content, refusals = updated(load(), {case: fingerprint(case) for case in CASES})
    if refusals:
        print("\n".join(["not written:", *refusals]), file=sys.stderr)
        return 1
    cases = [f"{json.dumps(case)}: {json.dumps(content[case])}" for case in content]
    FILE.write_text("{\n" + ",\n".join(cases) + "\n}\n", encoding="utf-8")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True)
    parser.parse_args()
    sys.exit(write())


if __name__ == "__main__":
    main()

"""How fast a GPU trains what the papers' profiles train, and what that makes of each profile.

Steps are timed on random images at the recipe's batch size. Hours of a profile are derived: each configuration's
counted arithmetic at the rate of the timed configuration whose network is most like its own. ``collabench estimate``
times every configuration itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

from collabench.config.configuration import Configuration
from collabench.config.dataset_shape import shape_without_files
from collabench.config.known_datasets import DECODED_SOURCES
from collabench.config.params import Params, load_params
from collabench.config.plan import resolve
from collabench.core.device_errors import is_shortage_of_memory
from collabench.core.errors import ConfigError
from collabench.core.resources import Resources
from collabench.core.text import counted
from collabench.study.gpu_check.decoding import decoding
from collabench.study.gpu_check.record import Check
from collabench.study.gpu_check.steps import Steps
from collabench.study.needs import lease_bytes
from collabench.study.study import load_study
from collabench.study.timing import predict_all
from collabench.study.totals import Totals, totals
from collabench.training.compilation import compile_in_place, compiling, options_of
from collabench.training.device import choose_device, prepare_process
from collabench.training.flops import count

PART = "speed"
#: (data set, model, recipe, method) of params.yaml. The first is also timed in every other combination of
#: :data:`LAYOUTS`, :data:`PRECISIONS` and :data:`FORMS`, the second with each of them alone, the others in bfloat16.
TIMED = (
    ("cifar10", "resnet32", "song2018-resnet", "individual"),
    ("cifar10", "resnet32", "song2018-resnet", "hierarchical-4"),
    ("cifar100", "vgg16", "fang2021-cifar", "individual"),
    ("cifar100", "resnet18", "fang2021-cifar", "individual"),
    ("cifar100", "resnet18", "fang2021-cifar", "fang2021-out"),
    ("cifar100", "resnet18", "fang2021-cifar", "fang2021-mid"),
    ("cifar100", "resnet18", "fang2021-cifar", "fang2021-pull-push"),
    ("cifar100", "resnet18", "fang2021-cifar", "fang2021-kernel"),
    ("imagenet", "resnet50", "song2018-resnet50", "individual"),
)
#: Seconds for which a configuration is timed, after as many warm-up steps.
SECONDS, WARM_UP = 1.0, 3
#: The name of the other layout than that in which studies train.
CONTIGUOUS = "contiguous"
#: Name → what differs from training in float32, channels-last and eager; "" where nothing does.
LAYOUTS: dict[str, dict[str, Any]] = {"": {}, CONTIGUOUS: {"channels_last": False}}
PRECISIONS: dict[str, dict[str, Any]] = {"": {}, "bfloat16": {"precision": "bfloat16"}}
FORMS: dict[str, dict[str, Any]] = {"": {}, "compiled": {"compile": True}, "CUDA graphs": {"compile": "cuda-graphs"}}
#: Processes that train side by side.
BESIDE = (1, 2, 4)


@dataclass(frozen=True)
class Rate:
    """How fast a configuration trains: steps a second, and FLOPs a second."""

    configuration: Configuration
    steps: float
    flops: float


def speed(resources: Resources, root: Path) -> Iterator[Check]:
    """Steps a second of each timed configuration, in layouts, precisions and compiled forms; hours of the profiles."""
    device = choose_device(resources.device)
    prepare_process(device)
    params = load_params(root / "params.yaml")
    rates, gains = list[Rate](), list[float]()
    for number, parts in enumerate(TIMED):
        configuration = resolve_parts(params, parts)
        if configuration is None:
            yield Check(part=PART, name="/".join(parts), verdict="skipped", text="params.yaml does not define it")
            continue
        try:
            rate, text = _timed(configuration, device)
        except Exception as error:
            if not is_shortage_of_memory(error):
                raise
            rate = None
        if rate is None:  # here, where the error no longer holds what was allocated
            torch.cuda.empty_cache()
            text = f"a step of {configuration.recipe.batch_size} images does not fit this GPU's memory"
            yield Check(part=PART, name=configuration.label, verdict="skipped", text=text)
            continue
        rates.append(rate)
        yield _said(configuration, "float32, channels-last, eager", rate, text)
        for name, options in _variants(number).items():
            try:
                other, text = _timed(configuration, device, **options)
            except Exception as error:  # a compiler's; the variant is not what studies use
                text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                yield Check(part=PART, name=f"{configuration.label}: {name}", verdict="note", text=text)
                continue
            yield _said(configuration, name, other, f"{other.steps / rate.steps:.2f} times the first; {text}")
            if name == CONTIGUOUS:
                gains.append(rate.steps / other.steps)
    yield from layout(gains)
    read_from_files = [one for one in rates if one.configuration.dataset.source in DECODED_SOURCES]
    trained = [one.steps * one.configuration.recipe.batch_size for one in read_from_files]
    yield from decoding(device, max(trained, default=None))
    yield from hours(root, params, rates, resources)


def resolve_parts(params: Params, parts: tuple[str, str, str, str]) -> Configuration | None:
    """The configuration of these names of ``params.yaml`` without label noise; None where a name is not defined."""
    dataset, model, recipe, method = parts
    known: list[Mapping[str, object]] = [params.datasets, params.models, params.recipes, params.methods]
    clean = next((name for name, noise in params.noise.items() if noise.kind == "none"), None)
    if clean is None or not all(name in section for name, section in zip(parts, known, strict=True)):
        return None
    return resolve(params, dataset=dataset, noise=clean, model=model, recipe=recipe, method=method)


def _variants(number: int) -> Mapping[str, dict[str, Any]]:
    """Name → what differs in each further timing of the configuration with this number in :data:`TIMED`."""
    found = {}
    for one in product(LAYOUTS.items(), PRECISIONS.items(), FORMS.items()):
        names = [name for name, _ in one if name]
        if len(names) == 1 or (names and number == 0):
            found[", ".join(names)] = {key: value for _, options in one for key, value in options.items()}
    return found if number < 2 else {"bfloat16": found["bfloat16"]}


def _timed(
    configuration: Configuration, device: torch.device, *, channels_last: bool = True, **recipe: Any
) -> tuple[Rate, str]:
    """The rate of a configuration, and one line with its operations and the share of time in which the GPU works."""
    chosen = configuration.model_copy(update={"recipe": configuration.recipe.model_copy(update=recipe)})
    form = shape_without_files(chosen)
    training = count(chosen, form.network_shape(chosen.recipe), form.classes).training
    with compiling(chosen.recipe):
        steps = Steps(chosen, form, device, channels_last=channels_last)
        images, labels = steps.batch(chosen.recipe.batch_size)
        if chosen.recipe.compile:
            compile_in_place(steps.network, {len(images)}, **options_of(chosen.recipe))
        for _ in range(WARM_UP):
            steps.step(images, labels)
        per_step = _seconds(steps, images, labels, 1)
        per_step = _seconds(steps, images, labels, max(1, math.ceil(SECONDS / per_step)))
        kernels, busy = _profile(steps, images, labels)
    said = "torch's profiler sees no kernels here"
    if kernels:
        said = (
            f"{kernels} kernels a step, {1e6 * per_step / kernels:.1f} µs each; the GPU works "
            f"{min(1.0, busy / per_step):.0%} of the time"
        )
    return Rate(configuration, 1 / per_step, training * len(images) / per_step), said


def _seconds(steps: Steps, images: torch.Tensor, labels: torch.Tensor, count: int) -> float:
    """Seconds of a step, of so many for whose end the host waits once."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(count):
        steps.step(images, labels)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / count


def _profile(steps: Steps, images: torch.Tensor, labels: torch.Tensor) -> tuple[int, float]:
    """Kernels of one step, and the seconds in which they run; no kernels where torch's profiler cannot see them."""
    if ProfilerActivity.CUDA not in supported_activities():
        return 0, 0.0
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        steps.step(images, labels)
        torch.cuda.synchronize()
    events = [event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return len(events), sum(event.device_time for event in events) / 1e6


def _said(configuration: Configuration, name: str, rate: Rate, text: str) -> Check:
    per_second = rate.steps * configuration.recipe.batch_size
    line = f"{per_second:,.0f} images a second, {rate.flops / 1e12:.1f} TFLOP a second; {text}"
    return Check(part=PART, name=f"{configuration.label}: {name}", verdict="note", text=line)


def layout(gains: list[float]) -> Iterator[Check]:
    """Which layout is faster on this card. gains: steps a second in channels-last, relative to those in the other."""
    if not gains:
        return
    mean = math.prod(gains) ** (1 / len(gains))
    text = f"channels-last, in which studies train, is {mean:.2f} times as fast as contiguous in float32"
    if mean < 1:
        text += ": on this GPU contiguous would be faster, which no setting of a recipe chooses"
    yield Check(part=PART, name="layout", verdict="note", text=text)


# ------------------------------------------------------------------------------------------------------- profiles


def hours(root: Path, params: Params, rates: list[Rate], resources: Resources) -> Iterator[Check]:
    """Hours of each profile with ``device: cuda`` on this card, derived from the rates."""
    known: dict[str, tuple[int, int, int]] = {}  # profiles share configurations; the union of some has theirs
    for name, entry in params.profiles.items():
        if entry.device != "cuda" or not rates:
            continue
        try:
            found = totals(load_study(root, name, planned=True), resources.cores, known)
        except ConfigError as error:
            yield Check(part=PART, name=f"profile {name}", verdict="skipped", text=str(error))
            continue
        yield Check(part=PART, name=f"profile {name}", verdict="note", text=_hours_line(found, rates, resources))


def _hours_line(found: Totals, rates: list[Rate], resources: Resources) -> str:
    seconds = sum(one.flops / nearest(one.configuration, one.flops_per_image, rates).flops for one in found.parts)
    slots = min((resources.side_by_side(one.lease) for one in found.parts), default=1)
    return (
        f"{counted(found.trainings, 'training')}, {found.flops / 1e18:.2f} EFLOP: about {seconds / 3600:,.0f} hours "
        f"one after the other (derived; collabench estimate -p {found.profile} times every configuration); at least "
        f"{slots} side by side{_too_large(found, resources)}"
    )


def _too_large(found: Totals, resources: Resources) -> str:
    """What to say of a profile whose largest run needs more memory than a GPU has."""
    largest = max(resources.gpu_memory, default=0)
    if not 0 < largest < found.lease:
        return ""
    return f"; its largest run needs {found.lease / 1e9:.1f} GB of a GPU, which has {largest / 1e9:.1f}"


def nearest(configuration: Configuration, per_image: int, rates: list[Rate]) -> Rate:
    """The rate of the same model and method, else of the same model, else of the most similar arithmetic an image."""

    def distance(rate: Rate) -> tuple[bool, bool, float]:
        names, other = configuration.names, rate.configuration.names
        own = rate.flops / rate.steps / rate.configuration.recipe.batch_size
        return (
            names["model"] != other["model"],
            names["method"] != other["method"],
            abs(math.log(max(per_image, 1)) - math.log(max(own, 1))),
        )

    return min(rates, key=distance)


def beside(resources: Resources, root: Path) -> Iterator[Check]:
    """Throughput of one, two and four processes on one GPU, each of which leases its own memory; the best of them."""
    configuration = resolve_parts(load_params(root / "params.yaml"), TIMED[0])
    if configuration is None:
        return
    form = shape_without_files(configuration)
    lease = lease_bytes(configuration, form)
    alone, rates = None, dict[int, float]()
    for number in BESIDE:
        if resources.exclusive and number > 1:
            text = "exclusive compute mode: the GPU serves one process"
            yield Check(part=PART, name=counted(number, "process", "processes"), verdict="skipped", text=text)
            continue
        one = replace(resources, gpus=resources.gpus[:1], gpu_memory=resources.gpu_memory[:1], slots_per_gpu=number)
        if one.side_by_side(lease) < number:
            text = f"memory for {counted(one.side_by_side(lease), 'process', 'processes')} of {lease / 1e9:.1f} GB"
            yield Check(part=PART, name=counted(number, "process", "processes"), verdict="skipped", text=text)
            continue
        (found,) = predict_all({configuration.id: configuration}, {configuration.id: form}, one)
        alone = alone or found.train_seconds
        rates[number] = number * alone / found.train_seconds
        text = f"{configuration.label}: {rates[number]:.2f} times the throughput of one"
        yield Check(part=PART, name=counted(number, "process", "processes"), verdict="note", text=text)
    if rates:
        yield slots(rates, resources.slots_per_gpu)


def slots(rates: Mapping[int, float], most: int) -> Check:
    """How many processes a GPU serves best. rates: their number → throughput, relative to one. most: what studies on
    this machine start."""
    best = max(rates, key=lambda number: rates[number])
    text = f"{best} of {', '.join(map(str, rates))} side by side train most; studies start up to {most} on this GPU"
    if best != most:
        text += f", and up to {best} with COLLABENCH_GPU_SLOTS={best}"
    return Check(part=PART, name="slots", verdict="note", text=text)

"""Short trainings of any method, with what a test needs to compare two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from collabench.config.configuration import RequiredRun, Run
from collabench.core.record import Record
from collabench.core.seeding import dropout_seed, stream_seed
from collabench.methods import Batch, Method
from collabench.models import build_backbone
from collabench.models.dropout import assign_generators
from collabench.training import Trained, checkpoint, make_context, train_run
from collabench.training.context import make_method
from tests.support.synthetic import CLASSES, SMALL_MODELS, blobs, configuration_of, model_of, settings_of

SHAPE = (1, 8, 8)
IMAGES = torch.randn(12, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % CLASSES
ALL_IMAGES = 40

#: Another family member, for peers and teachers.
OTHER = {"family": "cifar_resnet", "depth": 8, "width": 6}


def run_of(
    method: str,
    seed: int = 3,
    recipe: dict | None = None,
    models: dict | None = None,
    on: dict = SMALL_MODELS[0],
    **values: object,
) -> Run:
    """A run of ``method`` on the model ``on``; its teachers are individual runs. ``models``: those of peers, by
    name."""
    settings = settings_of(method, **values)
    model, recipe = model_of(on), recipe or {}
    plain = configuration_of(settings_of("individual"), model, **recipe)
    requires = tuple(RequiredRun(configuration=plain, member=r.member) for r in settings.requires())
    peers: dict[str, Record] = {name: model_of(v) for name, v in (models or {}).items()}
    return Run(configuration_of(settings, model, requires=requires, peer_models=peers, **recipe), seed)


def teachers_of(run: Run) -> list[nn.Module]:
    """Networks that stand for finished teachers: untrained, with the weights of their seeds."""
    return [
        build_backbone(required.configuration.model, SHAPE, CLASSES, stream_seed(required.seed + 1, "init", 0)).eval()
        for required in run.requires()
    ]


def train(run: Run, **options: object) -> Trained:
    """Train by the trainer, two epochs on 40 images by default. ``options``: of :func:`train_run`."""
    return train_run(run, blobs(ALL_IMAGES), device=torch.device("cpu"), teachers=teachers_of(run), **options)


def trained(method: str, *arguments, **values) -> Trained:
    """:func:`train` what :func:`run_of` says."""
    return train(run_of(method, *arguments, **values))


def resumed(train: Callable[..., Trained], after: int, path: Path) -> Trained:
    """``train`` with a checkpoint at ``path`` after every step, stopped after so many, and gone on from the last
    one."""

    class Stop(Exception):
        pass

    save, written = checkpoint.save, []

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        written.append(path.exists())
        if sum(written) == after:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        with pytest.raises(Stop):
            train(checkpoint_path=path, checkpoint_seconds=0.0)
    result = train(checkpoint_path=path, checkpoint_seconds=1e9)
    assert result.measured.resumed == 1
    return result


def weights(method: str, *arguments, **values) -> dict[str, torch.Tensor]:
    """Weights of the deployed network after a short training."""
    return trained(method, *arguments, **values).weights


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def built(method: str, seed: int = 3, models: dict | None = None, **values) -> tuple[Method, nn.Module]:
    """A method and its training network in float64, its dropout at the beginning of the first epoch."""
    run = run_of(method, seed, None, models, **values)
    teachers = [teacher.double() for teacher in teachers_of(run)]
    instance = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, seed, teachers))
    network = instance.build().double()
    for number, generator in assign_generators(network, torch.device("cpu")).items():
        generator.manual_seed(dropout_seed(seed, 0, number))
    return instance, network


def batch() -> Batch:
    return Batch(IMAGES.double(), LABELS, torch.Generator())


def sgd_step(network: nn.Module, rate: float = 0.05):
    """An ``update`` by plain stochastic gradient descent with momentum and weight decay."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def update(loss: torch.Tensor, parameters: list[nn.Parameter] | None = None) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        optimizer.step()

    return update


def reached(term: torch.Tensor, network: nn.Module) -> dict[str, bool]:
    """Parameter name → whether the term has a gradient on it that is not zero."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    return {
        name: gradient is not None and bool(gradient.abs().max() > 0)
        for name, gradient in zip(names, gradients, strict=True)
    }

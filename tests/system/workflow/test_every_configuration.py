"""Every distinct training of the profile ``paper``, at its true shape and number of classes, on generated files in the
official formats: reads, trains two steps, is interrupted between them, evaluates, resumes, deploys."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from collabench import data
from collabench.config.configuration import Configuration, Run
from collabench.core.seeding import stream_seed
from collabench.models import build_backbone
from collabench.study.study import load_study
from collabench.training import checkpoint, train_run
from collabench.training.evaluation import errors
from tests.support import official_formats
from tests.support.project import ROOT

pytestmark = pytest.mark.slow

BATCH = 4


def shortened(configuration: Configuration) -> Configuration:
    """With a recipe of two steps."""
    short = {"epochs": 1, "batch_size": BATCH, "milestones": (), "learning_rate": 1e-3, "evaluation_batch_size": BATCH}
    recipe = configuration.recipe.model_copy(update={**short, "precision": "float32"})
    return configuration.model_copy(update={"recipe": recipe})


def distinct() -> list[Configuration]:
    """The configurations of the profile without those whose two steps differ from another's only in the noise's rate.

    Individual learning has every rate; with the other methods the labels are drawn by the same code.
    """
    found: dict[str, Configuration] = {}
    # Whether the parts fit each other is another test's; a look would cost every process that collects tests seconds.
    for configuration in load_study(ROOT, "paper", planned=True).plan.configurations.values():
        values = shortened(configuration).model_dump(mode="json", exclude={"names"})
        if configuration.method.method != "individual":
            values["noise"].pop("rate", None)
        found.setdefault(json.dumps(values, sort_keys=True), configuration)
    return list(found.values())


CONFIGURATIONS = distinct()
SHAPES = {
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "stl10": ((3, 96, 96), 10),
    "imagenet32": ((3, 32, 32), 1000),
    "imagenet": ((3, 224, 224), 1000),
}


@pytest.fixture(scope="module")
def open_dataset(tmp_path_factory):
    """Source → the data set read from generated official files by the project's own code, two batches of it."""
    folder = tmp_path_factory.mktemp("official")
    known: dict[str, data.Dataset] = {}

    def open_source(configuration: Configuration) -> data.Dataset:
        source = configuration.dataset.source
        if source not in known:
            config, place, official = configuration.dataset, folder / source, {}
            if source in ("imagenet32", "imagenet"):
                pin = getattr(official_formats, f"write_{source}")(place)
                config = config.model_copy(update={"path": str(place), "sha256": pin})
            else:
                official = {source: getattr(official_formats, f"write_{source}")(place)}
            data.prepare(config, place, folder / f"{source}-prepared", root=folder, official=official)
            known[source] = data.load(folder / f"{source}-prepared", data.path_of(config, folder))
        return known[source]

    return open_source


def part(images, count: int):
    return images[:count] if isinstance(images, torch.Tensor) else images.at(torch.arange(count))


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: c.label.replace(" · ", "-"))
def test_it_trains_evaluates_resumes_and_deploys(configuration, open_dataset, tmp_path, monkeypatch):
    dataset = open_dataset(configuration)
    shape, classes = SHAPES[configuration.dataset.source]
    assert len(dataset.classes) == classes
    assert dataset.form.network_shape(configuration.recipe) == shape
    dataset = replace(
        dataset,
        train_images=part(dataset.train_images, 2 * BATCH),
        train_labels=dataset.train_labels[: 2 * BATCH],
        test_images=part(dataset.test_images, BATCH),
        test_labels=dataset.test_labels[:BATCH],
    )
    run = Run(shortened(configuration), 1)
    teachers = [
        build_backbone(needed.configuration.model, shape, classes, stream_seed(needed.seed, "init", 0))
        for needed in run.requires()
    ]

    def train(checkpoint_seconds: float):
        return train_run(
            run,
            dataset,
            device=torch.device("cpu"),
            teachers=teachers,
            checkpoint_path=tmp_path / "run.ckpt",
            checkpoint_seconds=checkpoint_seconds,
        )

    save = checkpoint.save
    with monkeypatch.context() as patch:
        if run.configuration.method.method != "ensemble":
            patch.setattr(checkpoint, "save", lambda *arguments: (save(*arguments), interrupt()))

            def interrupt() -> None:
                raise Interrupted

            with pytest.raises(Interrupted):
                train(0.0)
    trained = train(1e9)
    result = trained.result
    assert result.test_images == BATCH and trained.logits["deployed"].shape == (BATCH, classes)
    if trained.weights is None:
        return
    assert trained.measured.resumed == 1
    plain = build_backbone(run.configuration.model, shape, classes, 7).eval()
    if list(trained.weights) == list(plain.state_dict()):
        plain.load_state_dict(trained.weights)
        batches = data.open_evaluation_batches(dataset, "test", configuration.recipe.augmentation, BATCH, "cpu")
        with torch.no_grad():
            logits = torch.cat([plain(images) for images in batches])
        torch.testing.assert_close(logits, trained.logits["deployed"].float(), rtol=2e-3, atol=2e-2)
        assert errors(logits[None], dataset.test_labels)[0].item() == result.last.error
    else:
        assert run.configuration.method.method == "wang2018"  # deploys a memory beside the backbone

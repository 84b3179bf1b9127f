"""Settings of recipes beyond stochastic gradient descent: the trainer against a plain loop of torch's own parts, and
every method with all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from collabench import data
from collabench.methods import METHODS, Batch
from collabench.models.dropout import assign_generators
from collabench.training import make_context
from collabench.training.averaging import WeightAverage
from collabench.training.context import make_method
from collabench.training.flops import count
from collabench.training.memory import count_memory
from tests.support.synthetic import CLASSES, SMALL_MODELS, blobs
from tests.support.training_cases import ALL_IMAGES, SHAPE, Run, resumed, run_of, train

ADAMW = {"optimizer": "adamw", "learning_rate": 0.01, "nesterov": False, "weight_decay": 0.02, "betas": (0.8, 0.95),
         "eps": 1e-6}  # fmt: skip
#: Everything at once.
ALL = ADAMW | {
    "schedule": "cosine", "warmup_epochs": 1, "clip_gradient_norm": 0.5, "ema_decay": 0.7, "mixup_alpha": 0.4,
    "augmentation": {"shift": 1, "cutout": 3, "randaugment": {"operations": 1}},
    "validation_fraction": 0.25, "early_stopping": {"patience": 2}, "epochs": 3,
}  # fmt: skip
TRAINED = [name for name in METHODS if METHODS[name].Method.trains]


def plain_training(run: Run) -> nn.Module:
    """The same training from torch's own optimizer, schedule, clipping and averaging."""
    recipe = run.configuration.recipe
    dataset = blobs(ALL_IMAGES)
    method = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, run.seed))
    network = method.build().to(memory_format=torch.channels_last)
    generators = assign_generators(network, torch.device("cpu"))
    averaged = swa_utils.AveragedModel(
        network, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
    )
    averaged.update_parameters(network)  # torch copies the weights at the first call
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, recipe.betas, recipe.eps, recipe.weight_decay
    )
    batches = data.open_batches(dataset, recipe.augmentation, recipe.batch_size, run.seed, "cpu")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * batches.steps)
    for epoch in range(recipe.epochs):
        network.train()
        for images, labels in batches.epoch(epoch, dataset.train_labels):
            loss = sum(method.losses(network, Batch(images, labels, generators[0], epoch)).values())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_gradient_norm)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
    return averaged.module


@pytest.mark.parametrize("arithmetic", ["native", "portable"])
def test_the_trainer_does_what_torch_s_own_parts_do(arithmetic):
    recipe = ADAMW | {"schedule": "cosine", "clip_gradient_norm": 0.5, "ema_decay": 0.7, "epochs": 3}
    recipe["arithmetic"] = arithmetic
    run = run_of("individual", recipe=recipe)
    found = train(run).weights
    expected = plain_training(run).state_dict()
    assert found is not None and found.keys() == expected.keys()
    for name, tensor in expected.items():
        if "num_batches_tracked" not in name:  # torch averages whole numbers, too
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_clipping_makes_no_gradient_longer_and_bounds_the_update():
    still = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "learning_rate": 1.0, "epochs": 1}
    start = train(run_of("individual", recipe=still | {"learning_rate": 1e-30})).weights
    moved = train(run_of("individual", recipe=still | {"clip_gradient_norm": 1e-3})).weights
    assert start is not None and moved is not None
    learned = [name for name in start if name.endswith((".weight", ".bias"))]
    length = torch.cat([(moved[name] - start[name]).flatten() for name in learned]).norm()
    assert 0 < length <= 3 * 1.01e-3  # three updates of at most 0.001


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in ("dml", "song2018") else pytest.mark.slow) for name in TRAINED]
)
def test_every_method_is_trained_by_such_a_recipe_and_resumed_with_the_same_bytes(method, tmp_path: Path):
    on = SMALL_MODELS[1] if method == "fang2021" else SMALL_MODELS[0]
    run = run_of(method, recipe=ALL, on=on)
    whole = train(run)
    again = resumed(lambda **options: train(run, **options), 4, tmp_path / "run.ckpt")
    assert again.result == whole.result
    assert whole.weights is not None and again.weights is not None
    for name, tensor in whole.weights.items():
        assert torch.equal(tensor, again.weights[name]), name
    plain = train(run_of(method, recipe=ALL | {"ema_decay": None}, on=on))
    assert plain.weights is not None
    assert any(not torch.equal(tensor, plain.weights[name]) for name, tensor in whole.weights.items())


@pytest.mark.parametrize(("method", "values"), [("dml", {"optimisation": "in_turn"}),
                                                ("song2018", {"optimisation": "alternating"})])  # fmt: skip
def test_several_updates_of_a_batch_change_the_average_once(method, values, monkeypatch):
    updates: list[int] = []
    update = WeightAverage.update
    monkeypatch.setattr(WeightAverage, "update", lambda self: (updates.append(1), update(self)))
    train(run_of(method, recipe=ADAMW | {"ema_decay": 0.5, "epochs": 1}, **values))
    assert len(updates) == 3  # 40 images in batches of 16


def test_what_is_evaluated_are_the_averaged_weights():
    trained = train(run_of("individual", recipe={"ema_decay": 0.5}))
    assert trained.weights is not None
    run = run_of("individual")
    network = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, run.seed)).build()
    network.load_state_dict(trained.weights)
    dataset = blobs(ALL_IMAGES)
    (images,) = data.open_evaluation_batches(dataset, "test", run.configuration.recipe.augmentation, 500, "cpu")
    with torch.no_grad():
        logits = network.eval()(images)
    torch.testing.assert_close(trained.logits["deployed"].float(), logits, rtol=2e-3, atol=2e-3)
    wrong = (logits.argmax(1) != dataset.test_labels).double().mean().item()
    assert trained.result.last.error == pytest.approx(wrong)
    assert trained.result.curves.test_error[-1] == trained.result.last.error


def test_early_stopping_ends_a_training_that_gets_no_better():
    stopping = {"epochs": 9, "validation_fraction": 0.5, "learning_rate": 1e-30, "early_stopping": {"patience": 2}}
    result = train(run_of("individual", recipe=stopping)).result
    errors = result.curves.validation_error
    assert 3 <= len(errors) < 9
    best = errors.index(min(errors))
    assert len(errors) - 1 - best == 2 and result.selected_epoch == best
    assert len(result.curves.learning_rate) == len(result.curves.test_error) == len(errors)
    longer = train(run_of("individual", recipe=stopping | {"early_stopping": None})).result
    assert len(longer.curves.validation_error) == 9 and longer.curves.validation_error[: len(errors)] == errors


def test_patience_counts_epochs_also_where_not_every_one_is_evaluated():
    stopping = {"epochs": 9, "validation_fraction": 0.5, "learning_rate": 1e-30, "evaluate_every": 3,
                "early_stopping": {"patience": 3}}  # fmt: skip
    result = train(run_of("individual", recipe=stopping)).result
    seen = [epoch for epoch, error in enumerate(result.curves.validation_error) if error is not None]
    assert len(result.curves.validation_error) == seen[-1] + 1 == 9 or seen[-1] - result.selected_epoch >= 3
    assert len(result.heads) == 1 and result.best_error is None


def test_memory_counts_the_state_of_adamw_and_the_average():
    shape, classes = (1, 8, 8), 4
    sgd, adamw, averaged = (
        count_memory(run_of("individual", recipe=recipe).configuration, shape, classes)
        for recipe in ({}, ADAMW, ADAMW | {"ema_decay": 0.9})
    )
    weights = 4 * count(run_of("individual").configuration, shape, classes).parameters
    assert sgd.optimizer == weights
    assert 2 * weights <= adamw.optimizer <= 2 * weights + 4 * 100  # and one counter for each tensor
    assert averaged.optimizer - adamw.optimizer == averaged.parameters

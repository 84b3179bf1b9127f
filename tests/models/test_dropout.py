"""Dropout draws from a run's own stream, in networks of this project and in those of somebody else."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from collabench.config.configuration import Run
from collabench.core.errors import ConfigError
from collabench.core.torchvision_import import import_torchvision
from collabench.models import Backbone, build_backbone
from collabench.models.dropout import SeededDropout, set_dropout_generator
from collabench.training import Trained, train_run
from collabench.training.flops import count
from tests.support.networks import entry, with_layer
from tests.support.synthetic import CLASSES, blobs, configuration_of, model_of, settings_of
from tests.support.training_cases import resumed

SHAPE = (1, 8, 8)


def draw(dropout: SeededDropout, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """What becomes of ones."""
    set_dropout_generator(dropout, torch.Generator().manual_seed(seed))
    return dropout.train()(torch.ones(shape))


@pytest.mark.parametrize("leading", [None, 1, 2])
@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_what_is_zeroed_together_and_how_often(leading, probability):
    found = draw(SeededDropout(probability, leading), (200, 30, 2, 2))
    values = found.unique()
    assert values[0] == 0 and values[1].item() == pytest.approx(1 / (1 - probability)) and len(values) == 2
    assert (found == 0).float().mean().item() == pytest.approx(probability, abs=0.1)
    maps, images = found.flatten(2), found.flatten(1)
    assert (maps == maps[..., :1]).all() == (leading is not None)
    assert (images == images[:, :1]).all() == (leading == 1)
    assert torch.equal(found, draw(SeededDropout(probability, leading), (200, 30, 2, 2)))
    assert not torch.equal(found, draw(SeededDropout(probability, leading), (200, 30, 2, 2), seed=1))


def test_in_testing_nothing_is_zeroed():
    x = torch.ones(4, 3, 2, 2)
    assert SeededDropout(0.5).eval()(x) is x and SeededDropout(0.0).train()(x) is x
    with pytest.raises(RuntimeError, match="call assign_generators before training"):
        SeededDropout(0.5).train()(x)


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_a_probability_out_of_range_is_refused(probability):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        SeededDropout(probability)


# --------------------------------------------------------------------------------------- models of somebody else


def run_of(layer: str, seed: int = 3, **recipe: object) -> Run:
    return Run(configuration_of(settings_of("individual"), model_of(entry(layer)), **recipe), seed)


def train(layer: str, seed: int = 3, **options: object) -> Trained:
    return train_run(run_of(layer, seed), blobs(), device=torch.device("cpu"), **options)


def same(first: Trained, second: Trained) -> bool:
    return first.weights.keys() == second.weights.keys() and all(
        torch.equal(value, second.weights[key]) for key, value in first.weights.items()
    )


DRAWING = ["dropout", "dropout2d", "stochastic depth", "nested"]


@pytest.mark.parametrize("layer", DRAWING)
def test_the_seed_fixes_a_foreign_models_dropout(layer, tmp_path):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    whole = train(layer)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert same(whole, train(layer))
    assert not same(whole, train(layer, seed=4)) and not same(whole, train("never"))
    assert same(whole, resumed(partial(train, layer), 1, tmp_path / "run.ckpt"))


@pytest.mark.parametrize("layer", DRAWING)
def test_the_state_dict_keeps_its_keys_and_testing_its_outputs(layer):
    backbone = build_backbone(model_of(entry(layer)), SHAPE, CLASSES, 0)
    theirs = with_layer(SHAPE, CLASSES, layer)
    assert list(backbone.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(backbone.state_dict())
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone.eval()(images), theirs.eval()(images))
    assert isinstance(backbone, Backbone) and any(isinstance(m, SeededDropout) for m in backbone.modules())
    assert backbone.train().layer.training  # as every other layer


@pytest.mark.parametrize("layer", ["never", "always"])
def test_layers_that_draw_nothing_stay(layer):
    backbone = build_backbone(model_of(entry(layer)), SHAPE, CLASSES, 0)
    assert type(backbone.layer) is nn.Dropout
    assert same(train(layer), train(layer))


@pytest.mark.parametrize("layer", ["functional", "alpha", "stochastic depth of a batch"])
def test_a_model_that_draws_otherwise_is_refused_in_one_line(layer):
    for _ in range(2):  # a refusal is not forgotten
        with pytest.raises(ConfigError, match="draws random numbers from torch's global generator") as error:
            build_backbone(model_of(entry(layer)), SHAPE, CLASSES, 0)
        assert "\n" not in str(error.value) and "tests.support.networks:with_layer" in str(error.value)
    with torch.device("meta"), pytest.raises(ConfigError):  # in a plan, before anything runs
        build_backbone(model_of(entry(layer)), SHAPE, CLASSES, 0)


def test_a_model_that_asks_more_of_its_dropout_is_refused_in_one_line():
    with pytest.raises(
        ConfigError, match=r"a layer may only be called .AttributeError: .* has no attribute 'p'"
    ) as error:
        build_backbone(model_of(entry("looking inside")), SHAPE, CLASSES, 0)
    assert "\n" not in str(error.value)


def test_trying_a_model_moves_neither_its_statistics_nor_the_global_generator():
    before = torch.random.get_rng_state()
    backbone = build_backbone(model_of(entry("dropout")), SHAPE, CLASSES, 0)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not backbone.norm.running_mean.any() and int(backbone.norm.num_batches_tracked) == 0


def test_a_foreign_models_dropout_is_counted():
    """Counting runs on fake tensors, where nothing can be tried."""
    counts = count(run_of("dropout", batch_size=4).configuration, SHAPE, CLASSES)
    assert counts.forward == count(run_of("never", batch_size=4).configuration, SHAPE, CLASSES).forward > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,stages,layers",
    [
        ("alexnet", {"features": ("features",), "pool": ("avgpool", "flatten"), "classifier": ("classifier",)}, 2),
        ("efficientnet_b0", {"features": ("features",), "pool": ("avgpool", "flatten"), "classifier": ("classifier",)},
        16),
    ],
)  # fmt: skip
def test_torchvisions_dropout_and_stochastic_depth(name, stages, layers):
    """EfficientNet-B0: 15 of its 16 blocks' stochastic depth have a probability above 0, and one dropout."""
    backbone = build_backbone(
        model_of({"family": "torchvision_model", "name": name, "stages": stages}), (3, 64, 64), 7, 0
    )
    found = [module for module in backbone.modules() if isinstance(module, SeededDropout)]
    assert len(found) == layers
    assert not any("StochasticDepth" in type(module).__name__ and module.p > 0 for module in backbone.modules())
    theirs = getattr(import_torchvision().models, name)(num_classes=7).eval()
    theirs.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone.eval()(images), theirs(images))

"""A method in a loop of one's own: bit for bit what the project's own trainer gives, and one line for a mistake."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import collabench
from collabench.api import Learner
from collabench.core.errors import ConfigError
from collabench.core.seeding import stream_seed
from collabench.data import open_batches
from collabench.methods import METHODS
from collabench.models import build_backbone
from tests.support.networks import FunctionalDropout, entry, with_layer
from tests.support.synthetic import CLASSES, blobs, configuration_of, model_of, settings_of
from tests.support.training_cases import SHAPE, run_of, same, train

FOREIGN = entry("dropout")
EPOCHS, BATCH, SEED = 2, 16, 3

#: Every method that trains, and settings of it that need neither teacher nor another model.
METHODS_HERE = {
    "individual": {"label_smoothing": 0.1},
    "song2018": {"graph": "simple_ilr", "heads": 2, "split_after": ("body",)},
    "song2018 alternating": {"graph": "multi_instance", "heads": 2, "optimisation": "alternating"},
    "dml": {},
    "one": {"heads": 2, "split_after": "body"},
    "kd": {"same_initialisation": True},
    "wang2018": {},
}


def make() -> nn.Module:
    return with_layer(SHAPE, CLASSES, "dropout")


def learner_of(method: dict, **values) -> Learner:
    given = {"stages": FOREIGN["stages"], "input_shape": SHAPE, "classes": CLASSES, "epochs": EPOCHS, "seed": SEED}
    return Learner(make, method=method, **(given | values))


def own_loop(learner: Learner, epochs: range = range(EPOCHS), optimizer=None) -> torch.optim.Optimizer:
    optimizer = optimizer or torch.optim.SGD(
        learner.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4, foreach=True
    )
    recipe = configuration_of(settings_of("individual")).recipe
    dataset = blobs()
    batches = open_batches(dataset, recipe.augmentation, BATCH, SEED, torch.device("cpu"))
    for epoch in epochs:
        learner.begin_epoch(epoch)
        for images, labels in batches.epoch(epoch, dataset.train_labels):
            learner.step(images, labels, optimizer)
    return optimizer


@pytest.mark.parametrize("name", METHODS_HERE)
def test_a_loop_of_ones_own_gives_the_trainers_weights_bit_for_bit(name):
    method, values = name.split()[0], METHODS_HERE[name]
    run = run_of(method, SEED, on=FOREIGN, **values)
    teachers = [
        build_backbone(required.configuration.model, SHAPE, CLASSES, stream_seed(required.seed + 1, "init", 0)).eval()
        for required in run.requires()
    ]
    expected = train(run)
    before = torch.get_rng_state()
    learner = learner_of({"method": method, **values}, teachers=teachers)
    own_loop(learner)
    assert torch.equal(before, torch.get_rng_state()), "torch's global generator is left alone"
    assert same(dict(learner.deploy().state_dict()), expected.weights)


def test_the_deployed_weights_fit_the_users_own_module():
    learner = learner_of({"method": "song2018", "heads": 2, "graph": "simple_ilr", "split_after": ["body"]})
    images = torch.randn(5, *SHAPE)
    logits = learner.predict(images)
    own = make().eval()
    own.load_state_dict(learner.deploy().state_dict())
    assert logits.shape == (2, 5, CLASSES) and learner.network.training
    torch.testing.assert_close(own(images), logits[0])


def test_a_learner_goes_on_from_its_state():
    method = {"method": "dml"}
    whole, first, second = (learner_of(method) for _ in range(3))
    own_loop(whole)
    optimizer = own_loop(first, range(1))
    second.load_state_dict(first.state_dict())
    again = torch.optim.SGD(second.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4, foreach=True)
    again.load_state_dict(optimizer.state_dict())
    own_loop(second, range(1, EPOCHS), again)
    assert same(whole.network.state_dict(), second.network.state_dict())


def test_losses_have_gradients_and_the_terms_of_a_step():
    learner, other = learner_of({"method": "dml"}), learner_of({"method": "dml"})
    images, labels = torch.randn(6, *SHAPE), torch.arange(6) % CLASSES
    terms = learner.losses(images, labels)
    stepped = other.step(images, labels, torch.optim.SGD(other.parameters(), lr=0.1))
    assert {name: term.item() for name, term in terms.items()} == {name: term.item() for name, term in stepped.items()}
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in learner.parameters())
    assert not any(term.requires_grad for term in stepped.values())


def test_stages_are_the_modules_children_by_default():
    network = lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))  # noqa: E731
    learner = Learner(network, method={"method": "song2018", "graph": "simple_ilr", "heads": 2, "split_after": ["0"]},
                      input_shape=SHAPE, classes=CLASSES, epochs=1)  # fmt: skip
    assert learner.predict(torch.zeros(2, *SHAPE)).shape == (2, 2, CLASSES)


class _Skipping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.fc(self.pool(self.conv(x) + 1).flatten(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": {"method": "dmll"}}, "method.method: must be"),
        ({"method": {"method": "dml", "netwroks": 4}}, "unknown key 'netwroks' (did you mean networks?)"),
        ({"method": {"method": "dml", "networks": 1}}, "method.networks: must be at least 2"),
        ({"method": {}}, "the key 'method' is missing"),
        ({"method": {"method": "ensemble"}}, "method ensemble: trains nothing"),
        ({"method": {"method": "kd"}}, "method kd: needs 1 trained networks as teachers, 0 are given"),
        ({"method": {"method": "individual"}, "teachers": [nn.Identity()]}, "needs 0 trained networks as teachers"),
        ({"method": {"method": "dml", "networks": 2, "peers": ["other"]}}, "names the model 'other' of params.yaml"),
        ({"method": {"method": "song2018", "graph": "simple_ilr", "heads": 2, "split_after": ["nose"]}, "make": make,
          "stages": FOREIGN["stages"]}, "nose"),
        ({"stages": {"all": ["conv"]}}, "stages: must have at least 2 entries"),
        ({"stages": {"a": ["conv"], "b": ["pool", "flatten", "fc"]}}, "does not reproduce the model's own output"),
        ({"stages": {"a": ["conv"], "b": ["pool", "flatten"]}}, "no stage has fc"),
        ({"input_shape": (3, 8, 8)}, "does not take images of 8x8 pixels and 3 channels"),
        ({"classes": 1}, "classes 1: must be a whole number of at least 2"),
        ({"epochs": 0}, "epochs 0: must be a whole number of at least 1"),
        ({"seed": "x"}, "seed 'x': must be a whole number of at least 0"),
        ({"device": "gpu"}, "device 'gpu': must be a device of torch, such as 'cpu' or 'cuda'"),
        ({"input_shape": (8, 8)}, "input_shape (8, 8): must be (channels, height, width)"),
        ({"method": "dml"}, "method='dml': must be a mapping, such as {'method': 'dml'}"),
        ({"stages": {"a": "conv", "b": ["fc"]}}, "stages['a']='conv': must be a list of texts"),
        ({"make": lambda: 7}, "make: gives a int; it must return a torch.nn.Module"),
        ({"make": lambda: 1 / 0}, "make: cannot make the module (ZeroDivisionError: division by zero)"),
        ({"make": lambda: nn.Sequential(nn.Flatten(), FunctionalDropout(), nn.Linear(64, CLASSES)), "stages": None},
         "draws random numbers from torch's global generator"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, message):
    given = {"make": _Skipping, "method": {"method": "individual"}, "input_shape": SHAPE, "classes": CLASSES,
             "epochs": 1, "stages": {"a": ["conv"], "b": ["pool", "flatten", "fc"]}} | arguments  # fmt: skip
    with pytest.raises(ConfigError) as error:
        Learner(given.pop("make"), **given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_method_is_tried_or_known_to_be_refused():
    tried = {name.split()[0] for name in METHODS_HERE}
    assert set(METHODS) - tried == {"ensemble", "auxiliary", "okddip", "fang2021"}, "try a new method here, too"
    assert collabench.Learner is Learner and model_of(FOREIGN)

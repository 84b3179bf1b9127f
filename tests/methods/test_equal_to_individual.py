"""With nothing of its own left, a method trains what individual learning trains, bit for bit."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from collabench.core.seeding import dropout_seed, torch_generator
from collabench.methods import METHODS
from collabench.models.dropout import set_dropout_generator
from collabench.training import loop
from tests.support.networks import entry
from tests.support.synthetic import SMALL_MODELS
from tests.support.training_cases import (
    LABELS,
    OTHER,
    batch,
    built,
    resumed,
    run_of,
    same,
    sgd_step,
    train,
    weights,
)

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS

FOREIGN = entry("dropout")

#: Every method with its extra losses' weights at 0, in forms in which the deployed network shares nothing with others.
WITHOUT_EXTRA_LOSS = {
    "kd": {"weight": 0.0},
    "dml": {"weight": 0.0},
    "dml, in turn": {"weight": 0.0, "optimisation": "in_turn"},
    "dml, in turn, fixed": {"weight": 0.0, "optimisation": "in_turn", "refresh_targets": False},
    "dml, three, gradient": {"weight": 0.0, "networks": 3, "gradient_through_target": True},
    "dml, peers": {"weight": 0.0, "peers": ("other",)},
    "auxiliary": {"weight": 0.0, "after": "every"},
    "one": {"weight": 0.0, "ensemble_weight": 0.0, "split_after": "input"},
    "okddip": {"peer_weight": 0.0, "leader_weight": 0.0, "split_after": "input"},
}

#: (method, settings, models): forms in which nothing of a method's own is left. Others with dropout: below.
NOTHING_OF_ITS_OWN = [
    ("individual", {"label_smoothing": 0.0}, SMALL_MODELS),
    ("song2018", {"graph": "individual", "heads": 1}, SMALL_MODELS),
    ("song2018", {"graph": "hierarchical_ilr", "heads": 1, "optimisation": "alternating"}, SMALL_MODELS),
    ("song2018", {"graph": "simple_ilr", "heads": 1, "beta": 0.0, "scaling": "loss_scaling"}, SMALL_MODELS),
    ("song2018", {"graph": "multi_instance", "heads": 3, "beta": 1.0}, SMALL_MODELS),
    ("song2018", {"graph": "multi_instance", "heads": 3, "beta": 1.0, "scaling": "none"}, SMALL_MODELS),
    ("song2018", {"graph": "multi_instance", "heads": 2, "beta": 1.0, "gradient_through_target": True}, SMALL_MODELS),
    ("fang2021", {"losses": ("out",), "out_branches": 1}, [VGG, SMALL_RESNET]),
    ("fang2021", {"losses": ("mid",), "mid_alpha": 0.0, "mid_beta": 0.0}, [VGG, SMALL_RESNET]),
    (
        "fang2021",
        {"losses": ("pull_push",), "pull_first": 0.0, "pull_last": 0.0, "push_first": 0.0, "push_last": 0.0},
        [VGG, SMALL_RESNET],
    ),
    ("fang2021", {"losses": ("kernel",), "kernel_weight": 0.0}, [VGG, SMALL_RESNET]),
    (
        "fang2021",
        {"out_branches": 1, "mid_alpha": 0.0, "mid_beta": 0.0, "kernel_weight": 0.0}
        | dict.fromkeys(("pull_first", "pull_last", "push_first", "push_last"), 0.0),
        [VGG, SMALL_RESNET],
    ),
]

KNOWN: dict[str, dict[str, torch.Tensor]] = {}


def individual(model: dict, label_smoothing: float = 0.0) -> dict[str, torch.Tensor]:
    """Weights of individual learning, which every case is compared with."""
    key = repr((model, label_smoothing))
    if key not in KNOWN:
        KNOWN[key] = weights("individual", on=model, label_smoothing=label_smoothing)
    return KNOWN[key]


@pytest.mark.parametrize("label_smoothing", [0.1, pytest.param(0.0, marks=pytest.mark.slow)])
def test_with_nothing_of_its_own_a_method_equals_individual_learning(label_smoothing):
    cases = [(method, values, model) for method, values, models in NOTHING_OF_ITS_OWN for model in models]
    cases += [(case.split(",")[0], values, RESIDUAL) for case, values in WITHOUT_EXTRA_LOSS.items()]
    other = [
        (method, values, model)
        for method, values, model in cases
        if not same(
            weights(method, on=model, models={"other": OTHER}, **values | {"label_smoothing": label_smoothing}),
            individual(model, label_smoothing),
        )
    ]
    assert other == []


#: Backbones with dropout: each copy draws from a stream of its own, so that the first one's masks are those of
#: individual training.
DRAWING = [VGG, SMALL_RESNET, FOREIGN]
WITH_DROPOUT = pytest.mark.parametrize(
    "model",
    [*(pytest.param(model, marks=pytest.mark.slow) for model in (VGG, SMALL_RESNET)), FOREIGN],
    ids=["vgg", "resnet", "custom"],
)

SHARING_NOTHING = WITHOUT_EXTRA_LOSS | {
    "dml, peers with dropout": {"weight": 0.0, "peers": ("vgg", "vgg"), "optimisation": "in_turn"},
    "song2018": {"graph": "multi_instance", "heads": 2, "beta": 1.0},
    "song2018, no scaling": {"graph": "multi_instance", "heads": 3, "beta": 1.0, "scaling": "none"},
    "song2018, a split of the input": {"splits": ({"after": "input", "branches": 2},), "beta": 1.0},
}

PEERS = {"other": RESIDUAL, "vgg": VGG}


@WITH_DROPOUT
def test_with_dropout_too_a_method_without_its_extra_loss_equals_individual_learning(model, tmp_path):
    """Interrupted within an epoch all the same. Three batches make an epoch: stopped after the first and after the
    second one of an epoch."""
    for number, (case, values) in enumerate(SHARING_NOTHING.items()):
        run = run_of(case.split(",")[0], on=model, models=PEERS, **values)
        whole = train(run)
        assert same(whole.weights, individual(model)), case
        after = (1, 5)[(number + DRAWING.index(model)) % 2]
        found = resumed(partial(train, run), after, tmp_path / f"{number}.ckpt")
        assert same(found.weights, individual(model)) and found.result == whole.result, (case, after)


@WITH_DROPOUT
@pytest.mark.parametrize("head", [1, 2])
def test_every_head_of_multi_instance_is_an_individual_training_with_its_own_weights_and_masks(
    head, model, monkeypatch
):
    """By the trainer, over two epochs: the further heads deployed, and a network alone that begins as they do."""
    with monkeypatch.context() as patch:
        patch.setattr(METHODS["song2018"].Method, "deploy", lambda _, network: network.path(head))
        found = weights("song2018", on=model, graph="multi_instance", heads=3, beta=1.0)
    monkeypatch.setattr(METHODS["individual"].Method, "build", lambda method: method.context.make_backbone(head))
    with_masks_of_copy_0 = weights("individual", on=model)
    monkeypatch.setattr(loop, "dropout_seed", lambda seed, epoch, _: dropout_seed(seed, epoch, head))
    assert same(found, weights("individual", on=model)) and not same(found, with_masks_of_copy_0)


def test_one_head_trains_with_weight_1_whatever_beta():
    instance, network = built("song2018", graph="individual", heads=1, beta=0.3)
    (name, term), *others = instance.losses(network, batch()).items()
    expected = nn.functional.cross_entropy(network(batch().images)[0], LABELS)
    assert name == "hard" and not others and term.item() == expected.item()


@pytest.mark.parametrize("model", [*SMALL_MODELS, FOREIGN], ids=["residual", "vgg", "resnet", "custom"])
@pytest.mark.parametrize("scaling", ["backprop_rescaling", "none"])
def test_multi_instance_with_beta_1_is_as_many_separate_individual_trainings(scaling, model):
    """Each of them begins with weights and draws masks of its own; batches are shared."""
    instance, network = built("song2018", on=model, graph="multi_instance", heads=3, beta=1.0, scaling=scaling)
    separate = [instance.context.make_backbone(copy).double() for copy in range(3)]
    for copy, backbone in enumerate(separate):
        set_dropout_generator(backbone, torch_generator(3, "dropout", 0, *([copy] if copy else [])))
    updates = [sgd_step(backbone) for backbone in separate]
    update = sgd_step(network)
    for _ in range(3):
        instance.step(network, batch(), update)
        for backbone, own_update in zip(separate, updates, strict=True):
            own_update(nn.functional.cross_entropy(backbone(batch().images), LABELS))
    for head, backbone in enumerate(separate):
        assert same(network.path(head).state_dict(), backbone.state_dict()), head


@pytest.mark.parametrize(
    "model,peers", [(RESIDUAL, ()), (VGG, ()), (VGG, ("residual",)), (SMALL_RESNET, ("residual", "vgg"))], ids=str
)
def test_wang2018_with_a_memory_that_stays_silent_trains_as_individual_learning(model, peers):
    """Its memory has no weight to set to 0: the layer that brings back what was read is zero, and stays so."""
    instance, network = built("wang2018", on=model, peers=peers, models={"residual": RESIDUAL, "vgg": VGG})
    for assistance in network.assistance:
        for parameter in assistance.assist.parameters():
            nn.init.zeros_(parameter.requires_grad_(False))
    plain, alone = built("individual", on=model)
    updates = sgd_step(network), sgd_step(alone)
    for _ in range(3):
        instance.step(network, batch(), updates[0])
        plain.step(alone, batch(), updates[1])
    assert same(network.backbones[0].state_dict(), alone.state_dict())


def test_between_identical_networks_there_is_no_divergence_and_there_never_will_be():
    instance, network = built("dml", networks=3)
    for other in network:
        other.load_state_dict(network[0].state_dict())
    plain, alone = built("individual")
    updates = sgd_step(network), sgd_step(alone)
    for _ in range(3):
        terms = instance.step(network, batch(), updates[0])
        plain.step(alone, batch(), updates[1])
        assert terms["mimicry"].item() == 0.0
    for member in network:
        assert all(torch.allclose(value, alone.state_dict()[key]) for key, value in member.state_dict().items())

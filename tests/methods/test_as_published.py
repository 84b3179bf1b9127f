"""The settings that follow the authors' public code: values, losses and gradients against plain torch that is written
from their mathematics and shares nothing with the methods but the backbones; ramps; interruption within a ramp."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from collabench.methods import METHODS
from collabench.models import build_backbone
from collabench.models.dropout import SeededDropout
from tests.support.project import ROOT
from tests.support.real import real_params
from tests.support.synthetic import CLASSES, model_of, settings_of
from tests.support.training_cases import LABELS, batch, built, resumed, run_of, same, sgd_step, train

PARAMS = real_params()
DENSENET = {"family": "densenet", "depth": 10, "growth": 3}
#: A run of four epochs of three batches, in which r rises from exp(-5) to 1 over three.
RAMP = {"ramp_epochs": 3}
ENTRIES = {
    "one-as-published": {"heads": 3, "gate": "normalised", "ramp_epochs": 80, "ramp_of": 300},
    "okddip-as-published": {
        "heads": 4, "target_average": "logits", "attention_divisor": 8, "gradient_through_target": True,
        "ramp_epochs": 80, "ramp_of": 300,
    },
    "dml-as-published": {"networks": 2, "optimisation": "in_turn"},
    "dml-4-as-published": {"networks": 4, "optimisation": "in_turn", "over_others": "sum"},
    "hierarchical-4-as-reimplemented": {
        "graph": "hierarchical_ilr", "heads": 4, "split_after": ("activation1", "activation2"),
        "temperature_squared": False, "gradient_through_target": True,
    },
}  # fmt: skip


def method_of(entry: str) -> str:
    return PARAMS.methods[entry].method


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_entries_of_params_yaml(entry):
    assert PARAMS.methods[entry] == settings_of(method_of(entry), **ENTRIES[entry])


def test_the_page_of_methods_has_every_difference_of_every_entry():
    """Entry, setting, its default and its value there, as in params.yaml."""
    lines = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| `[a-z0-9-]+-as-[a-z]+` \|", line)]
    found: dict[str, dict[str, tuple[object, object]]] = {}
    for entry, setting, ours, published, _ in rows:
        values = [yaml.safe_load(re.match("`(.*?)`", cell)[1]) for cell in (ours, published)]
        ours_and_theirs = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        found.setdefault(entry.strip("`"), {})[setting.strip("`")] = ours_and_theirs
    for entry in ENTRIES:
        settings, usual = PARAMS.methods[entry], settings_of(method_of(entry))
        fields = type(settings).model_fields
        different = {name for name in fields if getattr(settings, name) != getattr(usual, name)}
        assert found.pop(entry) == {name: (getattr(usual, name), getattr(settings, name)) for name in different}, entry
    assert not found


def test_the_row_of_the_independent_reimplementation():
    recipe = PARAMS.recipes["song2018-independent-densenet"]
    assert (recipe.batch_size, recipe.last_batch, recipe.nesterov, recipe.momentum) == (64, "drop", False, 0.9)
    assert PARAMS.models["densenet40-12-dropout"] == model_of({"family": "densenet", "depth": 40, "dropout": 0.2})


# -------------------------------------------------------------------------------------------------------------- ramps


@pytest.mark.parametrize("method", ["one", "okddip"])
def test_the_ramp_by_hand(method):
    published = settings_of(method, ramp_epochs=80)
    by_hand = {0: 0.006737947, 20: 0.06005467, 40: 0.2865048, 60: 0.7316157, 79: 0.9992191, 80: 1.0, 299: 1.0}
    for epoch, expected in by_hand.items():
        assert published.ramp(epoch, 300) == pytest.approx(expected, rel=1e-6), epoch
        assert published.ramp(epoch, 90) == published.ramp(epoch, 300)
    share = settings_of(method, ramp_epochs=80, ramp_of=300)
    assert [share.ramp(epoch, 300) for epoch in by_hand] == [published.ramp(epoch, 300) for epoch in by_hand]
    # 80 of 300 epochs are 7.4667 of 28: exp(-5 (1 - 3 / 7.4667)^2)
    assert share.ramp(3, 28) == pytest.approx(0.1670768, rel=1e-6) and share.ramp(8, 28) == 1.0 > share.ramp(7, 28)
    assert settings_of(method).ramp(0, 300) == 1.0


@pytest.mark.parametrize("method,terms", [("one", ["distillation"]), ("okddip", ["peers", "leader"])])
def test_the_ramp_multiplies_the_distillation_terms_alone(method, terms):
    instance, network = built(method, **RAMP)
    plain, _ = built(method)
    expected = plain.losses(network, batch())
    for epoch, ramp in ((0, math.exp(-5)), (2, math.exp(-5 / 9)), (3, 1.0), (7, 1.0)):
        found = instance.losses(network, replace(batch(), epoch=epoch))
        for name, term in found.items():
            assert term.item() == pytest.approx((ramp if name in terms else 1.0) * expected[name].item(), rel=1e-12)


@pytest.mark.parametrize("method", ["one", "okddip"])
@pytest.mark.parametrize("after", [4, 7])
def test_a_run_that_is_interrupted_within_its_ramp_ends_with_the_same_bytes(method, after, tmp_path, monkeypatch):
    """In the second and in the third of four epochs; and the trainer counts epochs as the ramp does."""
    run, seen = run_of(method, recipe={"epochs": 4}, **RAMP), []
    losses = METHODS[method].Method.losses

    def remember(self, network, batch):
        seen.append(batch.epoch)
        return losses(self, network, batch)

    monkeypatch.setattr(METHODS[method].Method, "losses", remember)
    whole = train(run)
    steps = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert seen == steps
    found = resumed(partial(train, run), after, tmp_path / "run.ckpt")
    assert same(found.weights, whole.weights) and found.result == whole.result
    again = seen[len(steps) :]  # up to where the thread's error is raised, and on from the checkpoint
    assert len(again) > len(steps) and again == steps[: len(again) - len(steps) + after] + steps[after:]
    # A run of one epoch has r = exp(-5) throughout, like one whose weights are so much smaller.
    once = {"epochs": 1}
    names = ("weight",) if method == "one" else ("peer_weight", "leader_weight")
    first = train(run_of(method, recipe=once, **RAMP)).weights
    assert same(first, train(run_of(method, recipe=once, **dict.fromkeys(names, math.exp(-5)))).weights)


@pytest.mark.parametrize("method", ["one", "okddip"])
def test_a_share_needs_a_ramp(method):
    with pytest.raises(ValueError, match="ramp_of belongs to ramp_epochs above 0"):
        settings_of(method, ramp_of=300)


# ------------------------------------------------------------------------------------------------- losses, gradients


def gradients(loss: Tensor, network: nn.Module) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12), name


def divergence(teacher: Tensor, z: Tensor, temperature: float) -> Tensor:
    """T^2 KL(q || p), mean over the batch, from the logits of both."""
    q, p = torch.softmax(teacher / temperature, 1), torch.softmax(z / temperature, 1)
    return temperature**2 * (q * (q.log() - p.log())).sum(1).mean()


def branches_of(network: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Output of the shared stages; features and logits of every branch, each stage called by hand."""
    tree = network.tree.root
    shared = tree.segment(images)
    features = [branch.segment.pool(branch.segment.stage3(shared)) for branch in tree.branches]
    return shared, features, [b.segment.classifier(x) for b, x in zip(tree.branches, features, strict=True)]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_one(epoch):
    """The gate: mean over the map, linear layer, batch normalisation, ReLU, softmax. The teacher is a constant."""
    entry = ENTRIES["one-as-published"] | {"ramp_epochs": 3, "ramp_of": None}
    instance, network = built("one", **entry)
    with torch.no_grad():  # scale and shift of a normalisation begin with 1 and 0, which a mistake could not be seen by
        for parameter in network.gate[1].parameters():
            parameter.add_(torch.linspace(-0.4, 0.5, 3, dtype=torch.float64))
    of, same_weights = replace(batch(), epoch=epoch), copy.deepcopy(network)
    found = sum(instance.losses(network, of).values())

    shared, _, logits = branches_of(same_weights, of.images)
    linear, norm = same_weights.gate[0], same_weights.gate[1]
    scores = shared.mean(dim=(2, 3)) @ linear.weight.T + linear.bias
    scores = (scores - scores.mean(0)) / (scores.var(0, correction=0) + norm.eps).sqrt() * norm.weight + norm.bias
    gate = torch.softmax(scores.clamp(min=0), 1)
    teacher = sum(gate[:, [h]] * logits[h] for h in range(3))
    ramp = math.exp(-5 * (1 - min(epoch, 3) / 3) ** 2)
    expected = sum(functional.cross_entropy(z, LABELS) for z in [*logits, teacher])
    expected = expected + ramp * sum(divergence(teacher.detach(), z, 3.0) for z in logits)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert_equal(gradients(found, network), gradients(expected, same_weights))


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_okddip(epoch):
    """Targets are mixtures of logits, for the leader their mean; nothing is a constant; an eighth of the features."""
    entry = ENTRIES["okddip-as-published"] | {"ramp_epochs": 3, "ramp_of": None}
    instance, network = built("okddip", **entry)
    of, same_weights = replace(batch(), epoch=epoch), copy.deepcopy(network)
    found = sum(instance.losses(network, of).values())

    _, (_, *features), (leader, *peers) = branches_of(same_weights, of.images)
    query, key = same_weights.attention.query.weight, same_weights.attention.key.weight
    assert query.shape == key.shape == (16 // 8, 16)
    ramp = math.exp(-5 * (1 - min(epoch, 3) / 3) ** 2)
    expected = sum(functional.cross_entropy(z, LABELS) for z in (leader, *peers))
    for a, own in enumerate(features):
        alpha = torch.softmax(torch.stack([((own @ query.T) * (x @ key.T)).sum(1) for x in features], 1), 1)
        target = sum(alpha[:, [b]] * peers[b] for b in range(3))
        expected = expected + ramp * divergence(target, peers[a], 3.0)
    expected = expected + ramp * divergence(sum(peers) / 3, leader, 3.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    assert_equal(gradients(found, network), gradients(expected, same_weights))


@pytest.mark.parametrize("entry", ["dml-as-published", "dml-4-as-published"])
def test_dml(entry):
    """Each network's own step, one after the other, against the others as they have become; summed over them."""
    instance, network = built("dml", **ENTRIES[entry])
    plain = copy.deepcopy(network)
    update, steps = sgd_step(network), [sgd_step(member) for member in plain]
    for _ in range(3):
        instance.step(network, batch(), update)
        for own, member in enumerate(plain):
            buffers = [{name: b.clone() for name, b in other.named_buffers()} for other in plain]
            with torch.no_grad():
                others = [other(batch().images) for j, other in enumerate(plain) if j != own]
            for other, before in zip(plain, buffers, strict=True):  # a look at the others moves no statistics
                for name, value in other.named_buffers():
                    value.copy_(before[name])
            z = member(batch().images)
            loss = functional.cross_entropy(z, LABELS) + sum(divergence(other, z, 1.0) for other in others)
            steps[own](loss)
    expected = plain.state_dict()
    for name, value in network.state_dict().items():
        assert torch.allclose(value, expected[name], rtol=1e-9, atol=1e-12), name


def test_the_mean_over_two_others_is_half_of_their_sum():
    (summed, network), (averaged, _) = (built("dml", networks=3, over_others=over) for over in ("sum", "mean"))
    first, second = (one.losses(network, batch()) for one in (summed, averaged))
    assert first["mimicry"].item() == pytest.approx(2 * second["mimicry"].item(), rel=1e-12)
    assert first["hard"].item() == second["hard"].item()


def test_the_independent_reimplementation():
    """Four paths by hand. A shared layer's gradient is divided by 2 at every split that lies above it."""
    instance, network = built("song2018", on=DENSENET, **ENTRIES["hierarchical-4-as-reimplemented"])
    found = gradients(sum(instance.losses(network, batch()).values()), network)
    plain = copy.deepcopy(network)
    logits = []
    for middle in plain.root.branches:
        for last in middle.branches:
            x = batch().images
            for stage in ("stem", "block1", "activation1"):
                x = plain.root.segment.run((stage,), x)
            for stage in ("transition1", "block2", "activation2"):
                x = middle.segment.run((stage,), x)
            for stage in ("transition2", "block3", "pool", "classifier"):
                x = last.segment.run((stage,), x)
            logits.append(x)
    loss = 0.0
    for own, z in enumerate(logits):
        q = torch.softmax(sum(other for h, other in enumerate(logits) if h != own) / 3 / 2.0, 1)
        soft = -(q * torch.log_softmax(z / 2.0, 1)).sum(1).mean()
        loss = loss + 0.5 * functional.cross_entropy(z, LABELS) + 0.5 * soft
    expected = gradients(loss, plain)
    for name in expected:
        expected[name] = expected[name] / (1, 2, 4)[2 - name.count("branches")]
    assert_equal(found, expected)
    assert {name.count("branches") for name in expected} == {0, 1, 2}


def test_a_densenet_with_dropout_drops_after_every_convolution_but_the_first():
    plain, dropping = (
        build_backbone(model_of(DENSENET | extra), (1, 8, 8), CLASSES, 0) for extra in ({}, {"dropout": 0.2})
    )
    assert same(plain.state_dict(), dropping.state_dict())  # dropout has no weights and draws no initial ones
    layers = list(dropping.modules())
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)][1:]
    assert len(convolutions) == 3 * 2 + 2
    dropped = [layers[index + 1] for index in convolutions]
    assert all(isinstance(layer, SeededDropout) and layer.probability == 0.2 for layer in dropped)
    assert not any(isinstance(layer, SeededDropout) for layer in plain.modules())
    assert dropping.stages["activation1"] == plain.stages["activation1"] == ("transition1.0", "transition1.1")


def test_the_attention_needs_a_row():
    small = settings_of("okddip", attention_divisor=17)
    with pytest.raises(ValueError, match=r"^attention_divisor: 17 leaves no row of 16 features$"):
        small.rows(16)
    assert settings_of("okddip", attention_divisor=8).rows(100) == 12
    with pytest.raises(ValueError, match="attention_divisor says the width of the attention: remove attention_width"):
        settings_of("okddip", attention_divisor=8, attention_width=8)


@pytest.mark.parametrize("method", ["dml", "one", "okddip"])
def test_each_page_names_the_public_code_that_it_follows(method):
    repositories = {"dml": "YingZhangDUT/Deep-Mutual-Learning", "one": "Lan1991Xu/ONE_NeurIPS2018",
                    "okddip": "DefangChen/OKDDip"}  # fmt: skip
    assert repositories[method] in METHODS[method].__doc__

"""What must be equal bit for bit between forms of one method, and what must be permuted; equal to individual learning:
test_equal_to_individual.py."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

from collabench.core.seeding import stream_seed
from collabench.models.tree import TrainingTree
from tests.support.networks import entry
from tests.support.synthetic import SMALL_MODELS
from tests.support.training_cases import (
    ALL_IMAGES,
    IMAGES,
    batch,
    built,
    same,
    sgd_step,
    trained,
    weights,
)

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS

FOREIGN = entry("dropout")

#: Backbones with dropout: each copy draws from a stream of its own, so that the first one's masks are those of
#: individual training.
WITH_DROPOUT = pytest.mark.parametrize("model", [VGG, SMALL_RESNET, FOREIGN], ids=["vgg", "resnet", "custom"])


@pytest.mark.parametrize(
    "method,zero", [("one", ("weight", "ensemble_weight")), ("okddip", ("peer_weight", "leader_weight"))]
)
def test_without_distillation_branches_are_a_simple_tree(method, zero):
    tree = weights("song2018", graph="simple_ilr", split_after=("stage2",), heads=4, beta=1.0, scaling="none")
    assert same(weights(method, heads=4, **dict.fromkeys(zero, 0.0)), tree)


def test_in_turn_with_fixed_targets_equals_one_step():
    in_turn = weights("dml", optimisation="in_turn", refresh_targets=False, networks=3)
    assert same(in_turn, weights("dml", networks=3))


def test_private_memories_leave_the_networks_alone():
    """With a private memory nothing that another network does reaches network 0; with a shared one it does."""
    private = [weights("wang2018", memory="private", networks=n) for n in (2, 3)]
    assert same(*private)
    shared = [weights("wang2018", networks=n) for n in (2, 3)]
    assert not same(*shared)


def test_private_and_shared_memories_begin_alike_and_have_one_size():
    (_, private), (_, shared) = built("wang2018", memory="private"), built("wang2018")
    assert torch.equal(private.memory_of(0).slots, shared.memory_of(0).slots)
    assert private.memory_of(1).slots.shape == shared.memory_of(1).slots.shape
    assert private.memory_of(1) is not private.memory_of(0) and shared.memory_of(1) is shared.memory_of(0)


def test_a_silent_memory_leaves_the_network_as_it_is():
    _, network = built("wang2018")
    network.eval()
    for assistance in network.assistance:
        torch.nn.init.zeros_(assistance.assist.weight)
        torch.nn.init.zeros_(assistance.assist.bias)
    plain = torch.stack([backbone(IMAGES.double()) for backbone in network.backbones])
    assert torch.equal(network(IMAGES.double()), plain)


def test_no_batch_counts_twice():
    """Batch normalisation's running statistics move once a batch in every network and head, whatever the
    optimisation, and as in a single pass."""
    in_turn, alternating = {"optimisation": "in_turn"}, {"optimisation": "alternating"}
    for method, values in (
        ("dml", {"networks": 3}),
        ("dml", {"networks": 3} | in_turn),
        ("dml", {"networks": 3, "refresh_targets": False} | in_turn),
        ("song2018", {}),
        ("song2018", alternating),
        ("song2018", {"refresh_targets": False} | alternating),
        ("song2018", {"graph": "multi_instance", "heads": 3} | alternating),
    ):
        instance, network = built(method, **values)
        _, once = built(method, **values)

        def update(loss: torch.Tensor, parameters: object = None) -> None:
            loss.backward(inputs=parameters)

        instance.step(network, batch(), update)
        counts = {int(value) for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
        assert counts == {1}
        instance.predict(once.train(), batch().images)
        moved = [key for key in network.state_dict() if key.endswith(("running_mean", "running_var"))]
        assert moved and all(torch.equal(network.state_dict()[key], once.state_dict()[key]) for key in moved)
        assert all(m.track_running_stats for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_in_turn_each_step_moves_one_network_and_sees_the_moved_ones():
    """The losses of the second step are computed from what the first one left."""
    instance, network = built("dml", networks=2, optimisation="in_turn")
    moved: list[set[str]] = []
    losses: list[torch.Tensor] = []

    def update(loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> None:
        listed = {id(p) for p in parameters}
        moved.append({name.split(".")[0] for name, p in network.named_parameters() if id(p) in listed})
        losses.append(loss.detach())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter -= 0.5 * gradient

    _, untouched = built("dml", networks=2)
    instance.step(network, batch(), update)
    assert moved == [{"0"}, {"1"}]
    with torch.no_grad():
        before = instance.predict(untouched, batch().images)
        after = torch.stack([network[0](batch().images), before[1]])
    assert torch.allclose(losses[0], sum(instance.terms(before, batch().labels, 0).values()))
    assert torch.allclose(losses[1], sum(instance.terms(after, batch().labels, 1).values()))
    assert not torch.allclose(losses[1], sum(instance.terms(before, batch().labels, 1).values()))


@WITH_DROPOUT
def test_private_memories_keep_networks_with_dropout_apart(model):
    two, three = (weights("wang2018", on=model, memory="private", networks=n) for n in (2, 3))
    assert same(two, three)


@WITH_DROPOUT
def test_in_turn_with_fixed_targets_equals_one_step_with_dropout_too(model):
    in_turn = weights("dml", on=model, optimisation="in_turn", refresh_targets=False, networks=3)
    assert same(in_turn, weights("dml", on=model, networks=3))


def test_wang2018_with_a_consensus_of_weight_0_has_none():
    assert same(weights("wang2018", consensus_weight=0.0), weights("wang2018"))


def test_an_ensemble_of_equal_members_predicts_as_its_member():
    instance, network = built("ensemble", members=3)
    (member, *_) = network.members
    for other in network.members:
        other.load_state_dict(member.state_dict())
    with torch.no_grad():
        found = torch.softmax(instance.predict(network, IMAGES.double())[0], dim=-1)
        assert torch.allclose(found.double(), torch.softmax(member(IMAGES.double()), dim=-1), atol=1e-6)


GRAPHS = [
    {"graph": "simple_ilr", "heads": 3},
    {"graph": "hierarchical_ilr", "heads": 4},
    {"splits": ({"after": "stem", "branches": 2}, {"after": "stage2", "branches": 3})},
]


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_rescaling_divides_what_is_shared_and_leaves_branches_alone(graph):
    """A layer's gradient is divided by the product of the branches of the splits above it. Written out: the plain sum's
    gradient of every parameter, divided by hand."""

    def gradients(scaling: str) -> tuple[dict, TrainingTree]:
        instance, network = built("song2018", scaling=scaling, **graph)
        sum(instance.losses(network, batch()).values()).backward()
        return {name: parameter.grad for name, parameter in network.named_parameters()}, network

    plain, network = gradients("none")
    rescaled, _ = gradients("backprop_rescaling")
    averaged, _ = gradients("loss_scaling")

    def heads_above(name: str) -> int:
        """Heads that a parameter serves: the product of the branches of all splits after it."""
        node, count = network.root, 1
        for step in name.split("branches.")[1:]:
            node = node.branches[int(step.split(".")[0])]
        while node.branches:
            count *= len(node.branches)
            node = node.branches[0]
        return count

    factors = {name: heads_above(name) for name in plain}
    assert {1, network.heads} <= set(factors.values())
    for name, factor in factors.items():
        assert torch.allclose(rescaled[name] * factor, plain[name], rtol=1e-10, atol=1e-14), name
        if factor == 1:
            assert torch.equal(rescaled[name], plain[name]), name
        assert torch.allclose(averaged[name] * network.heads, plain[name], rtol=1e-10, atol=1e-14), name


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_alternating_steps_leave_no_gradient_beside_a_heads_path(graph):
    instance, network = built("song2018", optimisation="alternating", **graph)
    moved = []

    def update(loss: torch.Tensor, parameters: list[nn.Parameter]) -> None:
        network.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        moved.append({id(p) for p in network.parameters() if p.grad is not None})

    instance.step(network, batch(), update)
    assert moved == [{id(p) for p in network.path(head).parameters()} for head in range(network.heads)]


def test_alternating_targets_are_fresh_or_fixed():
    """Of the second head's step: with fresh targets the first head's new logits, else those of before the batch."""
    for refresh in (True, False):
        instance, network = built(
            "song2018", graph="multi_instance", heads=2, optimisation="alternating", refresh_targets=refresh
        )
        seen, update = [], sgd_step(network, 0.5)
        targets = instance._terms

        def remember(logits, labels, q, heads, targets=targets, seen=seen):
            seen.append((logits.detach().clone(), q.clone()))
            return targets(logits, labels, q, heads)

        instance._terms = remember
        instance.step(network, batch(), update)
        (before, _), (after, q) = seen
        assert not torch.allclose(before[0], after[0])
        expected = torch.softmax((after if refresh else before)[0] / 2.0, dim=-1)
        assert torch.allclose(q[1], expected, atol=1e-12)


ORDER = [2, 0, 1]


def renamed(modules: nn.ModuleList) -> nn.ModuleList:
    return nn.ModuleList([modules[index] for index in ORDER])


def after_three_steps(method: str, rename: bool, **values) -> tuple[list[dict], dict]:
    """States of the heads, and the losses, after three steps, with or without renaming the heads first."""
    instance, network = built(method, **values)
    if method in ("song2018", "one"):
        tree = network.tree if method == "one" else network
        if rename:
            tree.root.branches = renamed(tree.root.branches)
            if method == "one":
                network.gate.weight.data = network.gate.weight.data[ORDER]
                network.gate.bias.data = network.gate.bias.data[ORDER]
    elif method == "dml":
        network = renamed(network) if rename else network
    elif rename:
        network.backbones, network.assistance = renamed(network.backbones), renamed(network.assistance)
    update = sgd_step(network)
    for _ in range(3):
        terms = instance.step(network, batch(), update)
    if method in ("song2018", "one"):
        tree = network.tree if method == "one" else network
        return [tree.path(head).state_dict() for head in range(3)], terms
    return [m.state_dict() for m in (network if method == "dml" else network.backbones)], terms


@pytest.mark.parametrize(
    "method,values",
    [
        ("song2018", {"graph": "multi_instance", "heads": 3}),
        ("song2018", {"graph": "simple_ilr", "heads": 3}),
        ("one", {"heads": 3}),
        ("dml", {"networks": 3}),
        ("wang2018", {"networks": 3, "consensus_weight": 1.0}),
        ("song2018", {"graph": "simple_ilr", "heads": 3, "on": VGG}),
        ("dml", {"networks": 3, "optimisation": "in_turn", "refresh_targets": False, "on": SMALL_RESNET}),
        ("wang2018", {"networks": 3, "on": VGG}),
    ],
    ids=str,
)
def test_renaming_heads_permutes_what_is_trained(method, values):
    plain, terms = after_three_steps(method, False, **values)
    permuted, other_terms = after_three_steps(method, True, **values)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in other_terms.items()})
    for head, index in enumerate(ORDER):
        for key, value in permuted[head].items():
            assert torch.allclose(value, plain[index][key], rtol=1e-8, atol=1e-9), key
    assert not same(plain[0], plain[1])


SETS = [losses for size in (1, 2, 3, 4) for losses in combinations(("out", "mid", "pull_push", "kernel"), size)]


@pytest.mark.parametrize("model", [VGG, SMALL_RESNET], ids=["vgg", "resnet"])
def test_all_15_sets_of_losses_are_made_of_the_same_terms(model):
    """A term is the same to the last bit, whatever else is in the set; the cross entropy is there where L_out isn't."""
    assert len(SETS) == 15

    def terms_of(losses: tuple[str, ...]) -> dict[str, torch.Tensor]:
        instance, network = built("fang2021", on=model, losses=losses)
        return instance.losses(network, batch())

    names = {"out": ["out"], "mid": ["mid"], "pull_push": ["pull", "push"], "kernel": ["kernel"]}
    alone = {name: term for loss in names for name, term in terms_of((loss,)).items()}
    for losses in SETS:
        found = terms_of(losses)
        expected = ([] if "out" in losses else ["hard"]) + [name for loss in losses for name in names[loss]]
        assert list(found) == expected
        assert all(term.item() == alone[name].item() for name, term in found.items()), losses


@pytest.mark.parametrize(
    "values",
    [{"graph": "simple_ilr", "heads": heads} for heads in (1, 2, 5)]
    + [{"graph": "simple_ilr", "heads": 3, "optimisation": "alternating"}],
    ids=str,
)
def test_weight_decay_acts_once_on_a_parameter_whatever_the_number_of_heads(values):
    """What a step of the trainer with weight decay takes off beside one without: (1 + momentum) x rate x decay x
    weight. Of alternating heads a step moves its own path only: each branch is decayed once, what is shared once a
    head."""
    plain, decayed = (
        weights("song2018", recipe={"epochs": 1, "batch_size": ALL_IMAGES} | {"weight_decay": decay}, **values)
        for decay in (0.0, 0.1)
    )
    instance, _ = built("song2018", **values)
    for name, weight in instance.context.make_backbone(0).named_parameters():
        if values.get("optimisation") != "alternating" or name.startswith(("stage2", "stage3", "classifier")):
            found, expected = plain[name] - decayed[name], 1.9 * 0.05 * 0.1 * weight
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6), name


def test_the_seeds_of_copies_differ():
    assert len({stream_seed(3, "init", copy) for copy in range(100)}) == 100


def test_deployment_is_head_0_whatever_the_others_do():
    """The deployed network is chosen before training."""
    found = trained("song2018", graph="multi_instance", heads=3)
    assert found.result.last == found.result.heads[0]

"""What must be equal bit for bit, and what must not be."""

from __future__ import annotations

import pytest
import torch

from tests.baselines.training_cases import ALL_IMAGES, IMAGES, OTHER, batch, built, same, weights

#: Every method with its extra losses' weights at 0, in forms in which the deployed network shares nothing with others.
WITHOUT_EXTRA_LOSS = {
    "kd": {"weight": 0.0},
    "dml": {"weight": 0.0},
    "dml, in turn": {"weight": 0.0, "optimisation": "in_turn"},
    "dml, in turn, fixed": {"weight": 0.0, "optimisation": "in_turn", "refresh_targets": False},
    "dml, three, gradient": {"weight": 0.0, "networks": 3, "gradient_through_target": True},
    "dml, peers": {"weight": 0.0, "peers": ("other",)},
    "auxiliary": {"weight": 0.0},
    "one": {"weight": 0.0, "ensemble_weight": 0.0, "split_after": "input"},
    "okddip": {"peer_weight": 0.0, "leader_weight": 0.0, "split_after": "input"},
}


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("case", WITHOUT_EXTRA_LOSS)
def test_without_its_extra_loss_a_method_equals_individual_learning(case, label_smoothing):
    values = WITHOUT_EXTRA_LOSS[case] | {"label_smoothing": label_smoothing}
    models = {"other": OTHER} if "peers" in values else None
    individual = weights("individual", label_smoothing=label_smoothing)
    assert same(weights(case.split(",")[0], models=models, **values), individual)


@pytest.mark.parametrize(
    "method,zero",
    [
        ("kd", {"weight": 0.0}),
        ("dml", {"weight": 0.0}),
        ("auxiliary", {"weight": 0.0}),
        ("one", {"weight": 0.0}),
        ("one", {"ensemble_weight": 0.0}),
        ("okddip", {"peer_weight": 0.0}),
        ("okddip", {"leader_weight": 0.0}),
    ],
)
def test_no_loss_is_dead(method, zero):
    """One step with the default weights gives other weights than one step without one of the losses."""
    one_step = {"epochs": 1, "batch_size": ALL_IMAGES}
    assert not same(weights(method, recipe=one_step), weights(method, recipe=one_step, **zero))


def test_one_consensus_step_moves_the_weights_of_wang2018():
    one_step = {"epochs": 1, "batch_size": ALL_IMAGES}
    assert not same(weights("wang2018", recipe=one_step), weights("wang2018", recipe=one_step, consensus_weight=1.0))


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


SWITCHES = [
    ("kd", {}, {"weight": 0.5}),
    ("kd", {}, {"temperature": 2.0}),
    ("kd", {}, {"teacher_members": 2}),
    ("kd", {"teacher_members": 2}, {"teacher_average": "logits"}),
    ("dml", {}, {"weight": 0.5}),
    ("dml", {}, {"temperature": 2.0}),
    ("dml", {}, {"networks": 3}),
    ("dml", {}, {"peers": ("other",)}),
    ("dml", {"peers": ("other", "third")}, {"peers": ("third", "third")}),
    ("dml", {}, {"gradient_through_target": True}),
    ("dml", {}, {"optimisation": "in_turn"}),
    ("dml", {"optimisation": "in_turn"}, {"refresh_targets": False}),
    ("auxiliary", {}, {"weight": 0.1}),
    ("auxiliary", {}, {"after": ("stage1", "stage2")}),
    ("one", {}, {"heads": 2}),
    ("one", {}, {"split_after": "stage1"}),
    ("one", {}, {"weight": 0.5}),
    ("one", {}, {"ensemble_weight": 0.5}),
    ("one", {}, {"temperature": 2.0}),
    ("one", {}, {"gradient_through_target": True}),
    ("okddip", {}, {"heads": 3}),
    ("okddip", {}, {"split_after": "stage1"}),
    ("okddip", {}, {"peer_weight": 0.5}),
    ("okddip", {}, {"leader_weight": 0.5}),
    ("okddip", {}, {"temperature": 2.0}),
    ("okddip", {}, {"attention_width": 8}),
    ("okddip", {}, {"gradient_through_target": True}),
    ("wang2018", {}, {"networks": 3}),
    ("wang2018", {}, {"peers": ("other",)}),
    ("wang2018", {}, {"n_slots": 8}),
    ("wang2018", {}, {"width": 8}),
    ("wang2018", {}, {"memory": "private"}),
    ("wang2018", {}, {"consensus_weight": 1.0}),
    ("wang2018", {"consensus_weight": 1.0}, {"temperature": 4.0}),
    *((m, {}, {"label_smoothing": 0.1}) for m in ("kd", "dml", "auxiliary", "one", "okddip", "wang2018")),
]


@pytest.mark.parametrize(("method", "values", "change"), SWITCHES, ids=[f"{m} {v} {c}" for m, v, c in SWITCHES])
def test_each_switch_changes_the_numbers(method, values, change):
    models = {"other": OTHER, "third": OTHER | {"width": 3}}
    before = weights(method, models=models, **values)
    after = weights(method, models=models, **values | change)
    assert not same(before, after)


def test_refreshing_targets_counts_no_batch_twice():
    """Batch normalisation's running statistics move once a batch in every network, whatever the optimisation."""
    for values in ({}, {"optimisation": "in_turn"}, {"optimisation": "in_turn", "refresh_targets": False}):
        instance, network = built("dml", networks=3, **values)

        def update(loss: torch.Tensor, parameters: object = None) -> None:
            loss.backward(inputs=parameters)

        instance.step(network, batch(), update)
        counts = {int(value) for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
        assert counts == {1}
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

"""What must be equal bit for bit, what must be permuted, and what must not be equal; beside tests/baselines, which has the
neighbouring methods' part."""

from __future__ import annotations

from functools import partial
from itertools import combinations, pairwise

import pytest
import torch
from torch import nn

from collabench.core.seeding import dropout_seed, stream_seed, torch_generator
from collabench.methods import METHODS
from collabench.models.dropout import set_dropout_generator
from collabench.models.tree import TrainingTree
from collabench.training import loop
from tests.baselines.test_identities import WITHOUT_EXTRA_LOSS
from tests.baselines.training_cases import (
    ALL_IMAGES,
    IMAGES,
    LABELS,
    batch,
    built,
    resumed,
    run_of,
    same,
    sgd_step,
    train,
    trained,
    weights,
)
from tests.models.test_dropout import entry
from tests.synthetic import SMALL_MODELS

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS
FOREIGN = entry("dropout")
DENSENET = {"family": "densenet", "depth": 10, "growth": 3}

# --------------------------------------------------------------------------------------- equal to individual

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


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "method,values,model",
    [(method, values, model) for method, values, models in NOTHING_OF_ITS_OWN for model in models],
    ids=str,
)
def test_with_nothing_of_its_own_a_method_equals_individual_learning(method, values, model, label_smoothing):
    found = weights(method, on=model, **values | {"label_smoothing": label_smoothing})
    assert same(found, weights("individual", on=model, label_smoothing=label_smoothing))


#: Backbones with dropout: each copy draws from a stream of its own, so that the first one's masks are those of individual
#: training.
WITH_DROPOUT = pytest.mark.parametrize("model", [VGG, SMALL_RESNET, FOREIGN], ids=["vgg", "resnet", "custom"])
SHARING_NOTHING = WITHOUT_EXTRA_LOSS | {
    "dml, peers with dropout": {"weight": 0.0, "peers": ("vgg", "vgg"), "optimisation": "in_turn"},
    "song2018": {"graph": "multi_instance", "heads": 2, "beta": 1.0},
    "song2018, no scaling": {"graph": "multi_instance", "heads": 3, "beta": 1.0, "scaling": "none"},
    "song2018, a split of the input": {"splits": ({"after": "input", "branches": 2},), "beta": 1.0},
}
PEERS = {"other": RESIDUAL, "vgg": VGG}


@WITH_DROPOUT
@pytest.mark.parametrize("case", SHARING_NOTHING)
def test_with_dropout_too_a_method_without_its_extra_loss_equals_individual_learning(case, model):
    values = SHARING_NOTHING[case]
    assert same(weights(case.split(",")[0], on=model, models=PEERS, **values), weights("individual", on=model))


@WITH_DROPOUT
@pytest.mark.parametrize("case", SHARING_NOTHING)
@pytest.mark.parametrize("after", [1, 5])
def test_interrupted_within_an_epoch_it_does_so_all_the_same(case, after, model, tmp_path):
    """Three batches make an epoch: stopped after the first and after the second one of an epoch."""
    run = run_of(case.split(",")[0], on=model, models=PEERS, **SHARING_NOTHING[case])
    found = resumed(partial(train, run), after, tmp_path / "run.ckpt")
    assert same(found.weights, weights("individual", on=model))
    assert found.result == train(run).result


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


@WITH_DROPOUT
def test_private_memories_keep_networks_with_dropout_apart(model):
    two, three = (weights("wang2018", on=model, memory="private", networks=n) for n in (2, 3))
    assert same(two, three)


@WITH_DROPOUT
def test_in_turn_with_fixed_targets_equals_one_step_with_dropout_too(model):
    in_turn = weights("dml", on=model, optimisation="in_turn", refresh_targets=False, networks=3)
    assert same(in_turn, weights("dml", on=model, networks=3))


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


# --------------------------------------------------------------------------------------------- gradient scaling

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


# --------------------------------------------------------------------------------------------------- renaming

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


# ---------------------------------------------------------------------------------------------------- switches

FOUR = {"graph": "hierarchical_ilr", "heads": 4}
OUT, MID, PULL, KERNEL = ({"losses": (loss,)} for loss in ("out", "mid", "pull_push", "kernel"))
SWITCHES = [
    ("individual", {}, {"label_smoothing": 0.1}, RESIDUAL),
    *(
        ("song2018", FOUR, change, RESIDUAL)
        for change in (
            {"heads": 2},
            {"graph": "simple_ilr"},
            {"graph": "multi_instance"},
            {"split_after": ("stem", "stage2")},
            {"beta": 0.4},
            {"temperature": 3.0},
            {"temperature_squared": False},
            {"gradient_through_target": True},
            {"scaling": "loss_scaling"},
            {"scaling": "none"},
            {"optimisation": "alternating"},
            {"label_smoothing": 0.1},
        )
    ),
    ("song2018", FOUR | {"optimisation": "alternating"}, {"refresh_targets": False}, RESIDUAL),
    ("song2018", FOUR | {"optimisation": "alternating"}, {"gradient_through_target": True}, RESIDUAL),
    ("song2018", FOUR, {"split_after": ("block1", "block2")}, DENSENET),  # before the transitions instead of after them
    ("song2018", {}, {"splits": ({"after": "stem", "branches": 2}, {"after": "stage2", "branches": 2})}, RESIDUAL),
    *(("fang2021", OUT, change, VGG) for change in (
        {"out_branches": 3}, {"out_temperature": 3.0}, {"out_alpha": 0.4}, {"out_temperature_squared": True},
        {"out_shared_masks": True}, {"out_added": True}, {"label_smoothing": 0.1},
    )),
    *(("fang2021", MID, change, SMALL_RESNET) for change in (
        {"mid_alpha": 0.1}, {"mid_beta": 0.1}, {"mid_temperature": 3.0}, {"mid_include_own": True},
        {"mid_include_output": True}, {"mid_side": 2}, {"mid_channels": 2}, {"label_smoothing": 0.1},
    )),
    ("fang2021", MID | {"mid_include_own": True}, {"mid_divisor": "printed"}, SMALL_RESNET),
    *(("fang2021", PULL, change, SMALL_RESNET) for change in (
        {"pull_first": 0.005}, {"pull_last": 0.02}, {"push_first": 0.02}, {"push_last": 0.005},
        {"projection_kernel": 1}, {"projection_channels": 3}, {"centre": "sample"}, {"input_descriptor": "pixels"},
    )),
    *(("fang2021", KERNEL, change, SMALL_RESNET) for change in (
        {"kernel_weight": 0.1}, {"kernel_groups": 1}, {"kernel_groups": None}, {"kernel_shortcuts": True},
    )),
    *(
        ("fang2021", {"losses": first}, {"losses": second}, VGG)
        for first, second in pairwise(
            [("out",), ("mid",), ("pull_push",), ("kernel",), ("out", "mid"), ("mid", "pull_push", "kernel")]
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("method,values,change,model", SWITCHES, ids=[f"{m} {v} {c}" for m, v, c, _ in SWITCHES])
def test_each_switch_changes_the_numbers(method, values, change, model):
    recipe = {"epochs": 2, "batch_size": 20}
    assert not same(
        weights(method, on=model, recipe=recipe, **values),
        weights(method, on=model, recipe=recipe, **values | change),
    )


def test_every_setting_of_the_papers_methods_is_among_the_switches():
    from tests.baselines.test_identities import SWITCHES as BASELINE_SWITCHES

    tried: dict[str, set[str]] = {}
    for method, _, change, *_ in [*SWITCHES, *BASELINE_SWITCHES]:
        tried.setdefault(method, set()).update(change)
    #: What has tests of its own: tests/baselines/test_teachers.py and test_deployment.py.
    elsewhere = {
        "kd": {"teacher", "teacher_model", "teacher_recipe", "teacher_file", "teacher_sha256"},
        "wang2018": {"deployment"},
    }
    for method in METHODS:
        if method != "ensemble":
            missing = (
                set(METHODS[method].Settings.model_fields) - {"method"} - tried[method] - elsewhere.get(method, set())
            )
            assert not missing, (method, missing)


def test_members_of_an_ensemble_change_its_predictions():
    few, more = (trained("ensemble", members=members).logits["deployed"] for members in (2, 3))
    assert not torch.equal(few, more)


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


# ------------------------------------------------------------------------------------------------ no dead loss

ONE_STEP = {"epochs": 1, "batch_size": ALL_IMAGES}


@pytest.mark.parametrize(
    "method,values,zero,model",
    [
        ("individual", {"label_smoothing": 0.1}, {"label_smoothing": 0.0}, RESIDUAL),
        ("song2018", {}, {"beta": 1.0}, RESIDUAL),
        ("song2018", {}, {"beta": 0.0}, RESIDUAL),
        ("song2018", {"optimisation": "alternating"}, {"beta": 1.0}, RESIDUAL),
        *(
            ("fang2021", loss, zero, model)
            for model in (VGG, SMALL_RESNET)
            for loss, zero in (
                (OUT, {"out_alpha": 1.0}),
                (OUT, {"out_alpha": 0.0}),
                (MID, {"mid_alpha": 0.0}),
                (MID, {"mid_beta": 0.0}),
                (PULL, {"pull_first": 0.0, "pull_last": 0.0}),
                (PULL, {"push_first": 0.0, "push_last": 0.0}),
                (KERNEL, {"kernel_weight": 0.0}),
            )
        ),
    ],
    ids=str,
)
def test_no_loss_is_dead(method, values, zero, model):
    """One step with the default weights gives other weights than one step without one of the losses."""
    before = weights(method, on=model, recipe=ONE_STEP, **values)
    assert not same(before, weights(method, on=model, recipe=ONE_STEP, **values | zero))


@pytest.mark.parametrize(
    "values",
    [{"graph": "simple_ilr", "heads": heads} for heads in (1, 2, 5)]
    + [{"graph": "simple_ilr", "heads": 3, "optimisation": "alternating"}],
    ids=str,
)
def test_weight_decay_acts_once_on_a_parameter_whatever_the_number_of_heads(values):
    """What a step of the trainer with weight decay takes off beside one without: (1 + momentum) x rate x decay x weight.
    Of alternating heads a step moves its own path only: each branch is decayed once, what is shared once a head."""
    plain, decayed = (weights("song2018", recipe=ONE_STEP | {"weight_decay": decay}, **values) for decay in (0.0, 0.1))
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

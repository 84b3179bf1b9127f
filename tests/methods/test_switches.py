"""Every setting of every method changes what is computed, and no loss is dead."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from collabench.methods import METHODS
from tests.support.synthetic import SMALL_MODELS
from tests.support.training_cases import (
    ALL_IMAGES,
    OTHER,
    same,
    trained,
    weights,
)

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS

DENSENET = {"family": "densenet", "depth": 10, "growth": 3}

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
    # before the transitions instead of after them, and within them
    ("song2018", FOUR, {"split_after": ("block1", "block2")}, DENSENET),
    (
        "song2018",
        FOUR | {"split_after": ("block1", "block2")},
        {"split_after": ("activation1", "activation2")},
        DENSENET,
    ),
    ("song2018", {}, {"splits": ({"after": "stem", "branches": 2}, {"after": "stage2", "branches": 2})}, RESIDUAL),
    *(("fang2021", OUT, change, VGG) for change in (
        {"out_branches": 3}, {"out_temperature": 3.0}, {"out_alpha": 0.4}, {"out_temperature_squared": True},
        {"out_gradient_through_target": True}, {"out_shared_masks": True}, {"out_added": True},
        {"label_smoothing": 0.1},
    )),
    *(("fang2021", MID, change, SMALL_RESNET) for change in (
        {"mid_alpha": 0.1}, {"mid_beta": 0.1}, {"mid_temperature": 3.0}, {"mid_include_own": True},
        {"mid_include_output": True}, {"mid_side": 2}, {"mid_channels": 2}, {"label_smoothing": 0.1},
    )),
    ("fang2021", MID | {"mid_include_own": True}, {"mid_divisor": "printed"}, SMALL_RESNET),
    *(("fang2021", PULL, change, SMALL_RESNET) for change in (
        {"pull_first": 0.005}, {"pull_last": 0.02}, {"push_first": 0.02}, {"push_last": 0.005},
        {"projection_kernel": 1}, {"projection_channels": 3}, {"centre": "sample"}, {"input_descriptor": "std"},
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
    ("kd", {}, {"weight": 0.5}, RESIDUAL),
    ("kd", {}, {"temperature": 2.0}, RESIDUAL),
    ("kd", {}, {"teacher_members": 2}, RESIDUAL),
    ("kd", {"teacher_members": 2}, {"teacher_average": "logits"}, RESIDUAL),
    ("dml", {}, {"weight": 0.5}, RESIDUAL),
    ("dml", {}, {"temperature": 2.0}, RESIDUAL),
    ("dml", {}, {"networks": 3}, RESIDUAL),
    ("dml", {}, {"peers": ("other",)}, RESIDUAL),
    ("dml", {"peers": ("other", "third")}, {"peers": ("third", "third")}, RESIDUAL),
    ("dml", {"networks": 3}, {"over_others": "sum"}, RESIDUAL),
    ("dml", {}, {"gradient_through_target": True}, RESIDUAL),
    ("dml", {}, {"optimisation": "in_turn"}, RESIDUAL),
    ("dml", {"optimisation": "in_turn"}, {"refresh_targets": False}, RESIDUAL),
    ("auxiliary", {}, {"weight": 0.1}, RESIDUAL),
    ("auxiliary", {}, {"after": ("stage1",)}, RESIDUAL),
    ("auxiliary", {}, {"after": "every"}, RESIDUAL),
    ("one", {}, {"heads": 2}, RESIDUAL),
    ("one", {}, {"split_after": "stage1"}, RESIDUAL),
    ("one", {}, {"weight": 0.5}, RESIDUAL),
    ("one", {}, {"ensemble_weight": 0.5}, RESIDUAL),
    ("one", {}, {"temperature": 2.0}, RESIDUAL),
    ("one", {}, {"gradient_through_target": True}, RESIDUAL),
    ("one", {}, {"gate": "normalised"}, RESIDUAL),
    ("one", {}, {"ramp_epochs": 2}, RESIDUAL),
    ("one", {"ramp_epochs": 2}, {"ramp_of": 3}, RESIDUAL),
    ("okddip", {}, {"heads": 3}, RESIDUAL),
    ("okddip", {}, {"split_after": "stage1"}, RESIDUAL),
    ("okddip", {}, {"peer_weight": 0.5}, RESIDUAL),
    ("okddip", {}, {"leader_weight": 0.5}, RESIDUAL),
    ("okddip", {}, {"temperature": 2.0}, RESIDUAL),
    ("okddip", {}, {"attention_width": 8}, RESIDUAL),
    ("okddip", {}, {"gradient_through_target": True}, RESIDUAL),
    ("okddip", {}, {"target_average": "logits"}, RESIDUAL),
    ("okddip", {}, {"attention_divisor": 4}, RESIDUAL),
    ("okddip", {}, {"ramp_epochs": 2}, RESIDUAL),
    ("okddip", {"ramp_epochs": 2}, {"ramp_of": 3}, RESIDUAL),
    ("wang2018", {}, {"networks": 3}, RESIDUAL),
    ("wang2018", {}, {"peers": ("other",)}, RESIDUAL),
    ("wang2018", {}, {"n_slots": 8}, RESIDUAL),
    ("wang2018", {}, {"width": 8}, RESIDUAL),
    ("wang2018", {}, {"memory": "private"}, RESIDUAL),
    ("wang2018", {}, {"consensus_weight": 1.0}, RESIDUAL),
    ("wang2018", {"consensus_weight": 1.0}, {"temperature": 4.0}, RESIDUAL),
    *((m, {}, {"label_smoothing": 0.1}, RESIDUAL) for m in ("kd", "dml", "auxiliary", "one", "okddip", "wang2018")),
]  # fmt: skip

#: Of peers that a setting names.
PEERS = {"other": OTHER, "third": OTHER | {"width": 3}}
KNOWN: dict[str, dict[str, torch.Tensor]] = {}


def once(method: str, values: dict, model: dict, **recipe: object) -> dict[str, torch.Tensor]:
    """Weights after a short training, which several cases compare theirs with."""
    key = repr((method, values, model, recipe))
    if key not in KNOWN:
        KNOWN[key] = weights(method, on=model, models=PEERS, recipe=recipe, **values)
    return KNOWN[key]


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("song2018", "fang2021") else ())
        for name in METHODS
        if name != "ensemble"
    ],
)
def test_each_switch_changes_the_numbers(method):
    recipe = {"epochs": 2, "batch_size": 20}
    without_effect = [
        (values, change)
        for name, values, change, model in SWITCHES
        if name == method and same(once(name, values, model, **recipe), once(name, values | change, model, **recipe))
    ]
    assert without_effect == []


def test_every_setting_of_every_method_is_among_the_switches():
    tried: dict[str, set[str]] = {}
    for method, _, change, _ in SWITCHES:
        tried.setdefault(method, set()).update(change)
    #: What has tests of its own: tests/methods/test_teachers.py and test_deployment.py.
    elsewhere = {
        "kd": {"teacher", "teacher_model", "teacher_recipe", "teacher_file", "teacher_sha256", "same_initialisation"},
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


ONE_STEP = {"epochs": 1, "batch_size": ALL_IMAGES}

#: Method, settings, one loss less, model.
LOSSES = [
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
    *(
        (method, {}, zero, RESIDUAL)
        for method, zero in (
            ("kd", {"weight": 0.0}),
            ("dml", {"weight": 0.0}),
            ("auxiliary", {"weight": 0.0}),
            ("one", {"weight": 0.0}),
            ("one", {"ensemble_weight": 0.0}),
            ("okddip", {"peer_weight": 0.0}),
            ("okddip", {"leader_weight": 0.0}),
        )
    ),
    ("wang2018", {"consensus_weight": 1.0}, {"consensus_weight": 0.0}, RESIDUAL),
]


def test_no_loss_is_dead():
    """One step with the default weights gives other weights than one step without one of the losses."""
    dead = [
        (method, values, zero)
        for method, values, zero, model in LOSSES
        if same(once(method, values, model, **ONE_STEP), once(method, values | zero, model, **ONE_STEP))
    ]
    assert dead == []

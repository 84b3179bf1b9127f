"""Every copy of a network draws dropout from a stream of its own, and a run's identity says so exactly where that
shows."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from collabench.config import configuration as ids
from collabench.core.seeding import dropout_seed, stream_seed
from collabench.methods import METHODS, dml
from collabench.models import FAMILIES, build_backbone
from collabench.models.dropout import (
    SameMasks,
    SeededDropout,
    assign_generators,
    dropout_layers,
    number_copy,
    set_dropout_generator,
)
from collabench.training import checkpoint, loop
from tests.support.networks import entry
from tests.support.synthetic import SMALL_MODELS, configuration_of, model_of, settings_of
from tests.support.training_cases import batch, built, run_of, same, train

CPU = torch.device("cpu")
RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS
DENSENET = {"family": "densenet", "depth": 10, "growth": 3}

# ---------------------------------------------------------------------------------------------------- streams


def masks(network: nn.Module) -> dict[int, list[torch.Tensor]]:
    """Copy → what its layers make of ones, in order."""
    found: dict[int, list[torch.Tensor]] = {}
    for layer in dropout_layers(network.train()):
        found.setdefault(layer.copy, []).append(layer(torch.ones(6, 8)))
    return found


#: Method and settings → the copies that its network has on the small VGG, whose dropout lies behind all blocks.
COPIES = {
    "individual": ({}, {0}),
    "kd": ({}, {0}),
    "auxiliary": ({}, {0}),
    "fang2021": ({}, {0}),
    "dml": ({"networks": 3}, {0, 1, 2}),
    "wang2018": ({}, {0, 1}),
    "one": ({"heads": 3}, {0, 1, 2}),
    "okddip": ({"heads": 3}, {0, 1, 2}),
    "song2018": ({"heads": 4}, {0, 1, 2, 3}),
    "song2018, one head": ({"heads": 1}, {0}),
    "song2018, between two splits": (
        {"splits": ({"after": "input", "branches": 2}, {"after": "hidden1", "branches": 2})},
        {0, 1, 2, 3},
    ),
    "song2018, above the split": ({"graph": "simple_ilr", "heads": 3, "split_after": ("hidden2",)}, {0}),
}


@pytest.mark.parametrize("case", COPIES)
def test_each_copy_draws_masks_of_its_own(case):
    values, copies = COPIES[case]
    drawn = masks(built(case.split(",")[0], on=VGG, **values)[1])
    assert set(drawn) == copies
    flat = [mask for of_copy in drawn.values() for mask in of_copy]
    assert all(not torch.equal(a, b) for i, a in enumerate(flat) for b in flat[:i])
    alone = masks(built("individual", on=VGG)[1])[0]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], alone, strict=True))


def test_between_two_splits_a_layer_is_of_the_first_copy_behind_it():
    _, network = built("song2018", on=VGG, **COPIES["song2018, between two splits"][0])
    for head, copies in enumerate(([0, 0], [0, 1], [2, 2], [2, 3])):
        assert [layer.copy for layer in dropout_layers(network.path(head))] == copies


def test_a_copys_draws_move_no_other_copys_generator():
    _, network = built("dml", on=VGG, networks=3)
    generators = [dropout_layers(member)[0].generator for member in network]
    before = [generator.get_state() for generator in generators]
    network[1].train()(batch().images)
    moved = [not torch.equal(g.get_state(), state) for g, state in zip(generators, before, strict=True)]
    assert moved == [False, True, False]


def test_the_first_copy_with_dropout_has_the_runs_stream():
    """A peer of another kind that is the only one with dropout draws what the only network with dropout always drew."""
    models = {"vgg": VGG, "residual": RESIDUAL}
    _, network = built("dml", on=RESIDUAL, peers=("residual", "vgg", "vgg"), models=models)
    generators = assign_generators(network, CPU)
    assert list(generators) == [0, 3]
    assert all(layer.generator is generators[0] for layer in dropout_layers(network[2]))
    assert all(layer.generator is generators[3] for layer in dropout_layers(network[3]))
    assert list(assign_generators(built("individual")[1], CPU)) == [0]


def test_streams_are_functions_of_seed_epoch_and_copy():
    assert dropout_seed(3, 5, 0) == stream_seed(3, "dropout", 5)
    seeds = {dropout_seed(seed, epoch, number) for seed in range(4) for epoch in range(4) for number in range(12)}
    assert len(seeds) == 4 * 4 * 12


def test_the_same_masks_again_cost_no_random_numbers():
    layers = nn.ModuleList([SeededDropout(0.5), SeededDropout(0.3), SeededDropout(0.5)])
    number_copy(layers[2], 7)

    def from_the_beginning() -> None:
        for number, generator in assign_generators(layers, CPU).items():
            generator.manual_seed(number)

    from_the_beginning()
    first, second = masks(layers), masks(layers)
    from_the_beginning()
    again = SameMasks(layers)
    masks(layers)
    with again:
        repeated = masks(layers)
    following = masks(layers)
    for copy in (0, 7):
        assert all(torch.equal(a, b) for a, b in zip(repeated[copy], first[copy], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(following[copy], second[copy], strict=True))
        assert not torch.equal(first[copy][0], second[copy][0])


def test_in_turn_a_network_is_asked_again_with_the_masks_of_its_first_pass(monkeypatch):
    """With a step that moves nothing, the refreshed logits are those of before, dropout or not."""
    instance, network = built("dml", on=VGG, networks=3, optimisation="in_turn")
    seen, terms = [], instance.terms

    def note(logits: torch.Tensor, *rest: object) -> dict[str, torch.Tensor]:
        seen.append(logits.detach())
        return terms(logits, *rest)

    monkeypatch.setattr(instance, "terms", note)
    instance.step(network.train(), batch(), lambda loss, parameters: None)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


def test_a_checkpoint_holds_the_state_of_every_generator(tmp_path):
    path = tmp_path / "run.ckpt"
    train(run_of("dml", on=VGG, networks=3), checkpoint_path=path, checkpoint_seconds=0.0)
    states = checkpoint.load(path, CPU)["generators"]
    assert list(states) == [0, 1, 2]
    assert not torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])


# --------------------------------------------------------------------------------------------------- identity

BODY = {"features": ("features",), "pool": ("avgpool", "flatten"), "classifier": ("classifier",)}
DECLARED = [
    (RESIDUAL, False),
    (DENSENET, False),
    (VGG, True),
    (SMALL_RESNET, True),
    ({"family": "torchvision_model", "name": "resnet18", "small_stem": True}, False),
    ({"family": "torchvision_model", "name": "resnet18", "small_stem": True, "hidden": 8}, True),
    ({"family": "torchvision_model", "name": "alexnet", "stages": BODY}, True),
    ({"family": "preact_resnet", "blocks": (1, 1), "width": 4}, False),
    ({"family": "wide_resnet", "depth": 10, "widening": 1}, False),
    ({"family": "wide_resnet", "depth": 10, "widening": 1, "dropout": 0.3}, True),
    (entry("dropout"), True),
    (entry("stochastic depth"), True),
]


@pytest.mark.parametrize("values,drawing", DECLARED, ids=str)
def test_a_models_settings_say_whether_it_draws(values, drawing):
    model = model_of(values)
    with torch.device("meta"):
        backbone = build_backbone(model, (3, 64, 64), 5, 0)
    assert bool(dropout_layers(backbone)) == model.draws_dropout == drawing
    assert "draws_dropout" not in model.model_dump()


def test_every_family_is_among_them():
    assert {values["family"] for values, _ in DECLARED} | {"timm"} == set(FAMILIES)
    assert model_of({"family": "timm", "name": "resnet18"}).draws_dropout
    # What a module holds that somebody else wrote, settings do not tell: it counts as drawing.
    without = model_of(entry("never"))
    assert without.draws_dropout and not dropout_layers(build_backbone(without, (1, 8, 8), 4, 0))


#: (method, settings, model).
CASES = [
    *((method, {}, RESIDUAL) for method in METHODS if method not in ("ensemble", "fang2021")),
    *((method, {}, VGG) for method in METHODS if method != "ensemble"),
    ("song2018", {"graph": "individual"}, VGG),
    ("song2018", {"splits": ()}, VGG),
    ("song2018", {"heads": 1}, SMALL_RESNET),
    ("song2018", {"splits": ({"after": "block1", "branches": 1},)}, VGG),
    ("song2018", {"splits": ({"after": "block1", "branches": 2},)}, VGG),
    ("song2018", {"graph": "multi_instance", "heads": 2, "optimisation": "alternating"}, SMALL_RESNET),
    ("song2018", {"graph": "multi_instance", "heads": 2}, entry("dropout")),
    ("dml", {"peers": ("residual",)}, RESIDUAL),
    ("dml", {"peers": ("residual", "residual")}, VGG),
    ("dml", {"peers": ("vgg",)}, RESIDUAL),
    ("dml", {"peers": ("vgg", "vgg")}, RESIDUAL),
    ("dml", {"peers": ("vgg", "residual", "resnet")}, RESIDUAL),
    *(
        ("dml", {"optimisation": "in_turn", "refresh_targets": refresh, "peers": peers}, model)
        for refresh in (True, False)
        for peers, model in (
            (("residual",), VGG), (("vgg",), RESIDUAL), (("vgg", "residual"), RESIDUAL), (("residual",), RESIDUAL)
        )
    ),
    ("wang2018", {"peers": ("vgg",)}, RESIDUAL),
    ("wang2018", {"peers": ("residual",)}, VGG),
    ("wang2018", {"peers": ("resnet",)}, VGG),
]  # fmt: skip
PEERS = {"residual": RESIDUAL, "vgg": VGG, "resnet": SMALL_RESNET}


def one_stream(network: nn.Module, device: torch.device) -> dict[int, torch.Generator]:
    """What revision 1 did: all layers draw from one generator in turn."""
    generator = torch.Generator(device)
    set_dropout_generator(network, generator)
    return {0: generator}


@pytest.mark.parametrize("method,values,model", CASES, ids=str)
def test_the_revision_enters_an_identity_exactly_where_the_numbers_changed(method, values, model, monkeypatch):
    def run():
        return run_of(method, on=model, models=PEERS, **values)

    identity, name, now = run().configuration.identity(), run().id, train(run())
    monkeypatch.setattr(loop, "assign_generators", one_stream)
    monkeypatch.setattr(dml, "SameMasks", lambda network: nullcontext())
    before = train(run())
    monkeypatch.setattr(ids, "DROPOUT_REVISION", ids.DROPOUT_REVISION + 1)
    enters = run().id != name
    assert enters == ("dropout_revision" in identity)
    assert enters != (same(before.weights, now.weights) and before.result.curves == now.result.curves)


@pytest.mark.parametrize("method,enters", [("dml", True), ("individual", False)])
@pytest.mark.parametrize("settings", [settings_of("ensemble"), settings_of("kd")], ids=["ensemble", "kd"])
def test_it_enters_through_what_a_run_requires(settings, method, enters, monkeypatch):
    """A teacher and an ensemble's members draw in runs of their own: the ids of those are part of a run's identity."""

    def configuration() -> ids.Configuration:
        vgg = model_of(VGG)
        required = ids.RequiredRun(configuration=configuration_of(settings_of(method), vgg))
        return configuration_of(settings, vgg, requires=(required,))

    before = configuration()
    assert "dropout_revision" not in before.identity()
    name = before.id
    monkeypatch.setattr(ids, "DROPOUT_REVISION", ids.DROPOUT_REVISION + 1)
    assert (configuration().id != name) == enters

"""Which parameters each named loss term reaches, that terms are wide under mixed precision, and that each falls in
training."""

from __future__ import annotations

from functools import lru_cache
from statistics import fmean

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from collabench.config.configuration import RequiredRun, Run
from collabench.data import Dataset
from collabench.methods import Batch
from collabench.models import Backbone, build_backbone
from collabench.models.intermediate import intermediate_groups, intermediate_layers
from collabench.training import train_run
from tests.support.synthetic import SMALL_MODELS, configuration_of, model_of, settings_of
from tests.support.training_cases import IMAGES, LABELS, batch, built, reached, run_of

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS

LOCAL_MODELS = pytest.mark.parametrize("model", [VGG, SMALL_RESNET], ids=["vgg", "resnet"])


def terms_of(method: str, **values):
    instance, network = built(method, **values)
    return instance.losses(network, batch()), network


def check(term: torch.Tensor, network: nn.Module, wanted) -> None:
    """``wanted(name)`` says whether the term must reach the parameter of that name."""
    found = reached(term, network)
    assert found == {name: wanted(name) for name in found}
    assert any(found.values())


def test_kd_reaches_the_student_and_no_teacher():
    instance, network = built("kd", teacher_members=2)
    terms = instance.losses(network, batch())
    for term in terms.values():
        check(term, network, lambda name: True)
    teachers = [p for teacher in instance.teachers for p in teacher.parameters()]
    assert len(instance.teachers) == 2 and teachers
    for parameter in teachers:
        parameter.requires_grad_(True)  # even if somebody forgot to freeze it
    assert all(
        gradient is None
        for term in instance.losses(network, batch()).values()
        for gradient in torch.autograd.grad(term, teachers, allow_unused=True, retain_graph=True)
    )


@pytest.mark.parametrize("through_target", [False, True])
def test_dml_reaches_its_own_network_and_the_others_through_the_target_only(through_target):
    instance, network = built("dml", networks=3, gradient_through_target=through_target)
    logits = instance.predict(network, batch().images)
    for own in range(3):
        terms = instance.terms(logits, batch().labels, own)
        check(terms["hard"], network, lambda name, own=own: name.startswith(f"{own}."))
        check(terms["mimicry"], network, lambda name, own=own: through_target or name.startswith(f"{own}."))


def test_auxiliary_reaches_its_classifiers_and_the_stages_below():
    terms, network = terms_of("auxiliary", after=("stem", "stage2"))
    check(terms["hard"], network, lambda name: name.startswith("backbone"))
    above = ("backbone.stage3", "backbone.classifier")
    check(terms["auxiliary"], network, lambda name: not name.startswith(above))


def test_auxiliary_classifiers_stand_after_intermediate_stages_by_default():
    _, network = terms_of("auxiliary")
    assert network.stages == ("stage1", "stage2")
    assert [c.in_features for c in network.classifiers] == [4, 8]
    _, network = terms_of("auxiliary", after="every")
    assert network.stages == ("stem", "stage1", "stage2", "stage3")
    assert [c.in_features for c in network.classifiers] == [4, 4, 8, 16]


@pytest.mark.parametrize(
    "model,shape,expected",
    [
        ({"family": "densenet", "depth": 10, "growth": 3}, (1, 8, 8), ["transition1", "transition2"]),
        ({"family": "vgg", "depth": 16, "width": 2}, (3, 32, 32), ["block1", "block2"]),
        ({"family": "resnet", "depth": 18, "width": 2}, (3, 32, 32), ["stage1", "stage2"]),
        ({"family": "vgg", "blocks": (1, 1), "width": 4, "poolings": 1, "hidden": 8}, (1, 8, 8), ["block1"]),
    ],
    ids=lambda value: value.get("family") if isinstance(value, dict) else None,
)
def test_intermediate_stages_are_the_split_points(model, shape, expected):
    backbone = build_backbone(model_of(model), shape, 4, 0)
    assert list(settings_of("auxiliary").widths(backbone, shape)) == expected


def test_a_backbone_without_known_split_points_has_no_auxiliary_classifier_on_its_stem_and_its_final_features():
    maps = {name: nn.Conv2d(1, 1, 3) for name in ("first", "second", "third")}
    end = {"flatten": nn.Flatten(), "classifier": nn.Linear(4, 4)}
    chain = Backbone(maps | end)
    assert list(settings_of("auxiliary").widths(chain, (1, 8, 8))) == ["second"]
    short = Backbone({"first": nn.Conv2d(1, 1, 5), "second": nn.Conv2d(1, 1, 3)} | end)
    with pytest.raises(ValueError, match=r"^no intermediate stage of this backbone puts out a map: name stages in af"):
        settings_of("auxiliary").widths(short, (1, 8, 8))


def test_a_pool_that_keeps_its_map_gets_no_auxiliary_classifier():
    backbone = Backbone(
        {
            "stem": nn.Conv2d(1, 6, 3),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "hidden": nn.Linear(6, 5),
            "classifier": nn.Linear(5, 4),
        }
    )
    assert settings_of("auxiliary", after="every").widths(backbone, (1, 8, 8)) == {"stem": 6}
    assert settings_of("auxiliary", after=("hidden", "pool")).widths(backbone, (1, 8, 8)) == {"pool": 6, "hidden": 5}
    assert backbone.training


@pytest.mark.parametrize("through_target", [False, True])
def test_one_reaches_branches_and_gate(through_target):
    terms, network = terms_of("one", gradient_through_target=through_target)
    check(terms["hard"], network, lambda name: not name.startswith("gate"))
    check(terms["ensemble"], network, lambda name: True)
    check(terms["distillation"], network, lambda name: through_target or not name.startswith("gate"))


LEADER = "tree.root.branches.0."


@pytest.mark.parametrize("through_target", [False, True])
def test_okddip_reaches_peers_attention_and_leader(through_target):
    terms, network = terms_of("okddip", gradient_through_target=through_target)
    check(terms["hard"], network, lambda name: not name.startswith("attention"))
    check(terms["peers"], network, lambda name: not name.startswith(LEADER))

    def in_the_leaders_term(name: str) -> bool:
        shared = name.startswith("tree.root.segment")
        return name.startswith(LEADER) or shared or (through_target and name.startswith("tree"))

    check(terms["leader"], network, in_the_leaders_term)


def test_in_the_targets_of_okddip_only_the_attention_learns_by_default():
    """The peers' gradient is that of fixed targets; through the targets it is another one."""

    def gradient(through_target: bool, attention_is_fixed: bool) -> torch.Tensor:
        instance, network = built("okddip", gradient_through_target=through_target)
        if attention_is_fixed:
            network.attention.register_forward_hook(lambda module, inputs, output: output.detach())
        term = instance.losses(network, batch())["peers"]
        return torch.autograd.grad(term, network.tree.root.segment.stem[0].weight)[0]

    assert torch.equal(gradient(False, False), gradient(False, True))
    assert not torch.allclose(gradient(True, False), gradient(False, False))
    assert not torch.allclose(gradient(True, True), gradient(False, False))


@pytest.mark.parametrize("memory", ["shared", "private"])
def test_wang2018_writes_into_the_memory_that_a_network_reads(memory):
    instance, network = built("wang2018", memory=memory)
    logits = network(batch().images)
    for own in range(2):
        term = torch.nn.functional.cross_entropy(logits[own], batch().labels)
        mine = (f"backbones.{own}.", f"assistance.{own}.", "memories.0" if memory == "shared" else f"memories.{own}")
        check(term, network, lambda name, mine=mine: name.startswith(mine))
    terms = instance.terms(logits, batch().labels)
    assert list(terms) == ["hard"]
    check(terms["hard"], network, lambda name: True)


def test_the_consensus_of_wang2018_reaches_everything_but_through_no_target():
    instance, network = built("wang2018", consensus_weight=1.0, memory="private")
    logits = network(batch().images)
    check(instance.terms(logits, batch().labels)["consensus"], network, lambda name: True)
    only_first = torch.stack([logits[0], logits[1].detach()])
    term = instance.terms(only_first, batch().labels)["consensus"]
    first = ("backbones.0.", "assistance.0.", "memories.0.")
    check(term, network, lambda name: name.startswith(first))


@pytest.mark.parametrize(
    "method,values",
    [
        *((method, {}) for method in ("kd", "dml", "auxiliary", "one", "okddip", "wang2018")),
        ("one", {"gate": "normalised"}),
        ("okddip", {"target_average": "logits"}),
    ],
    ids=str,
)
def test_losses_are_wide_under_mixed_precision(method, values):
    """Under bfloat16 arithmetic every term is float32 and close to that of float32 arithmetic."""
    instance, network = built(method, **values)
    network, images = network.float(), Batch(batch().images.float(), batch().labels, torch.Generator())
    for teacher in instance.context.teachers:
        teacher.float()
    plain = instance.losses(network, images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = instance.losses(network, images)
    assert plain.keys() == mixed.keys()
    for name, term in mixed.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(plain[name].item(), rel=0.1, abs=0.05), name


@lru_cache
def digits() -> Dataset:
    bunch = load_digits()
    images = torch.from_numpy(bunch.images * (255 / 16)).to(torch.uint8).unsqueeze(-1)
    labels = torch.from_numpy(bunch.target)
    values = images[:600].double() / 255
    return Dataset(
        train_images=images[:600],
        train_labels=labels[:600],
        test_images=images[600:900],
        test_labels=labels[600:900],
        classes=tuple(map(str, range(10))),
        digest="0" * 64,
        title="digits",
        mean=(values.mean().item(),),
        std=(values.std(correction=0).item(),),
    )


RESNET8 = {"family": "cifar_resnet", "depth": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method,values",
    [
        ("kd", {}),
        ("dml", {}),
        ("dml", {"optimisation": "in_turn"}),
        ("auxiliary", {}),
        ("one", {}),
        ("okddip", {}),
        ("wang2018", {}),
        ("wang2018", {"consensus_weight": 1.0}),
        ("wang2018", {"memory": "private"}),
    ],
)
def test_every_term_falls_in_training_on_digits(method, values):
    device = torch.device("cpu")
    recipe = {"epochs": 6, "batch_size": 32, "milestones": (4,)}
    settings, model = settings_of(method, **values), model_of(RESNET8)
    plain = configuration_of(settings_of("individual"), model, **recipe)
    requires = tuple(RequiredRun(configuration=plain, member=r.member) for r in settings.requires())
    run = Run(configuration_of(settings, model, requires=requires, **recipe), 0)
    teachers = [load(train_run(required, digits(), device=device).weights) for required in run.requires()]
    result = train_run(run, digits(), device=device, teachers=teachers).result
    for name, curve in result.curves.losses.items():
        assert curve[-1] < 0.8 * curve[0], (name, curve)
    assert result.last.error < 0.15


def load(weights: dict[str, torch.Tensor]) -> nn.Module:
    network = build_backbone(model_of(RESNET8), (1, 8, 8), 10, 0)
    network.load_state_dict(weights)
    return network.eval()


@pytest.mark.parametrize("graph,heads", [("multi_instance", 3), ("simple_ilr", 3), ("hierarchical_ilr", 4)])
def test_both_terms_of_song2018_reach_every_head_and_everything_below(graph, heads):
    instance, network = built("song2018", graph=graph, heads=heads)
    for term in instance.losses(network, batch()).values():
        check(term, network, lambda name: True)


@pytest.mark.parametrize("through_target", [False, True])
@pytest.mark.parametrize("graph,heads", [("multi_instance", 3), ("simple_ilr", 3), ("hierarchical_ilr", 4)])
def test_a_heads_terms_reach_its_own_path(graph, heads, through_target):
    """The soft term reaches the other heads only where the gradient flows through the target."""
    instance, network = built("song2018", graph=graph, heads=heads, gradient_through_target=through_target)
    logits = network(batch().images)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for head in range(heads):
        own = {names[id(parameter)] for parameter in network.path_parameters(head)}
        terms = instance._terms(logits, LABELS, instance._targets(logits), [head])
        check(terms["hard"], network, lambda name, own=own: name in own)
        check(terms["soft"], network, lambda name, own=own: through_target or name in own)


def main_path(name: str) -> bool:
    return name.startswith("backbone.")


def convolutional(network: nn.Module) -> set[str]:
    """Parameters of intermediate layers, by name."""
    return {
        f"backbone.{path}.{name}"
        for path, layer in intermediate_layers(network.backbone).items()
        for name, _ in layer.named_parameters()
    }


@LOCAL_MODELS
def test_what_each_term_of_fang2021_reaches(model):
    instance, network = built("fang2021", on=model, out_added=True)
    terms = instance.losses(network, batch())
    assert list(terms) == ["hard", "out", "mid", "pull", "push", "kernel"]
    layers = convolutional(network)
    for name in ("hard", "out"):
        check(terms[name], network, main_path)
    check(terms["mid"], network, lambda name: name in layers or name.startswith("classifiers."))
    for name in ("pull", "push"):
        check(terms[name], network, lambda name: name in layers or name.startswith("projections."))
    (_, *last) = intermediate_groups(network.backbone).values()
    convolutions = {f"backbone.{path}.conv.weight" for group in last for path in group}
    if len(intermediate_groups(network.backbone)) == 2:  # the small VGG has two groups: both are the last two
        convolutions |= {f"backbone.{path}.conv.weight" for path in intermediate_layers(network.backbone)}
    check(terms["kernel"], network, lambda name: name in convolutions)


@LOCAL_MODELS
def test_losses_of_fang2021_are_wide_and_close_under_mixed_precision(model):
    instance, network = built("fang2021", on=model)
    network = network.float()
    of = Batch(IMAGES, LABELS, torch.Generator())
    plain = instance.losses(network, of)
    instance, network = built("fang2021", on=model)
    network = network.float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = instance.losses(network, of)
    assert plain.keys() == mixed.keys()
    for name, term in mixed.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(plain[name].item(), rel=0.1, abs=0.05), name


def test_losses_of_song2018_are_wide_and_close_under_mixed_precision():
    instance, network = built("song2018")
    network, of = network.float(), Batch(IMAGES, LABELS, torch.Generator())
    plain = instance.losses(network, of)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = instance.losses(network, of)
    for name, term in mixed.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(plain[name].item(), rel=0.1, abs=0.05), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "method,values,model",
    [
        ("song2018", {}, {"family": "cifar_resnet", "depth": 8}),
        ("song2018", {"optimisation": "alternating"}, {"family": "cifar_resnet", "depth": 8}),
        ("fang2021", {"out_added": True}, SMALL_RESNET | {"width": 8, "hidden": 64}),
        ("fang2021", {"out_added": True}, VGG | {"blocks": (2, 2, 2), "width": 16, "poolings": 2, "hidden": 64}),
    ],
    ids=str,
)
def test_every_term_of_the_papers_methods_falls_in_training_on_digits(method, values, model):
    """With every weight at its default, and the cross entropy beside L_out, so that all terms are there. The mean of
    four trainings: the kernel loss is small beside the others, and falls at first and rises a little later on."""
    recipe = {"epochs": 8, "batch_size": 32, "milestones": (5,)}
    found = [
        train_run(run_of(method, seed, recipe, on=model, **values), digits(), device=torch.device("cpu")).result.curves
        for seed in range(4)
    ]
    for name in found[0].losses:
        curve = [fmean(values) for values in zip(*(curves.losses[name] for curves in found), strict=True)]
        assert curve[-1] < curve[0] - 0.02 * abs(curve[0]), (name, curve)
    assert max(curves.test_error[-1] for curves in found) < 0.25

"""Which parameters each loss term of song2018 and fang2021 reaches, fang2021's locality against plain modules, and that
each term falls; beside tests/baselines/test_gradients.py, which has the neighbouring methods."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from collabench.methods import Batch
from collabench.methods._intra_model import deviations, frobenius_distance, similarities
from collabench.methods.losses import hard_cross_entropy
from collabench.models.intermediate import intermediate_groups, intermediate_layers
from collabench.training import train_run
from tests.baselines.test_gradients import digits
from tests.baselines.training_cases import IMAGES, LABELS, batch, built, reached, run_of
from tests.synthetic import SMALL_MODELS

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS
LOCAL_MODELS = pytest.mark.parametrize("model", [VGG, SMALL_RESNET], ids=["vgg", "resnet"])


def check(term: Tensor, network: nn.Module, wanted) -> None:
    """``wanted(name)`` says whether the term must reach the parameter of that name."""
    found = reached(term, network)
    assert found == {name: wanted(name) for name in found}
    assert any(found.values())


# ---------------------------------------------------------------------------------------------------- song2018


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


# ---------------------------------------------------------------------------------------------------- fang2021


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


def received(network: nn.Module, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """What every intermediate layer receives in an ordinary pass, as constants."""
    found: dict[str, tuple[Tensor, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda module, inputs, path=path: found.__setitem__(path, tuple(x.detach() for x in inputs))
        )
        for path, layer in intermediate_layers(network.backbone).items()
    ]
    network.backbone(images)
    for hook in hooks:
        hook.remove()
    return found


def plain_layer(layer: nn.Module, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """A layer as a chain of torch's own modules."""
    y = nn.functional.batch_norm(
        layer.conv(x), None, None, layer.norm.weight, layer.norm.bias, True, 0.1, layer.norm.eps
    )
    if layer.added == "identity":
        y = y + skip
    elif layer.added == "convolution":
        norm = layer.shortcut_norm
        convolved = nn.functional.conv2d(skip, layer.shortcut_conv.weight, stride=layer.skip_stride)
        y = y + nn.functional.batch_norm(convolved, None, None, norm.weight, norm.bias, True, 0.1, norm.eps)
    return torch.relu(y)


def local_terms(network: nn.Module, layer: int, output: Tensor) -> Tensor:
    """Losses of one layer, by its own local classifier and projection: hard part of L_mid, and pull."""
    targets = nn.functional.one_hot(LABELS, 4).to(output.dtype)
    described = deviations(network.projections[layer](output))
    pull = frobenius_distance(similarities(described), similarities(targets))
    return hard_cross_entropy(network.classifiers[layer](output), LABELS, temperature=2.0) + pull


@LOCAL_MODELS
@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_a_layers_local_loss_is_local_and_equals_autograds_with_detached_inputs(model, precision):
    """The gradient of layer i's own loss: nothing at all for any other layer, and for layer i what autograd gives for
    plain modules whose inputs are constants."""
    _, network = built("fang2021", on=model, losses=("mid", "pull_push"))
    images = IMAGES.double()
    if precision == "bfloat16":
        network, images = network.float(), IMAGES
    network.train()
    twin = copy.deepcopy(network)
    outputs: list[Tensor] = []
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        for classifier in network.classifiers:  # what a local classifier is given is what its layer hands out
            classifier.register_forward_pre_hook(lambda module, inputs: outputs.append(inputs[0]))
        network(images)
        own_inputs = received(twin, images)
    names, parameters = zip(*network.named_parameters(), strict=True)
    for index, (path, layer) in enumerate(intermediate_layers(twin.backbone).items()):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            term = local_terms(network, index, outputs[index])
        found = dict(
            zip(names, torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True), strict=True)
        )
        inputs = [x.to(images.dtype) for x in own_inputs[path]]
        mine = dict(layer.named_parameters())
        extra = {"classifiers": twin.classifiers[index], "projections": twin.projections[index]}
        expected_term = local_terms(twin, index, plain_layer(layer, *inputs))
        tensors = [*mine.values(), *(p for module in extra.values() for p in module.parameters())]
        keys = [f"backbone.{path}.{name}" for name in mine]
        keys += [f"{kind}.{index}.{name}" for kind, module in extra.items() for name, _ in module.named_parameters()]
        expected = dict(zip(keys, torch.autograd.grad(expected_term, tensors), strict=True))
        assert {name for name, gradient in found.items() if gradient is not None} == set(expected)
        for name, gradient in expected.items():
            if precision == "float64":
                assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-11), name
            elif gradient.abs().max() > 1e-3:
                cosine = nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
                assert cosine > 0.95, (name, cosine)


@LOCAL_MODELS
def test_the_main_paths_gradient_is_whole(model):
    """What reaches a layer's weights with local losses is what reaches them without, and its own local gradient; what flows
    on to the layers below is the same."""
    local = {"losses": ("mid", "pull_push"), "mid_alpha": 0.5, "pull_last": 0.5}
    instance, network = built("fang2021", on=model, **local)
    plain, alone = built("individual", on=model)
    terms = instance.losses(network, batch())
    (expected,) = plain.losses(alone, batch()).values()
    assert terms["hard"].item() == expected.item()
    names, parameters = zip(*alone.named_parameters(), strict=True)
    mine = dict(network.named_parameters())
    of_hard = torch.autograd.grad(terms["hard"], [mine[f"backbone.{n}"] for n in names], retain_graph=True)
    for name, a, b in zip(names, of_hard, torch.autograd.grad(expected, parameters), strict=True):
        assert torch.equal(a, b), name
    total = torch.autograd.grad(sum(terms.values()), [mine[f"backbone.{n}"] for n in names], retain_graph=True)
    rest = torch.autograd.grad(
        sum(v for k, v in terms.items() if k != "hard"),
        [mine[f"backbone.{n}"] for n in names], allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    for name, a, b, c in zip(names, total, of_hard, rest, strict=True):
        assert torch.allclose(a, b + c, rtol=1e-9, atol=1e-12), name


@LOCAL_MODELS
def test_running_statistics_move_once_a_step(model):
    instance, network = built("fang2021", on=model, out_added=True, mid_include_output=True)
    instance.losses(network, batch())
    counts = {int(v) for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {1}


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


# --------------------------------------------------------------------------------------------- falling in training


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
def test_every_term_falls_in_training_on_digits(method, values, model):
    """With every weight at its default, and the cross entropy beside L_out, so that all terms are there."""
    recipe = {"epochs": 8, "batch_size": 32, "milestones": (5,)}
    run = run_of(method, 0, recipe, on=model, **values)
    curves = train_run(run, digits(), device=torch.device("cpu")).result.curves
    for name, curve in curves.losses.items():
        assert curve[-1] < curve[0] - 0.02 * abs(curve[0]), (name, curve)
    assert curves.test_error[-1] < 0.25

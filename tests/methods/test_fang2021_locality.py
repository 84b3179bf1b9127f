"""Fang & Lin's local losses stay in their layers: against plain modules whose inputs are constants."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from collabench.methods._descriptors import deviations
from collabench.methods._intra_model import frobenius_distance, similarities
from collabench.methods.losses import hard_cross_entropy
from collabench.models.intermediate import intermediate_layers
from tests.support.synthetic import SMALL_MODELS
from tests.support.training_cases import IMAGES, LABELS, batch, built

RESIDUAL, VGG, SMALL_RESNET = SMALL_MODELS

LOCAL_MODELS = pytest.mark.parametrize("model", [VGG, SMALL_RESNET], ids=["vgg", "resnet"])


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
    """What reaches a layer's weights with local losses is what reaches them without, and its own local gradient; what
    flows on to the layers below is the same."""
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

"""Fang & Lin's four losses, values and gradients in float64, against slow loops that are written from the equations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from collabench.methods import Batch, Context
from collabench.methods._descriptors import Padding, deviations, moments, side_by_side
from collabench.methods._hierarchical_dropout import hierarchical_predictions
from collabench.methods._intra_model import (
    frobenius_distance,
    kernel_terms,
    linear_weights,
    mid_terms,
    out_terms,
    similarities,
)
from collabench.methods.fang2021 import Method, Outputs, Settings
from collabench.models import build_backbone
from collabench.models.dropout import set_dropout_generator
from collabench.models.intermediate import intermediate_layers
from tests.support import fang2021_reference as slow
from tests.support.synthetic import model_of

#: Images, classes, and how many predictions or layers: each number with another of the others.
OF_PREDICTIONS = pytest.mark.parametrize("images,classes,predictions", [(1, 2, 1), (3, 4, 2), (2, 10, 4), (3, 4, 5)])
OF_LAYERS = pytest.mark.parametrize("images,classes,layers", [(1, 2, 1), (3, 4, 2), (2, 10, 5)])


class Classes:
    """Stands for a context where only the terms are computed."""

    def __init__(self, classes: int) -> None:
        self.classes = classes


def terms(outputs: Outputs, labels: Tensor, images: Tensor | None = None, classes: int = 4, **values) -> dict:
    """The weighted terms of the method with these settings, from what a pass gives."""
    batch = Batch(torch.zeros(len(labels), 1, 2, 2) if images is None else images, labels, torch.Generator())
    return Method(Settings(method="fang2021", **values), Classes(classes)).terms(outputs, batch)


def pull_push(maps: Sequence[Tensor], labels: Tensor, images: Tensor, classes: int = 4, **values) -> dict:
    """The terms pull and push of the layers' projections (B, C_i, H_i, W_i)."""
    padding = Padding([x.shape[1] for x in maps])
    outputs = Outputs(None, None, None, padding(deviations(side_by_side([moments(x) for x in maps]))))
    batch = Batch(images, labels, torch.Generator())
    settings = Settings(method="fang2021", losses=("pull_push",), **values)
    return Method(settings, Classes(classes)).terms(outputs, batch, padding.present)


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


def draw_labels(images: int, classes: int) -> Tensor:
    return torch.randint(classes, (images,), generator=torch.Generator().manual_seed(images))


def gradient(value, leaf: Tensor) -> Tensor:
    """Of a scalar; zero where the scalar does not depend on the leaf."""
    if not isinstance(value, Tensor) or not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(value, leaf, allow_unused=True, retain_graph=True)
    return torch.zeros_like(leaf) if found is None else found


def compare(fast, reference, *values: Tensor, rel: float = 1e-10) -> None:
    """Value and gradients, with respect to each of ``values``, of a term and of its slow twin, which gets scalars."""
    leaves, twins = ([value.clone().requires_grad_() for value in values] for _ in range(2))
    found, expected = fast(*leaves), reference(*(slow.scalars(twin) for twin in twins))
    assert found.item() == pytest.approx(slow.number(expected), rel=rel, abs=1e-13)
    for leaf, twin in zip(leaves, twins, strict=True):
        a, b = gradient(found, leaf), gradient(expected, twin)
        assert torch.isfinite(a).all()
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9 * (1 + b.abs().max().item())), (a - b).abs().max()


def extreme(*shape: int, scale: float) -> Tensor:
    """Logits of 0 and of plus and minus ``scale``, in every order."""
    z = torch.zeros(shape, dtype=torch.float64)
    z.flatten()[::3] = scale
    z.flatten()[1::4] = -scale
    return z


# --------------------------------------------------------------------------------------------------------- L_out


@OF_PREDICTIONS
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"out_alpha": 0.3, "out_temperature": 3.0},
        {"out_temperature_squared": True, "out_temperature": 5.0},
        {"out_gradient_through_target": True, "out_alpha": 0.3, "out_temperature": 3.0},
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_out(images, classes, predictions, values, smoothing):
    labels = draw_labels(images, classes)
    alpha, temperature = values.get("out_alpha", 0.5), values.get("out_temperature", 2.0)
    squared = values.get("out_temperature_squared", False)
    constant = not values.get("out_gradient_through_target", False)

    def fast(z: Tensor) -> Tensor:
        found = terms(Outputs(None, z, None, None), labels, losses=("out",), label_smoothing=smoothing, **values)
        assert list(found) == ["out"]
        return found["out"]

    def reference(z: list):
        return slow.out_loss(z, labels.tolist(), alpha, temperature, squared, smoothing, constant)

    compare(fast, reference, draw(predictions, images, classes))


@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize("predictions,images,classes", [(1, 1, 2), (2, 1, 2), (4, 3, 5)])
def test_out_at_extreme_logits(scale, predictions, images, classes):
    labels = draw_labels(images, classes)
    compare(
        lambda z: terms(Outputs(None, z, None, None), labels, losses=("out",))["out"],
        lambda z: slow.out_loss(z, labels.tolist(), 0.5, 2.0),
        extreme(predictions, images, classes, scale=scale),
    )


def test_out_added_leaves_the_cross_entropy_beside_it():
    labels, logits, z = draw_labels(3, 4), draw(3, 4), draw(2, 3, 4, seed=1)
    found = terms(Outputs(logits, z, None, None), labels, losses=("out",), out_added=True)
    assert list(found) == ["hard", "out"]
    compare(
        lambda x: terms(Outputs(x, z, None, None), labels, losses=("out",), out_added=True)["hard"],
        lambda x: slow.mean_cross_entropy(x, labels.tolist()),
        logits,
    )
    alone = terms(Outputs(None, z, None, None), labels, losses=("out",))
    assert list(alone) == ["out"] and alone["out"].item() == found["out"].item()


def test_the_gradient_through_the_target_is_the_only_difference_between_the_two_readings():
    """Values are equal. Of two predictions z and z', the target's part of the gradient of the soft term with respect to
    z' is q_k (c_k - sum_j q_j c_j) / T with q = softmax(z' / T) and c = -log softmax(z / T)."""
    labels, z = draw_labels(3, 4), draw(2, 3, 4).requires_grad_()
    found = {}
    for through in (False, True):
        _, soft = out_terms(z, labels, 2.0, gradient_through_target=through)
        found[through] = (soft.item(), gradient(soft, z))
    assert found[True][0] == found[False][0]
    q = torch.softmax(z.detach() / 2, dim=-1)
    costs = -torch.log_softmax(z.detach() / 2, dim=-1).flip(0)  # of the other prediction
    expected = q * (costs - (q * costs).sum(dim=-1, keepdim=True)) / 2 / (2 * 3)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found[True][1] - found[False][1], expected, atol=1e-15)


def test_one_prediction_has_no_soft_part_and_its_hard_part_weight_1():
    labels, z = draw_labels(3, 4), draw(1, 3, 4)
    found = terms(Outputs(None, z, None, None), labels, losses=("out",), out_branches=1)
    assert found["out"].item() == pytest.approx(
        slow.number(slow.mean_cross_entropy(slow.scalars(z[0]), labels.tolist()))
    )


def test_out_at_a_high_temperature():
    """The soft part tends to log m; with its factor T^2 its gradient tends to that of sum_k (z_k - z'_k)^2 / (2 m), z'
    the mean of the other predictions' logits and both centred over the classes."""
    z = draw(3, 2, 5).requires_grad_()
    _, soft = out_terms(z, torch.tensor([0, 1]), 1e6)
    assert soft.item() == pytest.approx(math.log(5), rel=1e-6)
    found = gradient(soft * 1e12, z) * 3 * 2  # of each prediction and image
    centred = (z - z.mean(dim=2, keepdim=True)).detach()
    others = torch.stack([(centred.sum(dim=0) - own) / 2 for own in centred])
    assert torch.allclose(found, (centred - others) / 5, rtol=1e-3, atol=1e-4)


def test_equal_predictions_have_no_soft_gradient():
    z = draw(1, 3, 4).repeat(4, 1, 1).requires_grad_()
    _, soft = out_terms(z, draw_labels(3, 4), 2.0)
    assert gradient(soft, z).abs().max() < 1e-16
    q = torch.softmax(z[0].detach() / 2, dim=-1)
    assert soft.item() == pytest.approx(-(q * q.log()).sum(dim=1).mean().item())  # the entropy


def test_renaming_predictions_permutes_the_gradients_of_out():
    order, labels = [2, 0, 3, 1], draw_labels(3, 4)
    found = []
    for z in (draw(4, 3, 4), draw(4, 3, 4)[order]):
        leaf = z.requires_grad_()
        value = terms(Outputs(None, leaf, None, None), labels, losses=("out",))["out"]
        found.append((value.item(), gradient(value, leaf)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
    assert torch.allclose(found[0][1][order], found[1][1], atol=1e-15)


@pytest.fixture
def uniforms(monkeypatch) -> list[Tensor]:
    """Every tensor that torch.rand gives in a test, in order: what dropout masks are made of."""
    drawn: list[Tensor] = []
    rand = torch.rand

    def remember(*arguments, **options) -> Tensor:
        drawn.append(rand(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "rand", remember)
    return drawn


def masks_of(level: Tensor, branches: int) -> list:
    """[branch][k][image][unit] of what a level of dropout drew, (branches or 1, K, B, units)."""
    return [(level[branch % len(level)] >= 0.5).tolist() for branch in range(branches)]


VGG = {"family": "vgg", "blocks": (1, 1), "width": 2, "poolings": 1, "hidden": 3}
RESNET = {"family": "resnet", "blocks": (1, 1), "width": 2, "hidden": 3}


def small(model: dict):
    """For 1x4x4 images and three classes, with batch normalisations whose scales and shifts are not 1 and 0."""
    backbone = build_backbone(model_of(model), (1, 4, 4), 3, 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    set_dropout_generator(backbone, torch.Generator().manual_seed(1))
    return backbone


HIDDEN = ("hidden1", "hidden2", "classifier")


def classifier_weights(backbone) -> list[Tensor]:
    """Weight and bias of the three fully connected layers, one after the other."""
    return [
        tensor
        for linear in (backbone.hidden1.linear, backbone.hidden2.linear, backbone.classifier)
        for tensor in (linear.weight, linear.bias)
    ]


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("shared", [False, True])
def test_hierarchical_predictions_and_their_gradients(images, branches, shared, uniforms):
    backbone = small(VGG).double().train()
    features = draw(images, 4).abs().requires_grad_()
    direction = draw(branches**2, images, 3, seed=5)
    z = hierarchical_predictions(backbone, HIDDEN, features, branches, shared)
    assert z.shape == (branches**2, images, 3)
    assert [tuple(u.shape[:3]) for u in uniforms] == [
        (1, branches, images), (1 if shared else branches, branches, images),
    ]  # fmt: skip
    leaves = [features, *classifier_weights(backbone)]
    found = torch.autograd.grad((z * direction).sum(), leaves)
    twins = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    x, *weights = (slow.scalars(twin) for twin in twins)
    masks = [masks_of(uniforms[0], 1), masks_of(uniforms[1], branches)]
    expected = slow.predictions_under_masks(x, [weights[0:2], weights[2:4], weights[4:6]], masks)
    assert torch.allclose(z, torch.tensor(slow.numbers(expected), dtype=torch.float64), atol=1e-14)
    total = sum(
        expected[i][b][k] * direction[i, b, k].item()
        for i in range(branches**2)
        for b in range(images)
        for k in range(3)
    )
    for a, b in zip(found, torch.autograd.grad(total, twins), strict=True):
        assert torch.allclose(a, b, atol=1e-13)


def test_in_testing_there_is_one_plain_pass(uniforms):
    backbone, features = small(VGG).double().eval(), draw(2, 4)
    z = hierarchical_predictions(backbone, HIDDEN, features, 2, False)
    assert not uniforms
    for prediction in z:
        assert torch.allclose(prediction, backbone.run(HIDDEN, features), atol=1e-14)


# --------------------------------------------------------------------------------------------------------- L_mid

READINGS = [
    {},
    {"mid_include_own": True},
    {"mid_include_own": True, "mid_divisor": "printed"},
    {"mid_include_output": True},
    {"mid_include_own": True, "mid_divisor": "printed", "mid_include_output": True},
]


def slow_mid(z: list, labels: Tensor, values: dict, output: list | None, **weights: float):
    return slow.mid_loss(
        z,
        labels.tolist(),
        weights.get("alpha", 0.05),
        weights.get("beta", 0.05),
        weights.get("temperature", 2.0),
        values.get("mid_include_own", False),
        values.get("mid_divisor") == "printed",
        output if values.get("mid_include_output") else None,
        weights.get("smoothing", 0.0),
    )


@OF_LAYERS
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_mid(images, classes, layers, reading):
    labels, logits = draw_labels(images, classes), draw(images, classes, seed=4)
    values = {"mid_alpha": 0.3, "mid_beta": 0.7, "mid_temperature": 3.0, "label_smoothing": 0.1}

    def fast(z: Tensor, own: Tensor) -> Tensor:
        return terms(Outputs(own, None, z, None), labels, losses=("mid",), **values, **reading)["mid"]

    def reference(z: list, own: list):
        return slow_mid(z, labels, reading, own, alpha=0.3, beta=0.7, temperature=3.0, smoothing=0.1)

    compare(fast, reference, draw(layers, images, classes), logits)


@pytest.mark.parametrize("reading", READINGS, ids=str)
@pytest.mark.parametrize("layers,images,classes,scale", [(1, 1, 2, 1e4), (2, 1, 2, -1e4), (4, 3, 5, 1e4)])
def test_mid_at_extreme_logits(reading, layers, images, classes, scale):
    labels, logits = draw_labels(images, classes), extreme(images, classes, scale=-scale)
    compare(
        lambda z: terms(Outputs(logits, None, z, None), labels, losses=("mid",), **reading)["mid"],
        lambda z: slow_mid(z, labels, reading, slow.scalars(logits)),
        extreme(layers, images, classes, scale=scale),
    )


def test_with_out_the_networks_own_logits_are_the_mean_of_its_predictions():
    labels, local, predictions = draw_labels(3, 4), draw(2, 3, 4), draw(4, 3, 4, seed=7)
    found = terms(
        Outputs(None, predictions, local, None), labels, losses=("out", "mid"), mid_include_output=True
    )["mid"]  # fmt: skip
    expected = slow_mid(
        slow.scalars(local), labels, {"mid_include_output": True}, slow.scalars(predictions.mean(dim=0))
    )
    assert found.item() == pytest.approx(slow.number(expected), rel=1e-12)


def test_a_single_layer_has_no_soft_part():
    hard, soft = mid_terms(draw(1, 3, 4), draw_labels(3, 4), 2.0)
    assert soft.item() == 0.0 and hard.item() > 0


def test_the_last_layers_logits_are_pulled_by_labels_alone_and_targets_are_constants():
    z, labels = draw(3, 2, 4).requires_grad_(), draw_labels(2, 4)
    _, soft = mid_terms(z, labels, 2.0)
    found = gradient(soft, z)
    assert found[:2].abs().max() > 0 and not found[2].any()


def test_mid_at_a_high_temperature():
    """Every cross entropy tends to log m: of N layers N hard ones and N - 1 soft ones."""
    hard, soft = mid_terms(draw(4, 3, 5), draw_labels(3, 5), 1e8)
    assert hard.item() == pytest.approx(4 * math.log(5)) and soft.item() == pytest.approx(3 * math.log(5))


# --------------------------------------------------------------------------------------------------- L_pull_push


@pytest.mark.parametrize(
    "shape,layers", [((1, 2, 2, 2), 3), ((2, 1, 2, 3), 1), ((3, 4, 3, 3), 3), ((5, 2, 1, 4), 1)], ids=str
)
@pytest.mark.parametrize("centre", ["batch", "sample"])
@pytest.mark.parametrize("descriptor", ["std", "pixels"])
def test_pull_push(shape, centre, descriptor, layers):
    check_pull_push([shape] * layers, centre, descriptor)


@pytest.mark.parametrize("centre", ["batch", "sample"])
def test_pull_push_of_layers_of_different_sizes(centre):
    """A layer that is padded to the widest has the same losses and gradients as if it stood alone."""
    check_pull_push([(3, 2, 3, 2), (3, 5, 1, 3), (3, 2, 2, 2), (3, 4, 4, 1)], centre, "std")


def check_pull_push(shapes: Sequence[tuple[int, ...]], centre: str, descriptor: str) -> None:
    shape, layers = shapes[0], len(shapes)
    classes, labels = 4, draw_labels(shape[0], 4)
    images = draw(shape[0], 3, 2, 2, seed=9)
    ends = {"pull_first": 0.2, "pull_last": 0.9, "push_first": 0.8, "push_last": 0.1}

    def fast(*maps: Tensor) -> dict[str, Tensor]:
        return pull_push(maps, labels, images, classes, centre=centre, input_descriptor=descriptor, **ends)

    def reference(*maps: list):
        return slow.pull_push_loss(
            list(maps), slow.scalars(images), labels.tolist(), classes, (0.2, 0.9), (0.8, 0.1), centre, descriptor
        )

    drawn = [draw(*shapes[layer], seed=layer) for layer in range(layers)]
    compare(lambda *maps: fast(*maps)["pull"], lambda *maps: reference(*maps)[0], *drawn)
    compare(lambda *maps: fast(*maps)["push"], lambda *maps: reference(*maps)[1], *drawn)


def test_one_channel_has_one_deviation_whose_similarities_have_rank_one():
    """Why images of one channel are described by their pixels: the other similarities are signs."""
    images = draw(6, 1, 3, 3, seed=2)
    by_deviations, by_pixels = similarities(deviations(images)), similarities(images.flatten(1))
    assert torch.linalg.matrix_rank(by_deviations) == 1 and torch.linalg.matrix_rank(by_pixels) == 5
    above = (deviations(images) > deviations(images).mean()).double() * 2 - 1
    assert torch.allclose(by_deviations, above @ above.T)


@pytest.mark.parametrize(("channels", "expected"), [(1, "pixels"), (3, "std")])
def test_what_describes_the_input_depends_on_its_channels(channels, expected):
    images, labels = draw(5, channels, 4, 4, seed=9), draw_labels(5, 4)
    default, chosen = (
        pull_push([draw(5, 3, 4, 4)], labels, images, **values) for values in ({}, {"input_descriptor": expected})
    )
    assert default["push"].item() == chosen["push"].item()
    settings = Settings(method="fang2021", losses=("pull_push",))
    filled = settings.for_images((channels, 4, 4))
    assert filled.input_descriptor == expected and filled.for_images((4 - channels, 4, 4)) == filled
    without = Settings(method="fang2021", losses=("out",))
    assert without.for_images((channels, 4, 4)) == without and without.identity()["input_descriptor"] == "std"


def odd_maps(kind: str) -> Tensor:
    """(4, 3, 3, 3) with something in it that an equation would divide by."""
    maps = draw(4, 3, 3, 3)
    if kind == "a constant map":
        maps[1, 2] = 0.7
    elif kind == "a constant sample":
        maps[2] = 0.3
    elif kind == "two equal samples":
        maps[3] = maps[0]
    elif kind == "all samples equal":
        maps[:] = maps[:1].clone()
    elif kind == "all maps constant":
        maps[:] = torch.arange(12, dtype=torch.float64).view(4, 3, 1, 1) / 10
    elif kind == "all zero":
        maps[:] = 0.0
    elif kind == "equal channels":
        maps[:] = maps[:, :1]
    return maps


ODD = [
    "a constant map", "a constant sample", "two equal samples", "all samples equal", "all maps constant", "all zero",
    "equal channels",
]  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("centre", ["batch", "sample"])
@pytest.mark.parametrize("odd_images", [False, True])
def test_pull_push_where_an_equation_divides_by_zero(kind, centre, odd_images):
    labels, images = torch.tensor([0, 1, 1, 0]), odd_maps(kind) if odd_images else draw(4, 3, 3, 3, seed=9)

    def fast(maps: Tensor) -> dict[str, Tensor]:
        return pull_push([maps], labels, images, 2, centre=centre, pull_last=0.9, push_first=0.8, push_last=0.7)

    def reference(maps: list):
        return slow.pull_push_loss(
            [maps], slow.scalars(images), labels.tolist(), 2, (0.001, 0.9), (0.8, 0.7), centre, "std"
        )

    for name, position in (("pull", 0), ("push", 1)):
        compare(
            lambda maps, name=name: fast(maps)[name],
            lambda maps, position=position: reference(maps)[position],
            odd_maps(kind),
        )


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 0], [0, 1, 2]])
@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("centre", ["batch", "sample"])
def test_similarities_of_labels(labels, classes, centre):
    rows = torch.nn.functional.one_hot(torch.tensor(labels), classes).double()
    expected = slow.similarity_matrix([slow.one_hot(label, classes) for label in labels], centre)
    assert torch.allclose(similarities(rows, centre), torch.tensor(expected, dtype=torch.float64), atol=1e-14)


def test_similarities_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    # Centred over the batch: (0, -1), (-1, 0), (1, 1). Their cosines: 0 and -1/sqrt(2).
    half = -1 / math.sqrt(2)
    expected = torch.tensor([[1, 0, half], [0, 1, half], [half, half, 1]], dtype=torch.float64)
    assert torch.allclose(similarities(vectors), expected, atol=1e-15)
    # Centred within each sample: (1/2, -1/2), (-1/2, 1/2), (0, 0).
    expected = torch.tensor([[1, -1, 0], [-1, 1, 0], [0, 0, 0]], dtype=torch.float64)
    assert torch.allclose(similarities(vectors, "sample"), expected, atol=1e-15)


def test_a_batch_of_one_pulls_and_pushes_nothing_when_centred_over_the_batch():
    maps = draw(1, 3, 2, 2).requires_grad_()
    found = pull_push([maps], torch.tensor([1]), maps.detach())
    assert found["pull"].item() == 0.0 and found["push"].item() == 0.0
    assert not gradient(found["pull"] + found["push"], maps).any()


def test_deviations_are_those_of_the_population():
    maps = draw(2, 3, 4, 5)
    assert torch.allclose(deviations(maps), maps.flatten(2).std(dim=2, correction=0), rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1e-30, 1e-3, 0.1, 0.3, 1.0, 1e4, -1e4])
@pytest.mark.parametrize("side", [2, 3, 7, 16])
def test_a_map_that_is_constant_but_for_rounding_has_no_deviation(dtype, value, side):
    maps = torch.full((2, 2, side, side), value, dtype=dtype)
    maps[1] *= 1.7
    maps[0, 1, 0, 0] *= 1 + torch.finfo(dtype).eps  # the next number
    leaf = maps.requires_grad_()
    found = deviations(leaf)
    assert not found.any()
    assert not gradient(found.sum(), leaf).any()
    assert not gradient((similarities(found) * 3).sum(), leaf).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_deviation_beside_a_large_mean_is_one(dtype):
    """A thousandth of the mean is far above rounding: its value and its gradient are those of the equation."""
    pattern = draw(2, 3, 4, 4).to(dtype)
    leaf = (1 + 1e-3 * pattern).requires_grad_()
    found = deviations(leaf)
    expected = 1e-3 * pattern.double().flatten(2).std(dim=2, correction=0)
    assert torch.allclose(found.double(), expected, rtol=1e-3)
    # d sigma / d x = (x - mean) / (N sigma): its square sums to 1/N over a map.
    assert torch.allclose(
        gradient(found.sum(), leaf).square().sum(dim=(2, 3)), torch.tensor(1 / 16).to(dtype), rtol=1e-2
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e4, 1e-4, 1e15, 1e-15, 1e30, 1e-30])
@pytest.mark.parametrize("centre", ["batch", "sample"])
def test_cosines_know_no_scale_and_stay_finite(dtype, scale, centre):
    maps = draw(4, 3, 3, 3).to(dtype)
    leaf = (scale * maps).requires_grad_()
    found = similarities(deviations(leaf), centre)
    assert torch.allclose(found, similarities(deviations(maps), centre), atol=1e-4 if dtype == torch.float32 else 1e-12)
    assert torch.isfinite(gradient((found * draw(4, 4, seed=2).to(dtype)).sum(), leaf)).all()


@pytest.mark.parametrize("layers", [1, 2, 5, 17])
def test_weights_are_linear_over_the_layers(layers):
    found = linear_weights(0.001, 0.01, layers, torch.zeros(0, dtype=torch.float64)).tolist()
    assert found == pytest.approx([slow.weight_of_layer(0.001, 0.01, i, layers) for i in range(layers)])
    assert found[-1] == pytest.approx(0.01) and (layers == 1 or found[0] == 0.001)


def test_equal_matrices_have_no_distance_and_no_gradient():
    s = draw(3, 3).requires_grad_()
    found = frobenius_distance(s, s.detach())
    assert found.item() == 0.0 and not gradient(found, s).any()


# ------------------------------------------------------------------------------------------------------ L_kernel


def kernel_term(weight: Tensor) -> Tensor:
    """Of one convolution, a scalar."""
    return kernel_terms([weight]).squeeze(0)


def test_kernels_of_several_shapes_are_the_sum_of_each():
    drawn = [draw(3, 2, 3, 3), draw(2, 3, 3, 3), draw(3, 2, 3, 3, seed=5), draw(4, 1, 1, 1)]
    compare(lambda *weights: kernel_terms(weights).sum(), lambda *weights: sum(map(slow.kernel_loss, weights)), *drawn)


@pytest.mark.parametrize("shape", [(1, 2, 3, 3), (2, 1, 1, 2), (3, 2, 3, 3), (5, 4, 1, 1)])
def test_kernel(shape):
    compare(kernel_term, slow.kernel_loss, draw(*shape))


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -7.3, 1e4])
@pytest.mark.parametrize("constant", [[1], [0, 2], [0, 1, 2, 3]])
def test_kernel_with_constant_rows(value, constant):
    weight = draw(4, 2, 3, 3)
    weight[constant] = value
    compare(kernel_term, slow.kernel_loss, weight)


def test_kernel_of_equal_and_of_opposite_rows():
    """Rows that are equal, or opposite, have covariance 1 or -1: ||C - diag(C)||_F = sqrt(F (F - 1))."""
    row = draw(1, 2, 3, 3)
    assert kernel_term(row.repeat(3, 1, 1, 1)).item() == pytest.approx(math.sqrt(6))
    assert kernel_term(torch.cat([row, -row])).item() == pytest.approx(math.sqrt(2))
    assert kernel_term(row).item() == 0.0


def test_orthogonal_rows_have_no_kernel_loss_and_no_gradient():
    weight = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64).requires_grad_()
    found = kernel_term(weight.view(3, 1, 2, 2))
    assert found.item() == 0.0 and not gradient(found, weight).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
def test_kernel_knows_no_scale_and_stays_finite(dtype, scale):
    weight = draw(4, 2, 3, 3).to(dtype)
    leaf = (scale * weight).requires_grad_()
    found = kernel_term(leaf)
    assert found.item() == pytest.approx(kernel_term(weight).item(), rel=1e-4)
    assert torch.isfinite(gradient(found, leaf)).all()


# -------------------------------------------------------------------------------------------- the whole method
#
# One step of the whole method on a small network, its convolutions, batch normalisations, dropout, local classifiers
# and projections written out as loops. The gradient rule: the local loss of layer i is computed from the layer run on
# inputs that are constants, so that it changes the layer's own weights only.


class SlowNetwork:
    """The loops, with the weights of a network that was built by the method (twins: their scalars by name)."""

    def __init__(self, network, settings: Settings) -> None:
        self.parameters = {k: v.detach().clone().requires_grad_() for k, v in network.named_parameters()}
        self.scalars = {name: slow.scalars(value) for name, value in self.parameters.items()}
        self.network, self.settings = network, settings

    def layer(self, path: str, x: list, skip: list | None) -> list:
        layer, weights = intermediate_layers(self.network.backbone)[path], self.scalars
        name = f"backbone.{path}"
        stride = layer.conv.stride[0]
        y = slow.batch_norm(
            slow.convolution(x, weights[f"{name}.conv.weight"], stride, 1),
            weights[f"{name}.norm.weight"],
            weights[f"{name}.norm.bias"],
        )
        if layer.added == "convolution":
            shortcut = slow.convolution(skip, weights[f"{name}.shortcut_conv.weight"], layer.skip_stride, 0)
            shortcut = slow.batch_norm(
                shortcut, weights[f"{name}.shortcut_norm.weight"], weights[f"{name}.shortcut_norm.bias"]
            )
            y = slow.added(y, shortcut)
        elif layer.added == "identity":
            y = slow.added(y, skip)
        return slow.rectified_maps(y)

    def forward(self, images: list) -> tuple[list, list[list]]:
        """Features [image][channel] before the hidden layers, and the output of every layer run on constants."""
        x, block_input, local = images, None, []
        wanted = {"mid", "pull_push"} & set(self.settings.losses)
        for path, layer in intermediate_layers(self.network.backbone).items():
            if path.endswith("layer1"):
                block_input = x
            skip = block_input if layer.added else None
            if wanted:
                local.append(self.layer(path, slow.numbers(x), slow.numbers(skip) if skip else None))
            x = self.layer(path, x, skip)
            if path == "block1.0":  # the small VGG's only pooling
                x = slow.max_pool(x, 2)
        return slow.averages(x), local

    def terms(self, images: Tensor, labels: list[int], uniforms: list[Tensor]) -> dict:
        settings, weights = self.settings, self.scalars
        features, local = self.forward(slow.scalars(images))
        layers = [
            (weights[f"backbone.{name}.weight"], weights[f"backbone.{name}.bias"])
            for name in ("hidden1.linear", "hidden2.linear", "classifier")
        ]
        terms, drawn, logits = {}, list(uniforms), None
        if "out" not in settings.losses or settings.out_added:
            masks = [masks_of(drawn.pop(0)[None, None], 1) for _ in range(2)]
            (logits,) = slow.predictions_under_masks(features, layers, masks)
            terms["hard"] = slow.mean_cross_entropy(logits, labels)
        if "out" in settings.losses:
            masks = [masks_of(drawn.pop(0), settings.out_branches**level) for level in range(2)]
            predictions = slow.predictions_under_masks(features, layers, masks)
            terms["out"] = slow.out_loss(
                predictions, labels, settings.out_alpha, settings.out_temperature,
                constant_targets=not settings.out_gradient_through_target,
            )  # fmt: skip
        assert not drawn
        if "mid" in settings.losses:
            z = [self.local_logits(layer, maps) for layer, maps in enumerate(local)]
            terms["mid"] = slow.mid_loss(
                z, labels, settings.mid_alpha, settings.mid_beta, settings.mid_temperature,
                output=logits if settings.mid_include_output else None,
            )  # fmt: skip
        if "pull_push" in settings.losses:
            projected = [
                slow.convolution(maps, weights[f"projections.{i}.weight"], 1, settings.projection_kernel // 2)
                for i, maps in enumerate(local)
            ]
            terms["pull"], terms["push"] = slow.pull_push_loss(
                projected, slow.scalars(images), labels, 3,
                (settings.pull_first, settings.pull_last), (settings.push_first, settings.push_last),
                by=settings.input_descriptor or "pixels",  # of one channel
            )  # fmt: skip
        if "kernel" in settings.losses:
            terms["kernel"] = settings.kernel_weight * sum(slow.kernel_loss(weights[name]) for name in self.kernels())
        return terms

    def local_logits(self, layer: int, maps: list) -> list:
        weights = self.scalars
        side = -(-len(maps[0][0]) // self.settings.mid_side)
        pooled = slow.max_pool(maps, side)
        convolved = slow.convolution(
            pooled, weights[f"classifiers.{layer}.1.weight"], 1, 1, weights[f"classifiers.{layer}.1.bias"]
        )
        return [
            slow.linear(weights[f"classifiers.{layer}.3.weight"], weights[f"classifiers.{layer}.3.bias"], image)
            for image in slow.flattened(convolved)
        ]

    def kernels(self) -> list[str]:
        """The convolutions of the last groups (VGG: blocks; ResNet: stages), by hand."""
        groups = {"vgg": ["block1", "block2"], "resnet": ["stem", "stage1", "stage2"]}[
            "vgg" if hasattr(self.network.backbone, "block1") else "resnet"
        ]
        chosen = groups[-self.settings.kernel_groups :] if self.settings.kernel_groups else groups
        ends = (".conv.weight", ".shortcut_conv.weight") if self.settings.kernel_shortcuts else (".conv.weight",)
        return [
            name
            for name in self.parameters
            if name.endswith(ends) and name.removeprefix("backbone.").split(".")[0] in chosen
        ]


WHOLE = [
    {"losses": ("out",)},
    {"losses": ("out",), "out_added": True, "out_branches": 3},
    {"losses": ("out",), "out_shared_masks": True},
    {"losses": ("out",), "out_gradient_through_target": True},
    {"losses": ("mid",), "mid_side": 2, "mid_channels": 1},
    {"losses": ("mid",), "mid_include_output": True},
    {"losses": ("pull_push",), "pull_last": 0.5, "push_first": 0.4},
    {"losses": ("pull_push",), "projection_kernel": 1, "projection_channels": 3, "input_descriptor": "std"},
    {"losses": ("kernel",), "kernel_groups": 1, "kernel_weight": 0.5},
    {"losses": ("kernel",), "kernel_groups": None},
    {"mid_side": 2},
]


@pytest.mark.parametrize("values", WHOLE, ids=str)
@pytest.mark.parametrize("model", [VGG, pytest.param(RESNET, marks=pytest.mark.slow)], ids=["vgg", "resnet"])
def test_the_whole_method(model, values, uniforms):
    check_whole(model, values, uniforms)


@pytest.mark.slow
def test_the_whole_method_with_shortcuts(uniforms):
    check_whole(RESNET, {"losses": ("kernel",), "kernel_shortcuts": True}, uniforms)


def check_whole(model: dict, values: dict, uniforms: list[Tensor]) -> None:
    def make_layers(name: str, make):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(name))
            return make()

    context = Context(lambda copy: small(model), make_layers, (1, 4, 4), 3, 1)
    method = Method(Settings(method="fang2021", **values), context)
    network = method.build().double().train()
    images, labels = draw(3, 1, 4, 4, seed=2), torch.tensor([0, 2, 1])
    found = method.losses(network, Batch(images, labels, torch.Generator()))
    twin = SlowNetwork(network, method.settings)
    expected = twin.terms(images, labels.tolist(), uniforms)
    assert list(found) == list(expected)
    names, parameters = zip(*network.named_parameters(), strict=True)
    for term in [*found, "sum"]:
        value, slow_value = (sum(v.values()) if term == "sum" else v[term] for v in (found, expected))
        assert value.item() == pytest.approx(slow.number(slow_value), rel=1e-9), term
        for name, a, b in zip(
            names, gradients(value, parameters), gradients(slow_value, twin.parameters.values()), strict=True
        ):
            assert torch.allclose(a, b, rtol=1e-7, atol=1e-9), (term, name)


def gradients(value: Tensor, leaves) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, list(leaves), retain_graph=True, allow_unused=True, materialize_grads=True)

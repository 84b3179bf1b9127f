"""VGG and ResNet-18 with the three-layer classifier: sizes, stages, refusals, and their intermediate layers' two
gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from collabench.core.errors import ConfigError
from collabench.core.torchvision_import import import_torchvision
from collabench.models import FAMILIES, Backbone, build_backbone
from collabench.models.dropout import set_dropout_generator
from collabench.models.intermediate import (
    IntermediateLayer,
    intermediate_groups,
    intermediate_layers,
    map_shapes,
    tapped,
)
from tests.support.real import real_params

PARAMS = real_params()
SHAPE = (1, 8, 8)
SMALL = {
    "vgg": {"blocks": (2, 1), "width": 4, "poolings": 1, "hidden": 8},
    "resnet": {"blocks": (2, 1), "width": 4, "hidden": 8},
}
MODELS = [
    *("vgg16", "vgg16-2x", "resnet18", "resnet18-2x"),
    *("vgg16-small", "vgg16-small-2x", "resnet18-small", "resnet18-small-2x"),
]


def settings(family: str, **values: object):
    return FAMILIES[family].Settings(family=family, **values)


def meta(name: str, classes: int = 10, shape: tuple[int, int, int] = (3, 32, 32)) -> Backbone:
    with torch.device("meta"):
        return build_backbone(PARAMS.models[name], shape, classes, 0)


def small(family: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Backbone:
    """With statistics that are not the ones that every batch normalisation begins with."""
    backbone = build_backbone(settings(family, **SMALL[family]), SHAPE, 4, seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
                module.running_mean.uniform_(-0.5, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    set_dropout_generator(backbone, torch.Generator().manual_seed(1))
    return backbone


def images(count: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2)).to(dtype)


# ---------------------------------------------------------------------------------------------------- sizes, stages


def convolution_weights(network: nn.Module) -> int:
    return sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))


def batch_norm_parameters(network: nn.Module) -> int:
    return sum(p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())


def linear_parameters(network: nn.Module) -> int:
    return sum(p.numel() for m in network.modules() if isinstance(m, nn.Linear) for p in m.parameters())


def test_the_published_sizes():
    """14.71 M weights in the 13 convolutions of VGG-16; 11.17 M parameters in ResNet-18 for CIFAR without
    classifier."""
    vgg, resnet = meta("vgg16"), meta("resnet18")
    assert convolution_weights(vgg) == 14_710_464 and len(intermediate_layers(vgg)) == 13
    assert convolution_weights(resnet) + batch_norm_parameters(resnet) == 11_168_832
    assert len(intermediate_layers(resnet)) == 17


def test_the_convolutions_are_torchvisions():
    """An independent count: the same networks but for the stem (3x3 instead of 7x7) and the biases of VGG's
    convolutions."""
    models = import_torchvision().models
    with torch.device("meta"):
        theirs = {"resnet18": models.resnet18(), "vgg16": models.vgg16_bn()}
    for name, other in theirs.items():
        own = meta(name)
        assert batch_norm_parameters(own) == batch_norm_parameters(other)
        difference = convolution_weights(other) - convolution_weights(own)
        assert difference == {"resnet18": 3 * 64 * (49 - 9), "vgg16": 0}[name]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes", [10, 100])
def test_parameters_by_hand(name, classes):
    """Counted from the architecture: 3x3 convolutions without bias, two numbers a channel of batch normalisation, 1x1
    convolutions with batch normalisation where a residual stage changes shape, three fully connected layers."""
    model = PARAMS.models[name]
    width, hidden, count, before = model.width, model.hidden, 0, 3
    if model.family == "vgg":
        blocks = {16: (2, 2, 3, 3, 3)}.get(model.depth, model.blocks)
        for index, layers in enumerate(blocks):
            channels = width * (1, 2, 4, 8, 8)[index]
            for _ in range(layers):
                count += before * channels * 9 + 2 * channels
                before = channels
    else:
        blocks = {18: (2, 2, 2, 2)}.get(model.depth, model.blocks)
        count += before * width * 9 + 2 * width
        before = width
        for index, number in enumerate(blocks):
            channels = width * (1, 2, 4, 8)[index]
            count += before * channels * 9 + (2 * number - 1) * channels * channels * 9 + 2 * number * 2 * channels
            if index:
                count += before * channels + 2 * channels
            before = channels
    count += (before + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * classes
    assert sum(p.numel() for p in meta(name, classes).parameters()) == count


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("-2x")])
def test_twice_the_filters_in_every_convolution_and_the_same_classifier(name):
    wide, plain = intermediate_layers(meta(name)), intermediate_layers(meta(name.removesuffix("-2x")))
    assert list(wide) == list(plain)
    for path in wide:
        assert wide[path].conv.out_channels == 2 * plain[path].conv.out_channels
    assert meta(name).module_at("hidden1").linear.out_features == PARAMS.models[name].hidden
    assert PARAMS.models[name].hidden == PARAMS.models[name.removesuffix("-2x")].hidden


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_the_same_layers_take_both_sizes_of_images(name, side):
    backbone = meta(name, shape=(3, side, side))
    with torch.device("meta"):
        assert backbone.eval()(torch.zeros(2, 3, side, side)).shape == (2, 10)
    sides = [shape[1] for shape in map_shapes(backbone, (3, side, side)).values()]
    halvings = 4 if name == "vgg16" else 3  # before the last layer
    assert sides[0] == side and sides[-1] == side // 2**halvings
    assert sum(p.numel() for p in backbone.parameters()) == sum(p.numel() for p in meta(name).parameters())


@pytest.mark.parametrize("name", ["vgg16-small", "resnet18-small"])
def test_the_small_variants_halve_maps_of_digits_twice(name):
    shapes = map_shapes(meta(name, shape=SHAPE), SHAPE)
    assert sorted({shape[1] for shape in shapes.values()}) == [2, 4, 8]


def test_stages_and_groups():
    vgg, resnet = meta("vgg16"), meta("resnet18")
    classifier = ("pool", "hidden1", "hidden2", "classifier")
    assert vgg.stage_names == ("block1", "block2", "block3", "block4", "block5", *classifier)
    assert resnet.stage_names == ("stem", "stage1", "stage2", "stage3", "stage4", *classifier)
    assert {stage: len(group) for stage, group in intermediate_groups(vgg).items()} == {
        "block1": 2, "block2": 2, "block3": 3, "block4": 3, "block5": 3,
    }  # fmt: skip
    assert {stage: len(group) for stage, group in intermediate_groups(resnet).items()} == {
        "stem": 1, "stage1": 4, "stage2": 4, "stage3": 4, "stage4": 4,
    }  # fmt: skip
    assert sum(layer.added == "convolution" for layer in intermediate_layers(resnet).values()) == 3


@pytest.mark.parametrize("family", SMALL)
def test_stages_chain_to_the_network_and_weights_follow_their_seed(family):
    first, again, other = (small(family, seed).eval() for seed in (1, 1, 2))
    with torch.no_grad():
        logits = first(images())
        assert logits.shape == (6, 4)
        assert torch.equal(first.classify(first.features(images())), logits)
        x = images()
        for stage in first.stage_names:
            x = first.run([stage], x)
        assert torch.equal(x, logits)
        assert torch.equal(again(images()), logits) and not torch.equal(other(images()), logits)


@pytest.mark.parametrize("family", SMALL)
def test_dropout_draws_from_the_generator_that_it_is_given(family):
    backbone = small(family).train()
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        set_dropout_generator(backbone, torch.Generator().manual_seed(seed))
        drawn.append(backbone(images()))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "family,values,shape,what",
    [
        ("vgg", {"depth": 16}, (3, 31, 32), "5 poolings needs images of at least 32x32 pixels, these have 31x32"),
        ("vgg", {"depth": 16}, SHAPE, "5 poolings needs images of at least 32x32 pixels, these have 8x8"),
        ("resnet", {"depth": 18}, (3, 7, 7), "4 stages needs images of at least 8x8 pixels, these have 7x7"),
    ],
)
def test_images_that_do_not_fit_are_refused_in_one_line(family, values, shape, what):
    with pytest.raises(ConfigError, match=what) as error:
        build_backbone(settings(family, **values), shape, 5, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "family,values,what",
    [
        ("vgg", {}, "either depth .* or blocks"),
        ("vgg", {"depth": 16, "blocks": (1,)}, "either depth .* or blocks"),
        ("vgg", {"depth": 12}, "11, 13, 16 or 19"),
        ("vgg", {"blocks": (1, 1), "poolings": 3}, "2 blocks cannot have 3 poolings"),
        ("resnet", {}, "either depth .* or blocks"),
        ("resnet", {"depth": 50}, "18 or 34"),
        ("resnet", {"blocks": (0,)}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_network_are_refused(family, values, what):
    with pytest.raises(ValueError, match=what):
        settings(family, **values)


# ------------------------------------------------------------------------------------------------- the two gradients

EVERY_WAY = pytest.mark.parametrize(
    "training,channels_last", [(True, False), (True, True), (False, False), (False, True)]
)


def tapped_pass(backbone: Backbone, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and what every layer hands out."""
    taps: list[Tensor] = []
    with tapped(list(intermediate_layers(backbone).values()), lambda layer, output: taps.append(output)):
        logits = backbone(x)
    return logits, taps


def laid_out(backbone: Backbone, training: bool, channels_last: bool) -> Backbone:
    backbone.train(training)
    return backbone.to(memory_format=torch.channels_last) if channels_last else backbone


def directions(taps: list[Tensor]) -> list[Tensor]:
    """One random direction per layer: the local loss of layer i is the inner product with its output."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(tap.shape, generator=generator, dtype=tap.dtype) for tap in taps]


def inputs_of(backbone: Backbone, x: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """What every intermediate layer receives in an ordinary pass."""
    found: dict[str, tuple[Tensor, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, received, path=path: found.__setitem__(path, received))
        for path, layer in intermediate_layers(backbone).items()
    ]
    with torch.no_grad():
        backbone(x)
    for hook in hooks:
        hook.remove()
    return found


def slow_gradients(layer: IntermediateLayer, received: tuple[Tensor, ...], direction: Tensor) -> list[Tensor]:
    """The gradient of a layer's local loss on its own weights, by running it once more on inputs that are constants."""
    layer = copy.deepcopy(layer)
    x, *skip = (tensor.detach() for tensor in received)

    def norm(module: nn.BatchNorm2d, y: Tensor) -> Tensor:
        if not module.training:
            mean, variance = module.running_mean, module.running_var
        else:
            mean, variance = y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), correction=0)
        y = (y - mean[:, None, None]) / torch.sqrt(variance + module.eps)[:, None, None]
        return y * module.weight[:, None, None] + module.bias[:, None, None]

    y = norm(layer.norm, layer.conv(x))
    if layer.added == "convolution":
        convolved = nn.functional.conv2d(skip[0], layer.shortcut_conv.weight, stride=layer.skip_stride)
        y = y + norm(layer.shortcut_norm, convolved)
    elif layer.added == "identity":
        y = y + skip[0]
    return list(torch.autograd.grad((torch.relu(y) * direction).sum(), list(layer.parameters())))


@EVERY_WAY
@pytest.mark.parametrize("family", SMALL)
def test_a_local_loss_changes_its_own_layer_only_and_as_autograd_says(family, training, channels_last):
    backbone = laid_out(small(family), training, channels_last)
    received = inputs_of(copy.deepcopy(backbone), images())
    x = images().requires_grad_()
    _, taps = tapped_pass(backbone, x)
    assert len(taps) == len(intermediate_layers(backbone))
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    for (path, layer), tap, direction in zip(
        intermediate_layers(backbone).items(), taps, directions(taps), strict=True
    ):
        found = torch.autograd.grad((tap * direction).sum(), [*parameters, x], allow_unused=True, retain_graph=True)
        own = [gradient for name, gradient in zip(names, found, strict=False) if name.startswith(f"{path}.")]
        others = [gradient for name, gradient in zip(names, found, strict=False) if not name.startswith(f"{path}.")]
        assert all(gradient is None for gradient in [*others, found[-1]])  # not a small number: nothing at all
        expected = slow_gradients(layer, received[path], direction)
        assert len(own) == len(expected) > 0
        for gradient, slow in zip(own, expected, strict=True):
            assert torch.allclose(gradient, slow, rtol=1e-10, atol=1e-10) and slow.abs().max() > 0


@EVERY_WAY
@pytest.mark.parametrize("family", SMALL)
def test_weights_get_both_gradients_and_inputs_the_global_one(family, training, channels_last):
    backbone = laid_out(small(family), training, channels_last)
    received = inputs_of(copy.deepcopy(backbone), images())
    plain = copy.deepcopy(backbone)
    x, y = images().requires_grad_(), images().requires_grad_()
    for network in (plain, backbone):
        set_dropout_generator(network, torch.Generator().manual_seed(5))
    plain(x).square().sum().backward()
    logits, taps = tapped_pass(backbone, y)
    along = directions(taps)
    (
        logits.square().sum() + sum((tap * direction).sum() for tap, direction in zip(taps, along, strict=True))
    ).backward()
    assert torch.allclose(x.grad, y.grad, rtol=1e-12, atol=1e-12)
    expected = {name: parameter.grad.clone() for name, parameter in plain.named_parameters()}
    for (path, layer), direction in zip(intermediate_layers(backbone).items(), along, strict=True):
        local = slow_gradients(layer, received[path], direction)
        for (name, _), gradient in zip(layer.named_parameters(), local, strict=True):
            expected[f"{path}.{name}"] += gradient
    for name, parameter in backbone.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-10, atol=1e-10), name


@EVERY_WAY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", SMALL)
def test_without_local_losses_every_bit_is_that_of_the_plain_network(family, dtype, training, channels_last):
    plain = laid_out(small(family, dtype=dtype), training, channels_last)
    other = copy.deepcopy(plain)
    for network in (plain, other):
        set_dropout_generator(network, torch.Generator().manual_seed(5))
    expected = plain(images(dtype=dtype))
    found, taps = tapped_pass(other, images(dtype=dtype))
    assert torch.equal(found, expected)
    expected.square().sum().backward()
    (found.square().sum() + sum(0.0 * tap.sum() for tap in taps)).backward()
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(plain.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)  # statistics move once, and by the same amount


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("family", SMALL)
def test_mixed_precision(family, channels_last):
    """The main path under bfloat16 is the plain network's, bit for bit; local gradients are close to float32's."""
    plain = laid_out(small(family, dtype=torch.float32), True, channels_last)
    other, single = copy.deepcopy(plain), copy.deepcopy(plain)
    for network in (plain, other, single):
        set_dropout_generator(network, torch.Generator().manual_seed(5))
    x = images(32, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(x)
        found, taps = tapped_pass(other, x)
    assert torch.equal(found, expected) and taps[0].dtype == torch.bfloat16
    expected.float().square().sum().backward()
    found.float().square().sum().backward(retain_graph=True)
    for a, b in zip(plain.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) and b.grad.dtype == torch.float32
    _, exact = tapped_pass(single, x)
    other.zero_grad()
    for outputs in (taps, exact):
        sum((tap.float() * d.float()).sum() for tap, d in zip(outputs, directions(exact), strict=True)).backward()
    layers = intermediate_layers(other)
    for path in layers:
        a, b = layers[path].conv.weight.grad, intermediate_layers(single)[path].conv.weight.grad
        assert nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.98, path


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", SMALL)
def test_on_cuda(family):
    """Local and global gradients are those of the CPU."""
    gradients = []
    for device in ("cpu", "cuda"):
        backbone = small(family).train().to(device, memory_format=torch.channels_last)
        backbone.hidden1.dropout.probability = backbone.hidden2.dropout.probability = 0.0  # devices draw differently
        logits, taps = tapped_pass(backbone, images().to(device))
        local = sum(
            (tap * d.to(device)).sum() for tap, d in zip(taps, directions([t.cpu() for t in taps]), strict=True)
        )
        (logits.square().sum() + local).backward()
        gradients.append([parameter.grad.cpu() for parameter in backbone.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", SMALL)
def test_every_layer_runs_once_and_its_statistics_move_once(family):
    backbone = small(family).train()
    counts: dict[str, int] = {}
    for path, layer in intermediate_layers(backbone).items():
        layer.register_forward_hook(lambda *_, path=path: counts.__setitem__(path, counts.get(path, 0) + 1))
    before = sum(m.num_batches_tracked for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    _, taps = tapped_pass(backbone, images())
    sum(tap.sum() for tap in taps).backward()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(counts.values()) == {1} and sum(m.num_batches_tracked for m in norms) == before + len(norms)
    backbone(images())
    assert len(taps) == len(intermediate_layers(backbone))  # afterwards nothing is handed out any more


def test_what_is_handed_out_takes_no_memory():
    layer = IntermediateLayer(1, 3)
    taps: list[Tensor] = []
    with tapped([layer], lambda index, output: taps.append(output)):
        output = layer(torch.randn(2, 1, 4, 4))
    assert taps[0].data_ptr() == output.data_ptr()

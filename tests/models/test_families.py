"""Every model of params.yaml and of the families: stages, parameter counts, refusals."""

from __future__ import annotations

import pytest
import torch

from collabench.core.errors import ConfigError
from collabench.models import FAMILIES, build_backbone
from collabench.training.flops import count as count_work
from tests.support.real import real_params
from tests.support.synthetic import configuration_of, settings_of
from tests.support.training_cases import run_of, train

PARAMS = real_params()
SMALL = {
    "cifar_resnet": ({"depth": 8, "width": 4}, (1, 8, 8)),
    "densenet": ({"depth": 10, "growth": 4}, (3, 16, 16)),
    "torchvision_model": ({"name": "resnet18"}, (3, 64, 64)),
    "preact_resnet": ({"blocks": (1, 2), "width": 4}, (3, 16, 16)),
    "wide_resnet": ({"depth": 10, "widening": 1, "dropout": 0.3}, (3, 16, 16)),
}


def settings(family: str, **values: object):
    return FAMILIES[family].Settings(family=family, **values)


def parameters(model: str, classes: int, side: int = 32) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_backbone(PARAMS.models[model], (3, side, side), classes, 0).parameters())


@pytest.mark.parametrize("family", SMALL)
def test_stages_chain_to_the_network_and_weights_follow_their_seed(family):
    values, shape = SMALL[family]
    first, again, other = (build_backbone(settings(family, **values), shape, 5, seed).eval() for seed in (1, 1, 2))
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = first(images)
        assert logits.shape == (2, 5)
        assert torch.equal(first.classify(first.features(images)), logits)
        assert torch.equal(again(images), logits) and not torch.equal(other(images), logits)
        x = images
        for stage in first.stage_names:
            x = first.run([stage], x)
        assert torch.equal(x, logits)


@pytest.mark.parametrize(
    "model,classes,side,millions,digits",
    [("resnet32", 10, 32, 0.46, 2), ("densenet40-12", 10, 32, 1.0, 1), ("resnet50", 1000, 224, 25.6, 1)],
)
def test_parameter_counts_are_the_published_ones(model, classes, side, millions, digits):
    assert round(parameters(model, classes, side) / 1e6, digits) == millions


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_cifar_resnet_parameters_by_hand(depth):
    """Convolutions and batch norms counted from the architecture; shortcuts have no parameters."""
    blocks = (depth - 2) // 6
    count = 3 * 16 * 9 + 2 * 16
    before = 16
    for width in (16, 32, 64):
        count += before * width * 9 + (2 * blocks - 1) * width * width * 9 + 2 * blocks * 2 * width
        before = width
    assert parameters(f"resnet{depth}", 10) == count + 64 * 10 + 10


def preactivation_by_hand(stem: int, widths: list[int], blocks: list[int], classes: int) -> int:
    """Parameters of convolutions, normalisations and classifier, counted from the architecture."""
    count, before = 3 * stem * 9, stem
    for index, (width, number) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(number):
            count += 2 * before + before * width * 9 + 2 * width + width * width * 9
            if before != width or (index and not block):
                count += before * width
            before = width
    return count + 2 * before + before * classes + classes


def counted(family: str, classes: int = 10, **values: object) -> int:
    with torch.device("meta"):
        backbone = build_backbone(settings(family, **values), (3, 32, 32), classes, 0)
    return sum(p.numel() for p in backbone.parameters())


#: WRN-d-k → millions of parameters for CIFAR-10 (Zagoruyko & Komodakis, 2016, tables 2 to 5).
@pytest.mark.parametrize(
    ("depth", "widening", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (40, 8, 35.7), (28, 10, 36.5), (28, 12, 52.5), (22, 8, 17.2),
     (16, 8, 11.0), (16, 10, 17.1)],
)  # fmt: skip
def test_wide_resnets_have_the_published_parameters(depth, widening, millions):
    found = counted("wide_resnet", depth=depth, widening=widening)
    assert round(found / 1e6, 1) == millions
    widths = [16 * widening, 32 * widening, 64 * widening]
    assert found == preactivation_by_hand(16, widths, [(depth - 4) // 6] * 3, 10)


@pytest.mark.parametrize(("depth", "blocks"), [(18, [2, 2, 2, 2]), (34, [3, 4, 6, 3])])
@pytest.mark.parametrize("classes", [10, 100])
def test_preact_resnet_parameters_by_hand(depth, blocks, classes):
    assert counted("preact_resnet", classes, depth=depth) == preactivation_by_hand(
        64, [64, 128, 256, 512], blocks, classes
    )


def test_preact_resnet18_has_the_size_of_the_literature():
    assert round(counted("preact_resnet", depth=18) / 1e6, 2) == 11.17


@pytest.mark.parametrize("method", ["song2018", "one", "okddip", "dml", "wang2018", "auxiliary", "kd"])
@pytest.mark.parametrize("model", [{"family": "preact_resnet", "blocks": (1, 1), "width": 4},
                                   {"family": "wide_resnet", "depth": 10, "widening": 1, "dropout": 0.3}])  # fmt: skip
def test_methods_train_networks_with_activations_first(method, model):
    run = run_of(method, recipe={"epochs": 1}, on=model)
    first, again = train(run), train(run)
    assert first.result == again.result and len(first.result.curves.test_error) == 1


def densenet_by_hand(name: str, classes: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of convolutions and of the classifier for one 32x32 image, from the architecture:
    three blocks of equal length at 32, 16 and 8 pixels a side, every layer after batch normalisation of all channels so
    far."""
    model = PARAMS.models[name]
    layers = (model.depth - 4) // (6 if model.bottleneck else 3)
    channels, side = 24 if model.bottleneck else 16, 32
    count = 3 * channels * 9
    multiply_adds = count * side**2
    for block in range(3):
        for _ in range(layers):
            convolutions = channels * 48 + 48 * 12 * 9 if model.bottleneck else channels * 12 * 9
            count += 2 * channels + convolutions + (2 * 48 if model.bottleneck else 0)
            multiply_adds += convolutions * side**2
            channels += 12
        if block < 2:
            kept = channels // 2 if model.bottleneck else channels
            count += 2 * channels + channels * kept
            multiply_adds += channels * kept * side**2  # before the average pooling
            channels, side = kept, side // 2
    count += 2 * channels + channels * classes + classes
    multiply_adds += channels * classes
    return count, multiply_adds


DENSENETS = pytest.mark.parametrize("name", ["densenet40-12", "densenet-bc-100-12"])


@DENSENETS
@pytest.mark.parametrize("classes", [10, 100])
def test_densenet_parameters_by_hand(name, classes):
    assert parameters(name, classes) == densenet_by_hand(name, classes)[0]


@pytest.mark.slow
@DENSENETS
def test_densenet_flops_by_hand(name):
    configuration = configuration_of(settings_of("individual"), PARAMS.models[name], batch_size=2)
    assert count_work(configuration, (3, 32, 32), 10).forward == 2 * densenet_by_hand(name, 10)[1]


def test_torchvision_state_dict_loads_into_the_plain_model():
    from collabench.core.torchvision_import import import_torchvision

    backbone = build_backbone(settings("torchvision_model", name="resnet18"), (3, 64, 64), 7, 3).eval()
    plain = import_torchvision().models.resnet18(num_classes=7).eval()
    plain.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(images), backbone(images))


@pytest.mark.parametrize(
    "family,values,shape,what",
    [
        ("cifar_resnet", {"depth": 8}, (1, 3, 3), "at least 4x4"),
        ("wide_resnet", {"depth": 10}, (1, 3, 3), "at least 4x4"),
        ("preact_resnet", {"depth": 18}, (1, 7, 9), "at least 8x8"),
        ("torchvision_model", {"name": "resnet5O"}, (3, 64, 64), "no classification model"),
        ("torchvision_model", {"name": "resnet18", "stages": {"a": ["conv1"], "b": ["fc"]}}, (3, 64, 64), "stage"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(family, values, shape, what):
    with pytest.raises(ConfigError, match=what) as error:
        build_backbone(FAMILIES[family].Settings.model_validate_json(_json(family, values)), shape, 5, 0)
    assert "\n" not in str(error.value)


def _json(family: str, values: dict) -> str:
    import json

    return json.dumps({"family": family, **values})

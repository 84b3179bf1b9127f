"""Networks of timm, an optional package."""

from __future__ import annotations

import sys

import pytest
import torch

from collabench.core.errors import ConfigError
from collabench.core.torchvision_import import import_torchvision
from collabench.models import FAMILIES, build_backbone
from tests.support.synthetic import CLASSES, blobs, configuration_of, settings_of
from tests.support.training_cases import Run, train_run

SHAPE = (3, 32, 32)


def settings(name: str, **values: object):
    return FAMILIES["timm"].Settings(family="timm", name=name, **values)


@pytest.fixture
def timm():
    import_torchvision()
    return pytest.importorskip("timm", reason="timm is an optional package: pip install 'collabench[timm]'")


def test_without_timm_a_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"^family: timm needs the package timm; .*pip install 'collabench\[timm\]'$"):
        build_backbone(settings("resnet18"), SHAPE, 4, 0)


@pytest.mark.parametrize(
    ("name", "stages"),
    [("resnet10t", 5), ("convnext_atto", 4), ("regnetx_002", 5), ("mobilenetv3_small_050", 5)],
)
def test_stages_are_those_of_feature_info_and_chain_to_the_network(timm, name, stages):
    backbone = build_backbone(settings(name), SHAPE, 7, 3).eval()
    names = [f"stage{number}" for number in range(1, stages + 1)]
    assert list(backbone.stage_names) == [*names, "pool", "classifier"]
    plain = timm.create_model(name, num_classes=7).eval()
    plain.load_state_dict(backbone.state_dict())
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(plain(images), backbone(images)) and backbone.features(images).dim() == 2
        features = timm.create_model(name, features_only=True).eval()
        features.load_state_dict(backbone.state_dict(), strict=False)
        x = images
        for stage, expected in zip(names, features(images), strict=True):
            x = backbone.run([stage], x)
            assert x.shape == expected.shape


def test_weights_follow_their_seed_and_shapes_the_images(timm):
    first, again, other = (build_backbone(settings("resnet10t"), (1, 32, 32), 5, seed) for seed in (1, 1, 2))
    assert torch.equal(first.conv1[0].weight, again.conv1[0].weight)
    assert not torch.equal(first.conv1[0].weight, other.conv1[0].weight)
    assert first.conv1[0].weight.shape[1] == 1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("resnet18e", "has no network 'resnet18e'; did you mean resnet18"),
        ("mixer_s32_224", "chaining the stages|does not take images of 32x32"),
        ("vit_tiny_patch16_224", "no stage has cls_token"),
    ],
)
def test_what_is_no_chain_is_refused_in_one_line(timm, name, what):
    with pytest.raises(ConfigError, match=what) as error:
        build_backbone(settings(name), SHAPE, 4, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["individual", "song2018"])
def test_training_repeats_itself_and_records_the_version(timm, method):
    values = {} if method == "individual" else {"split_after": ("stage2",), "heads": 2}
    configuration = configuration_of(settings_of(method, **values), settings("test_resnet"), epochs=1)
    run = Run(configuration, 0)
    first, again = (train_run(run, blobs(shape=SHAPE), device=torch.device("cpu")) for _ in range(2))
    assert first.result == again.result and first.measured.versions["timm"] == timm.__version__
    assert configuration.id.startswith("digits-timm-") and CLASSES == 4

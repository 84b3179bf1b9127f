"""torchvision's residual networks with the hidden layers and dropout of the families vgg and resnet."""

from __future__ import annotations

import pytest
import torch

from collabench.core.errors import ConfigError
from collabench.models import build_backbone
from collabench.models.families.torchvision_model import Settings


def settings(**values: object) -> Settings:
    return Settings(**({"family": "torchvision_model", "name": "resnet18", "small_stem": True} | values))


def test_hidden_layers_take_the_place_of_the_classifier_and_nothing_else():
    plain = build_backbone(settings(), (3, 16, 16), 7, 0).eval()
    hidden = build_backbone(settings(hidden=24), (3, 16, 16), 7, 0).eval()
    assert hidden.stage_names == (*plain.stage_names[:-1], "hidden1", "hidden2", "classifier")
    shared = [name for name in plain.state_dict() if not name.startswith("fc.")]
    for name in shared:
        assert torch.equal(hidden.state_dict()[name], plain.state_dict()[name]), name
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features = plain.features(images)
    assert torch.equal(hidden.run(plain.stage_names[:-1], images), features)
    assert hidden(images).shape == (2, 7)


def test_settings_without_hidden_layers_are_what_they_were():
    assert "hidden" not in settings().model_dump()
    assert settings(hidden=24).model_dump()["hidden"] == 24


@pytest.mark.slow
def test_other_models_are_refused_in_one_line():
    refused = Settings(family="torchvision_model", name="vgg11", hidden=24)
    with pytest.raises(ConfigError, match="hidden is for residual networks in their own stages, not for vgg11"):
        build_backbone(refused, (3, 32, 32), 10, 0)

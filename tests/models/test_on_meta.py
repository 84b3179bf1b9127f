"""Networks on the meta device have the shapes that torch finds, and are built and applied without its compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from collabench.core.errors import ConfigError
from collabench.models import build_backbone
from collabench.models.on_meta import backbone_on_meta, shapes_only
from tests.support.project import ROOT
from tests.support.real import real_params

PARAMS = real_params()


def outputs(backbone, images):
    found = {}
    for stage in backbone.stage_names:
        images = backbone.run((stage,), images)
        found[stage] = images.shape
    return found


@pytest.mark.parametrize("name", PARAMS.models)
def test_every_model_has_the_shapes_that_torch_finds(name):
    settings, channels = PARAMS.models[name], 3
    shape = (channels, 64, 64) if settings.family in ("torchvision_model", "timm") else (channels, 32, 32)
    with torch.device("meta"), torch.no_grad():
        backbone = build_backbone(settings, shape, 10, 0).eval()
        expected = outputs(backbone, torch.empty(2, *shape))
    small = backbone_on_meta(settings, shape, 10).eval()
    assert {n: p.shape for n, p in small.named_parameters()} == {n: p.shape for n, p in backbone.named_parameters()}
    assert all(p.is_meta and p.requires_grad for p in small.parameters())
    with shapes_only():
        assert outputs(small, torch.empty(2, *shape)) == expected


LAYERS = {
    "strided and dilated": lambda: nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 3), dilation=(1, 2), groups=2),
    "same": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "reflected": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "average": lambda: nn.AvgPool2d(3, 2, 1),
    "average, rounded up": lambda: nn.AvgPool2d(3, 2, 0, ceil_mode=True),
    "largest": lambda: nn.MaxPool2d((3, 2), stride=2, padding=(1, 0)),
    "largest, dilated": lambda: nn.MaxPool2d(3, dilation=2),
    "largest, rounded up": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "linear": lambda: nn.Linear(11, 3),
    "batch normalisation": lambda: nn.BatchNorm2d(4).eval(),
    "relu": lambda: nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_form_of_a_layer_has_the_shape_that_torch_finds(layer):
    expected = LAYERS[layer]()(torch.zeros(2, 4, 12, 11)).shape
    with shapes_only():
        assert LAYERS[layer]()(torch.empty(2, 4, 12, 11)).shape == expected


CALLS = {
    "mean over two axes": lambda x: x.mean((2, 3)),
    "mean, axes kept": lambda x: x.mean(dim=-1, keepdim=True),
    "mean over all": lambda x: x.mean(),
    "last axis": lambda x: x.mean(-1),
    "sum with a smaller one": lambda x: x + x[:, :1],
    "sum in place": lambda x: x.add_(x, alpha=2),
    "sum with a number": lambda x: 1 + x + 1,
    "positions": lambda x: nn.functional.avg_pool2d(x, 3, 2, 0, True),
    "positions, largest": lambda x: nn.functional.max_pool2d(x, 3, 2, 0, 1, True),
    "indices": lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[1],
}


@pytest.mark.parametrize("call", CALLS)
def test_every_form_of_a_call_has_the_shape_that_torch_finds(call):
    expected = CALLS[call](torch.zeros(2, 4, 12, 11)).shape
    with shapes_only():
        assert CALLS[call](torch.empty(2, 4, 12, 11)).shape == expected


@pytest.mark.parametrize(
    "layer,shape",
    [
        (lambda: nn.Conv2d(3, 6, 3), (2, 4, 8, 8)),
        (lambda: nn.Conv2d(4, 6, 9), (2, 4, 8, 8)),
        (lambda: nn.Linear(5, 3), (2, 4)),
        (lambda: nn.MaxPool2d(9), (2, 4, 8, 8)),
    ],
)
def test_what_does_not_fit_is_refused_as_on_a_cpu(layer, shape):
    with pytest.raises(RuntimeError):
        layer()(torch.zeros(shape))
    with shapes_only(), pytest.raises(RuntimeError):
        layer()(torch.empty(shape))


def test_tensors_of_other_devices_are_computed():
    layer, x = nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)
    with shapes_only():
        assert torch.equal(layer(x).cpu(), layer(x)) and layer(x).device.type == "cpu" and (x + x).sum() == 8


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="at least two classes"):
        backbone_on_meta(PARAMS.models["resnet8"], (3, 8, 8), 1)


def test_a_study_is_opened_without_the_compiler():
    """Its import takes longer than all else that opening takes. (torchvision's models import it themselves.)"""
    code = """
import sys
from pathlib import Path
from collabench.study.study import load_study
for profile in ("smoke", "default", "digits", "cifar10-cpu", "cifar10n"):
    load_study(Path(), profile)
print(*sorted({"torch._dynamo", "torch._inductor", "sympy", "torchvision"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr

"""Networks as code that needs torch alone: every family, weights under the same names, the same bits."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from collabench.methods.wang2018 import Assistance, AssistedBackbone, MutualKnowledgeBase
from collabench.models import FAMILIES, build_backbone
from collabench.sharing.plain_code import NotPlain, plain_code

SHAPE = (3, 16, 16)
SETTINGS = {
    "cifar_resnet": {"depth": 8, "width": 4},
    "densenet": {"depth": 10, "growth": 4, "bottleneck": True, "compression": 0.5, "dropout": 0.2},
    "vgg": {"blocks": (1, 1), "width": 4, "poolings": 2, "hidden": 8},
    "resnet": {"blocks": (1, 1, 1, 1), "width": 4, "hidden": 8},
    "preact_resnet": {"depth": 18},
    "wide_resnet": {"depth": 10, "widening": 1},
    "timm": {"name": "mobilenetv3_small_050"},  # its stages are modules of modules; it normalises by functions
}
#: Cards name these networks' own packages (test_export.py).
FROM_ELSEWHERE = {"torchvision_model", "custom"}


def test_every_family_is_tried():
    assert set(SETTINGS) == set(FAMILIES) - FROM_ELSEWHERE


def network_of(family: str, memory: bool = False) -> nn.Module:
    settings = FAMILIES[family].Settings(family=family, **SETTINGS[family])
    network = build_backbone(settings, SHAPE, 5, weights_seed=1)
    if memory:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            network = AssistedBackbone(network, Assistance(16, 6), MutualKnowledgeBase(7, 6))
    return network.eval()


PROGRAM = """\
import runpy, sys
sys.modules['collabench'] = sys.modules['timm'] = None
import torch
from safetensors.torch import load_file
for folder in sys.argv[1:]:
    network = runpy.run_path(f'{folder}/network.py')['Network']()
    network.load_state_dict(load_file(f'{folder}/weights.safetensors'))
    held = load_file(f'{folder}/expected.safetensors')
    with torch.inference_mode():
        print(folder, torch.equal(network.eval()(held['images']), held['logits']))
"""


@pytest.mark.slow
def test_a_process_with_torch_alone_computes_the_same_bits(tmp_path):
    networks = {family: network_of(family) for family in SETTINGS} | {"memory": network_of("cifar_resnet", memory=True)}
    for name, network in networks.items():
        (tmp_path / name).mkdir()
        code = plain_code('a "title" \\ with marks', network, SHAPE)
        assert "collabench" not in code.partition('"""')[2].partition('"""')[2]
        (tmp_path / name / "network.py").write_text(code)
        images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(4))
        with torch.inference_mode():
            save_file({"images": images, "logits": network(images)}, tmp_path / name / "expected.safetensors")
        save_file(network.state_dict(), tmp_path / name / "weights.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *networks], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == [f"{name} True" for name in networks], done.stdout + done.stderr


class Depends(nn.Module):
    """What it computes depends on the numbers of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * 16 * 16, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(images.flatten(1)) if images.mean() > 0 else self.last(-images.flatten(1))


def test_a_network_that_cannot_be_recorded_is_not_written():
    with pytest.raises(NotPlain, match="control flow"):
        plain_code("x", Depends().eval(), SHAPE)


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3 * 16 * 16, 5)
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.last(images.flatten(1)) * self.calls


def test_code_that_computes_something_else_is_not_given_away():
    with pytest.raises(NotPlain, match="computes something else"):
        plain_code("x", Random().eval(), SHAPE)

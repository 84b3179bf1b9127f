"""Gradients lie in memory as the maps do that they belong to: channels-last, from the loss down to the images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from collabench.methods import Batch
from collabench.models.dropout import set_dropout_generator
from collabench.models.pooling import GlobalAveragePool, every_nth_pixel
from collabench.training.context import make_context, make_method
from tests.support.synthetic import CLASSES, configuration_of, model_of, settings_of
from tests.support.training_cases import sgd_step

SHAPES = [(8, 16, 8, 8), (3, 5, 7, 4), (1, 64, 2, 2), (4, 3, 1, 1)]
LAYOUTS = [torch.channels_last, torch.contiguous_format]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("ours", "usual"),
    [
        (GlobalAveragePool(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())),
        (lambda x: every_nth_pixel(x, 2), lambda x: x[:, :, ::2, ::2]),
    ],
    ids=["global-average", "every-second-pixel"],
)
def test_values_and_gradients_are_those_of_the_usual_form_bit_for_bit(
    ours: Callable[[Tensor], Tensor], usual: Callable[[Tensor], Tensor], shape, layout
):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).contiguous(memory_format=layout).requires_grad_()
    actual, expected = ours(x), usual(x)
    assert torch.equal(actual, expected)
    weights = torch.randn(expected.shape, generator=generator)
    gradients = [torch.autograd.grad((output * weights).sum(), x)[0] for output in (actual, expected)]
    assert torch.equal(*gradients)
    assert gradients[0].is_contiguous(memory_format=torch.channels_last) or layout is torch.contiguous_format


class _MixedLayouts(TorchDispatchMode):
    """Notes every operation that has maps of both layouts among what it takes and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.maps = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        layouts = {self._layout(leaf) for leaf in tree_leaves((args, output)) if isinstance(leaf, Tensor)}
        self.maps += "channels-last" in layouts
        # A permutation or a copy into another layout moves nothing, or is what it is for.
        if layouts >= {"channels-last", "other"} and function.overloadpacket.__name__ not in (
            "permute",
            "clone",
            "copy_",
        ):
            self.found.add(str(function))
        return output

    @staticmethod
    def _layout(tensor: Tensor) -> str | None:
        ambiguous = tensor.ndim != 4 or tensor.shape[1] == 1 or tensor.shape[2] * tensor.shape[3] == 1
        return None if ambiguous else "channels-last" if tensor.stride(1) == 1 else "other"


BACKBONES = [
    {"family": "cifar_resnet", "depth": 14, "width": 4},
    {"family": "densenet", "depth": 10, "growth": 4},
    {"family": "vgg", "blocks": (1, 1), "width": 4, "poolings": 1, "hidden": 8},
    {"family": "resnet", "blocks": (1, 1), "width": 4, "hidden": 8},
]


@pytest.mark.parametrize("method", ["individual", "song2018", "auxiliary", "one", "dml"])
@pytest.mark.parametrize("model", BACKBONES, ids=lambda model: model["family"])
def test_no_operation_of_a_training_step_mixes_layouts(model, method):
    shape = (3, 8, 8)
    settings = settings_of(method, heads=2) if method == "song2018" else settings_of(method)
    configuration = configuration_of(settings, model_of(model))
    trained = make_method(configuration, make_context(configuration, shape, CLASSES, 0))
    network = trained.build().to(memory_format=torch.channels_last).train()
    generator = torch.Generator().manual_seed(0)
    set_dropout_generator(network, generator)
    images = torch.randn(4, *shape, generator=generator).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(4) % CLASSES
    with _MixedLayouts() as layouts:
        trained.step(network, Batch(images, labels, generator), sgd_step(network))
    assert layouts.maps > 20
    assert not layouts.found

"""How many of torch's operations the losses of fang2021 take: a GPU's host needs some microseconds for each."""

from __future__ import annotations

import pytest

from benchmarks.floor import Operations
from collabench.methods.contract import total
from tests.support.training_cases import batch, built

#: Loss → most operations per layer, forward and backward: what is done with the layer's own maps.
PER_LAYER = {"out": 0, "mid": 11, "pull_push": 21, "kernel": 1}

#: Loss → most operations in addition, however many layers there are. Kernels of one shape are computed at once; here
#: are four shapes.
ONCE = {"out": 30, "mid": 40, "pull_push": 120, "kernel": 4 * 45}


def operations(method: str, layers: int, **values: object) -> int:
    """Of the losses and their gradients, on a VGG with so many layers in each of two blocks."""
    vgg = {"family": "vgg", "blocks": (layers, layers), "width": 4, "poolings": 1, "hidden": 8}
    instance, network = built(method, on=vgg, **values)
    with Operations() as counted:
        total(instance.losses(network, batch())).backward()
    return counted.count


@pytest.mark.parametrize("loss", PER_LAYER)
def test_a_loss_takes_a_fixed_number_of_operations_but_for_what_needs_a_layers_own_maps(loss):
    added = [operations("fang2021", n, losses=(loss,)) - operations("individual", n) for n in (2, 4, 6)]
    per_layer = (added[1] - added[0]) / 4
    assert added[2] - added[1] == added[1] - added[0], "in proportion to the layers"
    assert per_layer <= PER_LAYER[loss]
    assert added[0] - 4 * per_layer <= ONCE[loss]

"""Every method on a pretended CUDA device: the losses of the CPU, and nothing in a step that a GPU would wait for."""

from __future__ import annotations

import json

import pytest

from tests.support import pretended_gpu
from tests.support.compilation import FAMILIES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(pretended_gpu.why_not() is not None, reason=str(pretended_gpu.why_not())),
]

#: What an epoch waits for, whatever its number of steps: order, shifts and labels go to the device, losses come back.
#: They also come back for each of the three checkpoints; for the weights that a checkpoint copies, a thread waits.
AN_EPOCHS = {"!H2D copy 1d": 4, "!D2H copy 1d": 1 + 3}

#: Rounding grows in training, most where batch normalisation divides by small deviations.
CLOSE = {"float32": 1e-2, "bfloat16": 5e-2}


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return pretended_gpu.build(tmp_path_factory.mktemp("pretended"))


def test_a_checkpoint_holds_the_state_at_its_call_though_its_copy_comes_after_the_next_step(device):
    """On the side stream of the pretended GPU copies are done as late as is allowed; planted faults are then seen."""
    done = pretended_gpu.run(device, "tests.support.pretended_gpu.checkpoints")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found.pop("as it is") == found.pop("short of memory") == {"faithful": True, "waits": []}
    assert found.pop("fault: the copies wait for nothing")["waits"] == ["?copy before what was queued"]
    assert len(found) == 3 and not any(one["faithful"] for one in found.values())


@pytest.mark.parametrize("precision", CLOSE)
def test_every_method_trains_as_on_the_cpu_and_no_step_waits(device, precision):
    done = pretended_gpu.run(device, "tests.support.pretended_gpu.compare", precision)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 30
    assert {one["name"]: one["losses"] for one in found if one["losses"] > CLOSE[precision]} == {}
    waits = {one["name"]: one["waits"] for one in found if one["waits"] != AN_EPOCHS}
    assert waits == {"ensemble": {}}, "an ensemble does not train; of the others a step waits for the device"


def test_compiled_training_has_the_graphs_that_it_has_on_the_cpu(device):
    done = pretended_gpu.run(device, "tests.support.pretended_gpu.compiled")
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["family"]: (one["graphs"], one["breaks"]) for one in found} == {
        family: (graphs, breaks) for family, (*_, graphs, breaks) in FAMILIES.items()
    }
    assert {one["family"]: one["losses"] for one in found if one["losses"] > CLOSE["float32"]} == {}

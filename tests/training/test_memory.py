"""Training memory that is counted without numbers."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from collabench.cli.app import app
from collabench.methods import METHODS
from collabench.training.flops import count
from collabench.training.memory import count_both, count_memory, parts_of
from tests.support.defaults import configuration as small_configuration
from tests.support.synthetic import configuration_of, model_of, settings_of


def test_parts_of_a_small_network_are_those_worked_out_by_hand():
    memory = count_memory(small_configuration("individual", batch_size=16), (1, 8, 8), 4)
    # ResNet-8 of width 4 on one channel: convolutions, batch normalisation (two vectors trained, two kept and a
    # counter), classifier.
    weights = 9 * (4 + 2 * 16 + 32 + 64 + 128 + 256) + 2 * (3 * 4 + 2 * 8 + 2 * 16) + 16 * 4 + 4
    statistics = 4 * 2 * (3 * 4 + 2 * 8 + 2 * 16) + 7 * 8
    assert memory.gradients == memory.optimizer == 4 * weights
    assert memory.parameters == 4 * weights + statistics
    assert memory.batch == 4 * 16 * 64 + 8 * 16
    assert sum(size for _, size, _ in parts_of(memory)) == memory.held
    assert memory.saved < memory.peak


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=() if name in ("kd", "ensemble", "auxiliary") else pytest.mark.slow) for name in METHODS],
)
def test_every_method_is_counted(method):
    configuration = small_configuration(method)
    memory = count_memory(configuration, (1, 8, 8), 4)
    assert memory.peak >= memory.parameters > 0
    assert (memory.saved > 0) == METHODS[method].Method.trains
    counts = count(configuration, (1, 8, 8), 4)
    assert count_both(configuration, (1, 8, 8), 4) == (counts.training, counts.parameters, memory)


def test_saved_memory_is_what_autograd_keeps_of_real_tensors():
    """The same step on real tensors, with the saved storages counted by their addresses."""
    configuration = small_configuration("song2018")
    from collabench.methods import Batch
    from collabench.training.context import make_context, make_method

    method = make_method(configuration, make_context(configuration, (1, 8, 8), 4, 0))
    network = method.build().train()
    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    known = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers(), images)}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        method.losses(network, Batch(images, torch.arange(16) % 4, torch.Generator()))
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    counted = count_memory(configuration, (1, 8, 8), 4, 16).saved
    assert counted == pytest.approx(real, rel=0.01)


@pytest.mark.slow
def test_alternating_heads_need_no_more_than_heads_at_once_and_copies_need_multiples():
    model = model_of({"family": "cifar_resnet", "depth": 8})

    def saved(**settings: object) -> int:
        configuration = configuration_of(settings_of("song2018", **settings), model)
        return count_memory(configuration, (3, 32, 32), 10, 32).saved

    alone = saved(graph="individual", heads=1)
    assert saved(graph="multi_instance", heads=4) == pytest.approx(4 * alone, rel=0.01)
    at_once = saved(heads=4)
    assert alone < at_once < 2 * alone
    assert saved(heads=4, optimisation="alternating") == pytest.approx(at_once, rel=0.01)


#: Fang & Lin: 8.77 GB alone, 13.16 GB as a tree (heads and split points are not given) for 64 images of 64 x 64.
PUBLISHED_TREE = 13.16 / 8.77


@pytest.mark.slow
@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"graph": "simple_ilr", "heads": 2, "split_after": ("layer2",)}, 1.54),
        ({"graph": "hierarchical_ilr", "heads": 4, "split_after": ("layer2", "layer3")}, 1.65),
    ],
    ids=["two heads after layer2", "four heads after layer2 and layer3"],
)
def test_resnet101_as_a_tree_needs_about_the_published_multiple(graph, expected):
    model = model_of({"family": "torchvision_model", "name": "resnet101", "small_stem": True})

    def held(**settings: object) -> int:
        return count_memory(configuration_of(settings_of("song2018", **settings), model), (3, 64, 64), 100, 64).held

    ratio = held(**graph) / held(graph="individual", heads=1)
    assert ratio == pytest.approx(expected, abs=0.01)
    assert ratio == pytest.approx(PUBLISHED_TREE, abs=0.16)


@pytest.mark.slow
def test_resnet101_with_hierarchical_dropout_needs_hardly_more_memory():
    """Published: 8.78 GB beside 8.77 GB, with four predictions of two dropout layers."""
    model = model_of({"family": "torchvision_model", "name": "resnet101", "small_stem": True, "hidden": 512})

    def held(method: str, **settings: object) -> int:
        return count_memory(configuration_of(settings_of(method, **settings), model), (3, 64, 64), 100, 64).held

    assert 1.0 < held("fang2021", losses=("out",)) / held("individual") <= 1.002


def test_command_prints_where_memory_goes_and_refuses_wrong_names_in_one_line():
    called = CliRunner().invoke(
        app, ["memory", "digits/resnet8/individual", "digits/resnet8/multi-instance-2", "--recipe", "digits"]
    )
    assert called.exit_code == 0, called.output
    assert "activations saved for backward" in called.output
    last = next(line for line in called.output.splitlines() if line.startswith("digits/resnet8/multi-instance-2  "))
    assert 1.9 < float(last.split()[2]) < 2.05
    assert last.split()[5] == "2.00", "two networks, twice the arithmetic"
    for wrong, said in (
        (["memory", "digits/resnet8", "--recipe", "digits"], "dataset/model/method"),
        (["memory", "digits/resnet9/individual", "--recipe", "digits"], "'resnet9' is not defined under models"),
        (["memory", "digits/resnet8/individual", "--recipe", "digits", "--image", "64"], "3x64x64"),
    ):
        assert said in str(CliRunner().invoke(app, wrong).exception)

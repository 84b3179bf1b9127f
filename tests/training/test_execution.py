"""Precision and compilation: where they are refused, and that compiled training is the same training."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from collabench.errors import ConfigError
from collabench.methods import METHODS
from collabench.spec import Run
from collabench.training import loop, train_run
from collabench.training.device import check_execution, compile_in_place
from tests.contract.test_methods import configuration, teachers
from tests.synthetic import blobs

CPU = torch.device("cpu")


def test_compilation_is_refused_on_a_cpu():
    with pytest.raises(ConfigError, match=r"compile: true .* gains less than a tenth on a CPU"):
        check_execution("float32", True, CPU)
    check_execution("float32", True, torch.device("cuda"))
    with pytest.raises(ConfigError, match="less than a tenth"):
        train_run(Run(configuration("individual", compile=True), 0), blobs(), device=CPU)


def test_bfloat16_is_refused_only_where_the_cpu_lacks_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="ten times slower"):
        check_execution("bfloat16", False, CPU)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    check_execution("bfloat16", False, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])
def test_compiled_training_is_the_same_training(method, monkeypatch):
    plain = Run(configuration(method, epochs=1), 0)
    compiled = Run(configuration(method, epochs=1, compile=True), 0)
    captured = []

    def count_graphs(graph, inputs):
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(loop, "check_execution", lambda *arguments: None)
    monkeypatch.setattr(loop, "compile_in_place", partial(compile_in_place, backend=count_graphs))
    torch._dynamo.reset()
    expected = train_run(plain, blobs(), device=CPU, teachers=teachers(plain))
    actual = train_run(compiled, blobs(), device=CPU, teachers=teachers(compiled))
    assert captured, "nothing was compiled"
    assert actual.weights.keys() == expected.weights.keys()
    for name, losses in expected.result.curves.losses.items():
        assert actual.result.curves.losses[name] == pytest.approx(losses, rel=1e-3, abs=1e-5)

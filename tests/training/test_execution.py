"""Precision, compilation and form of convolution: where they are refused, and that training in another form is the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from pydantic import ValidationError

from collabench.config import RecipeConfig
from collabench.errors import ConfigError
from collabench.methods import METHODS
from collabench.models import _convolution, _dense_convolution, _direct_convolution, _winograd
from collabench.spec import Run
from collabench.training import loop, train_run
from collabench.training.device import check_execution, compile_in_place
from tests.contract import test_methods
from tests.contract.test_methods import configuration, content, teachers
from tests.synthetic import blobs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def recipe(**settings: object) -> RecipeConfig:
    return RecipeConfig(epochs=1, batch_size=8, learning_rate=0.1, **settings)


def test_compilation_is_refused_on_a_cpu():
    with pytest.raises(ConfigError, match=r"compile: true .* gains less than a tenth on a CPU"):
        check_execution(recipe(compile=True), CPU)
    check_execution(recipe(compile=True), CUDA)
    with pytest.raises(ConfigError, match="less than a tenth"):
        train_run(Run(configuration("individual", compile=True), 0), blobs(), device=CPU)


def test_bfloat16_is_refused_only_where_the_cpu_lacks_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="ten times slower"):
        check_execution(recipe(precision="bfloat16"), CPU)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    check_execution(recipe(precision="bfloat16"), CPU)


def test_tuned_convolutions_are_refused_on_a_gpu_and_beside_other_forms():
    check_execution(recipe(convolution="tuned"), CPU)
    with pytest.raises(ConfigError, match=r"convolution: tuned is for CPUs, .* write convolution: torch"):
        check_execution(recipe(convolution="tuned"), CUDA)
    for other in ({"compile": True}, {"precision": "bfloat16"}):
        with pytest.raises(ValidationError, match="tuned goes with precision: float32 and compile: false only"):
            recipe(convolution="tuned", **other)


def test_only_another_form_of_convolution_enters_an_id():
    usual = configuration("individual")
    assert "convolution" not in usual.identity()["recipe"]
    assert configuration("individual", convolution="torch").id == usual.id
    assert configuration("individual", convolution="tuned").id != usual.id


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


@pytest.fixture
def forms_chosen_anew() -> Iterator[None]:
    _convolution._form.cache_clear()
    yield
    _convolution._form.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("forms_chosen_anew")
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])
def test_training_with_tuned_convolutions_is_the_same_training(method, monkeypatch):
    """But for rounding; and the same bits when it is repeated."""
    wide = [{**model, "width": 32} for model in test_methods.SMALL_MODELS]
    monkeypatch.setattr(test_methods, "SMALL_MODELS", wide)
    monkeypatch.setattr(_winograd, "LEAST_TILES", 20)  # of a batch: maps of 8x8, not of 4x4
    asked = []

    def asking(name, function):
        monkeypatch.setattr(name, lambda *given, **named: asked.append(name) or function(*given, **named))

    asking("collabench.models._winograd.convolve", _winograd.convolve)
    asking("collabench.models._dense_convolution.convolve", _dense_convolution.convolve)
    asking("collabench.models._direct_convolution.convolve", _direct_convolution.convolve)
    usual = Run(configuration(method, epochs=1), 0)
    tuned = Run(configuration(method, epochs=1, convolution="tuned"), 0)
    expected = train_run(usual, blobs(), device=CPU, teachers=teachers(usual))
    assert not asked
    actual = train_run(tuned, blobs(), device=CPU, teachers=teachers(tuned))
    assert "collabench.models._direct_convolution.convolve" in asked and len(set(asked)) > 1
    assert actual.weights.keys() == expected.weights.keys()
    for name, losses in expected.result.curves.losses.items():
        assert actual.result.curves.losses[name] == pytest.approx(losses, rel=1e-2, abs=1e-4)
    assert content(train_run(tuned, blobs(), device=CPU, teachers=teachers(tuned))) == content(actual)

"""Precision, compilation and form of convolution: where they are refused, and that training in another form is the
same."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from functorch.compile import make_boxed_func
from pydantic import ValidationError
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from collabench.config.configuration import Run
from collabench.config.sections import RecipeConfig
from collabench.core.errors import ConfigError, RunFailed
from collabench.methods import METHODS
from collabench.models import build_backbone
from collabench.models.convolution import portable
from collabench.study.gpu_check import cases
from collabench.training import device, loop, train_run
from collabench.training.compilation import compile_in_place, compiled_sizes, options_of
from collabench.training.device import check_execution
from tests.support.compilation import FAMILIES, Counted, run_of
from tests.support.defaults import configuration, content, teachers
from tests.support.synthetic import SMALL_MODELS, blobs, configuration_of, model_of, settings_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def recipe(**settings: object) -> RecipeConfig:
    return RecipeConfig(epochs=1, batch_size=8, learning_rate=0.1, **settings)


def test_compilation_is_refused_on_a_cpu():
    with pytest.raises(ConfigError, match=r"compile: true .* gains less than a tenth on a CPU"):
        check_execution(recipe(compile=True), CPU)
    check_execution(recipe(compile=True), CUDA)
    with pytest.raises(ConfigError, match="compile: cuda-graphs costs every run"):
        check_execution(recipe(compile="cuda-graphs"), CPU)
    check_execution(recipe(compile="cuda-graphs"), CUDA)
    with pytest.raises(ConfigError, match="less than a tenth"):
        train_run(Run(configuration("individual", compile=True), 0), blobs(), device=CPU)


def test_bfloat16_is_refused_only_where_the_cpu_lacks_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="ten times slower"):
        check_execution(recipe(precision="bfloat16"), CPU)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    check_execution(recipe(precision="bfloat16"), CPU)


def test_portable_arithmetic_changes_nothing_but_what_a_cpu_computes():
    check_execution(recipe(arithmetic="portable"), CUDA)
    network = build_backbone(model_of(SMALL_MODELS[0]), (3, 8, 8), 10, 0)
    elsewhere = copy.deepcopy(network).to("meta")
    for one in (network, elsewhere):
        portable.make_portable(one)
    kinds = [{type(m) for m in one.modules() if isinstance(m, nn.Conv2d)} for one in (network, elsewhere)]
    assert kinds == [{portable.PortableConv2d}, {nn.Conv2d}] and portable.not_portable(network) == []


def test_portable_arithmetic_is_refused_beside_other_forms_and_where_the_process_cannot(monkeypatch):
    check_execution(recipe(arithmetic="portable"), CPU)
    for other in ({"compile": True}, {"compile": "cuda-graphs"}, {"precision": "bfloat16"}):
        with pytest.raises(ValidationError, match="portable goes with precision: float32 and compile: false only"):
            recipe(arithmetic="portable", **other)
    monkeypatch.setattr("collabench.core.arithmetic.missing_instructions", lambda: ["AVX2"])
    run = Run(configuration("individual", epochs=1, arithmetic="portable"), 0)
    with pytest.raises(ConfigError, match="needs the instructions AVX2, which this processor lacks: use collabench"):
        train_run(run, blobs(), device=CPU)


def test_only_portable_arithmetic_enters_an_id():
    usual = configuration("individual")
    assert "arithmetic" not in usual.identity()["recipe"]
    assert configuration("individual", arithmetic="native").id == usual.id
    assert configuration("individual", arithmetic="portable").id != usual.id


class RecordedGraphs:
    """A compiler for torch.compile that treats memory as CUDA graphs do: what a compiled network gave holds no numbers
    any longer once another step has begun."""

    def __init__(self) -> None:
        self.graphs = self.steps = 0
        self.given: list[torch.Tensor] = []
        self.backend = aot_autograd(fw_compiler=self._compile, bw_compiler=self._compile)

    def _compile(self, graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        self.graphs += 1

        def replay(*arguments: object) -> object:
            kept = {a.untyped_storage().data_ptr() for a in arguments if isinstance(a, torch.Tensor)}
            found = graph(*arguments)
            self.given += [
                one for one in found if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in kept
            ]
            return found

        return make_boxed_func(replay)

    def begin_step(self) -> None:
        self.steps += 1
        for one in self.given:
            one.data.fill_(math.nan if one.is_floating_point() else 0)
        self.given.clear()


@pytest.fixture
def graphs(monkeypatch) -> RecordedGraphs:
    recorded = RecordedGraphs()
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", recorded.begin_step)
    monkeypatch.setattr(loop, "check_execution", lambda *arguments: None)
    monkeypatch.setattr(loop, "options_of", lambda recipe: {"backend": recorded.backend})
    torch._dynamo.reset()
    return recorded


def test_every_method_is_counted():
    assert {method for method, *_ in FAMILIES.values()} == {name for name in METHODS if METHODS[name].Method.trains}


@pytest.fixture
def counted(monkeypatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(loop, "check_execution", lambda *arguments: None)
    monkeypatch.setattr(loop, "options_of", lambda recipe: {"backend": counted})
    torch._dynamo.utils.counters.clear()
    return counted


#: On every commit: several networks of one model, and a pass that breaks.
QUICK = ("dml", "fang2021 mid")


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in FAMILIES]
)
def test_a_training_pass_has_few_graphs_and_computes_as_without_compilation(family, counted):
    """40 images in batches of 16: the smaller last batch of an epoch makes no graph, nor does a second epoch."""
    *_, graphs, breaks = FAMILIES[family]
    run, plain = (run_of(family, epochs=2, batch_size=16, compile=compiled) for compiled in (True, False))
    trained = train_run(run, blobs(), device=CPU, teachers=teachers(run))
    assert counted.graphs == graphs
    assert sum(torch._dynamo.utils.counters["graph_break"].values()) == breaks
    expected = train_run(plain, blobs(), device=CPU, teachers=teachers(plain))
    assert counted.graphs == graphs, "without compile nothing is compiled"
    for name, value in expected.weights.items():
        assert torch.equal(trained.weights[name], value), name


@pytest.mark.slow
def test_what_a_process_compiled_before_has_no_influence(counted):
    found = []
    for family in ("dropout", "song2018", "dropout"):
        counted.graphs = 0
        found.append(content(train_run(run_of(family, epochs=1, compile=True), blobs(), device=CPU)))
        assert counted.graphs == 1
    assert found[0] == found[2]


def test_too_many_graphs_are_an_error_and_no_silence(counted, monkeypatch):
    monkeypatch.setattr("collabench.training.compilation.MOST_GRAPHS", 1)
    with pytest.raises(RunFailed, match=r"compile: more than 1 graphs of one function .*; write compile: false") as e:
        train_run(run_of("song2018 alternating", epochs=1, compile=True), blobs(), device=CPU)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("sizes", "expected"), [([16, 16, 8], {16}), ([22, 21, 21], {21}), ([22, 22, 21, 21], {21, 22}), ([9], {9})]
)
def test_sizes_that_occur_once_are_not_compiled_for(sizes, expected):
    assert compiled_sizes(sizes) == expected


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])
def test_compiled_training_is_the_same_training_and_keeps_nothing_of_an_earlier_step(method, graphs):
    plain = Run(configuration(method, epochs=2), 0)
    compiled = Run(configuration(method, epochs=2, compile="cuda-graphs"), 0)
    expected = train_run(plain, blobs(), device=CPU, teachers=teachers(plain))
    assert not graphs.graphs and not graphs.steps
    actual = train_run(compiled, blobs(), device=CPU, teachers=teachers(compiled))
    assert graphs.graphs > 1, "forward and backward"
    assert graphs.steps == 2 * (3 + 1), "40 images to train on by 16, 24 to test on in one batch"
    assert actual.weights.keys() == expected.weights.keys()
    for name, losses in expected.result.curves.losses.items():
        assert actual.result.curves.losses[name] == pytest.approx(losses, rel=1e-3, abs=1e-5)
    assert torch.isfinite(actual.logits["deployed"]).all()


@pytest.mark.slow
def test_what_is_kept_of_an_earlier_step_would_be_noticed(graphs):
    network = build_backbone(model_of(SMALL_MODELS[0]), (1, 8, 8), 3, 0)
    compile_in_place(network, {2}, backend=graphs.backend)
    kept = network.train()(torch.ones(2, 1, 8, 8))
    assert torch.isfinite(kept).all()
    graphs.begin_step()
    assert kept.isnan().all()


def test_plain_compilation_marks_no_steps(graphs):
    train_run(Run(configuration("individual", epochs=1, compile=True), 0), blobs(), device=CPU)
    assert graphs.graphs and not graphs.steps


def test_cuda_graphs_are_torchs_mode_of_that_kind():
    assert options_of(recipe(compile="cuda-graphs")) == {"mode": "reduce-overhead"}
    assert options_of(recipe(compile=True)) == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: CUDA graphs are recorded on one only")
@pytest.mark.parametrize("method", ["individual", "song2018", "dml"])
def test_cuda_graphs_give_the_losses_of_plain_compilation(method):
    compiled, recorded = (Run(configuration(method, epochs=2, compile=how), 0) for how in (True, "cuda-graphs"))
    torch._dynamo.reset()
    expected = train_run(compiled, blobs(), device=CUDA, teachers=teachers(compiled))
    actual = train_run(recorded, blobs(), device=CUDA, teachers=teachers(recorded))
    for name, losses in expected.result.curves.losses.items():
        assert actual.result.curves.losses[name] == pytest.approx(losses, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("song2018", {"heads": 4, "optimisation": "alternating"}), ("dml", {"optimisation": "in_turn"})],
)
def test_several_updates_in_a_batch_do_not_train_on_narrow_copies_of_earlier_weights(method, settings, monkeypatch):
    """Autocast keeps the bfloat16 copies of weights; without that cache, losses are the same."""
    monkeypatch.setattr(loop, "check_execution", lambda recipe, device: None)
    model = configuration(method).model
    run = Run(configuration_of(settings_of(method, **settings), model, epochs=1, precision="bfloat16"), 0)
    kept = train_run(run, blobs(), device=CPU)
    monkeypatch.setattr(
        device, "autocast", lambda precision, where: torch.autocast(where.type, torch.bfloat16, cache_enabled=False)
    )
    fresh = train_run(run, blobs(), device=CPU)
    assert content(kept) == content(fresh)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])
def test_portable_training_is_the_same_training(method, monkeypatch):
    """But for rounding; and the same bits when it is repeated."""
    monkeypatch.setattr(cases, "SMALL_MODELS", [{**model, "width": 32} for model in cases.SMALL_MODELS])
    usual, portable = (Run(configuration(method, epochs=1, arithmetic=how), 0) for how in ("native", "portable"))
    expected = train_run(usual, blobs(), device=CPU, teachers=teachers(usual))
    actual = train_run(portable, blobs(), device=CPU, teachers=teachers(portable))
    assert actual.weights.keys() == expected.weights.keys() and content(actual) != content(expected)
    for name, losses in expected.result.curves.losses.items():
        assert actual.result.curves.losses[name] == pytest.approx(losses, rel=1e-2, abs=1e-4)
    assert content(train_run(portable, blobs(), device=CPU, teachers=teachers(portable))) == content(actual)

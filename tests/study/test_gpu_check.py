"""The self-test of a GPU: on the CPU in a GPU's place, on the pretended GPU, and with a fault planted in each part."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch

from collabench.config.configuration import Run
from collabench.core.errors import DeviceError, ResultError, UnusableGpu
from collabench.core.resources import Resources
from collabench.methods import METHODS, Batch
from collabench.study.gpu_check import decoding, examination, facts, numbers, sharing, speed
from collabench.study.gpu_check.cases import cases, form_of
from collabench.study.gpu_check.record import Check
from collabench.study.gpu_check.steps import Steps
from collabench.study.timing import random_dataset, random_teachers
from collabench.study.totals import Part, Totals
from collabench.training import loop
from tests.support import pretended_gpu
from tests.support.project import ROOT
from tests.support.real import real_params

CPU = torch.device("cpu")
CPU_AS_GPU = Resources(2, (), 1, "a test")


def verdicts(checks) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


@pytest.fixture
def two_cases(monkeypatch):
    """Two of the cases, one with dropout masks, for tests in seconds."""

    def few(**recipe):
        found = cases(**recipe)
        return {name: found[name] for name in ("individual", "fang2021 out on a VGG")}

    monkeypatch.setattr(numbers, "cases", few)


# ------------------------------------------------------------------------------------------------------------ facts


@pytest.mark.parametrize(
    ("version", "cuda", "verdict"),
    [
        ("580.65.06", "13.0", "ok"), ("570.10", "13.0", "FAILED"), ("525.1", "12.6", "ok"), ("520.1", "12.6", "FAILED"),
        ("700.1", "99.0", "note"), (None, "13.0", "skipped"), ("580.1", None, "skipped"),
    ],
)  # fmt: skip
def test_the_driver_must_be_new_enough_for_the_build(version, cuda, verdict):
    found = facts.driver(version, cuda)
    assert found.verdict == verdict and ("TORCH=cu126" in found.text) == (verdict == "FAILED")


@pytest.mark.parametrize(
    ("found", "built", "verdict"),
    [
        ((9, 0), ["sm_80", "sm_90"], "ok"), ((8, 6), ["sm_80", "sm_90"], "ok"), ((7, 5), ["sm_80", "sm_90"], "FAILED"),
        ((12, 0), ["sm_90"], "FAILED"), ((12, 0), ["sm_90", "compute_90"], "ok"), ((12, 0), ["sm_90a", "sm_120"], "ok"),
    ],
)  # fmt: skip
def test_the_build_must_have_kernels_for_the_gpu(found, built, verdict):
    assert facts.capability(found, built, None).verdict == verdict
    assert facts.capability(found, built, "7.1").verdict == "skipped"


def test_an_exclusive_gpu_cannot_be_shared_without_mps():
    assert verdicts(facts.modes(["Default", "Disabled"], 4, False))["compute mode"] == "ok"
    assert verdicts(facts.modes(["Exclusive_Process", "N/A"], 4, False))["compute mode"] == "FAILED"
    assert verdicts(facts.modes(["Exclusive_Process", "N/A"], 4, True))["compute mode"] == "ok"
    assert verdicts(facts.modes(["Exclusive_Process", "N/A"], 1, False))["compute mode"] == "ok"
    assert verdicts(facts.modes(["Prohibited", "N/A"], 1, False))["compute mode"] == "FAILED"
    assert verdicts(facts.modes(None, 1, False)) == {"compute mode": "skipped", "MIG": "skipped", "MPS": "note"}


def test_every_process_has_a_core():
    assert facts.cores(Resources(4, ("0",), 4, "")).verdict == "ok"
    assert "COLLABENCH_GPU_SLOTS=1" in facts.cores(Resources(2, ("0",), 4, "")).text


# ---------------------------------------------------------------------------------------------------------- numbers


def test_the_cpu_in_a_gpus_place_passes_truth_parity_and_bytes(two_cases):
    for part in (numbers.truth, numbers.parity, numbers.bytes_):
        found = list(part(CPU_AS_GPU))
        assert found and {check.verdict for check in found} <= {"ok", "note"}, found


def test_tf32_in_float32_is_found(monkeypatch):
    multiply = torch.nn.functional.conv2d

    def rounded(x, weight, **options):  # 10 bits of the fraction, as TF32
        if x.dtype == torch.float64:
            return multiply(x, weight, **options)
        return multiply(*((t.view(torch.int32) & ~0x1FFF).view(torch.float32) for t in (x, weight)), **options)

    monkeypatch.setattr(numbers.F, "conv2d", rounded)
    found = verdicts(numbers.truth(CPU_AS_GPU))
    assert found["matrix product"] == "ok"
    assert found["convolution, contiguous"] == found["convolution, channels-last"] == "FAILED"


def test_a_step_that_computes_something_else_on_one_device_is_found_and_named(two_cases, monkeypatch):
    step, made = Steps.step, []

    def wrong(self, images, labels):
        if self not in made:
            made.append(self)
        shift = 1e-2 * (made.index(self) % 2)
        return {name: value + shift for name, value in step(self, images, labels).items()}

    monkeypatch.setattr(Steps, "step", wrong)
    for check in numbers.parity(CPU_AS_GPU):
        assert check.verdict == "FAILED" and check.text.startswith("2 of 2 configurations differ by more than")
        assert "individual " in check.text and "fang2021 out on a VGG " in check.text


def test_a_training_that_differs_each_time_is_found(two_cases, monkeypatch):
    train, count = numbers.train_run, []

    def drifting(*given, **named):
        trained = train(*given, **named)
        count.append(0)
        trained.weights["drift"] = torch.tensor([len(count)])
        return trained

    monkeypatch.setattr(numbers, "train_run", drifting)
    found = verdicts(numbers.bytes_(CPU_AS_GPU))
    assert found["repeated"] == found["killed and resumed"] == "FAILED"


def test_a_training_that_ignores_its_checkpoint_does_not_count_as_resumed(two_cases, monkeypatch):
    """It ends with the same bytes, which then show nothing."""

    def damaged(*given):
        raise ResultError("damaged checkpoint")

    monkeypatch.setattr(loop.checkpoint, "load", damaged)
    with pytest.raises(RuntimeError, match="did not resume from its checkpoint"):
        list(numbers.bytes_(CPU_AS_GPU))


#: Of every kind of step: one update, several, and losses inside a network, whose gradients have a form of their own.
STEPS_OF = ("individual", "song2018 alternating", "dml in turn on a VGG", "kd", "fang2021 on a ResNet")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", STEPS_OF)
def test_steps_of_the_self_test_are_those_of_the_training_loop(name, precision, monkeypatch):
    monkeypatch.setattr(loop, "check_execution", lambda *given: None)
    chosen = cases(precision=precision, arithmetic="native")[name]
    form = form_of(chosen)
    steps = Steps(chosen, form, CPU)
    images = random_dataset(form, form.train_images, form.test_images)
    trainer = loop._Trainer(Run(chosen, 0), images, CPU, None, random_teachers(chosen, form))
    trainer.network.train()
    for number, generator in steps.generators.items():
        trainer.generators[number].set_state(generator.get_state())
    for number in range(2):
        batch = steps.batch(chosen.recipe.batch_size, number)
        found = steps.step(*batch)
        with trainer.computing():
            expected = trainer.method.step(trainer.network, Batch(*batch, trainer.generators[0], 0), trainer._update)
        assert {term: value.item() for term, value in found.items()} == {t: v.item() for t, v in expected.items()}
    weights = trainer.network.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in steps.network.state_dict().items())


@pytest.mark.slow
def test_no_loss_of_a_case_magnifies_rounding_errors():
    """So that float64 agrees within 1e-8 on every device: weights and images that differ by 1e-12 of their size at each
    step change no loss by more than 1e-10."""
    changed = {}
    for name, chosen in cases().items():
        if not METHODS[chosen.method.method].Method.trains:
            continue
        one, other = (Steps(chosen, form_of(chosen), CPU, dtype=torch.float64, masks=CPU) for _ in range(2))
        for number in range(numbers.STEPS):
            images, labels = one.batch(chosen.recipe.batch_size, number)
            disturb(list(other.network.parameters()), number)
            expected = one.step(images, labels)
            disturb([images], number)
            found = other.step(images, labels)
            worst = max(
                abs(found[term] - value).item() / max(1.0, abs(value).item()) for term, value in expected.items()
            )
            changed[name] = max(changed.get(name, 0.0), worst)
    assert len(changed) == 29
    assert {name: one for name, one in changed.items() if not 0 < one < 1e-10} == {}
    assert numbers.CLOSE[torch.float64] == 1e-8


@pytest.mark.slow
def test_no_loss_of_a_case_magnifies_the_rounding_of_float32():
    """Two layouts are two orders of summation, as a GPU has another one. What float32 may differ by is far above."""
    found = {}
    for name, chosen in cases().items():
        if METHODS[chosen.method.method].Method.trains:
            layouts = [Steps(chosen, form_of(chosen), CPU, masks=CPU, channels_last=last) for last in (True, False)]
            for number in range(numbers.STEPS):
                one, other = (steps.step(*steps.batch(chosen.recipe.batch_size, number)) for steps in layouts)
                worst = max(abs(one[term] - other[term]).item() / max(1.0, abs(one[term]).item()) for term in one)
                found[name] = max(found.get(name, 0.0), worst)
    assert len(found) == 29 and any(found.values())
    assert {name: one for name, one in found.items() if one > 0.1 * numbers.CLOSE[torch.float32]} == {}


def disturb(tensors: list[torch.Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors:
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.mul_(1 + 1e-12 * (2 * noise - 1))


def test_digests_of_dropouts_numbers_tell_generators_apart(monkeypatch):
    first = numbers.masks(torch.device("cpu"))
    assert first == numbers.masks(torch.device("cpu"))
    assert re.fullmatch(r"4,096 numbers \w{12}, 16,777,216 numbers \w{12}; where another GPU .*", first)
    draw = torch.rand
    monkeypatch.setattr(numbers.torch, "rand", lambda *given, **named: draw(*given, **named).flip(0))
    assert not set(re.findall(r"numbers (\w{12})", first)) & set(
        re.findall(r"numbers (\w{12})", numbers.masks(torch.device("cpu")))
    )


# ------------------------------------------------------------------------------------------------- the whole of it


def test_an_error_in_a_part_is_a_failed_check(monkeypatch, tmp_path):
    def broken(resources):
        yield Check(part="facts", name="first", verdict="ok", text="")
        raise DeviceError("CUDA error: an illegal memory access")

    monkeypatch.setenv("COLLABENCH_GPU_LEASES", str(tmp_path))
    monkeypatch.setitem(examination.ON_A_GPU, "facts", broken)
    first, second = examination.run_part("facts", Resources(1, ("0",), 1, "a test"), tmp_path)
    assert first.verdict == "ok"
    assert (second.part, second.verdict) == ("facts", "FAILED") and "illegal memory access" in second.text


def test_the_rate_of_a_configuration_is_that_of_the_most_similar_one():
    found = cases()
    one = {name: found[name] for name in ("individual", "song2018", "individual on a DenseNet")}
    named = {
        name: chosen.model_copy(update={"names": {**chosen.names, "model": chosen.model.family}})
        for name, chosen in one.items()
    }
    rates = [speed.Rate(named[name], 10.0, flops) for name, flops in (("individual", 1e9), ("song2018", 2e9))]
    assert speed.nearest(named["song2018"], 1, rates) is rates[1]
    assert speed.nearest(named["individual"], 10**9, rates) is rates[0]
    per_image = 2e9 / 10 / named["song2018"].recipe.batch_size
    assert speed.nearest(named["individual on a DenseNet"], round(per_image), rates) in rates


@pytest.mark.slow  # real processes; the leases themselves: core/test_leases.py
def test_leases_are_shared_and_waited_for(tmp_path, monkeypatch):
    """No GPU is needed: a lease is a file."""
    monkeypatch.setenv("COLLABENCH_GPU_LEASES", str(tmp_path))
    monkeypatch.setattr(sharing, "WAITED", 2.0)
    (found,) = sharing.leases(Resources(2, ("0",), 1, "a test", (100,)))
    assert found.verdict == "ok", found.text
    monkeypatch.setattr(sharing, "_hold", taking_no_lease)
    (found,) = sharing.leases(Resources(2, ("0",), 1, "a test", (100,)))
    assert found.verdict == "FAILED" and "a whole waits for them: False" in found.text


def taking_no_lease(resources, need, marker, end) -> None:
    """In the place of a process that leases."""
    marker.touch()


def test_speed_names_every_rate_and_derives_the_hours_of_gpu_profiles(monkeypatch):
    """On the CPU, whose kernels the profiler of CUDA does not see."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    monkeypatch.setattr(decoding, "COUNT", 8)
    monkeypatch.setattr(speed, "_profile", lambda *given: (20, 1e-9))
    monkeypatch.setattr(
        speed, "TIMED", tuple(("digits", "resnet8", *rest) for rest in (("digits", "individual"), "xy"))
    )
    monkeypatch.setattr(speed, "_variants", lambda number: {"contiguous": {"channels_last": False}})
    configuration = speed.resolve_parts(real_params(), speed.TIMED[0])
    part = Part(configuration, 5, 36 * 10**15, 1000, 10**9, 1)
    monkeypatch.setattr(speed, "totals", lambda study, workers, known: Totals(study.workspace.profile, (part,)))
    found = {check.name: check for check in speed.speed(CPU_AS_GPU, ROOT)}
    first, other = (found[f"{configuration.label}: {name}"] for name in ("float32, channels-last, eager", "contiguous"))
    assert re.match(r"[\d,]+ images a second, \d\.\d TFLOP a second; 20 kernels a step", first.text)
    assert "times the first" in other.text and found["digits/resnet8/x/y"].verdict == "skipped"
    assert re.search(
        r"5 trainings, 0.04 EFLOP: about [\d,]+ hours one after the other \(derived", found["profile paper"].text
    )
    assert "profile default" not in found
    assert re.match(r"channels-last, in which studies train, is [\d.]+ times as fast", found["layout"].text)
    assert re.match(r"the threads of a process decode [\d,]+ images a second of 500x375", found["decoding"].text)
    assert "the GPU trains" not in found["decoding"].text, "nothing that was timed reads its images from files"


def test_speed_says_what_does_not_fit_a_small_gpu_and_goes_on(monkeypatch):
    """A card of 24 GB holds no step of ResNet-50 with 256 images; the hours of the other profiles are told all the
    same."""
    made = speed.Rate(speed.resolve_parts(real_params(), speed.TIMED[0]), 10.0, 1e12)

    def timed(configuration, device, **options):
        if configuration.names["model"] == "resnet50":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 392.00 MiB")
        return made, "as invented"

    monkeypatch.setattr(speed, "_timed", timed)
    part = Part(made.configuration, 5, 36 * 10**15, 1000, 60 * 10**9, 1)
    shared = []

    def totals(study, workers, known):
        shared.append(known)
        return Totals(study.workspace.profile, (part,))

    monkeypatch.setattr(speed, "totals", totals)
    small = Resources(2, (), 1, "a test", (24 * 10**9,))
    found = {check.name: check for check in speed.speed(small, ROOT)}
    (large,) = (check for name, check in found.items() if "resnet50" in name)
    assert large.verdict == "skipped" and large.text == "a step of 256 images does not fit this GPU's memory"
    assert found["profile paper-cifar"].text.endswith("; its largest run needs 60.0 GB of a GPU, which has 24.0")
    assert "side by side" in found["profile paper"].text
    assert len(shared) > 5 and all(known is shared[0] for known in shared), "what profiles share is counted once"

    def broken(configuration, device, **options):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(speed, "_timed", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        list(speed.speed(small, ROOT))


@pytest.mark.parametrize(("trained", "said"), [(1.0, "they keep up"), (1e9, "it waits for images 100% of the time")])
def test_decoding_stands_beside_what_the_gpu_trains(monkeypatch, trained, said):
    monkeypatch.setattr(decoding, "COUNT", 8)
    (check,) = decoding.decoding(CPU, trained)
    assert check.verdict == "note" and check.text.endswith(f"; the GPU trains {trained:,.0f} a second: {said}")


@pytest.mark.parametrize(("gains", "said"), [([1.5, 1.2], "is 1.34 times"), ([0.5], "contiguous would be faster")])
def test_the_faster_layout_is_told(gains, said):
    (found,) = speed.layout(gains)
    assert found.verdict == "note" and said in found.text
    assert not list(speed.layout([]))


def test_where_torchs_profiler_sees_no_kernels_the_line_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    configuration = speed.resolve_parts(real_params(), ("digits", "resnet8", "digits", "individual"))
    assert configuration is not None
    rate, text = speed._timed(configuration, CPU)
    assert rate.steps > 0 and text == "torch's profiler sees no kernels here"


def test_layouts_precisions_and_forms_are_combined_for_one_network():
    whole, alone, others = (speed._variants(number) for number in range(3))
    assert len(whole) == 2 * 2 * 3 - 1, "all but the first, which is timed before"
    assert whole["contiguous, bfloat16, CUDA graphs"] == {
        "channels_last": False, "precision": "bfloat16", "compile": "cuda-graphs",
    }  # fmt: skip
    assert set(alone) == {"bfloat16", speed.CONTIGUOUS, "compiled", "CUDA graphs"} and set(others) == {"bfloat16"}


@pytest.mark.parametrize(("slots", "said"), [(4, ", and up to 2 with COLLABENCH_GPU_SLOTS=2"), (2, "")])
def test_processes_side_by_side_are_timed_and_the_best_number_is_told(monkeypatch, slots, said):
    seconds = {1: 10.0, 2: 12.0, 4: 40.0}
    asked = []

    def timed(configurations, forms, resources):
        asked.append(resources)
        return [SimpleNamespace(train_seconds=seconds[resources.slots_per_gpu])]

    monkeypatch.setattr(speed, "predict_all", timed)
    two = Resources(8, ("0", "1"), slots, "a test", (80 * 10**9,) * 2)
    found = {check.name: check for check in speed.beside(two, ROOT)}
    assert [(one.gpus, one.slots_per_gpu) for one in asked] == [(("0",), number) for number in (1, 2, 4)]
    assert found["2 processes"].text.endswith("1.67 times the throughput of one")
    assert found["4 processes"].text.endswith("1.00 times the throughput of one")
    assert found["slots"].text == f"2 of 1, 2, 4 side by side train most; studies start up to {slots} on this GPU{said}"
    small = Resources(8, ("0",), slots, "a test", (3 * 10**9,))
    assert [check.verdict for check in speed.beside(small, ROOT)] == ["note", "skipped", "skipped", "note"]
    alone = Resources(8, ("0",), 1, "a test", (80 * 10**9,), exclusive=True)
    assert [check.verdict for check in speed.beside(alone, ROOT)] == ["note", "skipped", "skipped", "note"]


def test_everything_that_is_timed_is_defined():
    params = real_params()
    for dataset, model, recipe, method in speed.TIMED:
        assert dataset in params.datasets and model in params.models
        assert recipe in params.recipes and method in params.methods


def test_without_a_gpu_the_command_says_so_in_a_line(collabench, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    called = collabench("doctor", "--gpu", "--root", tmp_path)
    assert called.code == 2 and called.out == "" and called.err.count("\n") == 1
    assert called.err.startswith("collabench: error: doctor --gpu: ") and "sees no GPU; there is nothing" in called.err
    assert collabench("doctor", "--json", "--root", tmp_path).err.endswith("--json goes with doctor --gpu\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_gpu_on_which_torch_cannot_compute_is_a_failed_check(collabench, tmp_path, monkeypatch, as_json):
    """NVML counts it although the driver is too old for torch's build."""
    from collabench.core import resources

    def refuse(*given, **named):
        raise UnusableGpu("torch cannot compute on GPU 0: the driver is too old: update the driver")

    monkeypatch.setattr(resources, "visible_gpus", lambda: ("0",))
    monkeypatch.setattr(resources, "choose", refuse)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(facts, "driver_version", lambda: "535.104.05")
    called = collabench("doctor", "--gpu", *(["--json"] if as_json else []), "--root", tmp_path)
    assert (called.code, called.err) == (1, "")
    lines = called.out.splitlines()
    if as_json:
        found = [Check.model_validate_json(line) for line in lines]
        assert [(one.name, one.verdict) for one in found] == [("GPU", "FAILED"), ("driver", "FAILED")]
    else:
        assert lines[0] == (
            "FAILED  facts    GPU: torch cannot compute on GPU 0: the driver is too old: update the driver"
        )
        assert lines[1].startswith("FAILED  facts    driver: 535.104.05; a build for CUDA 13.0 needs 580 or later: ")


def test_a_failed_check_is_exit_code_1_and_json_has_a_line_for_each(collabench, tmp_path, monkeypatch):
    from collabench.core import resources

    monkeypatch.setattr(resources, "visible_gpus", lambda: ("0",))
    monkeypatch.setattr(resources, "choose", lambda *given, **named: Resources(1, ("0",), 1, "a test"))
    checks = [
        Check(part="facts", name="a", verdict="ok", text="t"),
        Check(part="x", name="b", verdict="note", text="t"),
    ]
    monkeypatch.setattr(examination, "examine_gpu", lambda *given: iter(checks))
    called = collabench("doctor", "--gpu", "--json", "--root", tmp_path)
    assert called.code == 0 and [json.loads(line)["name"] for line in called.out.splitlines()] == ["a", "b"]
    checks.append(Check(part="truth", name="c", verdict="FAILED", text="wrong"))
    called = collabench("doctor", "--gpu", "--root", tmp_path)
    assert called.code == 1 and called.out.splitlines()[-1] == "FAILED  truth    c: wrong"


@pytest.mark.slow
@pytest.mark.skipif(pretended_gpu.why_not() is not None, reason=str(pretended_gpu.why_not()))
def test_the_pretended_gpu_passes_every_part_but_speed(tmp_path, monkeypatch):
    """Its kernels are the CPU's: they raise an IndexError where CUDA reports an error, so that part is left out."""
    monkeypatch.setenv("COLLABENCH_GPU_LEASES", str(tmp_path / "leases"))
    parts = [name for name in examination.ON_A_GPU if name != "error of CUDA"]
    library = pretended_gpu.build(tmp_path)
    done = pretended_gpu.run(library, "tests.support.pretended_gpu.examine", *parts)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [Check.model_validate_json(line) for line in done.stdout.splitlines()]
    faults = [check for check in found if check.verdict == "FAILED" and check.name != "cuDNN"]  # a CPU build has none
    assert faults == []
    assert {"truth", "parity", "bytes", "waits", "sharing", "facts"} == {check.part for check in found}
    assert "pretended GPU" in found[0].text

"""Whether the GPU computes the right numbers: truth, parity with the CPU, the same bytes, no waits within a step."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from collabench.config.configuration import Configuration, Run
from collabench.core.resources import Resources
from collabench.core.seeding import dropout_seed
from collabench.core.text import counted
from collabench.methods import METHODS
from collabench.study.gpu_check.cases import cases, form_of
from collabench.study.gpu_check.record import Check, judged
from collabench.study.gpu_check.steps import Steps
from collabench.study.timing import random_dataset, random_teachers
from collabench.training import Trained, train_run
from collabench.training.device import choose_device, prepare_process
from collabench.training.history import Progress

#: Relative error up to which float32 counts as such. TF32 has about 1e-3.
TRUE_FLOAT32 = 1e-5
#: Type → the largest difference of losses between GPU and CPU after :data:`STEPS` steps. No loss of a case magnifies
#: rounding errors (a test disturbs all of them): other kernels and layouts of a CPU change float64 by 4e-15 at most.
CLOSE = {torch.float64: 1e-8, torch.float32: 1e-3}
STEPS = 3
#: Epochs, and images of a batch: 20 steps of the cases' images.
EPOCHS, BATCH = 5, 12

CPU = torch.device("cpu")


def truth(resources: Resources) -> Iterator[Check]:
    """Matrix product and convolution in float32 against float64 on the CPU: TF32 is off, in both layouts."""
    device = choose_device(resources.device)
    prepare_process(device)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator, dtype=torch.float64) for _ in range(2))
    yield _true("matrix product", (a.float().to(device) @ b.float().to(device)), a @ b)
    x = torch.randn(16, 64, 32, 32, generator=generator, dtype=torch.float64)
    weight = torch.randn(64, 64, 3, 3, generator=generator, dtype=torch.float64)
    expected = F.conv2d(x, weight, padding=1)
    for name, layout in (("contiguous", torch.contiguous_format), ("channels-last", torch.channels_last)):
        there, kernel = (t.float().to(device).to(memory_format=layout) for t in (x, weight))
        yield _true(f"convolution, {name}", F.conv2d(there, kernel, padding=1), expected)


def _true(name: str, found: Tensor, expected: Tensor) -> Check:
    error = ((found.double().cpu() - expected).abs().max() / expected.abs().max()).item()
    mend = "" if error < TRUE_FLOAT32 else ": TF32 or a faulty GPU; results would not be those of float32"
    return judged("truth", name, error < TRUE_FLOAT32, f"relative error {error:.1e}{mend}")


def parity(resources: Resources) -> Iterator[Check]:
    """Losses of every method and switch after three steps, on the GPU and on the CPU, with the same dropout masks."""
    device = choose_device(resources.device)
    prepare_process(device)
    for dtype, close in CLOSE.items():
        differences = {}
        for name, chosen in cases().items():
            if METHODS[chosen.method.method].Method.trains:
                differences[name] = _difference(chosen, device, dtype)
        far = {name: one for name, one in differences.items() if not one <= close}
        worst = max(differences, key=lambda name: differences[name])
        compared = counted(len(differences), "configuration")
        text = f"{compared}, {STEPS} steps: losses within {differences[worst]:.1e} ({worst})"
        if far:
            names = ", ".join(f"{name} {one:.1e}" for name, one in far.items())
            text = f"{len(far)} of {compared} differ{'s' if len(far) == 1 else ''} by more than {close:g}: {names}"
        yield judged("parity", str(dtype).removeprefix("torch."), not far, text)


def _difference(chosen: Configuration, device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference of a term of the loss, relative to the larger of 1 and the term."""
    here, there = (Steps(chosen, form_of(chosen), place, dtype=dtype, masks=CPU) for place in (CPU, device))
    worst = 0.0
    for number in range(STEPS):
        one, other = (s.step(*s.batch(chosen.recipe.batch_size, number)) for s in (here, there))
        for term, value in one.items():
            expected = value.double().item()
            worst = max(worst, abs(other[term].double().item() - expected) / max(1.0, abs(expected)))
    return worst


def bytes_(resources: Resources) -> Iterator[Check]:
    """The same bytes when 20 steps are repeated, and when they are interrupted and resumed from a checkpoint."""
    device = choose_device(resources.device)
    again, resumed, unstable = [], [], dict[str, tuple[str, ...]]()
    chosen = cases(epochs=EPOCHS, batch_size=BATCH, evaluate_every=EPOCHS)
    for name, configuration in chosen.items():
        first = _trained(configuration, device)
        if _content(first) != _content(_trained(configuration, device)):
            again.append(name)
        if METHODS[configuration.method.method].Method.trains and _content(first) != _content(
            _interrupted(configuration, device)
        ):
            resumed.append(name)
        if first.measured.nondeterministic_operations:
            unstable[name] = first.measured.nondeterministic_operations
    count = len(chosen)
    yield _same("repeated", again, count, "a run and its repetition")
    yield _same("killed and resumed", resumed, count, "a run and one that was interrupted")
    names = ", ".join(sorted({one for found in unstable.values() for one in found}))
    text = f"in {counted(len(unstable), 'configuration')}: {names}" if unstable else "none"
    yield Check(part="bytes", name="operations that torch calls nondeterministic", verdict="note", text=text)
    yield Check(part="bytes", name="dropout masks", verdict="note", text=masks(device))


def masks(device: torch.device) -> str:
    """Digests of random numbers as dropout draws them, small and large, to be compared between models of GPUs.

    A GPU divides a draw among its multiprocessors, so that another model may give other numbers, and other masks.
    """
    said = []
    for count in (2**12, 2**24):
        generator = torch.Generator(device).manual_seed(dropout_seed(0, 0, 0))
        content = hashlib.sha256(_bytes(torch.rand(count, generator=generator, device=device))).hexdigest()
        said.append(f"{count:,} numbers {content[:12]}")
    where = ""
    if device.type == "cuda":
        where = f" with {torch.cuda.get_device_properties(device).multi_processor_count} multiprocessors"
    return f"{', '.join(said)}{where}; where another GPU says the same, it draws the same masks"


def _same(name: str, differing: list[str], count: int, what: str) -> Check:
    text = f"{what} differ: {', '.join(differing)}" if differing else f"{count} configurations end with the same bytes"
    return judged("bytes", name, not differing, text)


class _Interruption(BaseException):
    """Ends a training between two steps, as a kill would."""


def _trained(configuration: Configuration, device: torch.device, **options: Any) -> Trained:
    form = form_of(configuration)
    dataset = random_dataset(form, form.train_images, form.test_images)
    teachers = random_teachers(configuration, form)
    return train_run(Run(configuration, 0), dataset, device=device, teachers=teachers, **options)


def _interrupted(configuration: Configuration, device: torch.device) -> Trained:
    def stop(progress: Progress) -> None:
        if progress.epoch >= EPOCHS // 2:
            raise _Interruption

    with tempfile.TemporaryDirectory(prefix="collabench-gpu-check-") as folder:
        options: dict[str, Any] = {"checkpoint_path": Path(folder) / "checkpoint", "checkpoint_seconds": 0.0}
        try:
            _trained(configuration, device, report=stop, **options)
        except _Interruption:
            resumed = _trained(configuration, device, **options)
        else:
            raise RuntimeError("the training ended before it was interrupted")
    if not resumed.measured.resumed:  # the bytes of a training that began again would show nothing
        raise RuntimeError("the training did not resume from its checkpoint, but began again")
    return resumed


def _content(trained: Trained) -> tuple[str, dict[str, bytes], dict[str, bytes]]:
    record = json.dumps(json.loads(trained.result.model_dump_json()), sort_keys=True)
    logits = {name: _bytes(tensor) for name, tensor in trained.logits.items()}
    return record, {name: _bytes(tensor) for name, tensor in (trained.weights or {}).items()}, logits


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def waits(resources: Resources) -> Iterator[Check]:
    """Nothing within a training step makes the host wait for the GPU."""
    device = choose_device(resources.device)
    prepare_process(device)
    waiting = {}
    chosen = {name: one for name, one in cases().items() if METHODS[one.method.method].Method.trains}
    for name, configuration in chosen.items():
        steps = Steps(configuration, form_of(configuration), device)
        batches = [steps.batch(configuration.recipe.batch_size, number) for number in range(2)]
        steps.step(*batches[0])  # what is made once may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps.step(*batches[1])
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            waiting[name] = " ".join(str(error).split())[:120]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    text = f"{len(chosen)} configurations: no step waits for the GPU"
    if waiting:
        text = f"steps wait for the GPU, which only costs time: {', '.join(waiting)} ({next(iter(waiting.values()))})"
    yield judged("waits", "within a step", not waiting, text)

"""Whether processes share GPUs as they should: leases, torchrun's sums, and errors of a GPU that blame no run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from collabench.core.device_errors import is_device_error, is_shortage_of_memory
from collabench.core.processes import end_with_parent
from collabench.core.resources import Resources
from collabench.study.gpu_check.record import Check, judged

PART = "sharing"
#: Seconds for processes to start, and seconds after which one that has no lease counts as waiting.
PATIENCE, WAITED = 120.0, 8.0

#: What two processes of torchrun do: sum a number over NCCL, each on a GPU of its own.
ALL_REDUCE = """
import os, torch, torch.distributed as dist
rank = int(os.environ["LOCAL_RANK"])
device = torch.device("cuda", rank)
dist.init_process_group("nccl", device_id=device)
x = torch.full((4,), float(rank + 1), device=device)
dist.all_reduce(x)
assert x.tolist() == [3.0] * 4, x.tolist()
dist.destroy_process_group()
"""


def leases(resources: Resources) -> Iterator[Check]:
    """Two processes that need half of a GPU hold it at once; a third that needs all of it waits for both."""
    if not resources.gpu_memory:
        yield Check(part=PART, name="leases", verdict="skipped", text="the GPU's memory is not known")
        return
    alone = Resources(resources.cores, resources.gpus[:1], 2, "a check", resources.gpu_memory[:1])
    half = alone.gpu_memory[0] // 2
    context = get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="collabench-gpu-check-") as folder,
        ProcessPoolExecutor(3, context, end_with_parent, (os.getpid(),)) as pool,
    ):
        held, end = [Path(folder) / name for name in ("first", "second")], Path(folder) / "end"
        for marker in held:
            pool.submit(_hold, alone, half, marker, end)
        together = _appear(held, PATIENCE)
        whole = Path(folder) / "whole"
        last = pool.submit(_hold, alone, None, whole, end)
        waited = not _appear([whole], WAITED)
        end.touch()
        last.result()
        after = whole.exists()
    text = "two halves at once, then a whole" if together and waited and after else (
        f"two halves at once: {together}; a whole waits for them: {waited}, and gets its turn: {after}"
    )  # fmt: skip
    yield judged(PART, "leases", together and waited and after, text)


def _hold(resources: Resources, need: int | None, marker: Path, end: Path) -> None:
    """Lease, say so with a file, and hold the lease until another file is there."""
    with resources.lease(need):
        marker.touch()
        _appear([end], PATIENCE)


def _appear(paths: list[Path], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(path.exists() for path in paths):
            return True
        time.sleep(0.05)
    return False


def all_reduce(resources: Resources) -> Iterator[Check]:
    """A sum over NCCL by two processes of torchrun, if there are two GPUs."""
    if len(resources.gpus) < 2:
        yield Check(part=PART, name="torchrun", verdict="skipped", text="there is one GPU")
        return
    with tempfile.TemporaryDirectory(prefix="collabench-gpu-check-") as folder:
        program = Path(folder) / "all_reduce.py"
        program.write_bytes(ALL_REDUCE.encode())
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(resources.gpus[:2])}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=180)
            good, said = done.returncode == 0, " ".join(done.stderr.split())[-300:]
        except subprocess.TimeoutExpired:
            good, said = False, "no answer within 180 seconds"
    yield judged(PART, "torchrun", good, "two processes sum over NCCL" if good else said)


def shortage(resources: Resources) -> Iterator[Check]:
    """A GPU that is out of memory is told from a run's own error, and computes again afterwards."""
    import torch

    from collabench.training.device import choose_device

    device = choose_device(resources.device)
    _, whole = torch.cuda.mem_get_info()
    try:
        torch.empty(2 * whole, dtype=torch.uint8, device=device)
    except Exception as error:
        good, text = is_shortage_of_memory(error), " ".join(str(error).split())[:120]
    else:
        good, text = False, "twice the GPU's memory could be allocated"
    good = good and torch.ones(2, device=device).sum().item() == 2
    yield judged(PART, "out of memory", good, f"no run is blamed: {text}" if good else text)


def fault(resources: Resources) -> Iterator[Check]:
    """An error of CUDA, here an index that does not exist, is told from a run's own error. It ends this process."""
    import torch

    from collabench.training.device import choose_device

    device = choose_device(resources.device)
    try:
        torch.zeros(1, device=device)[torch.tensor([5], device=device)].sum().item()
    except Exception as error:
        good, text = is_device_error(error), " ".join(str(error).split())[:120]
    else:
        good, text = False, "an index that does not exist was read without an error"
    yield judged(PART, "error of CUDA", good, f"no run is blamed: {text}" if good else text)

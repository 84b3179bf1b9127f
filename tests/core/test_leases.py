"""Leases of GPUs: slots that never have two holders, and bytes that never exceed a GPU's memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from collabench.core import leases
from collabench.core.leases import lease_gpu


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def hold(folder: Path, gpus: tuple[str, ...], slots: int, times: int, diary: Path, seconds: float) -> None:
    """Lease a slot several times; write the device and the time span of each into ``diary``."""
    lines = []
    for _ in range(times):
        with lease_gpu(gpus, slots, folder, poll_seconds=0.01) as gpu:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu
            begin = time.monotonic()
            time.sleep(seconds)
            lines.append(f"{gpu} {begin} {time.monotonic()}")
    diary.write_text("\n".join(lines))


def start(*arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=hold, args=arguments)
    process.start()
    return process


def most_at_once(spans: list[tuple[float, float]]) -> int:
    events = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize(("gpus", "slots"), [(("0",), 1), (("0", "GPU-8f1c"), 1), (("0", "1"), 2)])
def test_processes_never_share_a_slot(tmp_path, gpus, slots):
    diaries = [tmp_path / f"diary-{number}" for number in range(6)]
    processes = [start(tmp_path / "leases", gpus, slots, 3, diary, 0.03) for diary in diaries]
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    spans: dict[str, list[tuple[float, float]]] = {}
    for diary in diaries:
        for line in diary.read_text().splitlines():
            gpu, begin, end = line.split()
            spans.setdefault(gpu, []).append((float(begin), float(end)))
    assert set(spans) <= set(gpus)
    assert sum(map(len, spans.values())) == 18
    assert all(most_at_once(held) <= slots for held in spans.values())


def test_a_slot_is_free_again_when_its_holder_is_killed(tmp_path):
    holder = start(tmp_path / "leases", ("0",), 1, 1, tmp_path / "diary", 600)
    lock = tmp_path / "leases" / "gpu-0-slot-0.lock"
    from collabench.storage.locks import is_held

    deadline = time.monotonic() + 120
    while not is_held(lock):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    waiting = start(tmp_path / "leases", ("0",), 1, 1, tmp_path / "next", 0)
    time.sleep(0.2)
    assert waiting.is_alive() and not (tmp_path / "next").exists()
    os.kill(holder.pid, signal.SIGKILL)
    waiting.join(120)
    assert waiting.exitcode == 0 and (tmp_path / "next").read_text().startswith("0 ")
    holder.join()


def test_every_gpu_gets_a_job_before_any_gets_a_second(tmp_path):
    with ExitStack() as held:
        taken = [held.enter_context(lease_gpu(("0", "1"), 2, tmp_path, 0.01)) for _ in range(4)]
    assert taken == ["0", "1", "0", "1"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_lease_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv(leases.LEASES, str(tmp_path / "mine"))
    with lease_gpu(("0",)):
        assert (tmp_path / "mine" / "gpu-0-slot-0.lock").exists()


def free(folder: Path, need: int | None, slots: int = 4) -> bool:
    """Whether a GPU of 100 bytes has room."""
    return leases._Gpu("0", folder, slots, 100).take(slots - 1, need) is not None


def test_leases_together_are_at_most_the_gpus_memory(tmp_path):
    def lease(need: int | None):
        return lease_gpu(("0",), 4, tmp_path, 0.01, memory=(100,), need=need)

    with lease(60):
        assert not free(tmp_path, 41)
        assert not free(tmp_path, None), "a whole GPU is shared with nobody"
        with lease(40):
            assert not free(tmp_path, 1)
        assert free(tmp_path, 40), "an ended lease leaves its bytes"
    with lease(None):
        assert not free(tmp_path, 0)
    with lease(1000):  # more than there is: the run tries, alone
        assert not free(tmp_path, 1)
    assert free(tmp_path, None)


def test_a_large_run_takes_the_gpu_that_has_room(tmp_path):
    with ExitStack() as held:
        taken = [
            held.enter_context(lease_gpu(("0", "1"), 4, tmp_path, 0.01, memory=(100, 100), need=need))
            for need in (90, 20, 20, 20)
        ]
    assert taken == ["0", "1", "1", "1"]


def test_processes_with_other_settings_count_each_others_slots(tmp_path):
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(lease_gpu(("0",), 4, tmp_path, 0.01, memory=(100,), need=30))
        assert not free(tmp_path, 30, slots=1)
        assert not free(tmp_path, 41, slots=3)
        assert free(tmp_path, 40, slots=3)


def test_a_gpu_of_unknown_memory_is_shared_by_slots_alone_or_not_at_all(tmp_path):
    with lease_gpu(("0",), 2, tmp_path, 0.01, need=50):
        assert leases._Gpu("0", tmp_path, 2, 0).take(1, None) is None
        second = leases._Gpu("0", tmp_path, 2, 0).take(1, 50)
        assert second is not None
        assert leases._Gpu("0", tmp_path, 2, 0).take(1, 50) is None

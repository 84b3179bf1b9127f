"""How the tests are spread over processes, with the Makefile's ``--dist loadfile --no-loadscope-reorder``, and where
they write.

A module's tests run in one process, which makes what they share once; modules start in the order of collection, and the
longest are collected first. (``--dist loadgroup`` does nothing with pytest 9.2 and pytest-xdist 3.8.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from collabench.core.resources import available_cores

pytest_plugins = ["tests.support.fixtures"]

#: Linux's file system in memory, and how much must be free there and of memory.
IN_MEMORY, FREE_BYTES = Path("/dev/shm"), 8_000_000_000


def _can_write_in_memory() -> bool:
    """Whether there is room, and programs that tests write can be started there. (Docker's has 64 MB and cannot.)"""
    if sys.platform != "linux" or not os.access(IN_MEMORY, os.W_OK):
        return False
    about = os.statvfs(IN_MEMORY)
    free = min(about.f_bavail * about.f_frsize, psutil.virtual_memory().available)
    return free >= FREE_BYTES and not about.f_flag & os.ST_NOEXEC


# pytest's own variable. The thousands of small files of the tests take several times as long on a disk.
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and _can_write_in_memory():
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(IN_MEMORY)

HERE = Path(__file__).parent

#: Modules that take most of the time, by ``--durations=60``. Started last, one of them would run on alone at the end.
LONGEST_FIRST = (
    "training/test_portability.py",
    "system/survival/test_kills.py",
    "system/cluster/test_slurm.py",
    "system/survival/test_growth.py",
    "system/workflow/test_every_configuration.py",
    "system/survival/test_processes.py",
    "study/test_totals.py",
    "training/test_pretended_gpu.py",
    "methods/test_gradients.py",
    "system/survival/test_shared_runs.py",
    "system/survival/test_first_gpu_run.py",
    "sharing/test_accepted_reports.py",
    "system/cluster/test_kubernetes.py",
    "system/workflow/test_smoke.py",
    "system/workflow/test_remotes.py",
    "system/cluster/test_import_from_remote.py",
    "study/test_initial.py",
    "system/cluster/test_executor.py",
    "system/cluster/test_fetch.py",
    "docs/test_own_project.py",
    "docs/test_notebook.py",
    "system/survival/test_storage.py",
    "study/test_shards.py",
    "training/test_memory.py",
    "training/test_distributed.py",
    "study/test_torchrun.py",
    "sharing/test_verify.py",
    "sharing/test_export.py",
    "docs/test_tutorial.py",
    "stats/test_simulation.py",
    "system/survival/test_dvc.py",
    "system/bad_input/test_papers.py",
    "system/bad_input/test_params.py",
    "models/test_convolution.py",
    "config/test_no_setting_is_ignored.py",
    "methods/test_contract.py",
    "study/test_gpu_check.py",
    "system/survival/test_other_systems.py",
)

#: When a slow test counts as hanging. Emulated processors and repeated kills take six times as long on a busy machine.
SLOW_TIMEOUT_SECONDS = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {HERE / name: number for number, name in enumerate(LONGEST_FIRST)}
    if gone := [str(path) for path in place if not path.is_file()]:
        raise pytest.UsageError(f"LONGEST_FIRST in {__file__} names what is not there: {', '.join(gone)}")
    items.sort(key=lambda item: place.get(item.path, len(place)))
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_SECONDS))


@pytest.fixture(autouse=True, scope="session")
def _no_power_failure() -> Iterator[None]:
    """In the tests' own processes nothing is written through to the disk: hundreds of fabricated results would wait
    for it. The processes that tests start do write through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are as wide as in a file, whatever the terminal or the worker that runs the tests."""
    monkeypatch.delenv("COLUMNS", raising=False)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """For ``-n auto``: as many processes as there are cores for them, and one more where slow tests run, which often
    wait for a cluster, for a kill or for the disk. pytest-xdist itself counts the machine's physical cores, whatever
    affinity and cgroup allow, and one of two where a virtual machine's cores are threads."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or config.option.numprocesses != "auto":
        return None
    return available_cores()[0] + (config.option.markexpr != "not slow")

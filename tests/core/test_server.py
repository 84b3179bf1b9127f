"""The job server: exit codes, output and signals of jobs, and which process ends when another one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

JOBS = """
import os, signal, sys, time
LOADED = os.getpid()

def main(arguments):
    what, *rest = arguments
    if what == "where":
        print("imported by the server" if LOADED != os.getpid() else "imported here", flush=True)
    elif what == "fail":
        raise ValueError("broken")
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "wait":
        open(rest[0], "w").write(str(os.getpid()))
        time.sleep(60)
    return int(rest[0]) if what == "code" else 0
"""
SERVE = """
import sys, time
sys.path.insert(0, ".")
import jobs
from collabench.core.server import serve
print(serve(), flush=True)
time.sleep(60)
"""
ASK = (
    "import sys; from collabench.core.server import ask; code = ask(sys.argv[1], sys.argv[2:]); sys.exit(99 if code is "
    "None else code)"
)


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen, dict[str, str]]]:
    (folder / "jobs.py").write_text(JOBS)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("COLLABENCH_SERVER", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    try:
        yield process, environment | {"COLLABENCH_SERVER": address}
    finally:
        process.kill()
        process.wait()


def asking(folder: Path, environment: dict[str, str], *arguments: str, module: str = "jobs") -> subprocess.Popen:
    command = [sys.executable, "-c", ASK, module, *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def waiting_job(folder: Path, environment: dict[str, str]) -> tuple[subprocess.Popen, int]:
    path = folder / "pid"
    path.unlink(missing_ok=True)
    asked = asking(folder, environment, "wait", str(path))
    wait_for(lambda: path.exists() and path.read_text())
    return asked, int(path.read_text())


def test_a_job_runs_in_a_fork_and_its_output_and_exit_code_are_those_of_a_process_of_its_own(tmp_path):
    with server(tmp_path) as (_, environment):
        asked = asking(tmp_path, environment, "where")
        assert (asked.communicate()[0], asked.returncode) == ("imported by the server\n", 0)
        asked = asking(tmp_path, environment, "code", "7")
        assert (asked.wait(), asked.communicate()[0]) == (7, "")
        asked = asking(tmp_path, environment, "fail")
        _, err = asked.communicate()
        assert asked.returncode == 1 and "ValueError: broken" in err


@pytest.mark.parametrize("end", ["", "raise RuntimeError"])
def test_what_all_jobs_of_a_module_need_is_loaded_once_by_the_server(tmp_path, end):
    (tmp_path / "needy.py").write_text(f"""
import os
LOADED = []
def prepare():
    LOADED.append(os.getpid())
    {end}
def main(arguments):
    print(len(LOADED), LOADED[0] == os.getppid())
""")
    with server(tmp_path) as (_, environment):
        for _ in range(2):
            asked = asking(tmp_path, environment, module="needy")
            assert (asked.communicate()[0], asked.returncode) == ("1 True\n", 0)


def test_a_crash_costs_the_job_that_crashed(tmp_path):
    with server(tmp_path) as (_, environment):
        other, pid = waiting_job(tmp_path, environment)
        crashed = asking(tmp_path, environment, "crash")
        assert crashed.wait() != 0 and not gone(pid)
        assert asking(tmp_path, environment, "code", "0").wait() == 0
        other.kill()
        other.wait()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_job_ends_with_the_process_that_asked(tmp_path, sent):
    with server(tmp_path) as (_, environment):
        asked, pid = waiting_job(tmp_path, environment)
        asked.send_signal(sent)
        wait_for(lambda: gone(pid))
        assert asked.wait() != 0


def test_a_job_ends_with_the_process_that_started_the_server(tmp_path):
    with server(tmp_path) as (process, environment):
        asked, pid = waiting_job(tmp_path, environment)
        process.kill()
        wait_for(lambda: gone(pid))
        _, err = asked.communicate()
        assert asked.returncode == 1 and "the job server ended" in err


def test_a_job_whose_libraries_would_be_set_up_otherwise_is_refused(tmp_path):
    with server(tmp_path) as (_, environment):
        assert asking(tmp_path, environment | {"COLLABENCH_ARITHMETIC": "native"}, "code", "0").wait() == 99
        assert asking(tmp_path, environment | {"MKL_NUM_THREADS": "1"}, "code", "5").wait() == 5
    assert asking(tmp_path, environment, "code", "0").wait() == 99, "without a server a job imports for itself"

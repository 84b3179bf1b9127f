"""What Windows lacks is hidden from Python and from all its children: the package is imported, and runs are trained."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT, environment

HIDDEN = """
import os, sys
for name in ("fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "sched_getaffinity", "pidfd_open", "fork"):
    vars(os).pop(name, None)
"""
PARAMS = params_yaml(
    {"mine": profile(table(name="mine", recipes="short"), description="another system", seeds=2)},
    datasets={"digits": "{source: digits, train_images: 100, test_images: 100}"},
    models={"small": "{family: cifar_resnet, depth: 8, width: 2}"},
    recipes={"short": "{epochs: 1, batch_size: 32, learning_rate: 0.1}"},
)


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "sitecustomize.py").write_text(HIDDEN)
    given = environment(ROOT)
    given["PYTHONPATH"] = f"{hidden}:{given['PYTHONPATH']}"
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=given, text=True, capture_output=True, check=False
    )


@pytest.mark.slow
def test_every_module_is_imported(tmp_path):
    code = (
        "import importlib, pkgutil, sys, collabench\n"
        "assert sys.modules['fcntl'] is None\n"
        "names = [m.name for m in pkgutil.walk_packages(collabench.__path__, 'collabench.')]\n"
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')]\n"
        "print(len(names))"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


@pytest.mark.slow
def test_a_study_is_run_and_reported(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    for command in ("run", "report", "plan"):
        done = python(tmp_path, "-m", "collabench", command, "--profile", "mine")
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("artifacts/mine/runs/*/*/result.json"))) == 2
    assert (tmp_path / "reports" / "mine" / "mine.md").exists()
    again = python(tmp_path, "-m", "collabench", "run", "--profile", "mine")
    assert again.returncode == 0, again.stderr
    left = [path for path in (tmp_path / "artifacts").rglob("*") if path.name.endswith(".tmp")]
    assert left == []


#: A child of a system without signals at a parent's end, whose parent keeps its number after it has ended.
CHILD = """
import os, psutil, sys, time
from collabench.core.processes import end_with_parent
parent = os.getppid()
sys.platform, os.getppid = "win32", lambda: parent
end_with_parent(parent, poll_seconds=0.1)
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_a_child_ends_with_its_parent_where_the_parents_number_stays():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], env=environment(ROOT), text=True, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    assert child.is_running(), "while the parent lives"
    parent.kill()
    parent.wait()
    child.wait(timeout=10)

"""The arithmetic of a process: how environment variables choose it before torch is imported, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from collabench.core import arithmetic
from collabench.core.arithmetic import CHOICE, HELD, environment
from collabench.core.errors import ConfigError

TEXT = (
    "from collabench.core import arithmetic as a; import torch; print(torch.backends.cpu.get_cpu_capability(), "
    "a.refusal())"
)
#: Without torch, which takes seconds to import.
REFUSAL = "from collabench.core import arithmetic as a; print(a.refusal())"
CLEAN = {name: value for name, value in os.environ.items() if name not in (*HELD, CHOICE, "COLLABENCH_HELD")}


def run(text: str, **variables: str) -> str:
    done = subprocess.run([sys.executable, "-c", text], env=CLEAN | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_is_portable_by_itself():
    assert run(TEXT) == "AVX2 None"


@pytest.mark.slow
def test_torch_imported_first_is_noticed_unless_the_environment_held_it():
    answer = run(f"import sys, types; sys.modules['torch'] = types.ModuleType('torch'); {REFUSAL}")
    assert "torch was imported before collabench" in answer and "--arithmetic native" in answer
    assert run(f"import torch; {TEXT}", **HELD) == "AVX2 None"


def test_native_processes_are_not_held_and_refuse_portable_runs():
    assert f"{CHOICE}=native" in run(REFUSAL, **{CHOICE: "native"})
    text = "import os; from collabench.core import arithmetic; print('MKL_CBWR' in os.environ)"
    assert run(text) == "True" and run(text, **{CHOICE: "native"}) == "False"


def test_a_native_process_beneath_a_portable_one_takes_the_variables_away_but_not_the_users():
    held = environment("portable", {"PATH": "/bin"})
    assert held.items() >= HELD.items() and held[CHOICE] == "portable"
    assert environment("native", held) == {"PATH": "/bin", CHOICE: "native"}
    own = {"MKL_CBWR": "AVX2"}
    assert environment("native", own) == own | {CHOICE: "native"}
    text = "import os; from collabench.core import arithmetic; print('MKL_CBWR' in os.environ)"
    assert run(text, **held | CLEAN | {CHOICE: "native"}) == "False"


def test_other_choices_are_refused(monkeypatch):
    monkeypatch.setenv(CHOICE, "fast")
    with pytest.raises(ConfigError, match="take portable or native"):
        arithmetic.chosen()


def test_processors_that_cannot_are_told_what_to_do(monkeypatch):
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: "aarch64")
    assert "needs an x86-64 processor, this is aarch64: use collabench --arithmetic native" in arithmetic.refusal()
    monkeypatch.setattr(arithmetic.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(arithmetic, "missing_instructions", lambda: ["AVX2", "FMA"])
    assert "AVX2 and FMA, which this processor lacks" in arithmetic.refusal()

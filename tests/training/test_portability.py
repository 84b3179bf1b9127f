"""Portable runs give the same bytes on every processor: on this one, with narrower registers, and on emulated ones.

The committed digests were found on several processors, so that a user's own processor is checked by the same test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collabench.methods import METHODS
from tests.support.portable_trainings import CASES, committed, digest

ROOT = Path(__file__).parents[2]
RENEW = "python -m tests.support.portable_trainings --write renews the digests, after a change of what is computed"
EMULATED = ("Haswell", "Skylake-Client", "EPYC-Rome")
QEMU = shutil.which("qemu-x86_64")


def printed(command: list[str], *cases: str, **variables: str) -> dict[str, str]:
    """Case → digest, computed by a process of its own."""
    done = subprocess.run(
        [*command, sys.executable, "-m", "tests.support.portable_trainings", *cases],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"} | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split() for line in done.stdout.splitlines())


def test_every_method_and_every_family_has_a_digest():
    trained = {name for name in METHODS if METHODS[name].Method.trains}
    assert {method for method, *_ in CASES.values()} == trained and committed().keys() == CASES.keys()


#: On every commit: each kind of layer, each kind of pass, and a recipe beside stochastic gradient descent.
QUICK = ("resnet8", "narrow", "vgg", "densenet", "colours", "okddip", "fang2021-resnet18", "adamw", "wide")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_this_processor_gives_the_committed_digest(case):
    assert digest(case) == committed()[case], RENEW


@pytest.fixture(scope="module")
def with_eight_lanes() -> dict[str, str]:
    """Every case's digest on this processor with registers of 8 numbers, as the emulated ones have. It leaves the
    machine code that they need, which they would compile for minutes."""
    return printed([], *CASES, COLLABENCH_LANES="8")


@pytest.mark.slow
def test_registers_of_eight_numbers_change_no_bit(with_eight_lanes):
    assert with_eight_lanes == committed()


@pytest.mark.slow
def test_registers_of_sixteen_numbers_change_no_bit():
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no registers of 16 numbers")
    cases = ("resnet8", "vgg", "colours", "okddip", "fang2021-resnet18")
    assert printed([], *cases, COLLABENCH_LANES="16") == {case: committed()[case] for case in cases}


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is not installed (Debian: apt-get install qemu-user)")
@pytest.mark.parametrize("processor", EMULATED)
@pytest.mark.usefixtures("with_eight_lanes")
def test_an_emulated_processor_gives_the_committed_digests(processor):
    cases = {"Haswell": tuple(CASES), "Skylake-Client": ("resnet8", "vgg"), "EPYC-Rome": ("resnet8", "densenet")}[
        processor
    ]
    assert QEMU is not None
    assert printed([QEMU, "-cpu", processor], *cases) == {case: committed()[case] for case in cases}

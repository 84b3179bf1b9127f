"""What a training process imports before it can begin: not what takes a second and isn't used."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from collabench.config.sections import RecipeConfig
from collabench.training.optimizer import make_optimizer
from tests.support.project import ROOT

TRAINS = """
import sys, torch
from collabench.config.configuration import Run
from collabench.core import distributed
from collabench.methods import METHODS
from collabench.training import train_run
from tests.support.defaults import configuration, teachers
from tests.support.synthetic import blobs
for method in METHODS:
    if METHODS[method].Method.trains:
        run = Run(configuration(method, epochs=1), 0)
        train_run(run, blobs(), device=torch.device("cpu"), teachers=teachers(run))
distributed._SharedBatchNorm2d(3)(torch.ones(2, 3, 4, 4))  # as in several processes
print(*sorted({"torch._dynamo", "torch._inductor", "sympy", "numba", "pandas", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_no_method_imports_a_compiler():
    ran = subprocess.run([sys.executable, "-c", TRAINS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr


def test_what_ends_a_child_with_its_parent_is_there_before_what_takes_long_to_import():
    """A training process asks the kernel for its end first of all: a parent killed meanwhile would leave it
    importing."""
    code = "import sys, collabench.core.resources; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_optimizer_takes_the_steps_of_torchs_own():
    recipe = RecipeConfig(epochs=1, batch_size=2, learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    ours, theirs = (torch.nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    optimizer = make_optimizer(list(ours.parameters()), recipe)
    for step in range(4):
        if step == 2:  # as after an interruption
            state, optimizer = optimizer.state_dict(), make_optimizer(list(ours.parameters()), recipe)
            optimizer.load_state_dict(state)
        for network, one in ((ours, optimizer), (theirs, plain)):
            one.zero_grad(set_to_none=True)
            network(torch.linspace(-1, step, 10).view(2, 5)).square().sum().backward()
            one.step()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))

"""docs/how-to/several-gpus.md: its configuration as a user copies it, and its commands on four of eight GPUs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from collabench.core import resources
from collabench.core.gpu_probe import Probe
from collabench.study import torchrun
from tests.support.params import real_definitions
from tests.support.project import ROOT

PAGE = (ROOT / "docs/how-to/several-gpus.md").read_text("utf-8")
(ADDED,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TORCHRUN = [line.partition("#")[0] for line in PAGE.splitlines() if line.startswith("torchrun --")]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    recipes, profiles = ADDED.removeprefix("recipes:\n").split("profiles:\n")
    (tmp_path / "params.yaml").write_text(
        f"{real_definitions('', recipes=recipes).split('profiles:')[0]}profiles:\n{profiles}"
    )
    monkeypatch.setattr(resources, "visible_gpus", lambda: tuple("01234567"))
    monkeypatch.setattr("collabench.core.processes.end_with_parent", lambda *parent: None)
    return tmp_path


def test_the_pages_runs_are_refused_without_torchrun_by_the_pages_command(root, collabench, monkeypatch):
    monkeypatch.setattr(resources, "probe", lambda gpus: Probe(None, (80 << 30,) * len(gpus)))
    (entry,) = yaml.safe_load(ADDED)["recipes"].values()
    assert entry["processes"] == 4
    planned = collabench("plan", "-p", "large", "--root", root)
    assert "3 runs in 1 configuration: 3 todo" in planned.out, planned.err
    refused = collabench("run", "-p", "large", "--root", root)
    assert refused.code == 2 and f"`{TORCHRUN[0].strip()}`" in refused.err


@pytest.mark.parametrize(("command", "used"), list(zip(TORCHRUN, ("0123", "4567"), strict=True)))
def test_each_of_four_processes_takes_the_gpu_that_the_page_says(root, collabench, monkeypatch, command, used):
    asked = []
    monkeypatch.setattr(resources, "probe", lambda gpus: asked.append(tuple(gpus)) or Probe(None, (80 << 30,)))
    monkeypatch.setattr(torchrun, "follow", lambda study, found: None)
    launcher, _, typed = command.partition(" -m collabench ")
    assert launcher == "torchrun --nproc-per-node 4"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        called = collabench(*shlex.split(typed), "--root", root)
        assert called.code == 0 or (rank == 0 and "Place there" in called.err), called.err
        assert rank > 0 or f"4 processes share every run: a GPU each of {', '.join(used)}\n" in called.out
    assert asked == [(name,) for name in used]

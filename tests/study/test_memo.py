"""A command shows the recorded output of a finished study as long as nothing has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from collabench.methods import OWN
from collabench.storage.results import LOGITS
from collabench.study import memo
from collabench.study.study import load_study

PLAN = (
    "import sys; from collabench.cli import main; sys.argv[0] = 'collabench'\ntry: main()\nfinally: print('torch' "
    "in sys.modules)"
)


def plan(root: Path) -> str:
    command = [sys.executable, "-c", PLAN, "plan", "-p", "small", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_the_plan_of_a_finished_study_is_said_again_without_torch(finished):
    first, second = plan(finished), plan(finished)
    assert first.endswith("True\n") and second == first.removesuffix("True\n") + "False\n"
    assert "10 done" in first


def changes(root: Path) -> dict[str, Path]:
    study = load_study(root, "small")
    folder = study.workspace.folder(study.plan.runs[0])
    key = study.inputs.dataset_keys()[0]
    return {
        "params.yaml": study.workspace.params,
        "a result's logits": folder / LOGITS,
        "a data set": study.workspace.datasets / key / "manifest.json",
        "noise": next(study.workspace.noise.rglob("*.safetensors")),
    }


@pytest.mark.parametrize("what", ["params.yaml", "a result's logits", "a data set", "noise", "a network of the user's"])
def test_a_memo_holds_for_one_state_of_the_files(finished, tmp_path, what):
    workspace, network = load_study(finished, "small").workspace, tmp_path / "network.py"
    network.write_text("one = 1\n")
    memo.remember(workspace, [network], plan="finished")
    assert memo.recall(workspace, "plan") == "finished" and memo.recall(workspace, "other") is None
    path = changes(finished).get(what, network)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert memo.recall(workspace, "plan") is None
    path.unlink()
    assert memo.recall(workspace, "plan") is None


def test_a_method_of_the_projects_own_is_part_of_the_state(finished):
    workspace = load_study(finished, "small").workspace
    memo.remember(workspace, plan="finished")
    (finished / memo.OWN).mkdir()
    assert memo.recall(workspace, "plan") == "finished"
    (finished / memo.OWN / "mine.py").write_text("one = 1\n")
    assert memo.recall(workspace, "plan") is None
    assert memo.OWN == OWN


def test_a_new_state_drops_what_was_said_of_the_old_one(finished):
    workspace = load_study(finished, "small").workspace
    memo.remember(workspace, plan="old", plan_json="old")
    memo.remember(workspace, plan="same state")
    assert memo.recall(workspace, "plan_json") == "old"
    workspace.params.write_text(workspace.params.read_text() + "\n")
    memo.remember(workspace, plan="new")
    assert (memo.recall(workspace, "plan"), memo.recall(workspace, "plan_json")) == ("new", None)
    workspace.memo.write_text("{")
    assert memo.recall(workspace, "plan") is None

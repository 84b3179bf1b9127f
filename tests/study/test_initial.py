"""``collabench init``: a project of one's own, from this tree and from an installed wheel."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from collabench.config.yaml_file import read_yaml
from collabench.study.initial import WORKFLOW
from tests.support.project import ROOT, call, copy_project, environment, git

#: Plans both profiles in a process that knows no other project's methods.
PLANS = """
import sys
from contextlib import suppress
from collabench.cli import main
folder = sys.argv[1]
for profile in ("smoke", "digits"):
    sys.argv = ["collabench", "plan", "-p", profile, "--root", folder, "--json"]
    with suppress(SystemExit):
        main()
"""


@pytest.mark.slow
def test_the_project_is_whole_and_its_profiles_can_be_planned(tmp_path, collabench):
    folder = tmp_path / "mine"
    folder.mkdir()  # an empty folder is filled; one that does not exist is made in the test of the wheel
    called = collabench("init", folder)
    assert called.code == 0 and f"Next: cd {folder} && collabench run -p smoke" in called.out
    assert {
        *WORKFLOW,
        "params.yaml",
        "params.schema.json",
        "README.md",
        "papers",
        "collabench_methods",
        ".gitignore",
        ".dvc",
    } == {path.name for path in folder.iterdir()}
    assert not list(tmp_path.glob(".mine*")), "nothing is left beside it"
    value = read_yaml(folder / "params.yaml").value
    Draft202012Validator(json.loads((folder / "params.schema.json").read_text())).validate(value)
    printed = subprocess.run(
        [sys.executable, "-c", PLANS, str(folder)], env=environment(ROOT), text=True, capture_output=True, check=True
    )
    planned = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [len(one["configurations"]) for one in planned] == [3, 6]
    stages = read_yaml(folder / "dvc.yaml").value
    assert stages.keys() == {"stages"} and "src/collabench" not in (folder / "dvc.yaml").read_text()


@pytest.mark.parametrize("there", ["a file", "a folder with a file", "a link"])
def test_what_is_there_is_left_alone(tmp_path, collabench, there):
    folder = tmp_path / "mine"
    if there == "a file":
        folder.write_text("mine")
    elif there == "a link":
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        (folder / "note.txt").write_text("mine")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    called = collabench("init", folder)
    assert called.code == 2 and "name " in called.err and len(called.err.splitlines()) == 1
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, collabench):
    (tmp_path / "file").write_text("")
    called = collabench("init", tmp_path / "file" / "mine")
    assert called.code == 2 and len(called.err.splitlines()) == 1


def test_the_wheel_has_the_files_that_init_reads():
    (assigned,) = (node for node in ast.parse((ROOT / "setup.py").read_text()).body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assigned.value) == WORKFLOW and all((ROOT / name).exists() for name in WORKFLOW)


@pytest.mark.slow
def test_an_installed_wheel_makes_a_project_that_runs(tmp_path):
    copy_project(tree := tmp_path / "tree")
    quiet = ("-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    call(tree, sys.executable, "-m", "pip", "wheel", *quiet, "-w", str(tmp_path), ".")
    (wheel,) = tmp_path.glob("collabench-*.whl")
    target = tmp_path / "installed"
    call(tmp_path, sys.executable, "-m", "pip", "install", *quiet[:3], "--target", str(target), str(wheel))

    def run(folder: Path, *arguments: str) -> str:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("COLLABENCH_", "PYTEST_"))}
        done = subprocess.run(
            [sys.executable, "-m", "collabench", *arguments],
            cwd=folder, env=variables | {"PYTHONPATH": str(target)}, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    place = "import collabench; print(collabench.__file__)"
    variables = os.environ | {"PYTHONPATH": str(target)}
    where = subprocess.run([sys.executable, "-c", place], cwd=tmp_path, env=variables, text=True, capture_output=True)
    assert where.stdout.startswith(str(target)), "not this tree's"
    run(tmp_path, "init", "mine")
    mine = tmp_path / "mine"
    assert "6 trained" in run(mine, "run", "-p", "smoke", "--cores", "1")
    assert "mine" in run(mine, "report", "-p", "smoke")
    git(mine, "init", "-q", ".")
    assert "profile" in run(mine, "verify", "-p", "smoke", "--sample", "1")
    run(mine, "reproduce", "-p", "smoke", "--cores", "1")
    assert (mine / "dvc.lock").exists() and (mine / "reports" / "smoke" / "README.md").exists()
    assert str(ROOT) not in (mine / "dvc.lock").read_text()

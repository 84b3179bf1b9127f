"""Methods in a package of the user's own: found, identified, and refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from collabench.study.initial import create
from tests.support.project import ROOT, environment

CODE = "from collabench.cli import main; main()"


def collabench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        cwd=folder, env=environment(ROOT), text=True, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path) -> Path:
    create(tmp_path / "mine")
    return tmp_path / "mine"


def test_a_method_of_the_project_trains_and_its_file_is_in_the_digest(project):
    given = ("run", "-p", "smoke", "--method", "mine", "--seed", "0", "--cores", "1", "--root", str(project))
    done = collabench(project.parent, *given)
    assert done.returncode == 0 and "1 trained" in done.stdout, done.stderr
    (path,) = (project / "artifacts" / "smoke" / "runs").glob("*mine*/seed-0/result.json")
    result = json.loads(path.read_text())
    assert set(result["curves"]["losses"]) == {"hard", "confidence"}
    file = project / "collabench_methods" / "mine.py"
    file.write_text(file.read_text().replace("* entropy\n", "* 2 * entropy\n"))
    assert "other code: digits-small · uniform20 · resnet8 · brief · mine" in (
        said := collabench(project, "plan", "-p", "smoke").stdout
    ), said


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dml.py", "Settings = object", "the library has a method 'dml'; rename the file"),
        ("broken.py", "import nothing_of_this", "collabench_methods.broken: cannot be imported (ModuleNotFound"),
        ("broken.py", "def", "collabench_methods.broken: cannot be imported (SyntaxError"),
        ("other.py", "from collabench_methods.mine import Settings", "must have the field method: Literal['other']"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_line(project, name, text, message):
    (project / "collabench_methods" / name).write_text(f"{text}\n")
    done = collabench(project, "plan", "-p", "smoke")
    assert done.returncode == 2 and message in done.stderr, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_folder_an_entry_is_refused_as_ever(project):
    (project / "collabench_methods").rename(project / "away")
    done = collabench(project, "plan", "-p", "smoke")
    assert done.returncode == 2 and "methods.mine.method: Input should be " in done.stderr

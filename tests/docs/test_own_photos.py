"""The page on photos of one's own: its commands are carried out, and find the pictures that its script misplaced."""

from __future__ import annotations

import ast
import csv
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collabench.study.study import load_study
from tests.support import warm
from tests.support.fixtures import Called
from tests.support.project import ROOT, environment

PAGE = (ROOT / "docs" / "how-to" / "own-photos.md").read_text()

pytestmark = pytest.mark.slow  # trains seven networks


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    variables = environment(ROOT)
    words = warm.command([sys.executable, *arguments], variables)
    return subprocess.run(words, cwd=folder, env=variables, text=True, capture_output=True, check=False)


@pytest.fixture
def call(collabench, tmp_path, monkeypatch) -> Callable[..., Called]:
    """A line of the page in ``tmp_path``. What trains is a process of its own, as the page's reader starts it."""
    monkeypatch.chdir(tmp_path)

    def called(line: str, identity: str = "") -> Called:
        command = shlex.split(line.removeprefix("$ ").replace("ID", identity))
        assert command[0] == "collabench"
        if command[1] != "run":
            return collabench(*command[1:])
        done = run(["-m", *command], tmp_path)
        return Called(done.returncode, done.stdout, done.stderr)

    return called


def test_the_page_from_photos_to_a_prediction(tmp_path, call):
    (make, predict), (params,) = blocks("python"), blocks("yaml")
    refused, digest, train, doubt, export = (block.splitlines() for block in blocks("console"))
    path = tmp_path / "params.yaml"
    path.write_text(params)
    assert run(["-c", make], tmp_path).returncode == 0

    said = call(refused[0])
    expected = ".*".join(re.escape(part) for part in refused[1].split("…"))
    assert said.code == 2 and re.fullmatch(expected, said.err.strip()), said.err
    lines = ", ".join(re.findall("`([a-z_]+: [0-9.]+)`", said.err))
    assert lines == "test_fraction: 0.2, split_seed: 0" and lines in PAGE
    path.write_text(params.replace("resize: 16", f"resize: 16, {lines}"))
    said = call(digest[0])
    assert re.fullmatch("sha256: [0-9a-f]{64}", said.out.strip()), said.err
    path.write_text(params.replace("resize: 16", f"resize: 16, {lines}, {said.out.strip()}"))
    for line in train:
        assert (done := call(line)).code == 0, done.err

    study = load_study(tmp_path, "photos")
    (identity,) = study.plan.configurations
    report = (study.workspace.report / "photos.md").read_text()
    assert "Training labels: as given" in report and "clean" not in report

    done = call(doubt[0], identity)
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "doubts/doubts.csv").open()))
    # the script misplaced every picture whose number ends with 0
    assert len(rows) >= 30 and sum(row["image"].endswith("0.png") for row in rows[:30]) >= 25
    assert (tmp_path / "doubts/contact-sheet.png").read_bytes().startswith(b"\x89PNG")

    done = call(export[0], identity)
    assert done.code == 0, done.err
    card = (tmp_path / "head/MODEL_CARD.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    assert "clean" not in card and "| labels | labels as given |" in card
    shutil.copy(tmp_path / "photos/7/0007.png", tmp_path / "head/photo.png")
    (tmp_path / "head/photo.py").write_text(code + predict)
    done = run(["photo.py"], tmp_path / "head")
    assert done.returncode == 0, done.stderr
    probabilities = ast.literal_eval(done.stdout)
    assert next(iter(probabilities)) == "7" and abs(sum(probabilities.values()) - 1) < 1e-5


def test_a_noisy_test_split_is_warned_about_in_plan_and_report(tmp_path, call):
    (make, _), (params,) = blocks("python"), blocks("yaml")
    assert run(["-c", make], tmp_path).returncode == 0
    path = tmp_path / "params.yaml"
    entry = "resize: 16, test_fraction: 0.2, labels: noisy"
    small = params.replace("epochs: 12", "epochs: 1").replace(", milestones: [9]", "").replace("resize: 16", entry)
    path.write_text(small)
    pin = call("$ collabench data digest photos").out.strip()
    path.write_text(small.replace(entry, f"{entry}, {pin}"))
    planned = call("$ collabench plan -p photos")
    assert planned.code == 0, planned.err
    (note,) = [line for line in planned.out.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: data set photos: The test labels are noisy like the training labels")
    for line in ("$ collabench run -p photos", "$ collabench report -p photos"):
        assert (done := call(line)).code == 0, done.err
    study = load_study(tmp_path, "photos")
    report = (study.workspace.report / "photos.md").read_text()
    assert "Training labels: as given; some are wrong." in report
    assert "**The test labels are noisy like the training labels" in report
    explained = call("$ collabench explain photos --runs -p photos")
    assert "labels others than as given" in explained.out and "wrong labels" not in explained.out
    shutil.move(tmp_path / "photos", tmp_path / "all")
    shutil.copytree(tmp_path / "all", tmp_path / "photos")
    apart = small.replace("test_fraction: 0.2", "test_path: all")
    path.write_text(apart)
    pin = call("$ collabench data digest photos").out.strip()
    path.write_text(apart.replace("test_path: all", f"test_path: all, {pin}"))
    assert "note: " not in call("$ collabench plan -p photos").out

"""The page on labels of one's own: its example is carried out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from collabench.config.params import load_params
from collabench.storage.files import read_json
from collabench.storage.results import RESULT, Result
from collabench.study.study import load_study
from tests.support.project import ROOT, environment

PAGE = (ROOT / "docs" / "how-to" / "noisy-labels.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line[2:]) for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def pinned(tmp_path, monkeypatch, collabench) -> str:
    """The page's ``params.yaml``, with the line that the refusal says; the labels lie beside it."""
    first, (script,), (refused, _) = blocks("yaml")[0], blocks("python"), blocks("console")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(first)
    exec(compile(script, "the page", "exec"), {})
    (command,) = commands(refused)
    called = collabench(*command[1:])
    expected = ".*".join(re.escape(part) for part in refused.splitlines()[1].split("…"))
    assert called.code == 2 and re.fullmatch(expected, called.err.strip()), called.err
    assert not list(tmp_path.glob("artifacts/*/runs/*"))
    return first.replace("path: labels.npy}", f"path: labels.npy, sha256: {called.err.split()[-1]}}}")


def test_the_refusal_of_the_page_says_the_line_with_which_its_example_is_planned(tmp_path, pinned, collabench):
    (tmp_path / "params.yaml").write_text(pinned)
    called = collabench("plan", "-p", "mine")
    assert called.code == 0 and "8 runs in" in called.out, called


@pytest.mark.slow
def test_the_example_of_the_page(tmp_path, pinned, collabench):
    (tmp_path / "params.yaml").write_text(pinned)
    run, report = commands(blocks("console")[1])
    done = subprocess.run([sys.executable, "-m", *run], env=environment(ROOT), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    called = collabench(*report[1:])
    assert called.code == 0, called.err
    study = load_study(tmp_path, "mine")
    results = [read_json(study.workspace.folder(run) / RESULT, Result) for run in study.plan.runs]
    # every fifth of 1,437 images
    assert {result.noise.corruption for result in results if result.noise.kind == "file"} == {288 / 1437}
    assert len(results) == 8
    page = (study.workspace.report / "mine.md").read_text()
    assert "labels of labels.npy" in page and "20.04 % of the training labels are wrong" in page


def test_the_matrix_of_the_page_is_one(tmp_path):
    entries = blocks("yaml")[1].replace("sha256: …", f"sha256: {'0a' * 32}").removeprefix("noise:\n")
    (tmp_path / "params.yaml").write_text(blocks("yaml")[0].replace("noise:\n", f"noise:\n{entries}", 1))
    assert load_params(tmp_path / "params.yaml").noise["confused"].rows[1] == (0.0, 0.8, 0.2)

"""The page on labels of one's own: its example is carried out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

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


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    assert command[0] == "collabench"
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment(ROOT), text=True, capture_output=True, check=False
    )


def test_the_example_of_the_page(tmp_path):
    first, (script,), (refused, trained) = blocks("yaml")[0], blocks("python"), blocks("console")
    params = tmp_path / "params.yaml"
    params.write_text(first)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment(ROOT), check=True, capture_output=True)
    (command,) = commands(refused)
    called = call(command, tmp_path)
    expected = ".*".join(re.escape(part) for part in refused.splitlines()[1].split("…"))
    assert called.returncode == 2 and re.fullmatch(expected, called.stderr.strip()), called.stderr
    assert not list(tmp_path.glob("artifacts/*/runs/*"))
    sha256 = called.stderr.split()[-1]
    params.write_text(first.replace("path: labels.npy}", f"path: labels.npy, sha256: {sha256}}}"))
    for command in commands(trained):
        called = call(command, tmp_path)
        assert called.returncode == 0, called.stderr
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

"""The page on recipes: its example is carried out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from collabench.config.params import load_params
from collabench.study.study import load_study
from tests.support.project import ROOT, environment

PAGE = (ROOT / "docs" / "how-to" / "recipes.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_mistake_of_the_page_is_refused_in_its_words_and_its_example_is_planned(tmp_path, monkeypatch, collabench):
    entries, command = blocks("yaml")[0], blocks("console")[1]
    monkeypatch.chdir(tmp_path)
    command, message = command.splitlines()
    plan = shlex.split(command)[2:]
    Path("params.yaml").write_text(
        entries.replace("    optimizer: adamw\n", "    optimizer: adamw\n    momentum: 0.8\n")
    )
    called = collabench(*plan)
    assert called.code == 2 and called.err.strip().replace(str(tmp_path), "…") == message
    Path("params.yaml").write_text(entries)
    assert collabench(*plan).code == 0


@pytest.mark.slow
def test_the_example_of_the_page(tmp_path, monkeypatch, collabench):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(blocks("yaml")[0])
    run, report = (shlex.split(line)[1:] for line in blocks("console")[0].splitlines())
    done = subprocess.run([sys.executable, "-m", *run], env=environment(ROOT), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    called = collabench(*report[1:])
    assert called.code == 0, called.err
    page = (load_study(tmp_path, "mine").workspace.report / "mine.md").read_text()
    (title,) = re.findall(r"says `(.*?)`", PAGE, re.DOTALL)
    assert title.replace("\n", " ") in page


def test_the_entry_of_pretrained_weights_is_one(tmp_path):
    entries, tuned = blocks("yaml")
    added = tuned.replace("sha256: …", f"sha256: {'0a' * 32}").removeprefix("models:\n")
    (tmp_path / "params.yaml").write_text(entries.replace("models:\n", f"models:\n{added}", 1))
    weights = load_params(tmp_path / "params.yaml").models["tuned"].weights
    assert weights is not None and weights.path == str(tmp_path / "weights.safetensors")
    assert weights.fresh == ("classifier",)

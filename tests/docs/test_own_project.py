"""The pages on a project of one's own, on other settings and on Python: what they say is done, in one project."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT, environment

REFERENCE = ROOT / "docs" / "reference" / "python.md"


def commands(page: str) -> list[str]:
    """The commands of a page's console blocks, in order."""
    text = (ROOT / "docs" / "how-to" / page).read_text()
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
def test_every_command_of_the_two_pages_works(tmp_path):
    folder: Path = tmp_path
    printed = {}
    for line in commands("own-project.md") + commands("other-settings.md"):
        name, *arguments = shlex.split(line)
        if name == "cd":
            folder = folder / arguments[0]
            continue
        assert name == "collabench", line
        variables = environment(ROOT)
        words = [sys.executable, "-m", "collabench", *arguments]  # which methods there are, Python's start decides
        done = subprocess.run(words, cwd=folder, env=variables, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        printed[line] = done.stdout
    assert "6 trained" in printed["collabench run -p smoke"]
    (settings,) = (text for line, text in printed.items() if "--method mine" in line)
    assert "2 trained" in settings and "as -p smoke~" in settings
    assert len(list((folder / "artifacts").glob("smoke~*/runs/*/seed-*"))) == 2
    blocks = re.findall(r"^```python\n(.*?)^```$", REFERENCE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    code = "\n".join([*blocks, "print(len(runs), done.logits.shape, sorted(terms), type(network).__name__)"])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(ROOT), text=True, capture_output=True, check=False
    )
    assert done.stdout == "6 (100, 10) ['hard', 'soft'] Backbone\n", done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_of_the_page_on_curves_writes_where_the_page_looks(tmp_path, collabench):
    """In the project of :func:`test_every_command_of_the_two_pages_works`, of which it trains one method."""
    assert collabench("init", tmp_path / "mine").code == 0
    (line,) = commands("curves.md")
    words = shlex.split(line)
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    arguments = words[len(chosen) + 1 :]
    assert words[len(chosen)] == "collabench" and chosen, line
    done = subprocess.run(
        [sys.executable, "-m", "collabench", *arguments, "--method", "individual"],
        cwd=tmp_path / "mine", env=environment(ROOT) | chosen, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "2 trained" in done.stdout, done.stderr
    page = (ROOT / "docs" / "how-to" / "curves.md").read_text()
    (folder,) = re.findall(r"^tensorboard --logdir (\S+)$", page, re.MULTILINE)
    assert len(list((tmp_path / "mine" / folder).glob("*/seed-*/events.*"))) == 2


def test_the_pages_have_commands():
    assert len(commands("own-project.md")) == 4 and len(commands("other-settings.md")) == 3
    assert len(commands("curves.md")) == 1

"""The page on recipes: its example is carried out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from collabench.study.study import load_study
from tests.support.project import ROOT, environment

PAGE = (ROOT / "docs" / "how-to" / "recipes.md").read_text()


def test_the_example_of_the_page(tmp_path):
    (entries,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    trained, refused = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    params = tmp_path / "params.yaml"

    def call(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *shlex.split(line[2:])], cwd=tmp_path, env=environment(ROOT), text=True,
            capture_output=True, check=False,
        )  # fmt: skip

    command, message = refused.splitlines()
    params.write_text(entries.replace("    optimizer: adamw\n", "    optimizer: adamw\n    momentum: 0.8\n"))
    called = call(command)
    assert called.returncode == 2 and called.stderr.strip().replace(str(tmp_path), "…") == message
    params.write_text(entries)
    for command in trained.splitlines():
        called = call(command)
        assert called.returncode == 0, called.stderr
    page = (load_study(tmp_path, "mine").workspace.report / "mine.md").read_text()
    (title,) = re.findall(r"says `(.*?)`", PAGE, re.DOTALL)
    assert title.replace("\n", " ") in page

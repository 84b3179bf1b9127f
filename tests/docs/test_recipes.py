"""The page on recipes: its example is carried out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from collabench.config.params import load_params
from collabench.study.study import load_study
from tests.support.project import ROOT, environment

PAGE = (ROOT / "docs" / "how-to" / "recipes.md").read_text()


def test_the_example_of_the_page(tmp_path):
    entries, _ = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
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


def test_the_entry_of_pretrained_weights_is_one(tmp_path):
    entries, tuned = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    added = tuned.replace("sha256: …", f"sha256: {'0a' * 32}").removeprefix("models:\n")
    (tmp_path / "params.yaml").write_text(entries.replace("models:\n", f"models:\n{added}", 1))
    weights = load_params(tmp_path / "params.yaml").models["tuned"].weights
    assert weights is not None and weights.path == str(tmp_path / "weights.safetensors")
    assert weights.fresh == ("classifier",)

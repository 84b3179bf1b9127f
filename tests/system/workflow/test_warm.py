"""The short cut of the tests (``support/warm.py``): the same output, exit code and files as the command itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.running import PROFILE, contents, environment, small_project, with_workflow

RUN = ("-c", warm.CODE, "run", "-p", PROFILE, "--cores", "1")
COMMANDS = {
    "a study": RUN,
    "an option that there is not": ("-c", warm.CODE, "plan", "--none"),
    "a profile that there is not": ("-m", "collabench", "plan", "-p", "none"),
    "a method of the project's own": ("-c", warm.CODE, "plan", "-p", PROFILE),
    "dvc": ("-m", "dvc", "status", f"train@{PROFILE}"),
    "snakemake": ("-m", "snakemake", "--config", f"profile={PROFILE}", "--dry-run", "--quiet", "all", "--", "noise"),
}


def project(folder: Path) -> Path:
    return with_workflow(small_project(folder, epochs=2, methods="individual"))


def done(folder: Path, words: list[str], variables: dict[str, str]) -> tuple[int, list[str], list[str]]:
    """A command's exit code and the ends of what it prints: how often it tells its progress is chance."""
    ended = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)
    out, err = (text.replace(str(folder), "").splitlines()[-2:] for text in (ended.stdout, ended.stderr))
    return ended.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_does_the_same_in_a_fork(tmp_path, name):
    plain, forked = project(tmp_path / "a"), project(tmp_path / "b")
    if name == "a method of the project's own":
        for folder in (plain, forked):
            (folder / warm.OWN).mkdir()
            (folder / warm.OWN / "mine.py").write_text("is not Python")
    words, variables = [sys.executable, *COMMANDS[name]], environment(forked)
    client = warm.command(words, variables)
    assert client != words, "it is not started anew"
    expected = done(plain, words, environment(plain))
    assert done(forked, client, variables) == expected
    assert contents(forked) == contents(plain) and bool(contents(plain)) == (name == "a study")


@pytest.mark.parametrize(
    ("change", "forked"), [("", True), ("the library", False), ("another program", False)], ids=lambda one: str(one)
)
def test_a_fork_is_taken_for_this_trees_library_alone(tmp_path, monkeypatch, change, forked):
    monkeypatch.setattr(warm, "_server", lambda: "a socket")
    folder = project(tmp_path / "project")
    if change == "the library":
        (folder / "src" / "collabench" / "core" / "errors.py").write_text("")
    words = [sys.executable, "-m", "pytest"] if change == "another program" else [sys.executable, *RUN]
    variables = environment(folder)
    assert (warm.command(words, variables) != words) == (warm.WARM in variables) == forked

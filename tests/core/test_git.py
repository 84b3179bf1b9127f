"""What git says of a project: nothing of a foreign repository is executed, and no other repository is taken for the
project's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from collabench.core.git import state_of
from tests.support.tiny import tiny_project


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path) -> Path:
    root = tiny_project(tmp_path / "project")
    (root / "src").mkdir()
    (root / "src" / "module.py").write_text("first\n")
    git(root, "init", "-q", ".")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def program(folder: Path) -> tuple[Path, Path]:
    """A program, and the file that shows that it was started."""
    path, trace = folder / "evil", folder / "executed"
    path.write_text(f"#!/bin/sh\ntouch '{trace}'\ncat\n")
    path.chmod(0o755)
    return path, trace


@pytest.mark.parametrize("setting", ["core.fsmonitor", "filter.x.clean", "filter.x.process", "core.hooksPath"])
def test_no_program_of_a_repositorys_configuration_is_started(project, tmp_path, setting):
    evil, trace = program(tmp_path)
    if setting == "core.hooksPath":
        (tmp_path / "hooks").mkdir()
        evil.rename(tmp_path / "hooks" / "post-index-change")
        git(project, "config", setting, str(tmp_path / "hooks"))
    else:
        git(project, "config", setting, str(evil))
    if setting.startswith("filter"):
        (project / ".git" / "info" / "attributes").write_text("* filter=x\n")
    (project / "src" / "module.py").write_text("other\n")
    state = state_of(project)
    assert not trace.exists()
    assert state.commit is not None and state.dirty is True and state.why is None


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_PARAMETERS"])
def test_variables_of_the_surroundings_lead_to_no_other_repository(project, tmp_path, monkeypatch, name):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q", ".")
    git(other, "commit", "-qm", "other", "--allow-empty")
    commit = git(project, "rev-parse", "HEAD")
    values = {"GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": tmp_path / "none"}
    monkeypatch.setenv(name, str(values.get(name, "'core.worktree'='/'")))
    assert state_of(project) == type(state_of(project))(commit, False)


def test_a_repository_around_the_project_that_does_not_hold_it_says_nothing(tmp_path):
    git(tmp_path, "init", "-q", ".")
    (tmp_path / ".gitignore").write_text("*\n")
    git(tmp_path, "add", "-f", ".gitignore")
    git(tmp_path, "commit", "-qm", "dotfiles")
    state = state_of(tiny_project(tmp_path / "project"))
    assert state.commit is state.dirty is None and f"{tmp_path}, does not hold this project" in (state.why or "")
    git(tmp_path, "add", "-f", "project/params.yaml")
    git(tmp_path, "commit", "-qm", "now it does")
    assert state_of(tmp_path / "project").commit == git(tmp_path, "rev-parse", "HEAD")


def test_without_a_repository_or_git_the_reason_is_said(tmp_path, monkeypatch):
    project = tiny_project(tmp_path / "project")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert "not a git repository" in (state_of(project).why or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "cannot be started" in (state_of(project).why or "")

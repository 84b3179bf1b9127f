"""Every result carries where it comes from: commit, changes of code or configuration, versions, device, digests."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from collabench.config.configuration import digest
from collabench.storage.files import read_json
from collabench.storage.results import RESULT, Measured, Result
from collabench.study.runner import Runner
from collabench.study.study import load_study
from tests.support import trained_study


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("provenance")
    trained_study.write_params(root)
    for name in ("src/module.py", "docs/page.md"):
        (root / name).parent.mkdir()
        (root / name).write_text("first\n")
    (root / ".gitignore").write_text("/artifacts/\n")
    git(root, "init", "-q", ".")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def trained(root: Path, seed: int) -> tuple[Measured, Result, str]:
    """A run's record and result, and the digest of its configuration."""
    study = load_study(root, "small")
    study.inputs.prepare_datasets(lambda line: None)
    study.inputs.prepare_noise(lambda line: None)
    (run,) = (r for r in study.plan.runs if r.configuration.names["method"] == "individual" and r.seed == seed)
    assert len(Runner(study).train([run], device="cpu", log=lambda line: None).trained) == 1
    measured = read_json(study.workspace.measured / run.configuration.id / f"seed-{seed}.json", Measured)
    result = read_json(study.workspace.runs / run.configuration.id / f"seed-{seed}" / RESULT, Result)
    return measured, result, digest(run.configuration.identity())


def test_a_clean_tree_is_recorded_with_commit_versions_device_and_digests(root):
    (root / "docs/page.md").write_text("another text changes no number\n")
    measured, result, configuration = trained(root, 0)
    assert measured.commit == git(root, "rev-parse", "HEAD") and measured.dirty is False
    assert measured.versions["torch"] == torch.__version__
    assert measured.versions["python"] == platform.python_version()
    assert {"collabench", "numpy", "torchvision", "scikit-learn"} <= measured.versions.keys()
    assert measured.device_type == "cpu" and measured.device and measured.threads == 1
    assert measured.configuration == configuration and len(configuration) == 64
    assert measured.dataset == result.dataset_digest and len(result.dataset_digest) == 64
    assert measured.run_id == result.run_id and configuration.startswith(result.configuration_id.rpartition("-")[2])


@pytest.mark.parametrize(("seed", "name"), [(1, "src/module.py"), (2, "params.yaml")])
def test_changed_code_or_configuration_is_recorded(root, seed, name):
    path = root / name
    before = path.read_text()
    path.write_text(f"{before}# changed\n")
    try:
        measured, _, _ = trained(root, seed)
    finally:
        path.write_text(before)
    assert measured.commit == git(root, "rev-parse", "HEAD") and measured.dirty is True


def test_outside_of_a_repository_commit_and_changes_are_unknown(tmp_path):
    trained_study.write_params(tmp_path)
    measured, _, _ = trained(tmp_path, 0)
    assert measured.commit is None and measured.dirty is None

"""The smoke study through the real Snakefile and DVC, in a clone of this tree: ends with tables, then trains nothing;
another seed trains one run per configuration; a pushed study needs no training elsewhere; a diverging run harms
nobody."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.project import call, clone_and_pull, collabench, commit_all, contents, copy_project, git

pytestmark = pytest.mark.slow  # a quick look at the workflow: make smoke

METHODS = "[individual, ensemble-2, hierarchical-4, kd]"
TABLES = (
    "      - {name: smoke, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [smoke], "
    f"methods: {METHODS}}}\n"
    "      - {name: clean, datasets: [digits-tiny], models: [resnet8], recipes: [smoke], methods: [individual]}\n"
)


def edit(folder: Path, *pairs: tuple[str, str]) -> None:
    """Change the smoke profile's part of params.yaml."""
    path = folder / "params.yaml"
    before, profile, after = re.split(r"(?m)(^  smoke:\n(?:    .*\n)+)", path.read_text(), maxsplit=1)
    for pattern, new in pairs:
        profile, count = re.subn(pattern, new, profile)
        assert count == 1, pattern
    path.write_text(before + profile + after)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A finished smoke study with fewer methods, committed."""
    folder = tmp_path_factory.mktemp("study") / "project"
    copy_project(folder)
    edit(folder, (r"(?s)(    tables:\n).*", rf"\1{TABLES}"))
    commit_all(folder, "fewer methods")
    collabench(folder, "reproduce", "-p", "smoke", "--cores", "2")
    return folder


def test_the_study_ends_with_tables(study):
    page = (study / "reports" / "smoke" / "smoke.md").read_text()
    for method in METHODS.strip("[]").split(", "):
        assert method in page
    plan = json.loads(collabench(study, "plan", "-p", "smoke", "--json").stdout)
    assert plan["states"] == {"done": plan["runs"]}


def log_of(study: Path) -> Path:
    """What DVC and Snakemake said last."""
    return study / "artifacts" / "smoke" / "state" / "logs" / "reproduce.log"


def test_a_second_time_trains_nothing_starts_no_dvc_and_changes_no_file_in_git(study):
    commit_all(study, "after")
    before, log = contents(study / "artifacts" / "smoke" / "measured"), log_of(study).stat().st_mtime_ns
    said = collabench(study, "reproduce", "-p", "smoke").stdout
    assert "runs equal the accepted ones, byte for byte" in said and "Tables and figures" in said
    assert contents(study / "artifacts" / "smoke" / "measured") == before
    assert log_of(study).stat().st_mtime_ns == log
    assert git(study, "status", "--porcelain") == ""


def flip(path: Path) -> None:
    """Change one bit; size and time of modification stay."""
    about, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def edit_lock(folder: Path) -> None:
    path = folder / "dvc.lock"
    path.write_text(path.read_text().replace("md5: ", "md5: 0123", 1))


TOUCHED = {
    "weights": lambda folder: flip(min((folder / "artifacts/smoke/runs").rglob("weights.safetensors"))),
    "a built page": lambda folder: flip(folder / "artifacts/smoke/report/README.md"),
    "the page of all profiles": lambda folder: flip(folder / "reports/index.html"),
    "dvc.lock": edit_lock,
}


@pytest.mark.parametrize("what", TOUCHED)
def test_a_finished_study_that_was_touched_is_made_whole_again(study, tmp_path, what):
    copy = tmp_path / "project"
    shutil.copytree(study, copy, symlinks=True)
    collabench(copy, "reproduce", "-p", "smoke", "--cores", "2")  # in its new place
    names = ("artifacts/smoke/runs", "artifacts/smoke/report", "reports")
    before, lock = [contents(copy / name) for name in names], (copy / "dvc.lock").read_bytes()
    log = log_of(copy).stat().st_mtime_ns
    TOUCHED[what](copy)
    collabench(copy, "reproduce", "-p", "smoke", "--cores", "2")
    assert log_of(copy).stat().st_mtime_ns > log
    assert [contents(copy / name) for name in names] == before and (copy / "dvc.lock").read_bytes() == lock
    log = log_of(copy).stat().st_mtime_ns
    collabench(copy, "reproduce", "-p", "smoke")
    assert log_of(copy).stat().st_mtime_ns == log


def test_a_pushed_study_needs_no_training_in_a_clone(study, tmp_path):
    commit_all(study, "measured")
    clone = clone_and_pull(study, "smoke", tmp_path, {"url": str(tmp_path / "remote")})
    command = [sys.executable, "-m", "snakemake", "--config", "profile=smoke", "--cores", "1", "--dry-run", "--"]
    jobs = call(clone, *command, "train").stdout
    assert "Nothing to be done" in jobs, jobs
    collabench(clone, "report", "-p", "smoke")
    assert contents(clone / "artifacts" / "smoke" / "runs") == contents(study / "artifacts" / "smoke" / "runs")
    assert "images" in (clone / "artifacts" / "smoke" / "costs" / "README.md").read_text()


def test_another_seed_trains_one_run_per_configuration(study, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(study, copy, symlinks=True)
    before = contents(copy / "artifacts" / "smoke" / "runs")
    edit(copy, (r"seeds: 2\n", "seeds: 3\n"))
    collabench(copy, "reproduce", "-p", "smoke", "--cores", "2")
    after = contents(copy / "artifacts" / "smoke" / "runs")
    assert {name: after[name] for name in before} == before
    plan = json.loads(collabench(copy, "plan", "-p", "smoke", "--json").stdout)
    added = {name for name in after.keys() - before.keys() if name.endswith("result.json")}
    # One new seed of each configuration; the second member of the new ensemble is a run of individual, too.
    members = sum("ensemble" in row["label"] for row in plan["configurations"])
    assert len(added) == len(plan["configurations"]) + members


def test_a_method_that_is_dropped_and_taken_back_leaves_no_trace_and_trains_nothing(study, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(study, copy, symlinks=True)
    params, lock = (copy / "params.yaml").read_text(), (copy / "dvc.lock").read_bytes()
    smoke = copy / "artifacts" / "smoke"
    before = contents(smoke / "runs")
    edit(copy, (r"hierarchical-4, kd\]", "hierarchical-4]"))
    assert "set aside in" in collabench(copy, "reproduce", "-p", "smoke", "--cores", "2").stdout
    without = contents(smoke / "runs")
    assert without.items() < before.items() and not any("-kd-" in name for name in without)
    assert (copy / "dvc.lock").read_bytes() != lock
    (copy / "params.yaml").write_text(params)
    states = json.loads(collabench(copy, "plan", "-p", "smoke", "--json").stdout)["states"]
    assert "todo" not in states and states["elsewhere"] > 0
    collabench(copy, "reproduce", "-p", "smoke", "--cores", "2")
    assert contents(smoke / "runs") == before and (copy / "dvc.lock").read_bytes() == lock


def test_a_run_that_diverges_leaves_its_siblings_alone_and_is_named(study, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(study, copy, symlinks=True)
    before = contents(copy / "artifacts" / "smoke" / "runs")
    text = (copy / "params.yaml").read_text()
    # Weight decay times learning rate is 100: the classifier's weights grow a hundredfold with every step.
    broken = "broken: {epochs: 4, batch_size: 8, learning_rate: 100, weight_decay: 1}"
    text = text.replace("recipes:\n", f"recipes:\n  {broken}\n", 1)
    (copy / "params.yaml").write_text(text)
    edit(
        copy,
        (
            r"(?s)(    tables:\n)",
            r"\1      - {name: broken, datasets: [digits-tiny], models: [resnet8], recipes: [broken], "
            "methods: [individual]}\n",
        ),
    )
    done = collabench(copy, "reproduce", "-p", "smoke", "--cores", "2", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "failed:" in done.stdout and "not finite" in done.stdout and "--partial" in done.stdout, done.stdout
    after = contents(copy / "artifacts" / "smoke" / "runs")
    assert {name: after.get(name) for name in before} == before
    collabench(copy, "report", "-p", "smoke", "--partial")


def test_a_profile_without_static_noise_still_has_the_folder_that_dvc_tracks(study):
    with (study / "params.yaml").open("a") as file:
        file.write(
            "  only-clean:\n    description: no noise\n    seeds: 1\n    tables:\n"
            "      - "
            "{name: clean, datasets: [digits-tiny], models: [resnet8], recipes: [smoke], methods: [individual]}\n"
        )
    call(study, sys.executable, "-m", "pipeline.snakemake", "only-clean", "noise")
    assert (study / "artifacts" / "only-clean" / "noise").is_dir()
    git(study, "checkout", "params.yaml")

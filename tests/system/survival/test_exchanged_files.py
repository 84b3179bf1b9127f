"""Whole files in the place of others: each file says what it is, and whoever reads it asks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from collabench.core.errors import ResultError
from collabench.data import MANIFEST, Manifest
from collabench.report.build import build_report
from collabench.sharing.verify import verify
from collabench.storage.files import read_json, sha256_of, write_json
from collabench.storage.results import RESULT, WEIGHTS, Result, load_measured
from collabench.study.runner import Runner
from collabench.study.study import load_study
from tests.support.project import contents
from tests.support.tiny import PROFILE, tiny_study, trained


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    study = trained(tiny_study(tmp_path_factory.mktemp("finished")))
    build_report(study.params, study.plan, study.workspace)
    return study.workspace.root


@pytest.fixture
def project(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "project")


def exchange(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def test_noisy_labels_of_another_seed_are_named_and_drawn_again(project):
    study, told = load_study(project, PROFILE), []
    before = contents(study.workspace.home)
    runs = study.plan.runs
    for run in runs:
        shutil.rmtree(study.workspace.folder(run))
    exchange(*(study.inputs.noise_file(run) for run in runs))
    assert Runner(study).train(runs, device="cpu", log=told.append).trained == list(runs)
    assert sum("of seed" in line and "drawing it again" in line for line in told) == 2, told
    after = contents(study.workspace.home)
    assert all(after[name] == content for name, content in before.items() if name.startswith(("runs", "noise")))


def test_the_next_start_names_noisy_labels_of_another_seed(project):
    study, told = load_study(project, PROFILE), []
    files = [study.inputs.noise_file(run) for run in study.plan.runs]
    exchange(*files)
    study.mend(told.append)
    assert [str(path) in line for path, line in zip(files, told, strict=True)] == [True, True]
    assert not any(path.exists() for path in files)


def test_a_result_records_which_labels_its_run_saw_and_verify_asks(project):
    study = load_study(project, PROFILE)
    first, second = (study.workspace.folder(run) / RESULT for run in study.plan.runs)
    labels = [read_json(path, Result).labels for path in (first, second)]
    assert all(labels) and labels[0] != labels[1]
    write_json(first, read_json(first, Result).model_copy(update={"labels": labels[1]}))
    found = verify(load_study(project, PROFILE), sample=0, log=quiet)
    (line,) = [line for line in found.differences if "labels" in line]
    assert str(first) in line and "other labels than its seed draws" in line


def test_measurements_of_another_run_are_named(project):
    study = load_study(project, PROFILE)
    files = [study.workspace.measured_file(run) for run in study.plan.runs]
    exchange(*files)
    with pytest.raises(ResultError, match="holds run") as caught:
        load_measured(files[0], study.plan.runs[0])
    assert str(files[0]) in str(caught.value)
    with pytest.raises(ResultError, match="holds run"):
        build_report(study.params, study.plan, study.workspace)


def test_a_manifest_with_other_statistics_is_named_by_verify(project):
    study = load_study(project, PROFILE)
    (path,) = study.workspace.datasets.glob(f"*/{MANIFEST}")
    manifest = read_json(path, Manifest)
    write_json(path, manifest.model_copy(update={"mean": (0.5,)}))
    found = verify(study, sample=0, log=quiet)
    assert any(str(path) in line and "mean or std" in line for line in found.differences)


def test_weights_of_another_network_under_an_id_are_named(project):
    study = load_study(project, PROFILE)
    run = study.plan.runs[0]
    folder = study.workspace.folder(run)
    weights = load_file(folder / WEIGHTS)
    save_file({f"other.{name}": tensor for name, tensor in weights.items()}, folder / WEIGHTS)
    record = json.loads((folder / RESULT).read_bytes())
    result = read_json(folder / RESULT, Result)
    assert record["files"][WEIGHTS] == result.files[WEIGHTS]
    files = result.files | {WEIGHTS: sha256_of(folder / WEIGHTS)}
    write_json(folder / RESULT, result.model_copy(update={"files": files}))
    with pytest.raises(ResultError, match="weights of another network") as caught:
        Runner(study).deployed(run)
    assert str(folder / WEIGHTS) in str(caught.value)

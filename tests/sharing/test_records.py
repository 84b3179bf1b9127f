"""Records: results without logits and weights, from which reports are built and with which repetitions are compared."""

from __future__ import annotations

import json
import lzma
import os
import shutil
from pathlib import Path

import pytest

from collabench.report.build import build_report
from collabench.sharing import records
from collabench.sharing.verify import verify
from collabench.storage.files import read_json, write_json
from collabench.storage.results import LOGITS, RECORD, RESULT, Result, is_recorded
from collabench.study.runner import Runner
from collabench.study.study import load_study
from tests.support import tiny
from tests.support.project import contents
from tests.support.studies import write_params

PROFILE = "small"


def quiet(line: str) -> None:
    pass


@pytest.fixture
def recorded(collabench, finished, tmp_path) -> Path:
    """A copy of the project that has the records of a finished study, and nothing else."""
    called = collabench("record", "-p", PROFILE, "--root", finished)
    assert called.code == 0 and "runs" in called.out
    root = tmp_path / "recorded"
    write_params(root)
    shutil.copytree(finished / "records", root / "records")
    return root


def result_files(root: Path) -> list[Path]:
    return sorted((root / "artifacts" / PROFILE / "runs").glob(f"*/seed-*/{RESULT}"))


def one_file(root: Path) -> Path:
    return sorted((root / "records" / PROFILE).glob(f"*{records.SUFFIX}"))[0]


def test_a_report_from_records_has_the_bytes_of_one_from_whole_runs(collabench, finished, recorded):
    called = collabench("import", recorded / "records", "-p", PROFILE, "--root", recorded)
    assert called.code == 0 and f"{len(result_files(finished))} runs imported" in called.out, called
    assert "the study is complete" in called.out and "collabench data prepare" in called.out.splitlines()[-1]
    for path in result_files(finished):
        here = recorded / path.relative_to(finished)
        assert here.read_bytes() == path.read_bytes()
        assert sorted(file.name for file in here.parent.iterdir()) == [RECORD, RESULT]
    reports = []
    for root in (finished, recorded):
        study = load_study(root, PROFILE)
        study.inputs.prepare_datasets(quiet)
        build_report(study.params, study.plan, study.workspace)
        reports.append({**contents(study.workspace.report), **contents(study.workspace.costs)})
    assert reports[0] == reports[1] and len(reports[0]) > 5
    assert '"across_images":{' in json.dumps(json.loads(reports[0]["report.json"]), separators=(",", ":"))


def test_the_same_runs_give_the_same_bytes_and_further_runs_are_added(collabench, finished):
    (last := result_files(finished)[-1]).rename(aside := last.with_suffix(".aside"))
    first = collabench("record", "-p", PROFILE, "--root", finished)
    before = contents(finished / "records")
    again = collabench("record", "-p", PROFILE, "--root", finished)
    assert contents(finished / "records") == before and " 0 of them new" in again.out
    aside.rename(last)
    count = len(result_files(finished))
    assert f"{count - 1} runs, {count - 1} of them new" in first.out
    assert f"{count} runs, 1 of them new" in collabench("record", "-p", PROFILE, "--root", finished).out
    for path in result_files(finished):  # what is not here stays recorded
        shutil.rmtree(path.parent)
        break
    assert f"{count} runs, 0 of them new" in collabench("record", "-p", PROFILE, "--root", finished).out


def test_another_result_of_a_recorded_run_is_named_and_nothing_is_written(collabench, finished):
    collabench("record", "-p", PROFILE, "--root", finished)
    before = contents(finished / "records")
    path = result_files(finished)[0]
    result = read_json(path, Result)
    write_json(path, result.model_copy(update={"parameters": result.parameters + 1}))
    called = collabench("record", "-p", PROFILE, "--root", finished)
    assert called.code == 2 and "holds another result" in called.err and str(path.parent) in called.err
    assert contents(finished / "records") == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-40], "truncated"),
        (lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:], "damaged"),
        (lambda content: content + b"more", "follows its end"),
        (lambda content: b"", "truncated"),
        (lambda content: lzma.compress(b"[" * 100_000), "its text"),
        (lambda content: lzma.compress(b"{}"), "configuration"),
        (
            lambda content: lzma.compress(lzma.decompress(content).replace(b'"seed":', b'"sead":')),
            "seed: Field required",
        ),
        (lambda content: lzma.compress(b" " * 10**6), "too large"),
    ],
    ids=["cut", "bit", "tail", "empty", "deep", "nothing", "field", "bomb"],
)
def test_a_damaged_file_is_named_and_nothing_is_imported(collabench, recorded, monkeypatch, damage, said):
    path = one_file(recorded)
    monkeypatch.setattr(records, "LARGEST", 500_000)
    path.write_bytes(damage(path.read_bytes()))
    called = collabench("import", recorded / "records", "-p", PROFILE, "--root", recorded)
    assert called.code == 2 and str(path) in called.err and said in called.err, called
    assert len(called.err.strip().splitlines()) == 1
    assert not result_files(recorded) and not list((recorded / "artifacts").rglob("*.tmp"))


def test_a_file_of_another_name_or_a_pipe_is_named(collabench, recorded):
    path = one_file(recorded)
    path.rename(other := path.with_name("other" + records.SUFFIX))
    called = collabench("import", recorded / "records" / PROFILE, "-p", PROFILE, "--root", recorded)
    assert called.code == 2 and str(other) in called.err and path.name.removesuffix(records.SUFFIX) in called.err
    other.unlink()
    os.mkfifo(other)
    called = collabench("import", recorded / "records" / PROFILE, "-p", PROFILE, "--root", recorded)
    assert called.code == 2 and str(other) in called.err and not result_files(recorded)


def test_what_an_import_cannot_take_or_would_not_read_is_refused(collabench, recorded, tmp_path):
    for arguments, said in (
        ((recorded / "records", "-p", "other"), "there is no profile 'other'"),
        ((recorded / "records", "-p", PROFILE, "--lock", "their.lock"), "--lock their.lock: is for a DVC remote; "),
    ):
        called = collabench("import", *arguments, "--root", recorded)
        assert called.code == 2 and said in called.err
    (recorded / "records" / PROFILE).rename(recorded / "records" / "other")
    called = collabench("import", recorded / "records", "-p", PROFILE, "--root", recorded)
    assert called.code == 2 and f"holds no records of the profile {PROFILE}; there are other" in called.err
    (tmp_path / "empty").mkdir()
    called = collabench("import", tmp_path / "empty", "-p", PROFILE, "--root", recorded)
    assert called.code == 2 and "empty: holds no results: neither artifacts/ of a copy of this project" in called.err
    assert not result_files(recorded)


def test_whole_runs_complete_recorded_ones(collabench, finished, recorded):
    collabench("import", recorded / "records", "-p", PROFILE, "--root", recorded)
    called = collabench("import", finished, "-p", PROFILE, "--root", recorded)
    assert called.code == 0 and f"{len(result_files(finished))} runs imported" in called.out
    assert contents(recorded / "artifacts" / PROFILE / "runs") == contents(finished / "artifacts" / PROFILE / "runs")
    called = collabench("import", recorded / "records", "-p", PROFILE, "--root", recorded)
    assert "0 runs imported" in called.out and not any(is_recorded(path.parent) for path in result_files(recorded))


def test_verify_trains_recorded_runs_again_and_compares_their_checksums(recorded, collabench):
    collabench("import", recorded / "records", "-p", PROFILE, "--root", recorded)
    study = load_study(recorded, PROFILE)
    assert any("records hold no data sets" in note for note in verify(study, sample=0, log=quiet).notes)
    study.inputs.prepare_datasets(quiet)
    study.inputs.prepare_noise(quiet)
    found = verify(study, sample=1, log=quiet)
    assert not found.differences and [rerun.compared for rerun in found.reruns] == ["bytes"]
    assert found.hashed["logits and weights"] == 0 and any("came from records" in note for note in found.notes)
    for path in result_files(recorded):
        result = read_json(path, Result)
        other = dict.fromkeys(result.files, "0" * 64)
        write_json(path, result.model_copy(update={"files": other}))
    (difference,) = verify(study, sample=1, log=quiet).differences
    assert LOGITS in difference


def test_a_run_that_needs_the_weights_of_a_recorded_one_trains_it_and_compares(tmp_path):
    study = tiny.trained(tiny.tiny_study(tmp_path, methods="individual kd", seeds=1))
    teacher, student = sorted(study.plan.runs, key=lambda run: run.configuration.names["method"] == "kd")
    records.write_records(study, quiet)
    whole = contents(study.workspace.runs)
    shutil.rmtree(study.workspace.home)
    (study.workspace.records / f"{student.configuration.id}{records.SUFFIX}").unlink()
    with records.unpacked_records(study.workspace.records, tiny.PROFILE, tmp_path / "aside") as copy:
        shutil.copytree(copy.home, study.workspace.home)
    study = load_study(tmp_path, tiny.PROFILE)
    assert [study.status(run).state for run in (teacher, student)] == ["done", "todo"]
    study.inputs.prepare_for(study.plan.runs, quiet)
    said: list[str] = []
    outcome = Runner(study).train([student], device="cpu", log=said.append)
    assert outcome.trained == [student], said
    assert any("the same as its record, byte for byte" in line for line in said), said
    for job in study.jobs:
        study.jobs.finish(job)
    assert contents(study.workspace.runs) == whole


def test_without_a_run_there_is_nothing_to_record(collabench, tmp_path):
    write_params(tmp_path / "project")
    called = collabench("record", "-p", PROFILE, "--root", tmp_path / "project")
    assert called.code == 2 and "train first" in called.err and not (tmp_path / "project" / "records").exists()

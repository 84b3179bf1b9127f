"""`collabench verify` on a small study that was really trained: what it accepts, and every kind of change that it must
find."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from collabench.cli.app import app
from collabench.config.configuration import Run
from collabench.data import noise
from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.report.comparison import compare_reports
from collabench.report.html.data import read_everything
from collabench.report.verification import VERIFIED, hashed_text, load_verified
from collabench.sharing.repeat import TOLERANCE_WITHOUT_SPREAD, temporary_copy
from collabench.sharing.verify import verify
from collabench.storage.files import read_json, sha256_of, write_json
from collabench.storage.results import LOGITS, RESULT, WEIGHTS, Measured, Result
from collabench.study.study import Study, load_study
from tests.support import official_formats, trained_study
from tests.support.project import contents
from tests.support.tiny import PROFILE, tiny_project

ALL = 100


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("verify") / "project"
    root.mkdir()
    trained_study.trained(root)
    return root


@pytest.fixture
def study(original, tmp_path) -> Study:
    shutil.copytree(original, tmp_path / "project")
    return load_study(tmp_path / "project", "small")


def one(study: Study, method: str = "individual", seed: int = 1) -> tuple[Run, Path]:
    (run,) = (r for r in study.plan.runs if r.configuration.names["method"] == method and r.seed == seed)
    return run, study.workspace.folder(run)


def rewrite(folder: Path, **changes: object) -> None:
    """Change a result and give it the checksums that fit: those of the files beside it, and its own."""
    result = read_json(folder / RESULT, Result)
    files = {name: sha256_of(folder / name) for name in result.files}
    write_json(folder / RESULT, result.model_copy(update={"files": files, **changes}))


def test_what_was_hashed_is_said_in_numbers_of_things():
    kinds = ("data sets", "noise files", "results", "logits and weights", "measurements", "report tables")
    assert hashed_text(dict.fromkeys(kinds, 1)) == (
        "1 data set, 1 noise file, 1 result, 1 file of logits or weights, 1 measurement, 1 report table"
    )
    assert hashed_text({"data sets": 2, "results": 1234}) == "2 data sets, 1,234 results"


@pytest.mark.slow
def test_an_untouched_study_is_verified_byte_for_byte_and_not_written_to(study):
    before = contents(study.workspace.root)
    found = verify(study, sample=ALL, log=quiet)
    assert found.differences == []
    assert {rerun.run.id for rerun in found.reruns} == {run.id for run in study.plan.runs}
    assert {rerun.compared for rerun in found.reruns} == {"bytes"}
    runs = len(study.plan.runs)
    trained = sum(run.configuration.method.method != "ensemble" for run in study.plan.runs)
    assert found.hashed["data sets"] == 1 and found.hashed["noise files"] == 3  # members share their pair's
    assert found.hashed["results"] == found.hashed["measurements"] == runs
    assert found.hashed["logits and weights"] == runs + trained
    assert found.hashed["report tables"] > 0
    assert contents(study.workspace.root) == before


@pytest.mark.slow
def test_a_result_with_a_recomputed_checksum_is_found_by_training_again(study):
    run, folder = one(study)
    result = read_json(folder / RESULT, Result)
    losses = {name: (values[0] + 1e-9, *values[1:]) for name, values in result.curves.losses.items()}
    rewrite(folder, curves=result.curves.model_copy(update={"losses": losses}))
    assert verify(study, sample=0, log=quiet).differences == []  # no hash and no table shows it
    (difference,) = verify(study, sample=ALL, log=quiet).differences
    assert run.id in difference and "result.json" in difference and "weights" not in difference


@pytest.mark.slow
def test_weights_with_recomputed_checksums_are_found_by_training_again(study):
    run, folder = one(study, "wang2018")
    weights = load_file(folder / WEIGHTS)
    name = next(iter(weights))
    weights[name] = weights[name] + 1e-6
    save_file(weights, folder / WEIGHTS)
    rewrite(folder)
    assert verify(study, sample=0, log=quiet).differences == []
    (difference,) = verify(study, sample=ALL, log=quiet).differences
    assert run.id in difference and WEIGHTS in difference and LOGITS not in difference


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [LOGITS, WEIGHTS, RESULT])
def test_a_flipped_bit_is_found_by_its_hash_and_named(study, name):
    run, folder = one(study)
    flip_a_bit(folder / name)
    found = verify(study, sample=0, log=quiet)
    (difference,) = found.differences
    assert str(folder / name) in difference and run.configuration.label in difference
    assert any("report was not built" in note for note in found.notes)


@pytest.mark.slow
def test_what_starts_from_damaged_files_is_not_trained_again(study):
    run, folder = one(study)
    flip_a_bit(folder / WEIGHTS)
    again = {rerun.run.id for rerun in verify(study, sample=ALL, log=quiet).reruns}
    assert again == {r.id for r in study.plan.runs} - {run.id, one(study, "ensemble-2")[0].id}


def test_an_error_that_the_logits_do_not_have_is_found_without_training(study):
    _, folder = one(study)
    result = read_json(folder / RESULT, Result)
    better = result.last.model_copy(update={"error": result.last.error / 2})
    rewrite(folder, last=better, heads=(better,))
    differences = verify(study, sample=0, log=quiet).differences
    assert any("its error is not that of the result" in line and str(folder / LOGITS) in line for line in differences)


def test_noise_of_another_seed_is_found_although_its_checksum_fits(study):
    run, _ = one(study)
    path, config = study.inputs.noise_file(run), run.configuration.noise
    dataset = study.inputs.dataset(run)
    drawn = noise.draw(config, dataset.train_labels, dataset.classes, 77)
    noise.write_static(path, drawn, config, run.seed)
    (difference,) = verify(study, sample=0, log=quiet).differences
    assert str(path) in difference and "seed" in difference


def test_damaged_data_are_named_and_not_mended(study):
    (folder,) = study.workspace.datasets.iterdir()
    arrays = folder / "arrays.safetensors"
    flip_a_bit(arrays)
    content = arrays.read_bytes()
    found = verify(study, sample=ALL, log=quiet)
    assert any(str(arrays) in line for line in found.differences)
    assert found.reruns == [] and any("could be trained again" in note for note in found.notes)
    assert arrays.read_bytes() == content


def test_a_changed_number_in_the_accepted_report_is_named(study):
    path = study.workspace.accepted_report / "runs.csv"
    lines = path.read_text().splitlines()
    row = lines[1].split(",")
    column = lines[0].split(",").index("error_last")
    row[column] = str(float(row[column]) + 0.5)
    path.write_text("\n".join([lines[0], ",".join(row), *lines[2:]]) + "\n")
    (difference,) = verify(study, sample=0, log=quiet).differences
    assert "runs.csv" in difference and "error_last" in difference


@pytest.mark.slow
def test_other_versions_give_a_tolerance_that_is_stated_and_kept(study):
    run, folder = one(study)
    path = study.workspace.measured_file(run)
    measured = read_json(path, Measured)
    write_json(path, measured.model_copy(update={"versions": {**measured.versions, "torch": "1.0"}}))

    def rerun_of(**options: object):
        found = verify(study, sample=ALL, log=quiet, **options)
        (rerun,) = (rerun for rerun in found.reruns if rerun.run.id == run.id)
        return found, rerun

    found, rerun = rerun_of()
    assert found.differences == [] and rerun.compared == "tolerance"
    assert "torch 1.0 → " in rerun.why and f"{rerun.allowed:.2f} points allowed" in rerun.line()
    # Three standard deviations of a difference between two runs, from the configuration's own seeds (its members' too).
    same = [r for r in study.plan.runs if r.configuration.id == run.configuration.id]
    errors = [100 * read_json(study.workspace.folder(r) / RESULT, Result).last.error for r in same]
    expected = 3 * (2 * torch.tensor(errors, dtype=torch.float64).var()).sqrt().item()
    assert rerun.allowed == pytest.approx(max(1.0, expected))

    logits = load_file(folder / LOGITS)
    labels = study.inputs.dataset(run).test_labels
    logits["deployed"] = torch.nn.functional.one_hot(labels, 10).half()
    save_file(logits, folder / LOGITS)
    result = read_json(folder / RESULT, Result)
    perfect = result.last.model_copy(update={"error": 0.0})
    rewrite(folder, last=perfect, heads=(perfect,))
    found, rerun = rerun_of(tolerance=2.0)
    assert rerun.allowed == 2.0 and rerun.difference in rerun.line()
    assert rerun.line() in found.differences and "only 2.00 points allowed" in rerun.difference


@pytest.mark.slow
def test_without_a_measurement_the_tolerance_says_why(study):
    run, _ = one(study, "wang2018")
    for other in (0, 1, 2):
        (study.workspace.measured / run.configuration.id / f"seed-{other}.json").unlink()
    found = verify(study, sample=ALL, log=quiet)
    assert found.differences == [] and any("3 runs have no measured.json" in note for note in found.notes)
    assert {r.compared for r in found.reruns if r.run.configuration.id == run.configuration.id} == {"tolerance"}


def test_few_seeds_have_a_fixed_tolerance(study):
    from collabench.sharing.repeat import _allowed

    run, folder = one(study, "wang2018")
    assert _allowed(study, run, {run.id: read_json(folder / RESULT, Result)}) == TOLERANCE_WITHOUT_SPREAD


@pytest.mark.slow
def test_the_draw_depends_on_its_seed_alone(study):
    def drawn(seed: int) -> list[str]:
        return [rerun.run.id for rerun in verify(study, sample=2, seed=seed, log=quiet).reruns]

    draws = [drawn(seed) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1] and len({tuple(draw) for draw in draws}) > 1
    assert all(len(draw) == 2 for draw in draws)


def test_the_command_names_what_differs_and_ends_with_exit_code_1(study):
    arguments = ["verify", "-p", "small", "--root", str(study.workspace.root), "--sample", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "profile small: verified" in done.stdout and "the same bytes" in done.stdout
    path = study.workspace.accepted_report / VERIFIED
    assert (
        f"Recorded, to be committed with the report: {path}\n" in done.stdout
        and f"All profiles on one page: {study.workspace.page}" in done.stdout
    )
    first, page = path.read_bytes(), study.workspace.page.read_bytes()
    CliRunner().invoke(app, arguments)
    assert (path.read_bytes(), study.workspace.page.read_bytes()) == (first, page)  # neither times nor paths
    assert str(study.workspace.root).encode() not in first
    noted = load_verified(study.workspace.accepted_report)
    assert noted.rebuilt == "same" and noted.differences == 0 and noted.hashed["results"] == len(study.plan.runs)
    (again,) = noted.repetitions
    assert again.agrees and again.compared == "bytes" and again.recorded == again.repeated
    (shown,) = read_everything(study.workspace.root).found.reports
    assert shown.verified == noted and shown.verified_now
    assert compare_reports(study.workspace).same_bytes  # the record is no part of the report
    run, folder = one(study)
    (folder / WEIGHTS).write_bytes(b"")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and "1 difference\n" in done.stdout
    noted = load_verified(study.workspace.accepted_report)
    assert (noted.differences, noted.rebuilt) == (1, "not built")
    assert f"DIFFERS  {folder / WEIGHTS}" in done.stdout and run.configuration.label in done.stdout


def test_a_record_ends_with_the_report_that_it_is_about(study):
    arguments = ["verify", "-p", "small", "--root", str(study.workspace.root), "--sample", "0"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    workspace = study.workspace
    build_report(study.params, study.plan, workspace)
    accept(workspace)
    assert load_verified(workspace.accepted_report) is not None  # accepted anew, and the same
    runs = workspace.report / "runs.csv"
    runs.write_text(runs.read_text() + "\n")
    accept(workspace)
    assert load_verified(workspace.accepted_report) is None
    shutil.rmtree(workspace.accepted_report)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and "No report is accepted, so that no page shows this" in done.stdout
    assert not workspace.accepted_report.exists()


def test_a_repetition_reads_streamed_images_where_the_study_does(tmp_path):
    """A path of the configuration is relative to the project, not to the temporary copy."""
    pin = official_formats.write_imagenet(tmp_path / "photos", classes=2, train=3, test=1)
    path = tiny_project(tmp_path, noise="clean") / "params.yaml"
    before, after = "source: digits, train_images: 60, test_images: 50", "source: imagenet, path: photos, sha256: "
    text = path.read_text().replace(before, f"{after}{pin}")
    path.write_text(text.replace("learning_rate: 0.05", "learning_rate: 0.05, augmentation: {random_resized_crop: 32}"))
    study = load_study(tmp_path, PROFILE)
    study.inputs.prepare_datasets()
    with temporary_copy(study, ("datasets",)) as copy:
        dataset = Study(study.params, study.plan, copy).inputs.dataset(study.plan.runs[0])
        assert dataset.train_images.open(0).size == (60, 48)

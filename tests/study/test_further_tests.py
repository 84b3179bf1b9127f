"""`collabench evaluate`: trained heads on files in the form of CIFAR-10-C and CIFAR-10.1."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from collabench.cli.app import app
from collabench.core.errors import ConfigError, DataError, ResultError
from collabench.data import test_sets
from collabench.data.test_sets import find_test_sets, read_test_set
from collabench.storage.results import LOGITS
from collabench.study.further_tests import evaluate
from collabench.study.study import Study, load_study
from tests.support.params import params_yaml, profile, table
from tests.support.studies import train_all

SEVERITIES = test_sets.SEVERITIES


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    root = tmp_path_factory.mktemp("project")
    shown = profile(table("individual tree", datasets="few", noise="clean"), seeds=2, device="cpu")
    (root / "params.yaml").write_text(params_yaml({"few": shown}, datasets="few", methods="individual tree"))
    study = load_study(root, "few")
    train_all(study)
    return study


def id_of(study: Study, method: str = "individual") -> str:
    (found,) = {c.id for c in study.plan.configurations.values() if c.names["method"] == method}
    return found


def write_corruptions(folder: Path, study: Study) -> None:
    """The test split five times, darker with the severity, and inverted."""
    folder.mkdir()
    dataset = study.inputs.dataset(study.plan.runs[0])
    images = dataset.test_images.numpy()
    np.save(folder / "labels.npy", np.tile(dataset.test_labels.numpy(), SEVERITIES).astype(np.uint8))
    np.save(folder / "dark.npy", np.concatenate([images // (1 + level) for level in range(SEVERITIES)]))
    np.save(folder / "inverse.npy", np.concatenate([255 - images] * SEVERITIES))


def write_further(folder: Path, study: Study, count: int = 30) -> None:
    folder.mkdir()
    dataset = study.inputs.dataset(study.plan.runs[0])
    np.save(folder / "cifar10.1_v6_data.npy", dataset.test_images[:count].numpy())
    np.save(folder / "cifar10.1_v6_labels.npy", dataset.test_labels[:count].numpy().astype(np.int32))


@pytest.mark.parametrize("method", ["individual", "tree"])
def test_severities_of_corruptions(study, tmp_path, method):
    write_corruptions(tmp_path / "c", study)
    _, own, found = evaluate(study, id_of(study, method), tmp_path / "c", log=lambda line: None)
    assert [(one.name, one.severity) for one in found] == [
        (name, severity) for name in ("dark", "inverse") for severity in range(1, 6)
    ]
    assert found[0].errors == own and set(own) == {0, 1}, "severity 1 of dark is the run's own test split"
    assert found[5].errors == found[9].errors != own
    assert all(one.images == 40 for one in found)


def test_cifar10_1_and_the_files_that_the_command_writes(study, tmp_path):
    write_further(tmp_path / "v6", study)
    arguments = ["evaluate", "-p", "few", "--root", str(study.workspace.root), "--configuration", id_of(study),
                 "--test-set", str(tmp_path / "v6"), "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    labels = study.inputs.dataset(study.plan.runs[0]).test_labels[:30]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/further-tests.csv").read_text())))
    measured = {int(row["seed"]): float(row["error"]) for row in rows if row["test set"] == "cifar10.1_v6"}
    for run in study.plan.runs[:2]:
        assert run.configuration.id == id_of(study)
        stored = load_file(study.workspace.folder(run) / LOGITS)["deployed"][:30]
        assert measured[run.seed] == (stored.argmax(dim=1) != labels).double().mean().item()
    page = (tmp_path / "out/further-tests.md").read_text()
    assert "| cifar10.1_v6 |  | 30 |" in page and "own test split" in page and page in done.output
    one = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert "seeds 1." in one.output


def test_what_is_no_test_set_of_the_run_is_refused(study, tmp_path):
    dataset = study.inputs.dataset(study.plan.runs[0])
    with pytest.raises(DataError, match="is not a folder"):
        find_test_sets(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no test set"):
        find_test_sets(tmp_path)
    np.save(tmp_path / "fog.npy", np.zeros((10, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"holds no labels\.npy, the labels of fog\.npy"):
        find_test_sets(tmp_path)
    np.save(tmp_path / "labels.npy", np.arange(10))
    (pair,) = find_test_sets(tmp_path)
    with pytest.raises(
        DataError, match=r"fog\.npy: holds uint8 of shape \(10, 32, 32, 3\); expected uint8 \(images, 8,"
    ):
        next(read_test_set(*pair, dataset))
    np.save(tmp_path / "fog.npy", np.zeros((10, 8, 8, 1), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(1, 11))
    with pytest.raises(DataError, match="labels from 1 to 10; digits has the classes 0 to 9"):
        next(read_test_set(*pair, dataset))
    np.save(tmp_path / "labels.npy", np.arange(9))
    with pytest.raises(DataError, match=r"fog\.npy needs 10 whole numbers"):
        next(read_test_set(*pair, dataset))
    np.save(tmp_path / "fog.npy", np.array([object()] * 10), allow_pickle=True)
    with pytest.raises(DataError, match=r"fog\.npy: not an \.npy file of numbers"):
        next(read_test_set(*pair, dataset))


def test_runs_that_are_not_there_are_named(study, tmp_path):
    write_further(tmp_path / "v6", study)
    with pytest.raises(ConfigError, match="has no configuration 'none'"):
        evaluate(study, "none", tmp_path / "v6")
    with pytest.raises(ResultError, match="seed 7: not run"):
        evaluate(study, id_of(study), tmp_path / "v6", seeds=(7,))

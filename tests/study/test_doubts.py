"""`collabench doubts`: planted wrong labels are found among the first, and what cannot be doubted is refused."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from collabench import training
from collabench.cli.app import app
from collabench.core.errors import ConfigError, DataError, ResultError
from collabench.report.doubts import contact_sheet, letters_of_captions
from collabench.storage.results import LOGITS
from collabench.study import doubts
from collabench.study.study import Study, load_study
from tests.support.params import params_yaml, profile, table
from tests.support.studies import train_all

RECIPE = {"enough": "{epochs: 12, batch_size: 32, learning_rate: 0.1}"}
NOISE = {
    "wrong": "{kind: symmetric, rate: 0.1}",
    "anew": "{kind: uniform, rate: 0.1, when: per_epoch}",
    "clean": "{kind: none}",
}
METHODS = {"individual": "", "heads": "{method: song2018, heads: 2}", "kd": "",
           "pair": "{method: ensemble, members: 2}"}  # fmt: skip
FEW = "{source: digits, train_images: 600, test_images: 200}"


def study_of(root: Path, noise: str = "wrong", dataset: str = FEW, methods: str = "individual") -> Study:
    chosen = f"individual {methods}" if methods != "individual" else methods
    shown = profile(table(chosen, datasets="few", noise=noise, recipes="enough"), seeds=2, device="cpu")
    named = {name: METHODS[name] for name in chosen.split()}
    (root / "params.yaml").write_text(
        params_yaml({"doubted": shown}, datasets={"few": dataset}, noise=NOISE, recipes=RECIPE, methods=named)
    )
    return load_study(root, "doubted")


def id_of(study: Study, method: str) -> str:
    (found,) = {c.id for c in study.plan.configurations.values() if c.names["method"] == method}
    return found


def call(study: Study, *options: str):
    arguments = ["doubts", "-p", "doubted", "--root", str(study.workspace.root), *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def rows_of(folder: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO((folder / "doubts.csv").read_text())))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["individual", "heads"])
def test_planted_wrong_labels_are_among_the_first(tmp_path, method):
    study = study_of(tmp_path, methods=method)
    done = call(study, "--configuration", id_of(study, method), "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    run = next(run for run in study.plan.runs if run.configuration.id == id_of(study, method) and run.seed == 0)
    planted = study.inputs.static_noise(run)
    assert int(planted.mask.sum()) == 60
    header, *rows = rows_of(tmp_path / "out")
    found = [int(row[1].removeprefix("training image ")) for row in rows]
    assert len(found) == len(set(found)) >= 40
    assert planted.mask[found[:40]].double().mean() >= 0.9, "one image in ten has a wrong label"
    named = header.index("heads say")
    right = [int(row[named]) == int(planted.clean[at]) for row, at in zip(rows[:40], found[:40], strict=True)]
    assert np.mean(right) >= 0.85
    probabilities = [float(row[3]) for row in rows]
    assert probabilities == sorted(probabilities)
    page = (tmp_path / "out" / "doubts.md").read_text()
    assert "cross-validation: 5 trainings with seed 0" in page and f"{len(found)} of 600 labels" in page
    sheet = Image.open(tmp_path / "out" / "contact-sheet.png")
    assert sheet.size[0] == 8 * (128 + 8) + 8


def test_every_image_is_predicted_by_a_network_that_was_not_trained_on_it(tmp_path, monkeypatch):
    study = study_of(tmp_path)
    seen = []
    train = training.train_run

    def watched(run, dataset, **options):
        seen.append((dataset.train_images.flatten(1).tolist(), dataset.test_images.flatten(1).tolist()))
        return train(run, dataset, **options)

    monkeypatch.setattr(training, "train_run", watched)
    doubts.find_doubts(study, id_of(study, "individual"), "train", folds=3, log=lambda line: None)
    whole = study.inputs.dataset(study.plan.runs[0]).train_images.flatten(1).tolist()
    assert len(seen) == 3 and sorted(image for _, held in seen for image in held) == sorted(whole)
    for others, held in seen:
        assert sorted(others + held) == sorted(whole)


@pytest.mark.slow
def test_doubts_about_test_labels_need_no_training(tmp_path, monkeypatch):
    study = study_of(tmp_path, "clean")
    identity = id_of(study, "individual")
    with pytest.raises(ResultError, match="not run; doubts about test labels need finished runs"):
        doubts.find_doubts(study, identity, "test")
    train_all(study)
    monkeypatch.setattr(training, "train_run", None)
    found = doubts.find_doubts(study, identity, "test")
    assert "the stored logits of 2 finished runs (seeds 0, 1)" in found.source and found.names[3] == "test image 3"
    stored = [load_file(study.workspace.folder(run) / LOGITS)["deployed"].double() for run in study.plan.runs]
    expected = torch.stack([torch.softmax(logits, dim=1) for logits in stored]).mean(dim=0)
    assert np.allclose(found.probabilities, expected, atol=1e-12)
    assert len(found.labels) == 200


@pytest.mark.parametrize(
    ("method", "noise", "said"),
    [("kd", "clean", "kd needs other runs"), ("pair", "clean", "pair needs other runs"),
     ("individual", "anew", "its labels are drawn anew every epoch")],
)  # fmt: skip
def test_configurations_that_cannot_be_cross_validated_are_refused(tmp_path, method, noise, said):
    study = study_of(tmp_path, noise, methods=method)
    done = call(study, "--configuration", id_of(study, method), "--out", str(tmp_path / "out"))
    assert isinstance(done.exception, ConfigError) and said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_too_many_folds_and_unknown_configurations_are_refused(tmp_path):
    study = study_of(tmp_path, dataset="{source: digits, train_images: 60, test_images: 40}")
    with pytest.raises(DataError, match=r"training images have the label '[0-9]', and there are 20 folds"):
        doubts.find_doubts(study, id_of(study, "individual"), "train", folds=20)
    with pytest.raises(ConfigError, match="has no configuration 'none'"):
        doubts.find_doubts(study, "none", "train")
    moving = study_of(tmp_path, dataset="{source: digits, train_images: 60, test_images: 40, split: per_seed}")
    with pytest.raises(ConfigError, match="name one with --seed"):
        doubts.find_doubts(moving, id_of(moving, "individual"), "train")


def test_without_the_package_nothing_is_trained(tmp_path, monkeypatch):
    study = study_of(tmp_path)
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(ConfigError, match=r"cleanlab is missing: pip install 'collabench\[labels\]'"):
        doubts.find_doubts(study, id_of(study, "individual"), "train")


def test_the_letters_of_captions_can_be_read():
    """A character that a font lacks is drawn as a box, the same for all of them."""
    letters = letters_of_captions()
    box = bytes(letters.getmask("\U0010fffd"))
    assert all(bytes(letters.getmask(character)) != box for character in "→…éßЖωأ")


def test_a_contact_sheet_shows_every_image_and_no_caption_leaves_its_column():
    images = [Image.new("RGB", (4 + number, 6), (255, 0, 0)) for number in range(9)]
    sheet = Image.open(io.BytesIO(contact_sheet(images, [("a very long name of a class", "b" * 80)] * 9)))
    assert sheet.size == (8 * 136 + 8, 2 * (128 + 34 + 8) + 8)
    pixels = np.asarray(sheet)
    assert (pixels[70, 72] == (255, 0, 0)).all() and (pixels[240, 72] == (255, 0, 0)).all()
    assert (pixels[:, :8] == 255).all() and (pixels[140:170, 136:144] == 255).all()

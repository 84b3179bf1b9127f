"""The bootstrap over seeds and test images in a report: from fabricated logits and a real prepared data set."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from safetensors.numpy import save_file

from collabench.config.configuration import dataset_key
from collabench.core.errors import ResultError
from collabench.core.seeding import numpy_generator
from collabench.data import load, prepare
from collabench.report.across_images import RESAMPLES, add_across_images
from collabench.report.analyse import analyse
from collabench.report.build import build_report
from collabench.report.collect import collect
from collabench.stats import two_way_bootstrap
from collabench.storage.files import write_json
from collabench.storage.results import LOGITS, RESULT
from tests.support import fabricated

PROFILE = """\
  small:
    description: two methods
    seeds: 4
    tables:
      - {name: one, datasets: [digits], noise: [clean], models: [resnet8], recipes: [forty],
         methods: [individual, simple-2]}
"""


def shares(run):
    return 0.02 if run.configuration.names["method"] == "simple-2" else 0.04


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Results whose stored logits are wrong on images that are drawn for each run."""
    made = fabricated.make_study(tmp_path_factory.mktemp("across"), PROFILE)
    dataset = made.params.datasets["digits"]
    folder = made.workspace.datasets / dataset_key(dataset)
    prepare(dataset, made.workspace.downloads, folder)
    data = load(folder)
    labels = data.test_labels.numpy()
    for run in fabricated.cell_runs(made):
        generator = numpy_generator(run.seed, "bootstrap", run.id)
        wrong = generator.random(len(labels)) < shares(run)
        logits = np.zeros((len(labels), 10), np.float16)
        logits[np.arange(len(labels)), (labels + wrong) % 10] = 1
        result = fabricated.result_of(run, float(wrong.mean()), dataset_digest=data.digest, test_images=len(labels))
        place = made.workspace.folder(run)
        write_json(place / RESULT, result)
        save_file({"deployed": logits}, place / LOGITS)
    return made


def rows(study):
    collected = collect(study.plan, study.workspace)
    found = add_across_images(analyse(study.params, collected), collected, study.workspace)
    return {row.method: row for row in found.tables[0].conditions[0].rows}


def correct(study, method):
    labels = load(study.workspace.datasets / dataset_key(study.params.datasets["digits"])).test_labels.numpy()
    found = []
    for run in fabricated.cell_runs(study):
        if run.configuration.names["method"] == method:
            wrong = numpy_generator(run.seed, "bootstrap", run.id).random(len(labels)) < shares(run)
            found.append(~wrong)
    return np.array(found)


def test_intervals_are_those_of_the_bootstrap_over_the_same_images(study):
    found = rows(study)
    generator = numpy_generator(0, "bootstrap", "report", 4, 360)
    expected = two_way_bootstrap(
        correct(study, "simple-2"), correct(study, "individual"), generator=generator, resamples=RESAMPLES
    )
    row = found["simple-2"].across_images
    assert (row.seeds, row.images) == (4, 360)
    assert row.difference_low == pytest.approx(100 * expected.low)
    assert row.difference_high == pytest.approx(100 * expected.high)
    assert found["simple-2"].difference.difference == pytest.approx(100 * expected.estimate)
    assert row.error_low < found["simple-2"].error.mean < row.error_high
    assert found["individual"].across_images.difference_low is None


@pytest.mark.slow
def test_page_and_csv_show_them(study):
    built = build_report(study.params, study.plan, study.workspace)
    page = (built.folder / "one.md").read_text()
    assert "Other seeds and other test images, after the last epoch" in page and "360" in page
    with (built.folder / "one.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["method"] == "simple-2")
    across = rows(study)["simple-2"].across_images
    assert float(row["difference_low_over_seeds_and_images"]) == across.difference_low


def test_without_labels_or_logits_nothing_is_shown_and_foreign_logits_are_refused(study):
    dataset = study.workspace.datasets / dataset_key(study.params.datasets["digits"])
    hidden = dataset.with_name("hidden")
    dataset.rename(hidden)
    assert all(row.across_images is None for row in rows(study).values())
    hidden.rename(dataset)
    run = next(run for run in fabricated.cell_runs(study) if run.configuration.names["method"] == "simple-2")
    path = study.workspace.folder(run) / LOGITS
    stored = path.read_bytes()
    path.unlink()
    found = rows(study)
    assert found["simple-2"].across_images is None and found["individual"].across_images is not None
    save_file({"deployed": np.eye(10, dtype=np.float16)[np.zeros(360, int)]}, path)  # always the first class
    with pytest.raises(ResultError, match="its error is not that of the result beside it"):
        rows(study)
    path.write_bytes(stored)

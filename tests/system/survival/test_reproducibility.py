"""The same run gives the same bytes: alone or among others, with another number of workers, in another folder; and
where an operation isn't deterministic, the result says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from collabench.config.configuration import Run
from collabench.config.data_sections import NoiseConfig
from collabench.methods import METHODS
from collabench.storage.files import read_json
from collabench.storage.results import Measured
from collabench.study.runner import Runner
from collabench.study.study import load_study
from collabench.training import checkpoint, train_run
from tests.support.running import PROFILE, contents, differing, finish, home, results, small_project
from tests.support.synthetic import blobs, configuration_of, settings_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def among_others(tmp_path_factory) -> Path:
    """A study of two workers in a folder of its own."""
    folder = small_project(tmp_path_factory.mktemp("one folder") / "a project", seeds=2)
    finish(folder, "run", "--cores", "2")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cores", ["1", "3"])
def test_another_number_of_workers_in_another_folder_gives_the_same_bytes(tmp_path, among_others, cores):
    folder = small_project(tmp_path / "elsewhere" / "project", seeds=2)
    finish(folder, "run", "--cores", cores)
    assert differing(contents(folder), contents(among_others)) == []
    names = [name for name in results(folder) if name.endswith("result.json")]
    assert len(names) == 8


@pytest.mark.slow
def test_a_run_alone_gives_the_same_bytes_as_among_others(tmp_path, among_others):
    folder = small_project(tmp_path / "alone", seeds=2)
    study = load_study(folder, PROFILE)
    for run in study.plan.runs:
        if run.configuration.names["method"] == "hierarchical-4" and run.seed == 1:
            study.inputs.prepare_for([run])
            assert Runner(study).train([run], device="cpu").trained == [run]
    expected = contents(among_others)
    found = results(folder)
    assert len(found) == 3 and all(expected[name] == content for name, content in found.items())


@pytest.mark.slow
def test_no_result_names_the_folder_the_time_or_the_process(among_others):
    for name, content in contents(among_others).items():
        for word in (str(among_others.parent), "one folder", "a project"):
            assert word.encode() not in content, f"{name} holds {word}"


@pytest.mark.slow
def test_measured_json_says_what_the_bytes_do_not(among_others):
    study = load_study(among_others, PROFILE)
    for path in (home(among_others) / "measured").rglob("*.json"):
        measured = read_json(path, Measured)
        assert measured.run_id in {run.id for run in study.plan.runs}
        assert measured.train_seconds > 0 and measured.versions["torch"] == torch.__version__
        assert measured.nondeterministic_operations == ()


def _with_a_nondeterministic_operation(monkeypatch):
    """Let individual training call an operation for which torch has no deterministic form, even on a CPU."""
    step = METHODS["individual"].Method.step

    def changed(self, network, batch, update):
        torch.zeros(4).put_(torch.tensor([0, 1]), torch.ones(2))
        return step(self, network, batch, update)

    monkeypatch.setattr(METHODS["individual"].Method, "step", changed)


def test_a_result_says_that_an_operation_was_not_deterministic(monkeypatch):
    run = Run(configuration_of(settings_of("individual")), 0)
    plain = train_run(run, blobs(), device=CPU)
    assert plain.result.deterministic and plain.measured.nondeterministic_operations == ()
    _with_a_nondeterministic_operation(monkeypatch)
    trained = train_run(run, blobs(), device=CPU)
    assert trained.result.deterministic is False
    assert len(trained.measured.nondeterministic_operations) == 1
    assert "put_" in trained.measured.nondeterministic_operations[0]


def test_it_still_says_so_after_an_interruption_in_the_last_step(monkeypatch, tmp_path):
    run = Run(configuration_of(settings_of("individual"), noise=NoiseConfig(kind="none")), 0)
    _with_a_nondeterministic_operation(monkeypatch)
    whole = train_run(run, blobs(), device=CPU)
    steps, save, count = 2 * 3, checkpoint.save, [0]  # two epochs of 40 images in batches of 16

    def interrupt(*arguments):
        save(*arguments)
        count[0] += 1
        if count[0] == steps:
            raise KeyboardInterrupt

    path = tmp_path / "run.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, blobs(), device=CPU, checkpoint_path=path, checkpoint_seconds=0.0)
    resumed = train_run(run, blobs(), device=CPU, checkpoint_path=path, checkpoint_seconds=1e9)
    assert resumed.measured.resumed == 1 and resumed.result == whole.result
    assert resumed.measured.nondeterministic_operations == whole.measured.nondeterministic_operations

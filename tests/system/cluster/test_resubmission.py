"""Jobs that a cluster ends before their runs are submitted again, as long as the runs' checkpoints advance."""

from __future__ import annotations

import os

import pytest

from collabench.core.resources import ALLOCATED, SCHEDULER, Resources
from pipeline import schedule
from tests.support.tiny import tiny_study

A_JOBS = Resources(1, (ALLOCATED,), 1, "a test")


@pytest.fixture
def study(tmp_path):
    found = tiny_study(tmp_path, seeds=1)
    found.workspace.checkpoint("any").parent.mkdir(parents=True)
    return found


@pytest.fixture
def submitted(study, monkeypatch):
    """Replace Snakemake: each call writes a checkpoint if the next entry says so, and ends with its exit code."""

    def replace(*calls: tuple[bool, int]) -> list[list[str]]:
        left, asked = list(calls), []

        def snakemake(arguments: list[str]) -> int:
            asked.append(arguments)
            advances, code = left.pop(0)
            if advances:
                path = study.workspace.checkpoint(study.plan.runs[0].id)
                path.touch()
                os.utime(path, ns=(len(asked), len(asked)))
            return code

        monkeypatch.setattr(schedule, "snakemake", snakemake)
        monkeypatch.setattr(schedule.plan, "require_complete", lambda *given: None)
        return asked

    monkeypatch.setenv(SCHEDULER, "slurm")
    monkeypatch.setenv(schedule.plan.PROFILE, "")
    return replace


def run(study, *further: str) -> int:
    return schedule._run(study, resources=A_JOBS, target="train", further=further)


def test_a_run_longer_than_a_job_may_be_goes_on_until_it_is_done(study, submitted):
    asked = submitted((True, 1), (True, 1), (False, 0))
    assert run(study) == 0 and len(asked) == 3 and asked[0] == asked[2]


def test_jobs_that_get_nowhere_are_not_submitted_for_ever(study, submitted, capsys):
    asked = submitted((True, 1), (False, 1))
    assert run(study) == 1 and len(asked) == 2
    assert capsys.readouterr().out.count("submitted again") == 1


@pytest.mark.parametrize(
    ("before", "after", "calls"),
    [
        ({0: 1, 1: 1}, [{0: 1, 1: 2}, {0: 1, 1: 2}], 2),  # one run goes on, another gets nowhere
        ({0: 1, 1: 1}, [{0: 1, 1: 1}], 1),  # what was there before the study began is no advance
        ({0: 1, 1: 1}, [{1: 1}], 1),  # nor is the end of a run, whose checkpoint is removed
        ({}, [{1: 1}, {0: 1, 1: 1}, {0: 1, 1: 1}], 3),
    ],
)
def test_what_counts_as_an_advance(tmp_path, submitted, monkeypatch, before, after, calls):
    study, asked, left = tiny_study(tmp_path / "two", seeds=2), [], list(after)
    paths = [study.workspace.checkpoint(one.id) for one in study.plan.runs]
    paths[0].parent.mkdir(parents=True)

    def put(times: dict[int, int]) -> None:
        for number, path in enumerate(paths):
            path.unlink(missing_ok=True)
            if number in times:
                path.touch()
                os.utime(path, ns=(times[number], times[number]))

    def snakemake(arguments: list[str]) -> int:
        asked.append(arguments)
        put(left.pop(0))
        return 1

    put(before)
    submitted()
    monkeypatch.setattr(schedule, "snakemake", snakemake)
    assert run(study) == 1 and len(asked) == calls


def test_on_one_machine_what_linux_killed_for_memory_goes_on_with_fewer_jobs(study, submitted, monkeypatch, capsys):
    monkeypatch.delenv(SCHEDULER)
    kills = iter([5, 6, 8, 8])
    monkeypatch.setattr(schedule, "kills_for_memory", lambda: next(kills))
    asked = submitted((False, 1), (False, 1), (False, 1))
    code = schedule._run(study, resources=Resources(8, (), 1, "a test"), target="train", further=())
    assert code == 1, "the last time nothing was killed: the jobs failed by themselves"
    assert [one[one.index("--cores") + 1] for one in asked] == ["8", "4", "2"]
    assert "their runs resume, 4 at a time" in capsys.readouterr().out


def test_the_last_job_alone_is_not_tried_for_ever(study, submitted, monkeypatch):
    monkeypatch.delenv(SCHEDULER)
    monkeypatch.setattr(schedule, "kills_for_memory", iter(range(9)).__next__)
    asked = submitted((False, 1), (False, 1))
    resources = Resources(8, ("0",), 2, "a test")
    assert schedule._run(study, resources=resources, target="train", further=()) == 1
    assert [one[one.index("--resources") + 1] for one in asked] == ["gpu=2", "gpu=1"]


def test_on_one_machine_and_in_a_dry_run_there_is_one_call(study, submitted, monkeypatch):
    asked = submitted((True, 1), (True, 1))
    assert run(study, "-n") == 1 and len(asked) == 1
    monkeypatch.delenv(SCHEDULER)
    assert run(study) == 1 and len(asked) == 2

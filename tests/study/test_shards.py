"""A plan split over plain hosts: the parts are disjoint, together the plan, balanced, the same on every host, and each
can be trained alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from collabench.config.plan import Plan
from collabench.core.errors import CollabenchError
from collabench.study import shards
from collabench.study.study import load_study
from tests.support.project import ROOT, collabench, copy_project
from tests.support.real import real_study

PARAMS = """
  parts:
    description: two configurations for two hosts
    seeds: 2
    tables:
      - {name: t, datasets: [digits-tiny], models: [resnet8], recipes: [smoke], methods: [individual, label-smoothing]}
"""


@pytest.fixture(scope="module", params=["smoke", "default", "digits"])
def plan(request) -> Plan:
    return real_study(request.param).plan


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_are_disjoint_and_together_the_plan(plan, count):
    parts = [shards.runs_of(plan, shards.Shard(number, count)) for number in range(1, count + 1)]
    every = [run.id for part in parts for run in part]
    assert len(every) == len(set(every)) == len(plan.runs)
    assert set(every) == {run.id for run in plan.runs}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_part_is_whole_configurations_in_the_plan_s_order_with_all_that_they_require(plan, count):
    position = {run.id: index for index, run in enumerate(plan.runs)}
    seeds = plan.seeds_of()
    for number in range(1, count + 1):
        part = shards.runs_of(plan, shards.Shard(number, count))
        inside = {run.id for run in part}
        assert [position[run.id] for run in part] == sorted(position[run.id] for run in part)
        assert all(required.id in inside for run in part for required in run.requires())
        for name in {run.configuration.id for run in part}:
            assert [run.seed for run in part if run.configuration.id == name] == seeds[name]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_no_part_has_more_than_the_mean_and_the_largest_group_together(plan, count):
    seeds = {name: len(numbers) for name, numbers in plan.seeds_of().items()}
    work = {name: seeds[name] * shards.work_of_run(c) for name, c in plan.configurations.items()}
    groups = shards.parts(plan, len(plan.configurations))  # as many parts as there can be groups: one each
    largest = max(sum(work[name] for name in group) for group in groups)
    loads = [sum(work[name] for name in part) for part in shards.parts(plan, count)]
    assert max(loads) <= sum(loads) / count + largest * (1 - 1 / count)


def test_work_follows_images_epochs_and_the_network():
    study = real_study("default")
    configuration = next(c for c in study.plan.configurations.values() if c.names["method"] == "individual")
    work = shards.work_of_run(configuration)
    longer = configuration.recipe.model_copy(update={"epochs": 3 * configuration.recipe.epochs})
    assert shards.work_of_run(configuration.model_copy(update={"recipe": longer})) == 3 * work
    fewer = configuration.dataset.model_copy(update={"train_images": configuration.dataset.train_images // 2})
    assert shards.work_of_run(configuration.model_copy(update={"dataset": fewer})) == work // 2
    deeper = configuration.model.model_copy(update={"depth": 20})
    assert shards.work_of_run(configuration.model_copy(update={"model": deeper})) > 2 * work


@pytest.mark.slow
def test_another_process_finds_the_same_parts():
    plan = real_study("smoke").plan
    script = (
        "import sys; from pathlib import Path; from collabench.study import shards; from collabench.study.study import "
        "load_study; "
        "plan = load_study(Path(sys.argv[1]), sys.argv[2]).plan; "
        "print([run.id for run in shards.runs_of(plan, shards.parse('2/3'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT), plan.profile],
        env={"PYTHONHASHSEED": "17", "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str([run.id for run in shards.runs_of(plan, shards.Shard(2, 3))])


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2", "1.5/2", "٣/٤"])
def test_what_is_no_part_is_refused_in_one_line(text):
    with pytest.raises(CollabenchError, match="write i/k") as refusal:
        shards.parse(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_snakemake_trains_one_part_and_nothing_else(tmp_path):
    copy_project(tmp_path / "project", PARAMS)
    done = collabench(tmp_path / "project", "reproduce", "-p", "parts", "--cores", "2", "--shard", "2/2")
    study = load_study(tmp_path / "project", "parts")
    part = shards.runs_of(study.plan, shards.Shard(2, 2))
    assert f"part 2/2 is done: {len(part)} of the study's {len(study.plan.runs)} runs" in done.stdout
    states = {status.run.id: status.state for status in study.statuses()}
    assert {name for name, state in states.items() if state == "done"} == {run.id for run in part}
    assert not (tmp_path / "project" / "dvc.lock").exists()

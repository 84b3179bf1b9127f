"""How a study grows: which seeds its claims ask for, in which order, and what jobs, parts and commands make of it."""

from __future__ import annotations

import json

import pytest

from collabench.config.configuration import Run
from collabench.config.plan import Growth
from collabench.core.errors import CollabenchError
from collabench.core.resources import Resources
from collabench.papers.claims import CLAIMS
from collabench.storage.files import write_json
from collabench.storage.results import RESULT
from collabench.study import blocks, growth, progress, shards
from collabench.study.study import load_study
from tests.support import fabricated
from tests.support.declared_claims import claim, declare

PROFILE = """\
  small:
    description: a study that grows
    seeds: 2
    first_seed: 10
    seeds_per_job: 4
    device: cpu
    tables:
      - {name: all, datasets: [digits-500], noise: [uniform20], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing, simple-2, hierarchical-4, ensemble-2]}
"""
DESIGN = "designs:\n  small: {looks: [2, 4, 8], spend: [0.2, 0.3, 0.5]}\n"

#: Difference to individual in percent by seed.
DIFFERENCES = {
    "individual": (0,) * 8,
    "simple-2": (-3.00, -3.01) * 4,  # two seeds decide
    "hierarchical-4": (-3.0, -1.0, -2.0, -2.2, -2.1, -1.9, -2.0, -2.0),  # more are needed
    "label-smoothing": (-9.0, 0.0, -8.0, 1.0, -7.0, 1.0, -8.0, 0.0),  # all looks are needed
    "ensemble-2": (-3.0, -1.0, -2.0, -2.2, -2.1, -1.9, -2.0, -2.0),
}
METHODS = ("simple-2", "hierarchical-4", "label-smoothing")


def errors(run):
    return (30 + DIFFERENCES[run.configuration.names["method"]][run.data_seed - 10]) / 100


@pytest.fixture
def root(tmp_path):
    """A project with three claims, of which the first is decided by two seeds; no results."""
    study = fabricated.make_study(tmp_path, PROFILE)
    declare(study, *(claim(id=name, compare=[{"method": name, "baseline": "individual"}]) for name in METHODS))
    path = study.workspace.papers / CLAIMS
    path.write_text(DESIGN + path.read_text())
    return tmp_path


def load(root):
    return load_study(root, "small")


def names(study):
    return {cell.configuration.names["method"]: cell.configuration for cell in study.plan.cells}


def train(study, seeds, methods=tuple(DIFFERENCES)):
    """Results of the first ``seeds`` seeds, and of the members that they require."""
    runs = [Run(names(study)[name], 10 + seed) for name in methods for seed in range(seeds)]
    fabricated.write_results(study, [*runs, *(other for run in runs for other in run.requires())], errors)


def seeds_of(study, plan=None):
    """Method → number of seeds below the members'."""
    found = {name: 0 for name in names(study)}
    for run in (plan or study.plan).runs:
        if run.seed < 1000:
            found[run.configuration.names["method"]] += 1
    return found


# ------------------------------------------------------------------------------------------------- which seeds


def test_before_the_first_look_the_plan_is_that_of_the_tables(root):
    study = load(root)
    assert study.plan.runs == study.plan.of_tables.runs and not study.plan.ahead
    assert [state.look for state in study.claims] == [0, 0, 0]


def test_only_what_is_undecided_gets_further_seeds_and_tables_stay(root):
    train(load(root), 2)
    study = load(root)
    grown = {"individual": 4, "hierarchical-4": 4, "label-smoothing": 4}
    assert seeds_of(study) == {**dict.fromkeys(DIFFERENCES, 2), **grown}
    assert study.plan.cells == study.plan.of_tables.cells
    assert {run.id for run in study.plan.due} == {run.id for run in study.plan.of_tables.runs}
    assert len(study.ahead) == 6


def test_a_look_that_lacks_one_result_asks_for_nothing_further(root):
    train(load(root), 2)
    study = load(root)
    (study.workspace.folder(Run(names(study)["individual"], 11)) / RESULT).unlink()
    assert seeds_of(load(root)) == dict.fromkeys(DIFFERENCES, 2)


@pytest.mark.slow
def test_while_results_are_added_a_plan_never_comes_to_need_less(root):
    """Jobs that were planned before others ended find themselves in any later plan."""
    before: set[str] = set()
    jobs: set[str] = set()
    for seeds in (0, 1, 2, 3, 4, 6, 8):
        for methods in ((), ("individual",), ("individual", "hierarchical-4"), tuple(DIFFERENCES)):
            train(load(root), seeds, methods)
            study = load(root)
            now = {run.id for run in study.plan.runs}
            assert before <= now and jobs <= {job.id for job in study.jobs}
            before, jobs = now, {job.id for job in study.jobs}
    assert not study.ahead and not any(state.open for state in study.claims)


def test_no_job_crosses_the_end_of_a_look(root):
    """Jobs have four seeds at most: 8 to 11, 12 to 15 and so on; looks end after 11, 13 and 17."""
    train(load(root), 4)
    study = load(root)
    seeds = [job.seeds for job in study.jobs if job.configuration.names["method"] == "individual"]
    seeds = [numbers for numbers in seeds if max(numbers) < 1000]  # the others are the ensemble's members
    assert seeds == [(10, 11), (12, 13), (14, 15), (16, 17)]


def test_without_a_design_nothing_grows_and_jobs_are_as_before(root):
    path = root / "papers" / CLAIMS
    path.write_text(path.read_text().removeprefix(DESIGN))
    train(load(root), 2)
    study = load(root)
    assert study.plan is study.plan.of_tables and study.claims == () and study.plan.growth is None


def test_static_noise_of_all_looks_is_drawn_at_once_so_that_it_does_not_depend_on_results(root):
    study = load(root)
    (runs,) = study.inputs.noise_files().values()
    assert sorted({run.data_seed for run in runs}) == list(range(10, 18))
    before = sorted(map(str, map(study.inputs.noise_file, runs)))
    train(study, 4)
    study = load(root)
    (runs,) = study.inputs.noise_files().values()
    assert sorted(map(str, map(study.inputs.noise_file, runs))) == before


def test_further_seeds_of_a_configuration_bring_those_that_it_requires(root):
    path = root / "papers" / CLAIMS
    path.write_text(path.read_text().replace('"method": "label-smoothing"', '"method": "ensemble-2"'))
    train(load(root), 2)
    study = load(root)
    ensemble = [run for run in study.plan.runs if run.configuration.names["method"] == "ensemble-2"]
    ids = [run.id for run in study.plan.runs]
    assert len(ensemble) == 4
    assert all(ids.index(other.id) < ids.index(run.id) for run in ensemble for other in run.requires())


# ------------------------------------------------------------------------------------------ in which order


def seconds(study, **values):
    return {names(study)[name.replace("_", "-")].id: value for name, value in values.items()}


def test_blocks_come_by_expected_decisions_per_second(root):
    train(load(root), 2)
    study = load(root)
    found = blocks.next_blocks(study, seconds(study, individual=1.0, hierarchical_4=1.0, label_smoothing=1.0))
    chances = {block.claim.claim: block.claim.chance for block in found}
    assert [block.claim.claim for block in found] == ["hierarchical-4", "label-smoothing"]
    assert chances["hierarchical-4"] > chances["label-smoothing"]
    dear = blocks.next_blocks(study, seconds(study, individual=1.0, hierarchical_4=1e6, label_smoothing=1.0))
    assert [block.claim.claim for block in dear] == ["label-smoothing", "hierarchical-4"]


def test_what_an_earlier_block_trains_costs_a_later_one_nothing(root):
    train(load(root), 2)
    study = load(root)
    first, second = blocks.next_blocks(study, seconds(study, individual=5.0, hierarchical_4=1.0, label_smoothing=2.0))
    assert (first.seconds, len(first.runs)) == (2 * (5.0 + 1.0), 4)
    assert (second.seconds, len(second.runs)) == (2 * 2.0, 2)


def test_within_hours_only_whole_blocks_that_end_in_time(root):
    train(load(root), 2)
    study = load(root)
    known = seconds(study, individual=100.0, hierarchical_4=100.0, label_smoothing=300.0)
    needed = blocks.clock_seconds(blocks.next_blocks(study, known)[0].runs, known, 2)
    assert needed > 400 / 2
    assert blocks.next_blocks(study, known, 2, needed - 1) == []
    assert [block.claim.claim for block in blocks.next_blocks(study, known, 2, needed)] == ["hierarchical-4"]
    assert len(blocks.next_blocks(study, known, 2, 10_000)) == 2


def test_where_the_tables_do_not_fit_the_cheapest_first_looks_come_first(root):
    study = load(root)
    due = study.plan.due
    known = seconds(study, individual=10.0, hierarchical_4=1.0, label_smoothing=100.0)

    def within(left, runs=due, known=known):
        found = blocks.first_looks_within(study, runs, known, 1, left)
        return [(block.claim.claim, block.seconds) for block in found]

    one, both = 2 * (10.0 + 1.0), 2 * 100.0  # two seeds; the second look shares the runs of the first
    enough = blocks.clock_seconds([], {}, 1) + blocks.TIME_MARGIN * one
    assert within(enough - 1) == []
    assert within(enough) == within(enough + 50) == [("hierarchical-4", one)]
    assert within(enough + blocks.TIME_MARGIN * both) == [("hierarchical-4", one), ("label-smoothing", both)]
    smoothed = [run for run in due if run.configuration.names["method"] == "label-smoothing"]
    assert within(10_000, smoothed) == [("label-smoothing", both)]  # the other look has no run among these
    del known[next(run.configuration.id for run in smoothed)]
    assert within(10_000) == [("hierarchical-4", one)]
    train(study, 2)
    study = load(root)
    assert within(10_000) == []  # each claim has had its first look


def test_a_smaller_block_that_fits_is_trained_where_a_better_one_does_not_fit(root):
    train(load(root), 2)
    study = load(root)
    known = seconds(study, individual=1.0, hierarchical_4=1e4, label_smoothing=1e3)
    found = blocks.next_blocks(study, known, 1, 5_000)
    assert [block.claim.claim for block in found] == ["label-smoothing"]


def test_hours_in_which_the_tables_are_not_ready_train_the_tables_first(root, monkeypatch):
    study = load(root)
    monkeypatch.setenv(blocks.UNTIL, "1")
    part = set(study.plan.configurations)
    assert blocks.blocks_of_round(study, Resources(2, (), 1, "test"), part) == []
    monkeypatch.delenv(blocks.UNTIL)
    assert len(blocks.blocks_of_round(study, Resources(2, (), 1, "test"), part)) == 3


@pytest.mark.parametrize("text", ["soon", "1e", "--"])
def test_an_end_that_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv(blocks.UNTIL, text)
    with pytest.raises(CollabenchError, match=f"{blocks.UNTIL}={text}: must be a time"):
        blocks.seconds_left()


# ----------------------------------------------------------------------------------------- process to process


def test_jobs_plan_with_what_their_scheduler_has_found(root, monkeypatch):
    train(load(root), 2)
    study = load(root)
    chosen = study.with_growth(growth.only(study.plan.growth, [dict.fromkeys(study.claims[1].configurations, 4)]))
    for name, value in growth.environment("small", chosen.plan.growth).items():
        monkeypatch.setenv(name, value)
    train(study, 8)  # meanwhile other results arrive
    job = load(root)
    assert [run.id for run in job.plan.runs] == [run.id for run in chosen.plan.runs]
    assert [one.id for one in job.jobs] == [one.id for one in chosen.jobs] and job.plan.ahead == chosen.plan.ahead
    assert growth.from_environment("another") is None


def test_a_growth_survives_the_environment():
    given = Growth({"a": 2}, ({"a": 4, "b": 4}, {"c": 8}), {"a": 8, "b": 8, "c": 8}, (2, 4, 8))
    (text,) = growth.environment("p", given).values()
    assert json.loads(text)["profile"] == "p" and growth.environment("p", None) == {}
    with growth.given_to_children("p", given):
        assert growth.from_environment("p") == given
    assert growth.from_environment("p") is None


def test_parts_for_hosts_stay_the_same_as_a_study_grows(root):
    before = shards.parts(load(root).plan, 2)
    train(load(root), 4)
    study = load(root)
    assert study.ahead and shards.parts(study.plan, 2) == before
    both = [shards.runs_of(study.plan, shards.Shard(number, 2)) for number in (1, 2)]
    assert sorted(run.id for part in both for run in part) == sorted(run.id for run in study.plan.runs)


def test_those_who_wait_count_the_runs_of_the_round(root):
    study = load(root)
    train(study, 2)
    watcher = progress.Watcher(study, 1, rounds=progress.rounds_of(study, lambda now: now.plan.runs))
    assert watcher.study_line().startswith(f"{len(study.plan.runs)} of {len(study.plan.runs)} runs done")
    block = dict.fromkeys(study.claims[1].configurations, 4)
    with growth.in_progress(study.workspace, growth.Round(number=2, blocks=(block,))):
        everything = len(study.plan.runs) + 4
        assert watcher.study_line().startswith(f"round 2: {everything - 4} of {everything} runs done")
        train(study, 3)
        assert watcher.study_line().startswith(f"round 2: {everything - 2} of {everything} runs done")
    assert watcher.study_line().startswith("round 2:") and not study.workspace.round.exists()


def test_a_round_that_a_killed_scheduler_left_is_cleared(root):
    study = load(root)
    write_json(study.workspace.round, growth.Round(number=2, blocks=()))
    study.mend(lambda line: None)
    assert growth.round_in_progress(study.workspace) is None

"""Profiles that choose data sets of the papers' cells, and the profile that is their union."""

from __future__ import annotations

import pytest

from collabench.config.params import load_params
from collabench.core.errors import ConfigError
from collabench.study.study import load_study
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT

PARTS = ("paper-cifar", "paper-stl10", "paper-imagenet32", "paper-imagenet")


def runs(name: str) -> list[str]:
    return [run.id for run in load_study(ROOT, name, planned=True).plan.of_tables.runs]


def test_the_papers_profile_is_the_union_of_its_parts():
    parts = {name: runs(name) for name in PARTS}
    assert all(parts.values())
    every = [run for part in parts.values() for run in part]
    assert len(every) == len(set(every)), "no run is in two parts"
    assert set(runs("paper")) == set(every)


@pytest.mark.parametrize(
    ("name", "datasets"), [("paper-cifar", {"cifar10", "cifar100"}), ("paper-imagenet", {"imagenet"})]
)
def test_a_part_has_only_its_data_sets(name, datasets):
    plan = load_study(ROOT, name, planned=True).plan
    assert {cell.configuration.names["dataset"] for cell in plan.cells} == datasets


@pytest.mark.parametrize("name", ["paper", *PARTS])
def test_a_job_of_the_papers_has_one_seed(name):
    """A training of hundreds of hours would otherwise wait for another one in its job."""
    study = load_study(ROOT, name, planned=True)
    assert study.profile.seeds_per_job == 1 and study.jobs
    assert all(len(job.runs) == 1 for job in study.jobs)


SEEDS = {"seeds": 2, "device": "cpu"}
FIRST = profile(table("individual", name="a"), **SEEDS)
SECOND = profile(table("individual", name="b"), **SEEDS)


def written(tmp_path, whole: str, first: str = FIRST, second: str = SECOND):
    path = tmp_path / "params.yaml"
    recipe = "{epochs: 2, batch_size: 32, learning_rate: 0.1"
    path.write_text(
        params_yaml(
            {"first": first, "second": second, "whole": whole},
            recipes={"fast": f"{recipe}}}", "narrow": f"{recipe}, precision: bfloat16}}"},
        )
    )
    return path


def union(**settings: object) -> str:
    return profile(**SEEDS | {"union_of": "[first, second]"} | settings)


def test_a_union_has_the_tables_of_its_parts_in_order(tmp_path):
    found = load_params(written(tmp_path, union())).profiles["whole"]
    assert [one.name for one in found.tables] == ["a", "b"]
    assert (found.seeds, found.device, found.datasets, found.union_of) == (2, "cpu", (), ())


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        (union(seeds=3), r"profiles\.whole\.union_of: seeds must be that of first, 2, not 3"),
        (union(seeds_per_job=1), "seeds_per_job must be that of first, 4, not 1"),
        (union(union_of="[first, third]"), "'third' is not defined under profiles"),
        (union(union_of="[first, whole]"), "whole is itself made of other profiles; name those"),
        (union(papers="[song2018]"), "union_of takes the tables and papers of other profiles; remove this one's own"),
        (profile(**SEEDS), "a profile needs tables, papers, replicates or union_of"),
        (profile(table(), **SEEDS, datasets="[digits]"), "datasets chooses among the cells of papers"),
        (profile(papers="[song2018]", datasets="[nowhere]"), "'nowhere' is not defined under datasets"),
    ],
)
def test_a_union_that_does_not_fit_is_refused_in_a_line(tmp_path, whole, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load_params(written(tmp_path, whole))
    assert "\n" not in str(caught.value) and "params.yaml" in str(caught.value)


def test_two_tables_of_one_name_are_refused_in_a_union_too(tmp_path):
    with pytest.raises(ConfigError, match=r"union_of: two tables have the name 'a'"):
        load_params(written(tmp_path, union(), second=FIRST))


def test_the_parts_must_name_the_same_papers(tmp_path):
    with pytest.raises(ConfigError, match=r"union_of: the profiles of union_of must name the same papers"):
        load_params(written(tmp_path, union(), second=profile(papers="[song2018]", **SEEDS)))


def test_float32_and_bfloat16_are_never_in_one_table(tmp_path):
    both = profile(table("individual", recipes="fast narrow"), **SEEDS)
    with pytest.raises(ConfigError, match=r"tables\.0\.recipes: fast has float32 and narrow has bfloat16: a table has"):
        load_params(written(tmp_path, both))
    load_params(written(tmp_path, profile(table(), table(name="two", recipes="narrow"), **SEEDS)))

"""What a profile's trainings add up to, and that the page on one GPU has these numbers."""

from __future__ import annotations

import re

import pytest

from collabench.papers.claims import load_claims
from collabench.report.published import published_values, read_papers
from collabench.study.gpu_check.cases import cases, form_of
from collabench.study.study import load_study
from collabench.study.totals import totals
from collabench.training.flops import count
from tests.support.project import ROOT
from tests.support.real import real_params
from tests.support.studies import study_in

PAGE = ROOT / "docs" / "how-to" / "one-gpu.md"


def test_totals_are_the_sums_over_the_plan(tmp_path):
    study = study_in(tmp_path / "project")
    found = totals(study)
    by_hand = 0
    for run in study.plan.runs:
        form, recipe = study.inputs.shape(run.configuration), run.configuration.recipe
        by_hand += count(run.configuration, form.shape, form.classes).training * form.train_images * recipe.epochs
    assert found.flops == by_hand > 0
    ensembles = [run for run in study.plan.runs if run.configuration.method.method == "ensemble"]
    assert ensembles and found.trainings == len(study.plan.runs) - len(ensembles)
    assert sum(found.on(dataset).flops for dataset in found.datasets) == found.flops
    assert found.lease == max(part.lease for part in found.parts) > 1e9


def test_what_was_counted_for_one_study_is_not_counted_again_for_another(tmp_path, monkeypatch):
    """The union of the papers' profiles would take as long as all of them together."""
    study, counted_now = study_in(tmp_path / "project"), []

    def count_all(chosen, workers):
        counted_now.append(len(chosen))
        return [(1, 2, 3)] * len(chosen)

    monkeypatch.setattr("collabench.study.totals._count_all", count_all)
    known: dict = {}
    first, again = totals(study, 1, known), totals(study, 1, known)
    assert first == again and counted_now == [len(known), 0] and known
    totals(study)
    assert counted_now[2:] == [len(known)], "without what is known all is counted"


INSIDE = [name for name in cases() if "fang2021" in name]


@pytest.mark.parametrize("name", [INSIDE[0], *(pytest.param(name, marks=pytest.mark.slow) for name in INSIDE[1:])])
def test_losses_inside_a_network_can_be_counted_on_fake_tensors(name):
    chosen = cases()[name]
    assert count(chosen, form_of(chosen).shape, 4).training > 0


def rows() -> dict[str, str]:
    """Profile → the numbers that the page gives for it."""
    found = re.findall(
        r"^\| `(paper[\w-]*)` \|.*?\| (\d[\d,]*) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", PAGE.read_text(), re.M
    )
    return {name: f"{trainings}, {flops}, {lease}, {disk}" for name, trainings, flops, lease, disk in found}


def counted(name: str) -> str:
    found = totals(load_study(ROOT, name, planned=True), 2)
    return f"{found.trainings:,}, {found.flops / 1e18:.2f}, {found.lease / 1e9:.1f}, {found.disk / 1e9:.1f}"


PARTS = ("paper-cifar", "paper-stl10", "paper-imagenet32", "paper-imagenet")


def test_the_page_has_every_profile_of_the_papers_and_their_sums():
    found = {name: [float(one.replace(",", "")) for one in row.split(", ")] for name, row in rows().items()}
    assert set(found) == {"paper", *PARTS}
    trainings, flops, lease, disk = zip(*(found[part] for part in PARTS), strict=True)
    assert found["paper"] == pytest.approx([sum(trainings), sum(flops), max(lease), sum(disk)], abs=0.1)
    assert found["paper"][0] == sum(trainings) and found["paper"][2] == max(lease)


def test_the_page_says_when_the_papers_claims_are_looked_at_and_what_is_trained_in_a_time():
    claims = load_claims(ROOT / "papers", real_params())
    looks = claims.designs["paper"].looks
    assert not set(PARTS) & set(claims.designs) and not set(PARTS) & {scope.profile for scope in claims.scopes.values()}
    said = " ".join(PAGE.read_text().split())
    assert f"The profile `paper` tests the claims at {looks[0]}, {looks[1]} and {looks[2]} seeds (three looks)." in said
    hours = {
        name: int(found.replace(",", ""))
        for name, found in re.findall(r"^\| `(paper[\w-]*)` \|.*\| ([\d,]+) \|$", PAGE.read_text(), re.M)
    }
    seed = {name: hours[name] / 5 for name in PARTS}
    evening, weekend, week = map(int, re.findall(r"^\| an? \w+, (\d+) hours \|", PAGE.read_text(), re.M))
    assert seed["paper-stl10"] <= evening < hours["paper-stl10"] <= weekend
    assert hours["paper-stl10"] + seed["paper-cifar"] + seed["paper-imagenet32"] <= week


def published(name: str) -> int:
    """How many published values of a profile get runs beside them."""
    study = load_study(ROOT, name, planned=True)
    asked = {cell.configuration.id for cell in study.plan.cells}
    return sum(
        value.configuration.id in asked for value in published_values(read_papers(study.params, study.workspace))
    )


@pytest.mark.slow
def test_the_page_says_how_many_published_values_each_profile_reproduces():
    found = dict(re.findall(r"^\| `make reproduce PROFILE=(paper[\w-]*)` \| (\d+)", PAGE.read_text(), re.M))
    assert {name: int(count) for name, count in found.items()} == {name: published(name) for name in ("paper", *PARTS)}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_the_page_has_the_numbers_that_the_command_counts(name):
    assert rows()[name] == counted(name)

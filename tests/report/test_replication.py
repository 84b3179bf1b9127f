"""Decided tests, made again on fresh seeds: which are made again, with how many seeds, and how the two compare."""

from __future__ import annotations

import re

import pytest
import yaml

from benchmarks.replication import render
from collabench.config.configuration import Run
from collabench.config.params import load_params
from collabench.config.plan import make_plan
from collabench.core.errors import ConfigError
from collabench.papers.claims import CLAIMS, load_claims
from collabench.papers.replications import REPLICATIONS, replicated_cells
from collabench.report.collect import collect
from collabench.report.looks import claim_states
from collabench.report.pages import replication as page
from collabench.report.replication import decided_tests, replication_of
from collabench.report.verdicts import evaluate
from collabench.storage.workspace import Workspace
from tests.support import fabricated
from tests.support.declared_claims import claim, declare, seeds_wanted
from tests.support.project import ROOT
from tests.support.real import real_params

PROFILE = """\
  small:
    description: decides
    seeds: 2
    first_seed: 10
    tables:
      - {name: all, datasets: [digits-500], noise: [uniform20], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing, simple-2, simple-4]}
  again:
    description: decides once more
    seeds: 2
    first_seed: 50
    replicates: [small]
"""
DESIGN = "designs:\n  small: {looks: [2, 4], spend: [0.5, 0.5]}\n"

#: Difference to individual in percent by seed: decided with two seeds, with four, and never.
FIRST = {
    "individual": (0, 0, 0, 0),
    "simple-2": (-3.0, -3.01, -3.0, -3.01),
    "simple-4": (-3.0, -1.9, -2.2, -2.1),
    "label-smoothing": (-9, 9, -8, 8),
}
#: simple-2 comes back smaller, below what its first interval holds; simple-4 is another one.
SECOND = {"individual": (0, 0, 0, 0), "simple-2": (-2.0, -2.01, -2.0, -2.01), "simple-4": (1.0, 1.1, 1.0, 1.1)}


def lower(method):
    return claim(id=method, compare=[{"method": method, "baseline": "individual"}])


@pytest.fixture
def first(tmp_path):
    """The study ``small`` with all of its results, and the verdicts on it."""
    study = fabricated.make_study(tmp_path, PROFILE)
    declare(study, lower("simple-2"), lower("simple-4"), lower("label-smoothing"))
    path = study.workspace.papers / CLAIMS
    path.write_text(DESIGN + path.read_text())
    train(study, FIRST, 10, 4)
    claims = load_claims(study.workspace.papers, study.params)
    return study, evaluate(claims, study.params, collect(study.plan, study.workspace), study.workspace, "results")


def train(study, differences, first_seed, seeds):
    cells = {cell.configuration.names["method"]: cell.configuration for cell in study.plan.cells}
    runs = [Run(cells[method], first_seed + s) for method in cells if method in differences for s in range(seeds)]
    fabricated.write_results(
        study, runs, lambda run: (30 + differences[run.configuration.names["method"]][run.data_seed - first_seed]) / 100
    )


def write(study, report, **changes):
    tests = [test.model_dump(mode="json", exclude_none=True) | changes for test in decided_tests(report)]
    (study.workspace.papers / REPLICATIONS).write_text(render({"again": tests}))


def again(study):
    """The study that replicates, and its claims."""
    claims = load_claims(study.workspace.papers, study.params)
    cells = list(replicated_cells(claims, study.params, "again"))
    workspace = Workspace(study.workspace.root, "again")
    return fabricated.Study(study.params, make_plan(study.params, "again", cells), workspace), claims


def test_what_is_decided_is_made_again_with_the_seeds_of_the_look_that_decided(first):
    study, report = first
    assert [(t.claim, t.verdict, t.seeds) for t in decided_tests(report)] == [
        ("simple-2", "supported", 2), ("simple-4", "supported", 4),
    ]  # fmt: skip
    write(study, report)
    second, claims = again(study)
    assert [(c.table, c.configuration.names["method"], c.seeds) for c in second.plan.cells] == [
        ("noisy", "individual", (50, 51)), ("noisy", "simple-2", (50, 51)), ("noisy", "simple-4", (50, 51)),
    ]  # fmt: skip
    states = claim_states(claims, second.params, second.plan, second.workspace)
    wanted = {second.plan.configurations[name].names["method"]: n for name, n in seeds_wanted(states).items()}
    assert wanted == {"individual": 4, "simple-2": 2, "simple-4": 4}
    assert [state.looks for state in states] == [(2,), (4,)]


def test_the_two_studies_are_compared_effect_by_effect(first):
    study, report = first
    write(study, report)
    second, claims = again(study)
    train(second, SECOND, 50, 4)
    collected = collect(second.plan, second.workspace)
    found = replication_of(claims, evaluate(claims, study.params, collected, second.workspace, "results"))
    assert [(test.claim, test.seeds, test.verdict, test.state) for test in found.tests] == [
        ("simple-2", 2, "supported", "the same"), ("simple-4", 4, "refuted", "the other"),
    ]  # fmt: skip
    smaller, other = found.effects
    assert (smaller.same_sign, smaller.inside, smaller.predicted) == (True, False, False)
    assert (other.same_sign, other.inside, other.predicted) == (False, False, False)
    assert smaller.estimate == pytest.approx(-2.005) and other.estimate == pytest.approx(1.05)
    text = page.page(found)
    assert "**1 of 2 decided tests reach the same verdict again**; 1 reach the other verdict." in text
    assert (
        "Of 2 effects whose first interval excludes zero: same sign 1, in the first interval 0, as predicted 0." in text
    )
    assert "First supported, now refuted: the other. 4 seeds each." in text


def test_a_wider_interval_than_the_first_is_predicted(first):
    """The second estimate differs by chance, too: √2 times the first half width."""
    study, report = first
    write(study, report)
    second, claims = again(study)
    half = decided_tests(report)[1].effects[0]
    middle, width = half.estimate, (half.high - half.low) / 2
    moved = {"simple-4": [middle + 1.3 * width + d for d in (-0.1, 0.1, -0.1, 0.1)]}
    train(second, SECOND | moved, 50, 4)
    collected = collect(second.plan, second.workspace)
    found = replication_of(claims, evaluate(claims, study.params, collected, second.workspace, "results"))
    assert (found.effects[1].inside, found.effects[1].predicted) == (False, True)


def test_before_its_runs_a_replication_says_that_they_are_missing(first):
    study, report = first
    write(study, report)
    second, claims = again(study)
    collected = collect(second.plan, second.workspace, partial=True)
    found = replication_of(claims, evaluate(claims, study.params, collected, second.workspace, "results", partial=True))
    assert [test.state for test in found.tests] == ["not run", "not run"] and not found.effects


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"claim": "simple-9"}, r"replications.again.0.claim: 'simple-9' is not declared"),
        ({"scope": "elsewhere"}, r"replications.again.0: small has no test of simple-2 in elsewhere; write it anew"),
        ({"compared": "a against b"}, r"small has no test of simple-2 in noisy, a against b"),
        ({"profile": "smoke"}, r"replications.again.0.profile: again replicates small, not smoke"),
        ({"seeds": 1}, r"replications.again.0.seeds: "),
        ({"seeds": 960}, r"replications.again.0.seeds: seeds go up to 999: 960 seeds from 50 on do not fit"),
        ({"verdict": "inconclusive"}, r"replications.again.0.verdict: "),
    ],
)
def test_a_wrong_entry_is_one_line_with_its_place(first, changes, message):
    study, report = first
    write(study, report, **changes)
    with pytest.raises(ConfigError, match=message) as error:
        load_claims(study.workspace.papers, study.params)
    assert re.match(r"^\S+replications\.yaml:\d+: ", str(error.value)) and "\n" not in str(error.value)


def test_a_replication_uses_no_seed_of_the_first_study_up_to_its_last_look(first):
    study, report = first
    write(study, report)
    near = study.params.profiles["again"].model_copy(update={"first_seed": 13})
    study.params.profiles["again"] = near
    with pytest.raises(ConfigError, match="again and small share the seeds 13 to 13; choose another first_seed"):
        load_claims(study.workspace.papers, study.params)


def test_without_a_list_of_tests_the_profile_says_how_to_write_it(first):
    study, _ = first
    claims = load_claims(study.workspace.papers, study.params)
    with pytest.raises(ConfigError, match=r"names no test that the profile 'again' makes again; write it: python -m"):
        list(replicated_cells(claims, study.params, "again"))


def test_a_profile_can_replicate_only_profiles_that_exist(tmp_path):
    study = fabricated.make_study(tmp_path, PROFILE)
    path = study.workspace.root / "params.yaml"
    path.write_text(path.read_text().replace("replicates: [small]", "replicates: [smal]"))
    with pytest.raises(ConfigError, match=r"replicates.0: 'smal' is not defined under profiles \(did you mean small"):
        load_params(path)


def test_the_committed_list_is_what_the_accepted_reports_had_decided():
    """The list was written from them before the replication ran, and nobody has edited it."""
    from benchmarks.replication import replications

    path = ROOT / "papers" / REPLICATIONS
    if not path.exists():
        pytest.skip("no replication is written down")
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written["replications"] == yaml.safe_load(render(replications(ROOT, real_params())))["replications"]

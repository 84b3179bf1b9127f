"""Where claims stand while the seeds of a study grow: fabricated runs whose differences are worked out by hand."""

from __future__ import annotations

import pytest

from collabench.config.configuration import Run
from collabench.core.errors import ResultError
from collabench.papers.claims import CLAIMS, load_claims
from collabench.report.collect import collect
from collabench.report.looks import claim_states
from collabench.report.verdicts import evaluate
from collabench.storage.files import write_json
from collabench.storage.results import RESULT
from tests.support import fabricated
from tests.support.declared_claims import claim, declare, seeds_wanted

PROFILE = """\
  small:
    description: for looks
    seeds: 2
    first_seed: 10
    tables:
      - {name: all, datasets: [digits-500], noise: [uniform20], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing, simple-2, simple-4, hierarchical-4]}
"""
DESIGN = "designs:\n  small: {looks: [2, 4, 8], spend: [0.2, 0.3, 0.5]}\n"

#: Difference to individual in percent by seed, from the first seed on.
DIFFERENCES = {
    "individual": (0,) * 8,
    "simple-2": (-3.00, -3.01, -3.00, -3.01, -3.00, -3.01, -3.00, -3.01),  # so plain that two seeds decide
    "simple-4": (-3.0, -1.0, -2.0, -2.2, -2.1, -1.9, -2.0, -2.0),  # decided with four seeds or more
    "hierarchical-4": (0.1, 0.5, -0.3, 0.3, -0.2, 0.4, 0.1, -0.1),  # nothing that eight seeds could show
    "label-smoothing": (-9.0, 0.0, -8.0, 1.0, -7.0, 1.0, -8.0, 0.0),  # so noisy that all looks are needed
}


def errors(run):
    return (30 + DIFFERENCES[run.configuration.names["method"]][run.data_seed - 10]) / 100


@pytest.fixture
def study(tmp_path):
    return fabricated.make_study(tmp_path, PROFILE)


def design(study, *claims, text=DESIGN):
    declare(study, *claims)
    path = study.workspace.papers / CLAIMS
    path.write_text(text + path.read_text())
    return load_claims(study.workspace.papers, study.params)


def train(study, seeds, methods=tuple(DIFFERENCES)):
    """Results of the first ``seeds`` seeds."""
    cells = {cell.configuration.names["method"]: cell.configuration for cell in study.plan.cells}
    fabricated.write_results(study, [Run(cells[m], 10 + s) for m in methods for s in range(seeds)], errors)


def lower(method, **changes):
    return claim(**{"id": method, "compare": [{"method": method, "baseline": "individual"}], **changes})


CLAIMS_HERE = [lower(method) for method in ("simple-2", "simple-4", "hierarchical-4", "label-smoothing")]


def states(study, claims):
    return {state.claim: state for state in claim_states(claims, study.params, study.plan, study.workspace)}


def test_without_runs_every_claim_wants_the_first_look(study):
    claims = design(study, *CLAIMS_HERE)
    found = states(study, claims)
    assert {(s.look, s.seeds, s.wanted, s.verdict, s.open) for s in found.values()} == {(0, 0, 2, None, True)}
    assert set(seeds_wanted(found.values()).values()) == {2} and len(seeds_wanted(found.values())) == 5


def test_only_what_is_undecided_wants_more_seeds(study):
    claims = design(study, *CLAIMS_HERE)
    train(study, 2)
    found = states(study, claims)
    decided = found["simple-2"]
    assert (decided.verdict, decided.look, decided.wanted, decided.open) == ("supported", 1, 2, False)
    assert (found["simple-4"].verdict, found["simple-4"].wanted, found["simple-4"].look) == (None, 4, 1)
    assert 0 < found["simple-4"].chance < 1 and decided.chance is None
    wanted = seeds_wanted(found.values())
    names = {cell.configuration.id: cell.configuration.names["method"] for cell in study.plan.cells}
    assert {names[id_]: n for id_, n in wanted.items()}["individual"] == 4  # shared by open claims and decided ones
    assert {names[id_]: n for id_, n in wanted.items()}["simple-2"] == 2


def test_a_look_needs_its_whole_block(study):
    claims = design(study, lower("simple-4"))
    train(study, 3)
    one = states(study, claims)["simple-4"]
    assert (one.look, one.seeds, one.wanted, one.open) == (1, 3, 4, True)
    train(study, 4)
    one = states(study, claims)["simple-4"]
    assert one.look == 2 and one.seeds == 4


def test_a_decided_claim_does_not_change_when_more_seeds_come(study):
    claims = design(study, *CLAIMS_HERE)
    train(study, 2)
    before = states(study, claims)["simple-2"]
    train(study, 8)
    found = states(study, claims)
    assert found["simple-2"] == before
    assert all(not state.open for state in found.values())
    assert (found["label-smoothing"].look, found["label-smoothing"].verdict) == (3, None)
    collected = collect(study.plan, study.workspace)
    report = evaluate(claims, study.params, collected, study.workspace, "results")
    parts = {one.id: one.scopes[0] for one in report.claims}
    assert (parts["simple-2"].n, parts["simple-2"].parts[0].n, parts["simple-2"].is_early) == (2, 2, True)
    assert (parts["label-smoothing"].n, parts["label-smoothing"].spent) == (8, pytest.approx(0.04))
    assert parts["simple-2"].spent == pytest.approx(0.008)


def test_a_hopeless_claim_is_stopped_and_says_so(study):
    claims = design(study, lower("hierarchical-4", smallest_effect=0.0001), text=DESIGN.replace("2, 4, 8", "2, 6, 8"))
    train(study, 6)
    one = states(study, claims)["hierarchical-4"]
    assert (one.stopped, one.verdict, one.look, one.wanted, one.open) == (True, None, 2, 6, False)


@pytest.mark.parametrize("gone", ["individual", "simple-2"])
def test_a_gap_counts_as_not_there_and_damage_too(study, gone):
    claims = design(study, lower("simple-2"))
    train(study, 2)
    run = next(r for r in fabricated.cell_runs(study) if r.configuration.names["method"] == gone and r.seed == 10)
    path = study.workspace.folder(run) / RESULT
    path.write_bytes(path.read_bytes()[:-20])
    assert states(study, claims)["simple-2"].seeds == 0
    path.unlink()
    one = states(study, claims)["simple-2"]
    assert (one.seeds, one.look, one.wanted) == (0, 0, 2)


def test_a_report_refuses_further_seeds_that_are_damaged_or_not_comparable(study):
    claims = design(study, lower("simple-4"))
    train(study, 4)
    run = Run(next(c.configuration for c in study.plan.cells if c.configuration.names["method"] == "simple-4"), 13)
    path = study.workspace.folder(run) / RESULT

    def report():
        collected = collect(study.plan, study.workspace)
        return evaluate(claims, study.params, collected, study.workspace, "results").claims[0].scopes[0]

    assert (report().look, report().n) == (2, 4)
    write_json(path, fabricated.result_of(run, errors(run), dataset_digest="b" * 64))
    with pytest.raises(
        ResultError, match=r"'claims', .*: the runs cannot be compared, their data set \(digest\) differs"
    ):
        report()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ResultError, match="damaged"):
        report()
    path.unlink()
    assert (report().look, report().n) == (1, 2)  # the look waits for its seeds


def test_a_method_that_no_table_holds_wants_nothing(study):
    one = states(study, design(study, lower("dml")))["dml"]
    assert (one.configurations, one.wanted, one.open) == ((), 0, False)

"""What ``plan`` says of claims."""

from __future__ import annotations

import json

import pytest

from collabench.cli.claims import claims_of, line_of, summary_of
from collabench.papers.claims import CLAIMS
from collabench.storage.files import write_json
from collabench.study.study import load_study
from tests.support import fabricated
from tests.support.declared_claims import claim, declare

PROFILE = """\
  small:
    description: claims that are undecided
    seeds: 2
    device: cpu
    tables:
      - {name: all, datasets: [digits-500], noise: [uniform20], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing, simple-2, hierarchical-4]}
"""
#: Difference to individual in percent by seed.
DIFFERENCES = {
    "individual": (0, 0),
    "simple-2": (-3.00, -3.01),
    "hierarchical-4": (-3.0, -1.0),
    "label-smoothing": (4.0, -4.0),
}


def errors(run):
    return (30 + DIFFERENCES[run.configuration.names["method"]][run.data_seed]) / 100


@pytest.fixture
def study(tmp_path):
    """One claim is decided by two seeds, one is undecided, one is hopeless. A run takes 90 seconds."""
    made = fabricated.make_study(tmp_path, PROFILE)
    methods = [name for name in DIFFERENCES if name != "individual"]
    declare(made, *(claim(id=name, compare=[{"method": name, "baseline": "individual"}]) for name in methods))
    path = made.workspace.papers / CLAIMS
    path.write_text("designs:\n  small: {looks: [2, 8], spend: [0.5, 0.5]}\n" + path.read_text())
    fabricated.write_results(made, errors=errors)
    for run in made.plan.runs:
        cost = fabricated.measured_of(run, train_seconds=80.0, evaluate_seconds=10.0)
        write_json(made.workspace.measured_file(run), cost)
    return load_study(tmp_path, "small")


def test_a_line_says_verdict_or_look_and_what_the_next_look_costs(study):
    lines = {record["claim"]: line_of(record) for record in claims_of(study)}
    assert lines["simple-2"] == "simple-2 in noisy: supported at look 1 of 2 (2 seeds)"
    undecided = (
        "undecided at look 1 of 2 (2 seeds); next look at 8 seeds (further runs: 12, 0.30 process hours, decides with"
    )
    assert lines["hierarchical-4"].startswith(f"hierarchical-4 in noisy: {undecided}")
    assert lines["label-smoothing"] == (
        "label-smoothing in noisy: stopped at look 1 of 2 (2 seeds); it would need more than 8 seeds"
    )


def test_the_summary_counts_decided_claims_and_what_the_others_need(study):
    assert summary_of(claims_of(study)) == "decided claims: 1 of 3; undecided: 1, further runs: 12, 0.30 process hours"


def test_the_command_prints_the_same_for_people_and_for_scripts(study, collabench):
    given = ("plan", "-p", "small", "--root", study.workspace.root)
    said = collabench(*given).out
    for record in claims_of(study):
        assert f"claim {line_of(record)}\n" in said
    assert f"\n{summary_of(claims_of(study))}\nNext: " in said
    printed = json.loads(collabench(*given, "--json").out)
    assert printed["claims"] == claims_of(study)
    assert printed["claims"][0]["next"]["chance"] == study.claims[1].chance

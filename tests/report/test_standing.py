"""Where a claim stands, and the sentences made of it: intervals written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from collabench.papers.claim_schema import Claim
from collabench.report.across_profiles import NotRun, count
from collabench.report.findings import findings, summary
from collabench.report.standing import standing, standing_of_part
from tests.support.standings import WHERE, everywhere, part, scope


def declared(hypothesis="lower", quantity="error", **fields):
    sizes = {"no_worse": {"margin": 0.5}, "same": {}}.get(hypothesis, {"smallest_effect": 0.1})
    return Claim.model_validate(
        {
            "id": "c", "paper": "p", "statement": "S.", "scopes": ("s",),
            "quantity": quantity, "hypothesis": hypothesis,
            "source": {"file": "000_1e20208135b2abb2.txt", "place": "P", "words": "W"},
            "compare": ({"method": "a", "baseline": "b"},), **sizes, **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hypothesis", "quantity", "interval", "expected"),
    [
        ("lower", "error", (-2.0, -0.1), "leans for"),
        ("lower", "error", (-2.0, 0.1), "open"),
        ("lower", "error", (0.1, 2.0), "leans against"),
        ("higher", "error", (0.1, 2.0), "leans for"),
        ("higher", "error", (-2.0, -0.1), "leans against"),
        ("no_worse", "error", (-1.0, 0.4), "leans for"),  # below the margin of 0.5
        ("no_worse", "error", (0.1, 0.6), "open"),
        ("no_worse", "error", (0.6, 0.9), "leans against"),
        ("lower", "train_seconds", (0.5, 0.9), "leans for"),  # ratios: 1 is no difference
        ("lower", "train_seconds", (1.1, 1.9), "leans against"),
        ("no_worse", "train_seconds", (1.1, 1.4), "leans for"),  # at most 50 % more
        ("lower", "error", (None, None), "open"),
    ],
)
def test_an_open_claim_leans_where_its_plain_interval_lies(hypothesis, quantity, interval, expected):
    claim = declared(hypothesis, quantity)
    assert standing(scope(part(*interval)), claim) == expected
    assert standing_of_part(part(*interval), claim) == expected


@pytest.mark.parametrize("verdict", ["supported", "refuted", "not run"])
def test_a_verdict_is_what_it_is(verdict):
    assert standing(scope(part(0.1, 2.0), verdict=verdict), declared()) == verdict


def test_all_parts_must_lean_for_a_claim_and_one_leans_against_it():
    assert standing(scope(part(-2, -1), part(-2, 1)), declared()) == "open"
    assert standing(scope(part(-2, -1), part(-2, -1)), declared()) == "leans for"
    assert standing(scope(part(-2, -1), part(1, 2)), declared()) == "leans against"


def test_what_cannot_be_compared_leans_nowhere():
    claim = declared("lower", "train_seconds")
    assert standing(scope(part(0.5, 0.9), note="measured on different devices"), claim) == "open"
    assert standing(scope(part(-2, -1)), None) == "open"


UNRUN = NotRun(WHERE, "paper", published=True)


def test_the_lead_counts_and_names_verdicts():
    claims = [
        everywhere("A", ("supported", "supported"), ("inconclusive", "leans for")),
        everywhere("B", ("refuted", "refuted"), not_run=(UNRUN,)),
        everywhere("C", ("inconclusive", "open"), ("inconclusive", "stopped"), ("inconclusive", "leans against")),
        everywhere("D", ("supported", "supported"), kind="equality", not_run=(UNRUN,)),
    ]
    decided, supported, refuted, undecided, where = findings(claims, {"p": "Some Body 2020"})
    assert decided == "2 of 6 tests of 3 claims about test error are decided: 1 for the claim, 1 against it."
    assert supported == "Supported: “A” (Some Body 2020; digits, clean labels)."
    assert refuted == "Refuted: “B” (Some Body 2020; digits, clean labels)."
    assert undecided.startswith("Of the 4 undecided tests, 1 leans towards the claim and 1 leans against it")
    assert "1 was stopped" in undecided
    assert where == (
        "The tests ran on digits; of the 2 tests on a paper's own data set and backbone none has been run."
    )


def test_the_lead_names_three_claims_and_counts_the_others():
    claims = [everywhere(name, ("supported", "supported"), ("supported", "supported")) for name in "ABCDE"]
    lead = findings(claims, {})
    assert lead[1].count("“") == 3 and lead[1].endswith("; and 2 other claims.")
    assert "and 1 other test" in lead[1]
    assert lead[2] == "Refuted: none of the claims about test error."
    assert lead[3] == "No test is undecided."
    (undecided,) = [everywhere("A", ("inconclusive", "open"))]
    assert findings([undecided], {})[3].startswith("Of the 1 undecided test, none leans towards the claim and none ")


def test_without_tests_the_lead_says_so():
    for lead in (findings, summary):
        assert lead([everywhere("A", not_run=(UNRUN,))], {}) == ["No claim of a paper has been tested yet."]


def test_the_summary_is_the_lead_in_three_sentences():
    claims = [
        *(everywhere(name, ("supported", "supported"), ("inconclusive", "stopped")) for name in "ABC"),
        everywhere("D", ("refuted", "refuted"), not_run=(UNRUN,)),
    ]
    claims.append(replace(claims[-1], tests=tuple(replace(test, again=True) for test in claims[-1].tests)))
    assert summary(claims, {"p": "Some Body 2020"}) == [
        "4 of 7 tests of 4 claims about test error are decided: 3 for the claim, 1 against it; made again on fresh "
        "seeds, 1 of 1 decided test reaches the same verdict.",
        "3 claims are supported in at least one setting, such as “A” (Some Body 2020; digits, clean labels) and “B” "
        "(Some Body 2020; digits, clean labels); 1 claim is refuted in at least one setting: “D” (Some Body 2020; "
        "digits, clean labels).",
        "3 tests are undecided, 3 of which were stopped because more seeds would not decide; the tests ran on digits; "
        "of the 2 tests on a paper's own data set and backbone none has been run.",
    ]
    assert summary([everywhere("A", ("inconclusive", "open"))], {})[1:] == [
        "No claim is supported; no claim is refuted.",
        "1 test is undecided; the tests ran on digits; of the 0 tests on a paper's own data set and backbone none has "
        "been run.",
    ]


def test_counts_are_in_the_order_in_which_they_are_shown():
    claims = [everywhere("A", ("refuted", "refuted"), ("inconclusive", "open"), ("supported", "supported"))]
    assert list(count(claims).items()) == [("supported", 1), ("open", 1), ("refuted", 1)]
    assert not count(claims, "cost")


def test_a_test_that_is_made_again_counts_once_and_is_told_apart():
    """Whatever the second study finds; a replication's own report counts its own tests."""
    second = [everywhere("A", ("supported", "supported")), everywhere("B", ("inconclusive", "open"))]
    again = [replace(claim.tests[0], again=True) for claim in second]
    first = [everywhere("A", ("supported", "supported")), everywhere("B", ("refuted", "refuted"))]
    both = [replace(claim, tests=(*claim.tests, test)) for claim, test in zip(first, again, strict=True)]
    lead = findings(both, {})
    assert lead[0] == findings(first, {})[0] and lead[0].startswith("2 of 2 tests of 2 claims")
    assert lead[1] == "Made again on fresh seeds, 1 of 2 decided tests reach the same verdict."
    assert [lead[0], *lead[2:]] == findings(first, {})
    assert count(both) == count(first) == {"supported": 1, "refuted": 1}
    alone = [replace(claim, tests=(test,)) for claim, test in zip(first, again, strict=True)]
    assert len(findings(alone, {})) == 5 and findings(alone, {})[0].startswith("1 of 2 tests of 2 claims")

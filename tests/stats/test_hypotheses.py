"""What a claim about a difference is tested, decided and planned by."""

from __future__ import annotations

import pytest

from collabench.stats import Hypothesis, equality, one_sample, told_apart

LOWER = Hypothesis("below", smallest_effect=0.5)
NO_WORSE = Hypothesis("below", margin=1.0)
FOUND = one_sample([-2.0, -3.0, -2.5, -2.0, -3.0])


def test_one_part_refutes_only_at_a_level_that_is_corrected_for_the_parts():
    values = one_sample([0.2, 1.9, 1.0, 0.6, 1.5])
    assert LOWER.verdicts(values, 0.95, family=1, parts=1) == ("refuted", "refuted")
    assert LOWER.verdicts(values, 0.95, family=1, parts=20) == ("refuted", "inconclusive")


def test_no_worse_is_tested_against_the_margin():
    against = NO_WORSE.test([0.1, 0.3, 0.2], 0.95)
    assert against.difference == pytest.approx(0.2 - 1.0)
    assert Hypothesis("above", margin=1.0).test([0.1, 0.3, 0.2], 0.95).difference == pytest.approx(0.2 + 1.0)
    assert NO_WORSE.decide((0.0, 0.9)) == "supported" and NO_WORSE.decide((1.1, 2.0)) == "refuted"


def test_p_speaks_of_support_alone():
    assert LOWER.p_of_support(FOUND) == FOUND.p < 0.05
    assert Hypothesis("above").p_of_support(FOUND) == 1.0
    assert LOWER.p_of_support(one_sample([1.0])) is None


@pytest.mark.parametrize(
    ("hypothesis", "published", "effect"),
    [(LOWER, -2.0, 2.0), (LOWER, 2.0, 0.5), (LOWER, None, 0.5), (LOWER, 0.0, 0.5), (NO_WORSE, -2.0, 1.0)],
)
def test_seeds_are_planned_for_the_published_effect_on_the_claimed_side(hypothesis, published, effect):
    assert hypothesis.planned_effect(published) == effect


def test_words_without_an_interval():
    assert [told_apart(p) for p in (None, 0.05, 0.0499)] == [False, False, True]
    assert [equality(equal) for equal in (True, False, None)] == ["supported", "refuted", "inconclusive"]

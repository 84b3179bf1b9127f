"""Every way in which an interval can lie, and its verdict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabench.core.errors import ConfigError, ResultError
from collabench.stats import all_parts, decide, no_worse

bounds = st.tuples(st.floats(-5, 5), st.floats(-5, 5)).map(sorted)


@pytest.mark.parametrize(
    ("low", "high", "smallest", "verdict"),
    [
        (-2.0, -0.5, None, "supported"),
        (0.5, 2.0, None, "refuted"),
        (-1.0, 0.5, None, "inconclusive"),
        (-1.0, 0.0, None, "inconclusive"),
        (0.0, 1.0, None, "inconclusive"),
        (None, None, None, "inconclusive"),
        (-0.3, 0.4, 0.5, "refuted"),
        (-0.3, -0.1, 0.5, "refuted"),
        (0.1, 0.3, 0.5, "refuted"),
        (0.1, 9.0, 0.5, "refuted"),
        (-0.6, -0.1, 0.5, "supported"),
        (-9.0, -0.6, 0.5, "supported"),
        (-0.6, 0.1, 0.5, "inconclusive"),
        (-0.1, 0.6, 0.5, "inconclusive"),
        (-0.5, 0.4, 0.5, "inconclusive"),
        (-0.4, 0.5, 0.5, "inconclusive"),
        (None, None, 0.5, "inconclusive"),
    ],
)
def test_lower_error_claimed(low, high, smallest, verdict):
    assert decide(low, high, "below", smallest) == verdict
    mirrored = (None, None) if low is None else (-high, -low)
    assert decide(*mirrored, "above", smallest) == verdict


@given(bounds)
def test_opposite_claims_get_opposite_verdicts(interval):
    opposite = {"supported": "refuted", "refuted": "supported", "inconclusive": "inconclusive"}
    assert decide(*interval, "below") == opposite[decide(*interval, "above")]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-3.0, -1.0, "supported"),
        (-1.0, 0.4, "supported"),
        (0.1, 0.4, "supported"),
        (0.1, 0.5, "inconclusive"),
        (-1.0, 0.6, "inconclusive"),
        (0.5, 0.9, "inconclusive"),
        (0.6, 0.9, "refuted"),
        (None, None, "inconclusive"),
    ],
)
def test_no_worse_error_with_a_margin_of_a_half(low, high, verdict):
    assert no_worse(low, high, 0.5, better_side="below") == verdict
    mirrored = (None, None) if low is None else (-high, -low)
    assert no_worse(*mirrored, 0.5, better_side="above") == verdict


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "refuted"], "refuted"),
        (["supported", "not run"], "not run"),
        (["refuted", "not run"], "refuted"),
        (["inconclusive", "not run"], "not run"),
        (["not run"], "not run"),
    ],
)
def test_all_parts_are_needed(parts, verdict):
    assert all_parts(parts) == verdict


def test_refutation_rests_on_the_corrected_verdicts():
    assert all_parts(["refuted", "supported"], ["inconclusive", "supported"]) == "inconclusive"
    assert all_parts(["supported", "supported"], ["inconclusive", "inconclusive"]) == "supported"
    assert all_parts(["refuted", "supported"], ["refuted", "inconclusive"]) == "refuted"


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ConfigError, lambda: decide(0.0, 1.0, "lower")),
        (ConfigError, lambda: decide(0.0, 1.0, "below", 0.0)),
        (ConfigError, lambda: decide(None, None, "below", -1.0)),
        (ConfigError, lambda: no_worse(0.0, 1.0, -0.5, "below")),
        (ResultError, lambda: decide(1.0, 0.0, "below")),
        (ResultError, lambda: decide(None, 0.0, "below")),
        (ResultError, lambda: decide(float("nan"), float("nan"), "below")),
        (ResultError, lambda: all_parts([])),
        (ResultError, lambda: all_parts(["supported"], [])),
    ],
)
def test_mistakes_are_named(error, call):
    with pytest.raises(error):
        call()

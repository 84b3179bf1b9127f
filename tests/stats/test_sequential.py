"""The sequential design: worked by hand, and properties that hold for every sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from collabench.core.errors import ConfigError, ResultError
from collabench.stats import Design, Hypothesis, Part, chance_of_decision, evaluate_looks, is_futile, single_look
from collabench.stats.sequential import segments

LOOKS = Design((4, 8, 16), (0.2, 0.3, 0.5), 0.05)
LOWER = Hypothesis("below", smallest_effect=0.5)


def part(values):
    values = np.asarray(values, dtype=np.float64)
    return Part(values, np.full(values.size, 10.0))


def wave(mean, spread, n=16):
    """n differences with this mean, and the sample standard deviation ``spread`` at every even number of them up to a
    factor √(n / (n - 1))."""
    return part(mean + spread * np.tile([1.0, -1.0], n // 2))


@pytest.mark.parametrize(
    "looks,spend,error,message",
    [
        ((), (), 0.05, "looks: rising numbers"),
        ((8, 4), (0.5, 0.5), 0.05, "looks: rising numbers"),
        ((4, 8), (1.0,), 0.05, "spend: 2 shares are needed"),
        ((4, 8), (0.5, 0.6), 0.05, "add up to at most 1"),
        ((4, 8), (0.5, 0.0), 0.05, "shares above 0"),
        ((4,), (1.0,), 0.5, "error: a share"),
    ],
)
def test_a_design_that_spends_too_much_or_does_not_rise_is_refused(looks, spend, error, message):
    with pytest.raises(ConfigError, match=message):
        Design(looks, spend, error)


def test_levels_and_spending_by_hand():
    assert LOOKS.level(1) == pytest.approx(1 - 2 * 0.05 * 0.2) and LOOKS.level(3) == pytest.approx(0.95)
    assert [LOOKS.spent(look) for look in (1, 2, 3)] == pytest.approx([0.01, 0.025, 0.05])
    assert Design((2, 3, 4, 5), (0.1, 0.2, 0.3, 0.4), 0.05).spent(4) == pytest.approx(
        0.05
    )  # 0.1 + 0.2 + 0.3 + 0.4 > 1 in floats


def test_the_interval_at_a_look_is_students_at_the_error_spent_there_on_either_side():
    found = evaluate_looks(LOWER, [wave(-3.0, 1.0)], LOOKS, family=10)
    # Four differences −2 −4 −2 −4: standard deviation √(4/3). α w / m = 0.05 · 0.2 / 10 = 0.001 on either side.
    half = stats.t.isf(0.001, 3) * math.sqrt(4 / 3) / 2
    assert half > 3  # so the first look cannot decide
    assert found.look == 2 and found.verdict == "supported"
    half = stats.t.isf(0.05 * 0.3 / 10, 7) * math.sqrt(8 / 7) / math.sqrt(8)
    assert found.parts[0].interval == pytest.approx((-3 - half, -3 + half))
    assert found.parts[0].level == pytest.approx(1 - 2 * 0.05 * 0.3 / 10)
    assert (found.n, found.spent, found.finished, found.stopped) == (8, pytest.approx(0.025), True, False)


def test_adjusted_p_is_the_smallest_over_the_looks():
    sample = wave(-1.0, 1.0)
    found = evaluate_looks(LOWER, [sample], LOOKS, family=4)
    by_look = []
    for n, share in zip(LOOKS.looks[: found.look], LOOKS.spend, strict=False):
        one_sided = stats.ttest_1samp(sample.differences[:n], 0, alternative="less").pvalue
        by_look.append(4 * one_sided / share)
    assert found.adjusted_p == pytest.approx(min(1, *by_look))
    assert evaluate_looks(LOWER, [wave(1.0, 1.0)], LOOKS, family=4).adjusted_p == 1


def test_one_part_refutes_at_a_level_that_is_corrected_for_the_number_of_parts():
    good, bad = wave(-9.0, 1.0), wave(1.6, 1.0)
    two = evaluate_looks(LOWER, [good, bad], single_look(16, 0.05), family=1)
    assert two.verdict == "refuted"
    assert two.parts[1].level == pytest.approx(1 - 2 * 0.05 / 2)  # two parts
    assert two.parts[0].level == pytest.approx(1 - 2 * 0.05)
    # 0.5 · t(97.5 %) > bound > 0.5 · t(95 %): alone it is refuted, as one of two it is not
    half = [stats.t.isf(tail, 15) * math.sqrt(16 / 15) / 4 for tail in (0.05, 0.025)]
    middling = wave(sum(half) / 2, 1.0)
    assert evaluate_looks(LOWER, [middling], single_look(16, 0.05), family=1).verdict == "refuted"
    assert evaluate_looks(LOWER, [good, middling], single_look(16, 0.05), family=1).verdict == "inconclusive"


def test_all_parts_support_without_a_correction_for_their_number():
    half = stats.t.isf(0.05, 15) * math.sqrt(16 / 15) / 4
    sample = wave(-1.01 * half, 1.0)
    assert (
        evaluate_looks(Hypothesis("below", 0.001), [sample] * 5, single_look(16, 0.05), family=1).verdict == "supported"
    )


def test_incomplete_looks_are_not_evaluated():
    assert evaluate_looks(LOWER, [wave(-9.0, 1.0, 2)], LOOKS, family=1).look == 0
    short = evaluate_looks(LOWER, [wave(-1.2, 1.0, 14), wave(-1.2, 1.0)], LOOKS, family=9)
    assert (short.look, short.n, short.finished, short.verdict) == (2, 8, False, "inconclusive")
    with pytest.raises(ResultError, match="at least one part"):
        evaluate_looks(LOWER, [], LOOKS, family=1)


def test_without_spread_nothing_is_decided_and_nothing_stopped():
    found = evaluate_looks(LOWER, [part([-1.0] * 8)], LOOKS, family=1)
    assert (found.verdict, found.look, found.stopped, found.adjusted_p) == ("inconclusive", 2, False, None)


def test_where_a_middle_gives_which_verdict():
    # Half-width 0.2, smallest effect 0.5: an interval lies inside ±0.5 for middles from −0.3 to 0.3.
    found = [(low, high) for low, high, verdict in segments(LOWER, 0.2) if verdict == "supported"]
    assert found[0][0] == -math.inf and found[-1][1] == pytest.approx(-0.3)
    assert all(verdict == "refuted" for low, _, verdict in segments(LOWER, 0.2) if low >= -0.3)
    wide = [(low, high, verdict) for low, high, verdict in segments(LOWER, 2.0) if verdict == "inconclusive"]
    assert wide[0][0] == pytest.approx(-2) and wide[-1][1] == pytest.approx(2)
    margin = segments(Hypothesis("below", margin=0.5), 0.2)
    assert [(pytest.approx(low), pytest.approx(high), v) for low, high, v in margin] == [
        (-math.inf, 0.3, "supported"), (0.3, 0.7, "inconclusive"), (0.7, math.inf, "refuted"),
    ]  # fmt: skip
    assert segments(Hypothesis("above", margin=0.5), 0.2)[0][2] == "refuted"


def test_futility_by_hand():
    def futile(mean, spread):
        test = wave(mean, spread).first(4, LOWER)[0]
        return is_futile(LOWER, [test], LOOKS, family=10)

    # Four differences of spread 1: standard error 0.577. The last interval, 16 seeds at 0.25 % on either side, has the
    # half-width 3.286 · 1.155 / 4 = 0.949. Supported beyond −0.949, refuted beyond 0.949, and too wide for ±0.5.
    half = stats.t.isf(0.0025, 15) * math.sqrt(4 / 3) / 4
    error = math.sqrt(4 / 3) / 2
    assert futile(0.0, 1.0) and half > 0.5
    edge = half - error
    assert futile(-edge + 0.01, 1.0) and not futile(-edge - 0.01, 1.0)
    assert futile(edge - 0.01, 1.0) and not futile(edge + 0.01, 1.0)
    assert not futile(0.0, 0.2)  # the last interval would fit inside ±0.5: refuted as too small


def test_a_claim_is_not_stopped_while_one_part_could_still_refute_it():
    hopeless, bad = wave(0.0, 1.0).first(4, LOWER)[0], wave(2.0, 1.0).first(4, LOWER)[0]
    assert is_futile(LOWER, [hopeless], LOOKS, family=10)
    assert not is_futile(LOWER, [hopeless, bad], LOOKS, family=10)


def test_a_stop_is_shown_and_final():
    found = evaluate_looks(LOWER, [wave(0.0, 1.0)], LOOKS, family=10)
    assert (found.verdict, found.look, found.stopped, found.finished) == ("inconclusive", 1, True, True)


@pytest.mark.parametrize("mean,spread", [(-1.5, 1.0), (-0.9, 1.2), (0.0, 0.4), (0.4, 2.0), (-0.2, 0.7)])
def test_the_chance_of_a_decision_is_that_of_drawing_the_next_block(mean, spread):
    now = wave(mean, spread, 8)
    test = now.first(8, LOWER)[0]
    chance = chance_of_decision(LOWER, [test], LOOKS, look=2, family=5)
    # The truth is drawn around the present mean with n - 1 degrees of freedom, and so is the next block's mean.
    draw = np.random.Generator(np.random.Philox(key=3))
    means = test.difference + test.sd * math.sqrt(8 / (16 * 8)) * draw.standard_t(7, 200_000)
    half = stats.t.isf(0.05 * 0.5 / 5, 15) * test.sd / 4
    decided = (means + half < 0) | (means - half > 0) | (np.abs(means) + half < 0.5)
    assert chance == pytest.approx(decided.mean(), abs=0.005)


def test_there_is_no_chance_without_a_next_look():
    test = wave(-1.0, 1.0).first(16, LOWER)[0]
    with pytest.raises(ResultError, match="a look with another one after it"):
        chance_of_decision(LOWER, [test], LOOKS, look=3, family=1)
    assert chance_of_decision(LOWER, [part([1.0] * 4).first(4, LOWER)[0]], LOOKS, look=1, family=1) == 0


SAMPLES = st.lists(st.floats(-5, 5).map(lambda x: round(x, 2)), min_size=16, max_size=16)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, st.integers(1, 20))
def test_what_is_decided_stays_decided_and_rests_on_the_first_seeds_alone(values, family):
    whole = evaluate_looks(LOWER, [part(values)], LOOKS, family)
    if whole.finished:
        first = evaluate_looks(LOWER, [part(values[: whole.n])], LOOKS, family)
        assert first == whole
        other = evaluate_looks(LOWER, [part([*values[: whole.n], *([7.0] * (16 - whole.n))])], LOOKS, family)
        assert other == whole


@settings(max_examples=60, deadline=None)
@given(SAMPLES)
def test_mirrored_differences_and_sides_give_the_same(values):
    below = evaluate_looks(LOWER, [part(values)], LOOKS, 3)
    above = evaluate_looks(Hypothesis("above", 0.5), [part([-value for value in values])], LOOKS, 3)
    assert (below.verdict, below.look, below.stopped) == (above.verdict, above.look, above.stopped)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, st.integers(2, 20))
def test_support_is_p_below_the_error(values, family):
    """Without a smallest effect that could refute, support at a look and the adjusted p say the same."""
    found = evaluate_looks(Hypothesis("below", 1e-9), [part(values)], LOOKS, family)
    if found.adjusted_p is not None and abs(found.adjusted_p - 0.05) > 1e-9 and not found.stopped:
        assert (found.verdict == "supported") == (found.adjusted_p < 0.05)

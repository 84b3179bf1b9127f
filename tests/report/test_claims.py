"""Verdicts on claims: fabricated runs whose differences are worked out by hand."""

from __future__ import annotations

import re

import pytest

from collabench.papers.claims import CLAIMS, load_claims
from collabench.report.build import build_report
from collabench.report.claim_records import ClaimReport
from collabench.report.collect import collect
from collabench.report.pages import undecided
from collabench.report.pages.claims import CSV, JSON, PAGE, UNTUNED, overview, page, verdict_counts, verdict_table
from collabench.report.pages.terminal import terminal_summary
from collabench.report.verdicts import evaluate
from collabench.stats import seeds_needed
from collabench.storage.files import read_json, write_json
from collabench.storage.results import RESULT, Curves
from tests.support import fabricated
from tests.support.declared_claims import PROFILE, by_hand, claim, declare, study_in
from tests.support.project import ROOT

T5 = 2.5705818366  # 97.5 % quantile of Student's t with 5 degrees of freedom
T5_96 = 2.1909582572  # 96 % quantile
T5_98 = 2.7565085219  # 98 % quantile


@pytest.fixture
def study(tmp_path):
    return study_in(tmp_path)


def evaluated(study, *claims, kind="results", partial=False):
    """What the claims come to."""
    declare(study, *claims)
    declared = load_claims(study.workspace.papers, study.params)
    collected = collect(study.plan, study.workspace, partial=partial)
    return evaluate(declared, study.params, collected, study.workspace, kind, partial=partial)


def verdicts(study, *claims, **options):
    """Claim id → its verdict."""
    found = evaluated(study, *claims, **options)
    return {one.id: one for one in found.claims}


def build(study, *claims):
    """The report with these claims."""
    declare(study, *claims)
    return build_report(study.params, study.plan, study.workspace)


def compare(*pairs):
    return [{"method": method, "baseline": baseline} for method, baseline in pairs]


def test_wholly_on_the_claimed_side_is_supported_with_the_interval_worked_out_by_hand(study):
    (one,) = verdicts(study, claim(compare=compare(("simple-2", "individual")))).values()
    (scope,) = one.scopes
    (part,) = scope.parts
    half = T5 * (0.8 / 6) ** 0.5
    assert (part.estimate, part.n) == (pytest.approx(-2), 6)
    assert (part.low, part.high) == (pytest.approx(-2 - half), pytest.approx(-2 + half))
    half = T5_96 * (0.8 / 6) ** 0.5  # a family of one: 4 % on either side
    assert (part.adjusted_low, part.adjusted_high) == (pytest.approx(-2 - half), pytest.approx(-2 + half))
    assert part.sign_flip_p == pytest.approx(2 / 64)
    assert scope.p == part.p and scope.adjusted_p == pytest.approx(part.p / 2)  # one-sided
    assert (scope.look, scope.looks, scope.n, scope.spent, scope.is_early) == (1, (6,), 6, 0.04, False)
    assert (one.verdict, scope.verdict, part.seeds_needed) == ("supported", "supported", None)
    assert (
        one.line == "supported on an analogue: digits, 500 training images, split drawn per seed, 20 % uniform noise, "
        "ResNet-8 (width 16)"
    )


def test_the_other_side_refutes_and_so_does_an_interval_inside_the_smallest_effect(study):
    found = verdicts(
        study,
        claim(id="other-side", compare=compare(("simple-4", "individual"))),
        claim(id="too-small"),
        claim(id="higher", hypothesis="higher", compare=compare(("simple-4", "individual"))),
    )
    assert {name: one.verdict for name, one in found.items()} == {
        "other-side": "refuted", "too-small": "refuted", "higher": "supported",
    }  # fmt: skip
    assert abs(found["too-small"].scopes[0].parts[0].estimate) < 0.1


def test_the_interval_is_widened_over_all_declared_tests_of_the_paper(study):
    other = claim(id="unknown-runs", compare=compare(("dml", "individual")))
    two = verdicts(study, claim(compare=compare(("simple-2", "individual"))), other)
    part = two["one"].scopes[0].parts[0]
    # 2 % on either side: the test without runs is declared all the same
    assert (part.adjusted_high - part.estimate) / (0.8 / 6) ** 0.5 == pytest.approx(T5_98, abs=1e-6)
    assert two["one"].scopes[0].adjusted_p == pytest.approx(2 * part.p / 2)
    assert two["unknown-runs"].verdict == "not run"
    assert two["unknown-runs"].scopes[0].note == "no table of this profile holds dml"


def test_an_inconclusive_claim_names_the_seeds_that_would_decide_it_from_the_paper_or_the_smallest_effect(study):
    pair = compare(("label-smoothing", "individual"))
    found = verdicts(
        study,
        claim(compare=pair, smallest_effect=0.5),
        claim(id="quoted", compare=pair, published_effects={"noisy": [-2.0]}),
        claim(id="wrong-way", compare=pair, published_effects={"noisy": [3.0]}, smallest_effect=0.5),
    )
    sd = (16 / 15) ** 0.5  # differences +1 −1 +1 −1 +1 +1: mean 1/3, squares 16/3 over 5
    level = 0.92  # one difference, which counts once
    seeds = {name: one.scopes[0].parts[0].seeds_needed for name, one in found.items()}
    assert seeds == {
        "one": seeds_needed(0.5, sd, 6, level).seeds,
        "quoted": seeds_needed(2.0, sd, 6, level).seeds,
        "wrong-way": seeds_needed(0.5, sd, 6, level).seeds,
    }
    assert {one.verdict for one in found.values()} == {"inconclusive"}


def test_a_conjunction_needs_all_its_parts_and_one_that_is_refuted_refutes_it(study):
    good, bad, open_ = ("simple-2", "individual"), ("simple-4", "individual"), ("label-smoothing", "individual")
    found = verdicts(
        study,
        claim(id="all", compare=compare(good, ("ensemble-2", "individual"))),
        claim(id="refuted", compare=compare(good, bad)),
        claim(id="open", compare=compare(good, open_)),
        claim(id="absent", compare=compare(good, ("dml", "individual"))),
    )
    assert {name: one.verdict for name, one in found.items()} == {
        "all": "supported", "refuted": "refuted", "open": "inconclusive", "absent": "not run",
    }  # fmt: skip
    assert found["refuted"].scopes[0].p == 1  # the part on the other side is no support
    assert found["all"].scopes[0].p == max(part.p for part in found["all"].scopes[0].parts)


def test_a_tendency_is_the_mean_over_its_comparisons(study):
    pairs = compare(("simple-2", "individual"), ("simple-4", "individual"))
    (one,) = verdicts(study, claim(compare=pairs, combine="mean")).values()
    (part,) = one.scopes[0].parts
    # simple-2 differs by −1 −2 −3 −1 −2 −3, simple-4 by +1 +2 +3 +1 +2 +3: the mean is zero for every seed.
    assert part.estimate == pytest.approx(0) and part.note == "all differences are equal, so that there is no interval"
    assert one.verdict == "inconclusive"


def test_a_tendency_over_runs_that_are_missing_here_and_there_pairs_equal_seeds(study):
    absent = {("simple-2", 0), ("simple-4", 5)}
    for run in fabricated.cell_runs(study):
        if (run.configuration.names["method"], run.seed) in absent:
            (study.workspace.folder(run) / RESULT).unlink()
    pairs = compare(("simple-2", "individual"), ("simple-4", "individual"))
    (one,) = verdicts(study, claim(compare=pairs, combine="mean"), partial=True).values()
    (part,) = one.scopes[0].parts
    # Five seeds each, four in common: −2 −3 −1 −2 and +2 +3 +1 +2. By position the means would be −2 … +2 over two.
    assert (part.n, part.verdict) == (4, "inconclusive")
    assert part.estimate == pytest.approx(0) and part.note == "all differences are equal, so that there is no interval"


def test_a_hypothesis_that_is_younger_than_its_runs_is_marked_on_the_page_and_in_the_overview(study):
    pair = compare(("simple-2", "individual"))
    found = evaluated(study, claim(compare=pair, scopes=["noisy"]), claim(id="two", compare=pair, scopes=["late"]))
    _, table = verdict_table(found)
    assert list(table["Verdict"]) == [
        "**supported**, analogue",
        "**supported**, analogue (hypothesis younger than its runs)",
    ]
    assert page(found, {}).count("(hypothesis written down after these runs)") == 1


def test_tests_with_one_verdict_are_named_together_and_what_all_scopes_share_is_said_once(study):
    pairs = compare(("simple-2", "individual"), ("simple-4", "individual"), ("hierarchical-4", "individual"))
    found = evaluated(study, claim(combine="each", compare=pairs), claim(id="two", compare=pairs[:1], scopes=["noisy"]))
    shared, table = verdict_table(found)
    assert shared.startswith("digits, 500 training images, split drawn per seed, 20 % uniform noise, ResNet-8")
    assert list(table["Verdict"]) == [
        "**supported**, analogue: simple-2 against individual; "
        "**refuted**, analogue: simple-4 and hierarchical-4 against individual",
        "**supported**, analogue",
    ]
    text = page(found, {})
    assert f"All tests here ran on {shared}." in text
    assert f"- [S.](#one) {table['Verdict'][0]}\n" in text


def test_no_worse_holds_within_the_margin_only(study):
    pair = compare(("simple-4", "individual"))
    wide, narrow, between = (
        claim(id=name, hypothesis="no_worse", smallest_effect=None, margin=margin, compare=pair)
        for name, margin in (("wide", 4.0), ("narrow", 0.5), ("between", 2.5))
    )
    found = verdicts(study, wide, narrow, between)
    assert {name: one.verdict for name, one in found.items()} == {
        "wide": "supported", "narrow": "refuted", "between": "inconclusive",
    }  # fmt: skip
    part = found["between"].scopes[0].parts[0]
    assert part.p == pytest.approx(0.2289, abs=1e-3)  # t = −0.5 / √(0.8 / 6) = −1.369, 5 degrees, against the margin
    assert part.seeds_needed == seeds_needed(2.5, 0.8**0.5, 6, 0.92).seeds
    text = " ".join(page(evaluated(study, between), {}).split())
    assert "p 0.229" in text and "for “no worse” against the margin" in text  # not the p of the difference from zero


def test_growth_with_the_noise_is_a_slope_per_seed(study):
    (one,) = verdicts(
        study,
        claim(quantity="error_growth", smallest_effect=0.01, scopes=["noise"], compare=compare(("simple-2",
            "individual"))),
    ).values()  # fmt: skip
    (part,) = one.scopes[0].parts
    # The difference is 0 at 0 %, d at 20 %, 2 d at 40 %: its slope is d / 20, on average −2 / 20 points a point.
    assert part.estimate == pytest.approx(-0.1) and one.unit == "percentage points per point of noise"
    assert part.high == pytest.approx((-2 + T5 * (0.8 / 6) ** 0.5) / 20)
    assert one.verdict == "supported"
    assert one.scopes[0].where[1] == "clean labels / 20 % uniform noise / 40 % uniform noise"


def test_another_head_is_compared_where_the_claim_says_so(study):
    pairs = [{"method": "simple-2", "baseline": "individual", "head": 1}]
    (one,) = verdicts(study, claim(compare=pairs)).values()
    assert one.scopes[0].parts[0].estimate == pytest.approx(-2.2)  # the fabricated second head is 0.2 points better


def test_convergence_is_the_first_epoch_at_the_level_and_never_counts_as_one_more(study):
    for run in fabricated.cell_runs(study):
        names = run.configuration.names
        curve = [0.5] * 40
        if names["method"] == "simple-2":
            curve[7 + run.seed :] = [0.2] * (33 - run.seed)  # epoch 8 + seed
        result = fabricated.result_of(run, by_hand(run), curves=Curves(test_error=tuple(curve)))
        write_json(study.workspace.folder(run) / RESULT, result)
    (one,) = verdicts(
        study,
        claim(quantity="epochs_to_level", levels={"noisy": 20}, smallest_effect=1, compare=compare(("simple-2",
            "individual"))),
    ).values()  # fmt: skip
    (part,) = one.scopes[0].parts
    assert part.estimate == pytest.approx(10.5 - 41) and one.unit == "epochs" and one.verdict == "supported"


def test_costs_are_ratios_and_stand_beside_the_costs_alone(study):
    fabricated.write_measured(study)
    time = claim(id="time", quantity="train_seconds", hypothesis="higher", smallest_effect=0.05,
                 compare=compare(("simple-4", "simple-2")))  # fmt: skip
    memory = claim(id="memory", quantity="peak_memory", smallest_effect=0.05, compare=compare(("simple-2", "simple-4")))
    for run in fabricated.cell_runs(study):
        if run.configuration.names["method"] == "simple-4":  # three times simple-2's, not always exactly
            seconds = 3 * 2 * (10.0 + run.seed) * (1.01 if run.seed % 2 else 1 / 1.01)
            measured = fabricated.measured_of(run, train_seconds=seconds)
            write_json(study.workspace.measured_file(run), measured)
    found = verdicts(study, time, memory, claim(), kind="costs")
    (part,) = found["time"].scopes[0].parts
    assert (part.estimate, found["time"].verdict, found["time"].unit) == (pytest.approx(3), "supported", "ratio")
    assert 2.9 < part.adjusted_low < 3 < part.adjusted_high < 3.1
    assert "CPU" in found["memory"].scopes[0].note and found["memory"].verdict == "inconclusive"
    assert set(found) == {"time", "memory"}
    fabricated.write_measured(study, train_seconds=77.0)
    assert (
        verdicts(study, time, memory, claim(), kind="costs")["time"].verdict == "inconclusive"
    )  # a ratio of 1, no spread


def test_costs_of_two_devices_decide_nothing(study):
    fabricated.write_measured(study)
    run = next(run for run in fabricated.cell_runs(study) if run.configuration.names["method"] == "simple-2")
    measured = fabricated.measured_of(run, device="another processor")
    write_json(study.workspace.measured_file(run), measured)
    noise = run.configuration.names["noise"]
    assert noise == "clean"
    declare(study, claim(quantity="train_seconds", scopes=["clean"], compare=compare(("simple-2", "individual"))))
    declared = load_claims(study.workspace.papers, study.params)
    collected = collect(study.plan, study.workspace)
    (one,) = evaluate(declared, study.params, collected, study.workspace, "costs").claims
    assert one.verdict == "inconclusive" and "another processor" in one.scopes[0].note


def test_the_same_network_needs_the_same_parameters_and_tensors(study):
    import numpy as np
    from safetensors.numpy import save_file

    text = claim(
        quantity="network", hypothesis="same", smallest_effect=None, compare=compare(("simple-2", "individual"))
    )
    (one,) = verdicts(study, text).values()
    assert one.verdict == "inconclusive" and "weights are not stored" in one.scopes[0].parts[0].note
    for run in fabricated.cell_runs(study):
        folder = study.workspace.folder(run)
        save_file({"a.weight": np.zeros((3, 2), np.float32)}, folder / "weights.safetensors")
    (one,) = verdicts(study, text).values()
    assert one.verdict == "supported" and one.scopes[0].p is None
    for run in fabricated.cell_runs(study):
        if run.configuration.names["method"] == "simple-2":
            folder = study.workspace.folder(run)
            save_file({"a.weight": np.zeros((2, 3), np.float32)}, folder / "weights.safetensors")
    (one,) = verdicts(study, text).values()
    assert one.verdict == "refuted"


def test_what_no_test_decides_is_counted_apart_from_tests(study):
    network = claim(id="network", quantity="network", hypothesis="same", smallest_effect=None,
                    compare=compare(("simple-2", "individual")))  # fmt: skip
    pairs = compare(("simple-2", "individual"), ("simple-4", "individual"))
    found = evaluated(study, claim(combine="each", compare=pairs), network)
    assert verdict_counts(found) == (
        "2 tests on 1 claim: 1 supported, 1 refuted; "
        "1 comparison of networks, without a test, on 1 claim: 1 inconclusive"
    )
    assert found.families == {"song2018": 2}


def test_each_comparison_of_a_claim_in_general_has_its_own_verdict(study):
    pairs = compare(("simple-2", "individual"), ("simple-4", "individual"))
    (one,) = verdicts(study, claim(combine="each", compare=pairs, published_effects={"noisy": [-1.0, -2.0]})).values()
    first, second = one.scopes
    assert (first.compared, first.verdict) == ("simple-2 against individual", "supported")
    assert (second.compared, second.verdict) == ("simple-4 against individual", "refuted")
    assert [scope.parts[0].published_effect for scope in one.scopes] == [-1.0, -2.0]
    assert one.verdict == "mixed" and "supported on an analogue: simple-2 against individual, digits" in one.line
    # A family of two: 2 % on either side
    half = T5_98 * (0.8 / 6) ** 0.5
    assert first.parts[0].adjusted_high == pytest.approx(-2 + half)


def test_beside_a_refutation_stands_that_weights_were_not_tuned(study):
    costs = evaluated(study, claim(compare=compare(("simple-4", "individual"))), kind="costs")
    refuted = evaluated(study, claim(compare=compare(("simple-4", "individual"))))
    supported = evaluated(study, claim(compare=compare(("simple-2", "individual"))))
    for found, expected in ((refuted, True), (supported, False)):
        body = page(found, {}).split("\n---\n")[1]
        assert ("The methods' weights were not tuned here." in body) is expected
        assert (UNTUNED in "\n".join(overview(found, costs))) is expected


def test_the_page_says_of_each_undecided_test_why_and_what_it_would_take(study):
    pair, decided = ("label-smoothing", "individual"), ("simple-2", "individual")  # a mean of 1/3, and a decided one
    found = evaluated(
        study,
        claim(id="small", compare=compare(pair), smallest_effect=0.5),
        claim(id="spread", compare=compare(pair), smallest_effect=0.1),
        claim(id="part", compare=compare(decided, pair), smallest_effect=0.5),
        claim(id="decided", compare=compare(decided)),
    )
    lines = "\n\n".join(undecided.section(found, lambda scope: f"where {scope.scope} is")).splitlines()
    assert re.sub(r"[^a-z ]", "", undecided.TITLE.lower()).replace(" ", "-") == undecided.ANCHOR
    rows = {line.split("]")[0][3:]: line.split("|") for line in lines if line.startswith("| [")}
    assert rows.keys() == {"small", "spread", "part"}
    for name, why in (("small", undecided.SMALL), ("spread", undecided.SPREAD), ("part", undecided.SMALL)):
        (scope,) = next(one.scopes for one in found.claims if one.id == name)
        seeds = {part.compared: part.seeds_needed for part in scope.parts}["label-smoothing against individual"]
        cells = [cell.strip() for cell in rows[name]]
        assert "label-smoothing against individual" in cells and f"{seeds:,}" in cells and why in cells
        assert f"where {scope.scope} is" in cells


def test_without_an_interval_seeds_are_too_few_and_a_report_without_undecided_tests_has_no_such_section(study):
    everything = evaluated(study, claim(compare=compare(("simple-2", "individual"))))
    assert undecided.section(everything, str) == [] and undecided.TITLE not in page(everything, {})
    part = everything.claims[0].scopes[0].parts[0]
    alone = part.model_copy(update={"n": 1, "low": None, "high": None, "verdict": "inconclusive"})
    assert undecided.why(everything.claims[0].scopes[0], alone) == undecided.FEW


def test_a_scopes_own_smallest_effect_is_used_and_told_with_its_pilot(study):
    declare(study, claim(smallest_effect=None))
    path = study.workspace.papers / CLAIMS
    path.write_text(path.read_text().replace("recipe: forty}", 'recipe: forty, smallest_effect: 0.5, pilot: "P."}'))
    declared = load_claims(study.workspace.papers, study.params)
    collected = collect(study.plan, study.workspace)
    found = evaluate(declared, study.params, collected, study.workspace, "results")
    scope = found.claims[0].scopes[0]
    assert (scope.smallest_effect, scope.pilot, scope.verdict) == (0.5, "P.", "refuted")  # ±0.01 lies inside 0.5
    assert "Smallest effect of interest: 0.5 percentage points (P.)." in page(found, {})


@pytest.mark.parametrize("path", sorted((ROOT / "reports").glob("*/claims.json")), ids=lambda path: path.parent.name)
def test_accepted_reports_are_read_also_those_from_before_the_looks(path):
    report = read_json(path, ClaimReport)
    assert page(report, {}).startswith("# Claims of the papers") and bool(verdict_counts(report)) == bool(report.here())


def test_with_one_seed_nothing_is_decided(tmp_path):
    study = fabricated.make_study(tmp_path, PROFILE.replace("seeds: 6", "seeds: 1"))
    fabricated.write_results(study, errors=by_hand)
    (one,) = verdicts(study, claim(compare=compare(("simple-2", "individual")))).values()
    assert (one.verdict, one.scopes[0].parts[0].note) == ("inconclusive", "one seed has no interval")


@pytest.mark.slow
def test_page_overview_terminal_and_csv_say_the_same_and_bytes_repeat(study):
    texts = (
        claim(compare=compare(("simple-2", "individual")), scopes=["noisy", "cifar"]),
        claim(id="two", paper="wang2018", compare=compare(("simple-4", "individual")), reading="A reading."),
    )
    timed = claim(id="timed", quantity="train_seconds", compare=compare(("simple-2", "individual")))
    timed += (
        "untested:\n  - {paper: song2018, statement: S., reason: R.,"
        " source: {file: 000_1e20208135b2abb2.txt, place: P, words: W}}\n"
    )
    fabricated.write_measured(study)
    built = build(study, *texts, timed)
    one, _ = read_json(built.folder / JSON, ClaimReport).claims
    assert one.line.endswith("not run on CIFAR-100") and one.elsewhere[0].endswith("(no profile)")
    folder = study.workspace.report
    text, overview = (folder / PAGE).read_text(), (folder / "README.md").read_text()
    assert "**supported** on an analogue: digits, 500 training images, split drawn per seed, 20 % uniform noise" in text
    assert "this project's reading" in text and "Reading: A reading." in text
    assert "2 tests on 2 claims: 1 supported, 1 refuted" in overview and "wang2018 (our reading)" in overview
    assert f"]({PAGE})" in overview
    assert "Claims of the papers" in terminal_summary(study.workspace)
    lines = (folder / CSV).read_text().splitlines()
    assert len(lines) == 3 and lines[1].startswith("one,song2018,noisy,simple-2 against individual,supported")
    assert "- S. (Somebody (000_1e20208135b2abb2.txt), P: “W”) R." in text
    assert "“W”) R." not in (built.costs / PAGE).read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    costs = (built.costs / JSON).read_bytes()
    fabricated.write_measured(study, train_seconds=77.0)
    build(study, *texts, timed)
    assert (built.costs / JSON).read_bytes() != costs and (built.costs / PAGE).exists()
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_a_profile_without_claims_says_so_and_a_project_without_the_file_no_page(study):
    built = build_report(study.params, study.plan, study.workspace)
    assert not (built.folder / PAGE).exists()
    build(study, claim(scopes=["cifar"]))
    assert "No claim is declared for this profile" in (built.folder / "README.md").read_text()
    assert "not run on CIFAR-100; no profile holds its runs" in (built.folder / PAGE).read_text()

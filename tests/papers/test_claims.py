"""Claims as data, and the verdicts on them: fabricated runs whose differences are worked out by hand."""

from __future__ import annotations

import json
import re

import pytest

from collabench.config.params import load_params
from collabench.config.validation import validate
from collabench.config.yaml_file import read_yaml
from collabench.core.errors import ConfigError
from collabench.papers.claims import CLAIMS, Claims, load_claims
from collabench.papers.tables import PAPER
from collabench.report.build import build_report
from collabench.report.claim_records import ClaimReport
from collabench.report.collect import collect
from collabench.report.pages.claims import CSV, JSON, PAGE, page, verdict_table
from collabench.report.pages.terminal import terminal_summary
from collabench.report.verdicts import evaluate
from collabench.stats import seeds_needed, simultaneous_level
from collabench.storage.files import read_json, write_json
from collabench.storage.results import RESULT, Curves
from collabench.study.study import load_study
from tests.support import fabricated
from tests.support.project import ROOT

SOURCES = ROOT.parent / "shared" / "papers"

PROFILE = """\
  small:
    description: for claims
    seeds: 6
    tables:
      - {name: all, datasets: [digits-500], noise: [clean, uniform20, uniform40], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing, simple-2, simple-4, hierarchical-4, ensemble-2]}
"""

SCOPES = """\
scopes:
  noisy: {profile: small, dataset: digits-500, noise: [uniform20], model: resnet8, recipe: forty}
  noise: {profile: small, dataset: digits-500, noise: [clean, uniform20, uniform40], model: resnet8, recipe: forty}
  clean: {profile: small, dataset: digits-500, model: resnet8, recipe: forty}
  late: {profile: small, declared_after_runs: true, dataset: digits-500, noise: [uniform20], model: resnet8, \
recipe: forty}
  cifar: {published: true, dataset: cifar100, model: resnet32, recipe: song2018-resnet}
"""

#: Test error in percent at 20 % noise by seed, of six seeds. Differences to individual: simple-2 −2 (sd √0.8),
#: simple-4 +2 (sd √0.8), hierarchical-4 alternating ±0.01, label-smoothing +1/3 (sd 1.03).
PERCENT = {
    "individual": (10, 12, 14, 11, 13, 15),
    "simple-2": (9, 10, 11, 10, 11, 12),
    "simple-4": (11, 14, 17, 12, 15, 18),
    "hierarchical-4": (10.01, 11.99, 14.01, 10.99, 13.01, 14.99),
    "label-smoothing": (11, 11, 15, 10, 14, 16),
    "ensemble-2": (5, 6, 7, 6, 5, 6),
}
ABOUT = "{title: A paper, authors: Somebody, published: somewhere, sources: {}}\n"
T5 = 2.5705818366  # 97.5 % quantile of Student's t with 5 degrees of freedom


def by_hand(run):
    """A method's gain over individual is the same at 20 % noise, none with clean labels, twice at 40 %."""
    method, seed = run.configuration.names["method"], run.data_seed
    base = PERCENT["individual"][seed]
    return (base + (PERCENT[method][seed] - base) * run.configuration.noise.rate / 0.2) / 100


def claim(**changes):
    """One claim as YAML: hierarchical-4 has lower error than individual, changed as asked."""
    fields = {
        "id": "one", "paper": "song2018", "statement": "S.", "quantity": "error", "hypothesis": "lower",
        "source": {"file": "000_1e20208135b2abb2.txt", "place": "P", "words": "W"}, "smallest_effect": 0.1,
        "compare": [{"method": "hierarchical-4", "baseline": "individual"}], "scopes": ["noisy"], **changes,
    }  # fmt: skip
    return "  - " + json.dumps({key: value for key, value in fields.items() if value is not None}) + "\n"


@pytest.fixture
def study(tmp_path):
    made = fabricated.make_study(tmp_path, PROFILE)
    fabricated.write_results(made, errors=by_hand)
    return made


def declare(study, *claims):
    """Write the claims, with the scopes that they name (and one where they name none)."""
    used = "".join(claims)
    named = [line for line in SCOPES.splitlines()[1:] if f'"{line.split(":")[0].strip()}"' in used]
    study.workspace.papers.mkdir(exist_ok=True)
    scopes = "\n".join(named or SCOPES.splitlines()[1:2])
    for paper in {json.loads(one.removeprefix("  - "))["paper"] for one in claims if one.startswith("  - {")}:
        (study.workspace.papers / paper).mkdir(exist_ok=True)
        (study.workspace.papers / paper / PAPER).write_text(ABOUT)
    (study.workspace.papers / CLAIMS).write_text(f"scopes:\n{scopes}\nclaims:\n{used}")


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


# ------------------------------------------------------------------------------------------------------- verdicts


def test_wholly_on_the_claimed_side_is_supported_with_the_interval_worked_out_by_hand(study):
    (one,) = verdicts(study, claim(compare=compare(("simple-2", "individual")))).values()
    (scope,) = one.scopes
    (part,) = scope.parts
    half = T5 * (0.8 / 6) ** 0.5
    assert (part.estimate, part.n) == (pytest.approx(-2), 6)
    assert (part.low, part.high) == (pytest.approx(-2 - half), pytest.approx(-2 + half))
    assert (part.adjusted_low, part.adjusted_high) == (part.low, part.high)  # a family of one
    assert part.sign_flip_p == pytest.approx(2 / 64)
    assert scope.p == scope.holm_p == part.p
    assert (one.verdict, scope.verdict, part.seeds_needed) == ("supported", "supported", None)
    assert one.line == "supported on digits, 500 training images, 20 % uniform noise, ResNet-8 (width 16)"


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
    assert (part.adjusted_high - part.estimate) / (0.8 / 6) ** 0.5 == pytest.approx(
        3.16338, abs=1e-4
    )  # t(5) at 98.75 %
    assert two["one"].scopes[0].holm_p == pytest.approx(2 * part.p)  # the test without runs is declared all the same
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
    level = simultaneous_level(0.95, 3)
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
    assert list(table["Verdict"]) == ["**supported**", "**supported** (hypothesis younger than its runs)"]
    assert page(found).count("(hypothesis written down after these runs)") == 1


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
    assert part.seeds_needed == seeds_needed(2.5, 0.8**0.5, 6, simultaneous_level(0.95, 3)).seeds
    text = " ".join(page(evaluated(study, between)).split())
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


def test_with_one_seed_nothing_is_decided(tmp_path):
    study = fabricated.make_study(tmp_path, PROFILE.replace("seeds: 6", "seeds: 1"))
    fabricated.write_results(study, errors=by_hand)
    (one,) = verdicts(study, claim(compare=compare(("simple-2", "individual")))).values()
    assert (one.verdict, one.scopes[0].parts[0].note) == ("inconclusive", "one seed has no interval")


# ---------------------------------------------------------------------------------------------------------- files


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
    assert "**supported** on digits, 500 training images, 20 % uniform noise" in text
    assert "this project's reading" in text and "Reading: A reading." in text
    assert "2 verdicts on 2 claims: 1 supported, 1 refuted" in overview and "wang2018 (our reading)" in overview
    assert f"]({PAGE})" in overview
    assert "Claims of the papers" in terminal_summary(study.workspace)
    lines = (folder / CSV).read_text().splitlines()
    assert len(lines) == 3 and lines[1].startswith("one,song2018,noisy,simple-2 against individual,supported")
    assert "- S. (000_1e20208135b2abb2.txt, P: “W”) R." in text and "“W”) R." not in (built.costs / PAGE).read_text()
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


# --------------------------------------------------------------------------------------------------------- schema


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"margin": 1.0}, "margin belongs to the hypothesis no_worse"),
        ({"smallest_effect": None}, "smallest_effect belongs to"),
        ({"quantity": "network"}, "hypothesis: same goes with quantity: network"),
        ({"quantity": "epochs_to_level"}, "levels belong to"),
        ({"published_effects": {"noisy": [1.0, 2.0]}}, "1 numbers are needed"),
        ({"published_effects": {"cifar": [1.0]}}, "not one of the claim's scopes"),
        ({"scopes": ["nowhere"]}, r"'nowhere' is not defined under scopes"),
        ({"scopes": ["noise"]}, "error_growth needs scopes with several noise entries"),
        ({"compare": [{"method": "nothing", "baseline": "individual"}]}, r"'nothing' is not defined under methods"),
        ({"compare": [{"method": "simple-2", "baseline": "individual", "wide_baseline": True}]}, "needs wide_model"),
        ({"combine": "mean"}, "two comparisons or more"),
        ({"colour": "blue"}, "unknown key 'colour'"),
    ],
)
def test_a_mistake_gives_one_line_with_file_and_place(study, changes, message):
    declare(study, claim(**changes))
    with pytest.raises(ConfigError, match=message) as error:
        load_claims(study.workspace.papers, study.params)
    assert re.match(rf"^{re.escape(str(study.workspace.papers / CLAIMS))}:\d+: \S", str(error.value))
    assert "\n" not in str(error.value)


def test_a_scope_must_name_what_params_define(study):
    declare(study, claim())
    path = study.workspace.papers / CLAIMS
    path.write_text(path.read_text().replace("resnet8", "vgg99"))
    with pytest.raises(ConfigError, match=r"scopes.noisy.model: 'vgg99' is not defined under models"):
        load_claims(study.workspace.papers, study.params)


# ---------------------------------------------------------------------------------------------- the project's file


@pytest.fixture(scope="module")
def claims() -> Claims:
    document = read_yaml(ROOT / "papers" / CLAIMS)
    return validate(document, Claims, document.value)


def test_the_projects_claims_name_only_what_params_define():
    params = load_params(ROOT / "params.yaml")
    assert len(load_claims(ROOT / "papers", params).claims) > 20


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["default", "digits", "digits-claims", "cifar10-jpeg", "cifar10-jpeg-gpu", "paper"])
def test_a_profile_runs_everything_that_its_claims_need(profile):
    study = load_study(ROOT, profile)
    plan, claims = study.plan, load_claims(study.workspace.papers, study.params)
    parts = ("dataset", "noise", "model", "recipe", "method")
    cells = {tuple(cell.configuration.names[part] for part in parts) for cell in plan.cells}
    absent = set()
    for one in claims.claims:
        if not any(cell[-1].startswith(one.paper) for cell in cells) and one.paper == "fang2021":
            continue  # a profile that leaves a paper out says "not run"
        for scope in (claims.scopes[name] for name in one.scopes if claims.scopes[name].profile == profile):
            for pair in one.compare:
                wide = pair.wide_baseline
                model, recipe = (scope.wide_model or scope.model) if wide else scope.model, scope.recipe
                recipe = (scope.wide_recipe or recipe) if wide else recipe
                for noise in scope.noise:
                    absent |= {
                        (scope.dataset, noise, scope.model, scope.recipe, pair.method),
                        (scope.dataset, noise, model, recipe, pair.baseline),
                    } - cells
    assert not absent


def test_the_quoted_words_stand_in_the_sources(claims):
    if not SOURCES.is_dir():
        pytest.skip("the papers' texts are not here")
    texts = {path.name: " ".join(path.read_text().replace("**", "").split()) for path in SOURCES.glob("*.txt")}
    for one in (*claims.claims, *claims.untested):
        assert one.source.words in texts[one.source.file], one.statement


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")

#: A part of a source that a claim's place names → its file's first digits, and the words between which it stands.
PARTS = {
    "Abstract": ("000", "\nAbstract\n", "\nPeer Reviews"),
    "Results and Conclusions": ("002", "Results and Conclusions", "\n\nSimilar experiments"),
    "Summary": ("004", "Summary:", "ISSN:"),
    "IV.B": ("003", "B. Combination of Collaborations", "V. CONCLUSION"),
}


def test_a_place_that_counts_sentences_counts_right(claims):
    if not SOURCES.is_dir():
        pytest.skip("the papers' texts are not here")
    checked = 0
    for one in (*claims.claims, *claims.untested):
        for part, (file, start, end) in PARTS.items():
            named = re.search(rf"(?i:{re.escape(part)}), (\w+) sentence", one.source.place)
            if not one.source.file.startswith(file) or named is None or named[1] not in ORDINALS:
                continue
            text = (SOURCES / one.source.file).read_text().replace("**", "").split(start, 1)[1].split(end, 1)[0]
            sentences = re.split(r"(?<=\.)\s+(?=[A-Z])", text.strip())
            holding = [
                number for number, sentence in enumerate(sentences) if one.source.words in " ".join(sentence.split())
            ]
            if holding:  # the quoted words may be those of another place that the claim names too
                assert holding == [ORDINALS.index(named[1])], one.statement
                checked += 1
    assert checked > 20


def _table_rows(text: str) -> dict[str, dict[str, float]]:
    """Scope name → column → value of Tables I and II, and of Table III, as the text prints them."""
    columns = ("baseline", "2x", "out", "mid", "pull-push", "kernel", "out-mid-pull-push", "mid-pull-push-kernel")
    combinations = (
        "out", "mid", "pull-push", "kernel", "out-mid", "out-pull-push", "out-kernel", "mid-pull-push", "mid-kernel",
        "pull-push-kernel", "out-mid-pull-push", "out-mid-kernel", "out-pull-push-kernel", "mid-pull-push-kernel",
        "out-mid-pull-push-kernel",
    )  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    dataset = ""
    for line in text.splitlines():
        fields = line.split("\t")
        dataset = fields[0] or dataset
        numbers = [float(field) for field in fields if re.fullmatch(r"\d+\.\d\d", field)]
        model = next((field for field in fields if field in ("VGG-16", "ResNet-18")), None)
        if model is None or len(numbers) not in (8, 15):
            continue
        data = dataset if len(numbers) == 8 else "CIFAR-100"
        name = f"{data.lower().replace('-', '')}-{model.lower().replace('-', '')}"
        found.setdefault(name, {}).update(zip(columns if len(numbers) == 8 else combinations, numbers, strict=True))
    return found


def test_published_effects_are_differences_of_the_printed_tables(claims):
    if not SOURCES.is_dir():
        pytest.skip("the papers' texts are not here")
    rows = _table_rows((SOURCES / "003_0fca84f30fd0cf9f.txt").read_text())
    assert len(rows) == 8
    checked = 0
    for one in claims.claims:
        for scope, effects in one.published_effects.items():
            if scope == "cifar100-vgg16-noise50":  # Figure 2's one known number
                assert effects == (-3.53,)
                continue
            for pair, effect in zip(one.compare, effects, strict=True):
                method, baseline = (
                    "baseline" if name == "individual" else name.removeprefix("fang2021-")
                    for name in (pair.method, pair.baseline)
                )  # fmt: skip
                values = rows[scope]
                difference = values[method] - values["2x" if pair.wide_baseline else baseline]
                assert effect == pytest.approx(difference, abs=1e-9), (one.id, scope, pair)
                checked += 1
    assert checked > 100


def test_what_a_text_says_of_both_networks_is_claimed_for_both(claims):
    networks: dict[str, set[str]] = {}
    for one in claims.claims:
        if "VGG-16 and ResNet-18" in one.source.words:
            models = {claims.scopes[name].model for name in one.scopes if claims.scopes[name].published}
            networks.setdefault(one.source.words, set()).update(models)
    assert networks and all(models == {"vgg16", "resnet18"} for models in networks.values())


def test_results_of_an_abstract_are_marked(claims):
    assert {one.source.file for one in claims.claims if one.paper == "wang2018"} == {"004_155e5b2c3c91717d.txt"}

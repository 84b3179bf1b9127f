"""Claims as data: the schema, and the project's own file."""

from __future__ import annotations

import re

import pytest

from collabench.config.data_sections import NoiseConfig
from collabench.config.validation import validate
from collabench.config.yaml_file import read_yaml
from collabench.core.errors import ConfigError
from collabench.papers.claim_schema import Claims
from collabench.papers.claims import CLAIMS, load_claims
from tests.support import fabricated
from tests.support.declared_claims import PROFILE, claim, declare
from tests.support.project import ROOT
from tests.support.real import real_params, real_study


@pytest.fixture
def study(tmp_path):
    """Without results, which no claim is read with."""
    return fabricated.make_study(tmp_path, PROFILE)


SOURCES = ROOT.parent / "shared" / "papers"


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"margin": 1.0}, "margin belongs to the hypothesis no_worse"),
        ({"smallest_effect": None}, "neither the claim nor the scope 'noisy' states a smallest_effect"),
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


def test_a_slope_over_noise_without_a_rate_is_refused(study):
    study.params.noise["uniform40"] = NoiseConfig(kind="matrix", rows=((0.5, 0.5), (0.5, 0.5)))
    declare(study, claim(quantity="error_growth", scopes=["noise"]))
    with pytest.raises(ConfigError, match="a slope over the rate of the noise, and 'uniform40' has none"):
        load_claims(study.workspace.papers, study.params)


def test_a_comparison_of_float32_with_bfloat16_is_refused(study):
    """Of the network with twice the filters, which has a recipe of its own."""
    declare(study, claim())
    path = study.workspace.papers / CLAIMS
    path.write_text(path.read_text().replace("recipe: forty}", "recipe: forty, wide_recipe: song2018-resnet-bf16}"))
    said = r"claims.yaml:2: scopes.noisy.wide_recipe: forty has float32 and song2018-resnet-bf16 has bfloat16: a scope"
    with pytest.raises(ConfigError, match=said) as error:
        load_claims(study.workspace.papers, study.params)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "design,message",
    [
        ("{looks: [6, 12], spend: [0.5]}", r"designs.small: spend: 2 shares are needed, one a look"),
        ("{looks: [6, 6], spend: [0.5, 0.5]}", r"designs.small: looks must rise"),
        ("{looks: [6, 12], spend: [0.6, 0.5]}", r"the shares add up to 1.1; at most 1 can be spent"),
        ("{looks: [5, 12], spend: [0.5, 0.5]}", r"designs.small.looks.0: the first look is at 5 seeds, .* have 6"),
        ("{looks: [6, 1000], spend: [0.5, 0.5], error: 0.3}", r"designs.small.error: "),
        ("{looks: [6], spend: [1], fresh_from: [small]}", r"designs.small.fresh_from.0: a profile cannot be fresh"),
        ("{looks: [6], spend: [1], fresh_from: [large]}", r"'large' is not defined under profiles"),
        ("{looks: [6, 1001], spend: [0.5, 0.5]}", r"designs.small.looks.1: "),
    ],
)
def test_a_design_is_checked(study, design, message):
    declare(study, claim())
    path = study.workspace.papers / CLAIMS
    path.write_text(f"designs:\n  small: {design}\n" + path.read_text())
    with pytest.raises(ConfigError, match=message) as error:
        load_claims(study.workspace.papers, study.params)
    assert re.match(rf"^{re.escape(str(path))}:2: \S", str(error.value)) and "\n" not in str(error.value)


def test_a_replication_uses_no_seed_of_the_study_that_it_repeats(study):
    """Up to its last look, and not only up to the seeds of its tables."""
    declare(study, claim())
    path = study.workspace.papers / CLAIMS
    again = study.params.profiles["small"].model_copy(update={"first_seed": 12})
    study.params.profiles["again"] = again
    text = (
        path.read_text()
        .replace(
            "\nclaims:",
            """
  fresh: {profile: again, dataset: digits-500, noise: [uniform20], model: resnet8, recipe: forty}
claims:""",
        )
        .replace('"scopes": ["noisy"]', '"scopes": ["noisy", "fresh"]')
    )
    designs = (
        "designs:\n  small: {{looks: [6, {last}], spend: [0.5, 0.5]}}\n"
        "  again: {{looks: [6], spend: [1], fresh_from: [small]}}\n"
    )
    path.write_text(designs.format(last=12) + text)
    assert set(load_claims(study.workspace.papers, study.params).designs) == {"small", "again"}
    path.write_text(designs.format(last=14) + text)
    with pytest.raises(ConfigError, match=r"again and small share the seeds 12 to 13; choose another first_seed"):
        load_claims(study.workspace.papers, study.params)


def test_superiority_and_non_inferiority_of_one_difference_are_one_test_and_costs_a_family_of_their_own(study):
    pair = [{"method": "simple-2", "baseline": "individual"}]
    three = [*pair, {"method": "simple-4", "baseline": "individual"}]
    declare(
        study,
        claim(compare=pair),
        claim(id="no-worse", hypothesis="no_worse", smallest_effect=None, margin=0.5, compare=pair),
        claim(id="other-side", hypothesis="higher", compare=pair),
        claim(id="all", compare=three),
        claim(id="each", combine="each", compare=three),
        claim(id="time", quantity="train_seconds", compare=pair),
        claim(id="network", quantity="network", hypothesis="same", smallest_effect=None, compare=pair),
    )
    found = load_claims(study.workspace.papers, study.params)
    # lower and no worse: one; higher: one; all parts together: one; each: simple-2 again, and simple-4
    assert found.family_size("song2018", "small") == 4
    assert found.family_size("song2018", "small", costs=True) == 1
    assert [test.compared for test in found.tests(found.claims[4], "small")] == [
        "simple-2 against individual", "simple-4 against individual",
    ]  # fmt: skip


def test_what_is_claimed_of_collaborative_learning_in_general_is_tested_on_every_graph_that_shares_layers(claims):
    general = [one for one in claims.claims if "ollaborative learning" in one.statement and one.paper == "song2018"]
    assert len(general) == 3
    for one in general:
        assert one.combine == "each"
        assert {pair.method for pair in one.compare} == {"simple-2", "simple-4", "hierarchical-4"}


def test_every_scope_of_a_test_of_errors_says_how_its_smallest_effect_was_found(claims):
    params = real_params()
    for one in claims.claims:
        for name in one.scopes:
            scope = claims.scopes[name]
            if one.quantity == "error" and one.hypothesis != "no_worse" and one.smallest_effect is None:
                assert scope.smallest_effect, name
                assert scope.pilot or params.profiles[scope.profile].device == "cuda", name


def test_a_scope_must_name_what_params_define(study):
    declare(study, claim())
    path = study.workspace.papers / CLAIMS
    path.write_text(path.read_text().replace("resnet8", "vgg99"))
    with pytest.raises(ConfigError, match=r"scopes.noisy.model: 'vgg99' is not defined under models"):
        load_claims(study.workspace.papers, study.params)


@pytest.fixture(scope="module")
def claims() -> Claims:
    document = read_yaml(ROOT / "papers" / CLAIMS)
    return validate(document, Claims, document.value)


def test_the_projects_claims_name_only_what_params_define():
    params = real_params()
    assert len(load_claims(ROOT / "papers", params).claims) > 20


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["default", "digits", "cifar10-jpeg", "cifar10-jpeg-gpu", "paper"])
def test_a_profile_runs_everything_that_its_claims_need(profile):
    study = real_study(profile)
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

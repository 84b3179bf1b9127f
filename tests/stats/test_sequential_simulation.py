"""The simulation of the sequential design: it decides as the design does, and its committed page is what it writes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import sequential
from benchmarks.sequential import DESIGNS, FAMILY, KINDS, LOWER, NO_WORSE, differences, look_at, outcomes
from collabench.stats import Part, evaluate_looks
from tests.support.project import ROOT

CODES = {"supported": sequential.SUPPORTED, "refuted": sequential.REFUTED, "inconclusive": sequential.UNDECIDED}


@pytest.mark.parametrize("hypothesis", [LOWER, NO_WORSE], ids=["lower", "no worse"])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("name", list(DESIGNS))
def test_many_studies_at_once_are_decided_as_one_is(hypothesis, parts, name):
    generator = np.random.default_rng(len(name) + parts)
    effects = generator.choice([-1.5, -0.6, -0.4, 0.0, 0.3, 0.5, 1.0], (12, 4, 1))
    values = differences(generator, "tied", (12, 4, parts, 128)) + effects[..., None]
    code, seeds = outcomes(look_at(values), hypothesis, DESIGNS[name], FAMILY)
    for study in range(12):
        for test in range(4):
            found = evaluate_looks(
                hypothesis, [Part(one, np.full(128, 1.0)) for one in values[study, test]], DESIGNS[name], FAMILY
            )
            expected = sequential.STOPPED if found.stopped else CODES[found.verdict]
            assert (code[study, test], seeds[study, test]) == (expected, found.n)


@pytest.mark.parametrize("kind", KINDS)
def test_the_differences_are_what_the_page_says(kind):
    values = differences(np.random.default_rng(1), kind, (40_000, 2, 1, 4))
    assert values.mean() == pytest.approx(0, abs=0.01) and values.std() == pytest.approx(1, abs=0.01)
    assert np.corrcoef(values[:, 0, 0, 0], values[:, 1, 0, 0])[0, 1] == pytest.approx(0.5, abs=0.03)
    skewness = (values**3).mean() / values.std() ** 3
    assert skewness == pytest.approx({"skewness +0.5": 0.5, "skewness −0.5": -0.5}.get(kind, 0.0), abs=0.05)


def test_at_most_one_family_in_twenty_holds_a_wrong_verdict():
    rates = list(sequential.wrong_verdicts(seed=11, replicates=2000))
    assert len(rates) == 13 * len(KINDS) * len(DESIGNS)
    assert [rate for rate in rates if rate[-1].breaks(0.05, at_most=True)] == []
    assert max(rate[-1].value for rate in rates) > 0.03  # and the rate is not low by a mistake


def test_a_rule_that_ignored_the_looks_would_be_seen(monkeypatch):
    greedy = sequential.Design((8, 16, 32), (1 / 3, 1 / 3, 1 / 3), 0.12)
    monkeypatch.setattr(sequential, "DESIGNS", {"greedy": greedy})
    monkeypatch.setattr(sequential, "SEVERAL_PARTS", ())
    sequential._in_blocks.cache_clear()
    rates = list(sequential.wrong_verdicts(seed=11, replicates=1000))
    sequential._in_blocks.cache_clear()
    assert any(rate[-1].breaks(0.05, at_most=True) for rate in rates)


def test_the_page_is_determined_by_its_seed_and_complete(tmp_path):
    sequential.main(["--seed", "5", "--replicates", "200", "--output", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text == sequential.page(5, 200)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == len(DESIGNS) * (2 + 13 + 2 + len(sequential.EFFECTS))
    assert "nan" not in text


@pytest.mark.slow
def test_the_committed_page_is_what_the_script_writes():
    committed = (ROOT / sequential.PAGE).read_text(encoding="utf-8")
    assert committed == sequential.page(), "write it again: python -m benchmarks.sequential"


@pytest.mark.parametrize("arguments", [["--replicates", "10"], ["--seed", "-1"]])
def test_mistakes_end_with_exit_code_2(arguments, tmp_path):
    with pytest.raises(SystemExit) as error:
        sequential.main([*arguments, "--output", str(tmp_path / "page.md")])
    assert error.value.code == 2 and not (tmp_path / "page.md").exists()

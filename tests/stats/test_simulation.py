"""The simulation: its committed page is what the script writes, and its parts mean what the page says."""

import numpy as np
import pytest

from benchmarks import simulation, statistics
from benchmarks.simulation import Share
from tests.support.project import ROOT


@pytest.fixture(scope="module")
def small_page(tmp_path_factory):
    page = tmp_path_factory.mktemp("simulation") / "page.md"
    statistics.main(["--seed", "5", "--replicates", "400", "--output", str(page)])
    return page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_is_determined_by_its_seed(small_page):
    assert statistics.page(seed=5, replicates=400) == small_page


def test_the_tables_are_complete(small_page):
    rows = [line for line in small_page.splitlines() if line.startswith("|")]
    kinds, shared = len(simulation.DIFFERENCES), len(simulation.ERRORS)
    expected = len(simulation.DIFFERENCES) * len(simulation.SEEDS) + 2 * (2 * kinds + shared) + shared + 2 * 4
    assert len(rows) == expected + 2 * 6  # six tables, each with two lines of header
    assert "nan" not in small_page and "--seed 5 --replicates 400" in small_page


@pytest.mark.parametrize("kind", simulation.DIFFERENCES)
def test_the_truth_is_a_mean_of_zero(kind):
    values = simulation.DIFFERENCES[kind](np.random.default_rng(0), (200_000,))
    assert values.mean() == pytest.approx(0.0, abs=5 * values.std() / np.sqrt(values.size))
    centred = values - values.mean()
    skewness = (centred**3).mean() / (centred**2).mean() ** 1.5
    assert skewness == pytest.approx({"mildly skewed": 0.5, "skewed": 2.0}.get(kind, 0.0), abs=0.15)


def test_bold_marks_what_lies_beyond_the_binomial_limit():
    # 10,000 trials at 5 %: standard deviation 0.218 %, the upper 0.1 % point is 3.09 of them above: 5.67 %
    assert Share(565, 10_000).text(0.05, at_most=True) == "5.65"
    assert Share(575, 10_000).text(0.05, at_most=True) == "**5.75**"
    assert Share(100, 10_000).text(0.05, at_most=True) == "1.00"
    assert Share(9435, 10_000).text(0.95, at_most=False) == "94.35"
    assert Share(9425, 10_000).text(0.95, at_most=False) == "**94.25**"
    assert Share(9999, 10_000).text(0.95, at_most=False) == "99.99"


def test_error_rates_hold_where_the_assumptions_do():
    for row in simulation.single_comparisons(seed=6, replicates=4000):
        if row.kind in ("normal", "two skewed errors"):
            assert not row.t_rejected.breaks(0.05, at_most=True), row
            assert not row.covered.breaks(0.95, at_most=False), row
        if row.flip_rejected is not None and row.kind != "skewed" and row.kind != "mildly skewed":
            assert not row.flip_rejected.breaks(0.05, at_most=True), row


@pytest.mark.slow
def test_family_wise_error_rates_hold_where_the_assumptions_do():
    for row in simulation.families(seed=7, replicates=2000):
        if row.kind in ("normal", "tied", "two skewed errors") or row.setting.startswith("shared baseline"):
            assert not row.holm_wrong.breaks(0.05, at_most=True), row
            assert not row.intervals_cover.breaks(0.95, at_most=False), row


@pytest.mark.slow
def test_the_committed_page_is_what_the_script_writes():
    committed = (ROOT / statistics.PAGE).read_text(encoding="utf-8")
    assert committed == statistics.page(), "write it again: python -m benchmarks.statistics"


@pytest.mark.parametrize("arguments", [["--replicates", "10"], ["--seed", "-1"]])
def test_mistakes_end_with_exit_code_2(arguments, tmp_path):
    with pytest.raises(SystemExit) as error:
        statistics.main([*arguments, "--output", str(tmp_path / "page.md")])
    assert error.value.code == 2
    assert not (tmp_path / "page.md").exists()

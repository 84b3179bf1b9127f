"""The committed table of test errors: complete, of the present code, within its limit, and repeatable."""

from __future__ import annotations

import statistics

import pytest

from collabench.config.configuration import Run
from collabench.data import load, prepare
from collabench.methods import METHODS
from tests.support import learning
from tests.support.real import real_params

PARAMS = real_params()
CONFIGURATIONS = list(learning.configurations(PARAMS))
WRITE = "call python -m tests.support.learning --write"


def rows() -> dict[str, list[str]]:
    """Configuration's id → the cells of its row."""
    if not learning.PAGE.exists():
        pytest.fail(f"{learning.PAGE.name} has not been written; {WRITE}")
    lines = [line for line in learning.PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[5]: row for row in cells}


TEST_IMAGES = 360


def errors_of(row: list[str]) -> list[float]:
    """Errors in percent before they were rounded for the table: each is a whole number of the test images."""
    return [100 * round(float(value) / 100 * TEST_IMAGES) / TEST_IMAGES for value in row[2].split()]


def test_the_page_shows_every_method_as_it_is_now():
    """A configuration's id covers its settings and its method's revision."""
    assert list(rows()) == [configuration.id for configuration in CONFIGURATIONS], WRITE
    assert {configuration.method.method for configuration in CONFIGURATIONS} == set(METHODS)


def test_every_method_learns():
    individual = {}
    for row in rows().values():
        model, method, _, mean, difference, _ = row
        errors = errors_of(row)
        assert len(errors) == len(learning.SEEDS) and float(mean) == pytest.approx(statistics.mean(errors), abs=0.0051)
        individual.setdefault(model, float(mean))
        if method != "individual":
            own = float(difference.replace("−", "-"))
            assert own == pytest.approx(float(mean) - individual[model], abs=0.011)
            assert own <= learning.LIMIT, row


def test_the_pages_text_is_the_scripts():
    table = "| model | method |"
    assert learning.PAGE.read_text(encoding="utf-8").split(table)[0] == learning.render([]).split(table)[0]


def test_a_page_that_shows_a_method_that_does_not_learn_says_so():
    first, second = CONFIGURATIONS[:2]
    page = learning.render([(first, [1.0, 1.0, 1.0]), (second, [4.5, 4.0, 4.0])])
    assert "NOT every method learns: the largest difference is +3.17" in page
    assert "Every method learns: " in learning.render([(first, [1.0] * 3), (second, [4.0] * 3)])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["individual", "auxiliary"])
def test_a_row_is_what_training_gives(method, tmp_path):
    """On another processor the last bits differ, and with them some test images."""
    configuration = next(c for c in CONFIGURATIONS if c.names["method"] == method)
    prepare(PARAMS.datasets[learning.DATASET], tmp_path, tmp_path / "data")
    error = learning.error_of(Run(configuration, 0), load(tmp_path / "data"), tmp_path)
    assert error == pytest.approx(errors_of(rows()[configuration.id])[0], abs=1.5)

"""A study that is killed at random moments ends with the bytes of one that was left alone."""

from __future__ import annotations

from itertools import count

import pytest

from tests.survival.kills import kill_often
from tests.survival.studies import contents, finish, small_project, with_workflow

EPOCHS = 12
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # most of it waiting; minutes on a busy machine


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, bytes]:
    folder = small_project(tmp_path_factory.mktemp("whole") / "project", epochs=EPOCHS)
    finish(folder, "run", "--cores", "2")
    return contents(folder)


def test_fourteen_kills_of_collabench_run(tmp_path, uninterrupted):
    numbers = count()
    kills = kill_often(
        lambda: small_project(tmp_path / f"study-{next(numbers)}", epochs=EPOCHS),
        ("run", "--cores", "2"),
        {"write": 5, "orchestrator": 4, "training": 5},
        uninterrupted,
        seed=1,
    )
    print(kills.describe())
    assert kills.resumed > 0


def test_six_kills_of_collabench_reproduce(tmp_path, uninterrupted):
    numbers = count()
    kills = kill_often(
        lambda: with_workflow(small_project(tmp_path / f"study-{next(numbers)}", epochs=EPOCHS)),
        ("reproduce", "--cores", "2"),
        {"write": 2, "orchestrator": 3, "training": 1},
        uninterrupted,
        seed=2,
    )
    print(kills.describe())

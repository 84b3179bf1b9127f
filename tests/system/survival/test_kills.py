"""A study that is killed at random moments ends with the bytes of one that was left alone."""

from __future__ import annotations

from itertools import count

import pytest

from tests.support.kills import kill_often
from tests.support.running import contents, finish, small_project, smoke_project, with_workflow

pytestmark = pytest.mark.slow


def test_twenty_kills_of_the_smoke_study(tmp_path):
    whole, numbers = smoke_project(tmp_path / "whole"), count()
    finish(whole, "run", "--cores", "1")
    kills = kill_often(
        lambda: smoke_project(tmp_path / f"study-{next(numbers)}"),
        ("run", "--cores", "2"),
        {"write": 7, "orchestrator": 6, "training": 7},
        contents(whole),
        seed=1,
    )
    print(kills.describe())
    assert kills.resumed > 0


def test_four_kills_beneath_dvc_and_snakemake(tmp_path):
    whole, numbers = small_project(tmp_path / "whole", epochs=12), count()
    finish(whole, "run", "--cores", "1")
    kills = kill_often(
        lambda: with_workflow(small_project(tmp_path / f"study-{next(numbers)}", epochs=12)),
        ("reproduce", "--cores", "2"),
        {"write": 1, "orchestrator": 2, "training": 1},
        contents(whole),
        seed=2,
    )
    print(kills.describe())

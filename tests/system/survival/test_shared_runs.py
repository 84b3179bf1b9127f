"""A run that several processes share, started by torchrun: killed again and again, it ends with the bytes of one left
alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from collabench.storage.files import read_json
from collabench.storage.results import Measured
from tests.support.kills import SECONDS_TO_DIE, assert_whole, wait_for_training
from tests.support.running import PROFILE, TORCHRUN, Started, contents, differing, home, left_over, small_project

#: Who is killed, in this order: ``0`` leads and writes, ``1`` follows.
KILLS = (("1", signal.SIGKILL), ("0", signal.SIGTERM), ("torchrun", signal.SIGKILL), ("all", signal.SIGKILL))


def project(folder: Path) -> Path:
    small_project(folder, epochs=60, methods="individual kd")
    path = folder / "params.yaml"
    path.write_text(path.read_text().replace("short: {", "short: {processes: 2, "))
    return folder


def start(folder: Path) -> Started:
    return Started(folder, [*TORCHRUN, "run", "-p", PROFILE])


def process_of(started: Started, name: str) -> psutil.Process:
    if name == "torchrun":
        return psutil.Process(started.process.pid)
    (found,) = (one for one in started.living() if one.environ().get("RANK") == name)
    return found


@pytest.mark.slow
def test_whichever_process_is_killed_the_next_start_goes_on_to_the_same_bytes(tmp_path):
    whole, folder, chance = project(tmp_path / "whole"), project(tmp_path / "killed"), random.Random(0)
    for name, sent in (*KILLS, (None, None)):
        started = start(folder)
        try:
            if name is None:
                assert started.wait() == 0, started.output[-4000:]
                continue
            assert wait_for_training(started, folder), started.output[-4000:]
            time.sleep(chance.uniform(0.3, 1))
            assert wait_for_training(started, folder), started.output[-4000:]
            if name == "all":
                os.killpg(started.process.pid, sent)
            else:
                process_of(started, name).send_signal(sent)
            assert started.wait(60) != 0
            left = started.wait_for_the_end_of_all(SECONDS_TO_DIE)
            assert not left, f"{sent.name} to {name}: {[one.cmdline() for one in left]}"
        finally:
            started.kill_all()
        assert_whole(folder)  # no run is blamed
    alone = start(whole)
    try:
        assert alone.wait() == 0, alone.output[-4000:]
    finally:
        alone.kill_all()
    assert differing(contents(folder), contents(whole)) == [] and left_over(folder) == []
    resumed = [read_json(path, Measured).resumed for path in (home(folder) / "measured").rglob("*.json")]
    assert len(resumed) == 2 and sum(resumed) >= len(KILLS) - 1  # a kill may come before the first checkpoint

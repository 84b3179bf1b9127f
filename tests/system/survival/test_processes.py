"""Real processes: children die with their parent, and two that want the same wait for each other by name."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from collabench.storage.locks import holder, holding, is_held
from collabench.study.runner import Runner
from collabench.study.study import load_study
from tests.support import warm
from tests.support.kills import SECONDS_TO_DIE, assert_whole, wait_for_training
from tests.support.running import (
    PROFILE,
    Started,
    command,
    contents,
    differing,
    environment,
    finish,
    home,
    left_over,
    results,
    small_project,
    with_workflow,
)

EPOCHS = 8
#: The commands that run a study; each is also how it is taken up again.
COMMANDS = {
    "run": command("run", "--cores", "2"),
    "reproduce": command("reproduce", "--cores", "2"),
    "dvc": [sys.executable, "-m", "dvc", "repro", f"train@{PROFILE}"],
    "snakemake": [sys.executable, "-m", "snakemake", "--cores", "2", "--config", f"profile={PROFILE}", "--", "train"],
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """The files of the runs of a study that nothing disturbed, made in this process."""
    folder = small_project(tmp_path_factory.mktemp("expected") / "project", epochs=EPOCHS)
    study = load_study(folder, PROFILE)
    study.inputs.prepare_for(study.plan.runs)
    assert not Runner(study).train(study.plan.runs, device="cpu").failed
    return results(folder)


def project(folder: Path, name: str) -> Path:
    made = small_project(folder, epochs=EPOCHS)
    return made if name == "run" else with_workflow(made)


# ------------------------------------------------------------------------------------- children and their parent


def listening(started: Started) -> Iterator[str]:
    """The ports on which the study's processes listen."""
    for process in started.living():
        with suppress(psutil.Error):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    yield f"{connection.laddr} ({process.cmdline()})"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("run", signal.SIGTERM),  # the other signal, of these two: test_kills.py
        ("reproduce", signal.SIGKILL),
        ("dvc", signal.SIGKILL),
        ("snakemake", signal.SIGKILL),
    ],
)
def test_children_die_with_their_parent_and_the_same_command_goes_on(tmp_path, expected, name, sent):
    folder = project(tmp_path / "project", name)
    started = Started(folder, COMMANDS[name])
    try:
        assert wait_for_training(started, folder), started.output
        assert len(started.living()) > 1
        assert not list(listening(started)), "no process of a study opens a port"
        os.kill(started.process.pid, sent)
        left = started.wait_for_the_end_of_all(SECONDS_TO_DIE)
        assert not left, [process.cmdline() for process in left]
    finally:
        started.kill_all()
    assert_whole(folder)
    given = environment(folder)
    words = warm.command(COMMANDS[name], given)
    again = Started(folder, words, **{warm.WARM: given.get(warm.WARM, "")})
    try:
        assert again.wait() == 0, again.output[-4000:]
    finally:
        again.kill_all()
    assert differing(results(folder), expected) == []
    if name != "snakemake":  # which clears nothing: see docs/guarantees.md
        assert left_over(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["as Ctrl-C does", "as kill does"])
def test_an_interrupted_run_ends_at_once_in_one_line(tmp_path, group):
    folder = small_project(tmp_path / "project", epochs=2000)  # longer than anybody waits
    started = Started(folder, COMMANDS["run"])
    try:
        assert wait_for_training(started, folder), started.output
        (os.killpg if group else os.kill)(started.process.pid, signal.SIGINT)
        assert started.wait(20) == 130, started.output
        assert not started.wait_for_the_end_of_all(SECONDS_TO_DIE)
        assert "Traceback" not in started.output
        assert started.output.splitlines().count("collabench: interrupted; start again to resume") == 1, started.output
    finally:
        started.kill_all()
    assert_whole(folder)  # no failure is recorded, either


# --------------------------------------------------------------------------------------------------- two at once


def both(folder: Path, arguments: list[str]) -> tuple[str, str]:
    """Start the same command twice at once; the output of both, which must end well."""
    studies = [Started(folder, arguments), Started(folder, arguments)]
    try:
        for one in studies:
            assert one.wait() == 0, one.output[-4000:]
        return studies[0].output, studies[1].output
    finally:
        for one in studies:
            one.kill_all()


@pytest.mark.slow
def test_two_studies_in_one_folder_share_the_work(tmp_path, expected):
    folder = project(tmp_path / "project", "run")
    outputs = both(folder, command("run", "--cores", "1"))
    assert sum(int(re.search(r"(\d+) trained", output)[1]) for output in outputs) == 4, "each run is trained once"
    assert any(re.search(r"held by process \d+ \(.*collabench", output) for output in outputs), outputs
    assert differing(results(folder), expected) == [] and left_over(folder) == []


@pytest.mark.slow
def test_two_profiles_that_have_runs_in_common_train_them_once(tmp_path):
    folder = small_project(tmp_path / "project", epochs=60, methods="individual")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text + text[text.index("  small:") :].replace("  small:", "  other:", 1))
    small = command("run", "--cores", "1")
    other = ["other" if word == PROFILE else word for word in small]
    studies = [Started(folder, small), Started(folder, other)]
    try:
        for one in studies:
            assert one.wait() == 0, one.output[-4000:]
        counts = [re.search(r"(\d+) trained, (\d+) linked", one.output) for one in studies]
        assert sum(int(count[1]) for count in counts) == sum(int(count[2]) for count in counts) == 1, counts
        assert any(re.search(r"held by process \d+ \(.*collabench", one.output) for one in studies)
    finally:
        for one in studies:
            one.kill_all()


@pytest.mark.slow
def test_a_second_reproduce_in_one_folder_waits_and_names_the_first(tmp_path, expected):
    folder = project(tmp_path / "project", "reproduce")
    first, second = both(folder, COMMANDS["reproduce"])
    waiting = [output for output in (first, second) if re.search(r"the study in .*: held by process \d+", output)]
    assert len(waiting) == 1, (first, second)
    assert differing(results(folder), expected) == [] and left_over(folder) == []


@pytest.mark.slow
def test_the_same_run_started_twice_is_trained_once(tmp_path, expected):
    folder = project(tmp_path / "project", "run")
    outputs = both(folder, command("run", "--cores", "1", "--method", "individual"))
    assert sorted(int(re.search(r"(\d+) trained", output)[1]) for output in outputs) == [0, 1], outputs
    names = results(folder)
    assert len(names) == 3 and all(expected[name] == content for name, content in names.items())


HOLD = """\
import sys, time
from pathlib import Path
from collabench.storage.locks import holding
with holding(Path(sys.argv[1]), "it", print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen:
    """A process that holds a lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)],
        env=environment(path.parent),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_lock_of_a_living_process_is_waited_for_and_the_process_named(tmp_path):
    path, told = tmp_path / "run.lock", []
    process = hold(path, 1.5)
    assert is_held(path) and f"process {process.pid} (" in holder(path)
    with holding(path, "run 7", told.append):
        assert process.wait(10) == 0
    assert len(told) == 1 and re.fullmatch(rf"run 7: held by process {process.pid} \(.+\), since .+ UTC; .+", told[0])


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_of_a_killed_process_is_free(tmp_path, sent):
    path, told = tmp_path / "run.lock", []
    process = hold(path, 60)
    process.send_signal(sent)
    process.wait(10)
    assert path.exists(), "what a kill leaves"
    assert not is_held(path)
    begin = time.monotonic()
    with holding(path, "run 7", told.append):
        assert is_held(path)
    assert told == [] and time.monotonic() - begin < 5


def test_an_old_record_of_a_holder_that_is_dead_names_nobody(tmp_path):
    path, told = tmp_path / "run.lock", []
    process = hold(path, 60)
    record = (tmp_path / "run.lock.holder").read_bytes()
    process.kill()
    process.wait(10)
    other = hold(path, 1.5)
    (tmp_path / "run.lock.holder").write_bytes(record)
    with holding(path, "run 7", told.append):
        pass
    other.wait(10)
    assert len(told) == 1 and "held by another process" in told[0]


@pytest.mark.slow
def test_a_run_that_raises_leaves_the_others_alone_and_a_retry_is_a_command(tmp_path, expected):
    folder = small_project(tmp_path / "project", epochs=EPOCHS, methods="individual hierarchical-4")
    text = (folder / "params.yaml").read_text()
    # Weight decay times learning rate is 100: the weights grow a hundredfold with every step.
    broken = "  broken: {epochs: 2, batch_size: 8, learning_rate: 100, weight_decay: 1}\nmethods:"
    table = (
        "      - {name: broken, datasets: [digits-tiny], models: [resnet8], recipes: [broken], methods: [individual]}\n"
    )
    (folder / "params.yaml").write_text(text.replace("methods:", broken, 1) + table)
    output = finish(folder, "run", "--cores", "1", expect=1)
    assert "not finite" in output and "collabench run" in output and "--retry-failed" in output, output
    assert all(content == expected[name] for name, content in results(folder).items()) and len(results(folder)) == 6
    assert "1 failed" in finish(folder, "plan")
    (record,) = (home(folder) / "state" / "failures").glob("*")
    first = record.stat().st_mtime_ns
    finish(folder, "run", "--cores", "1", expect=1)
    assert record.stat().st_mtime_ns == first, "it is not tried again unasked"
    finish(folder, "run", "--cores", "1", "--retry-failed", expect=1)
    assert record.stat().st_mtime_ns != first
    assert contents(folder)

"""Kills a study again and again at seeded random moments, and looks at what each kill left behind.

Three kinds: in the middle of a write, the orchestrator (``collabench``, or beneath ``collabench reproduce`` also DVC
and Snakemake), and a process that trains. Signals are SIGKILL and SIGTERM in turn by chance; a write can also take all
processes with it at once, as a power cut does.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from collabench import data
from collabench.data import noise
from collabench.storage.files import read_json
from collabench.storage.results import RESULT, Failure, Measured, load_result
from collabench.study.study import load_study
from collabench.training import checkpoint
from tests.support.running import KILLING, PROFILE, Started, command, contents, differing, finish, home, left_over

KINDS = ("write", "orchestrator", "training")
#: Names of the files that a write can be hit at, by what the study does then.
WRITES = ("arrays", "manifest", "seed-0.safetensors", ".ckpt", "logits", "weights", "result", "seed-0.json", "i")
#: Files of DVC's own, beneath ``collabench reproduce``.
WRITES_OF_DVC = ("rwlock", "dvc.lock")
#: Of these there are many writes.
OFTEN = (".ckpt", "i", *WRITES_OF_DVC)
SECONDS_TO_DIE = 5.0
"""Within which everything that a study started must have ended when its orchestrator was killed."""


@dataclass
class Kills:
    """What was done and seen. survived_seconds: the longest that a process outlived its orchestrator."""

    kinds: Counter[str] = field(default_factory=Counter)
    moments: list[str] = field(default_factory=list)
    studies: int = 0
    resumed: int = 0
    abandoned: int = 0
    survived_seconds: float = 0.0

    def describe(self) -> str:
        kinds = ", ".join(f"{self.kinds[kind]} {kind}" for kind in KINDS)
        return (
            f"{self.kinds.total()} kills ({kinds}) over {self.studies} studies; {self.resumed} runs went on from a "
            f"checkpoint; {self.abandoned} half-written files were left behind and cleared; the last process ended "
            f"{self.survived_seconds:.2f} s after its orchestrator"
        )


def kill_often(
    make_project: Callable[[], Path],
    arguments: tuple[str, ...],
    wanted: dict[str, int],
    expected: dict[str, bytes],
    seed: int,
    log: Callable[[str], None] = print,
) -> Kills:
    """Kill until every kind has happened as often as ``wanted`` says, and let every study end.

    make_project: a function that makes a new project, called whenever a study has ended. arguments: of ``collabench``.
    expected: content of the files of an uninterrupted study. Raises AssertionError where a file is torn, a process
    lives on, or a study ends with other bytes.
    """
    chance, kills, folder = random.Random(seed), Kills(), None
    while any(kills.kinds[kind] < number for kind, number in wanted.items()):
        if folder is None:
            folder = make_project()
        open_kinds = [kind for kind, number in wanted.items() if kills.kinds[kind] < number]
        kind = chance.choice(open_kinds)
        moment = {"write": _kill_write, "orchestrator": _kill_orchestrator, "training": _kill_training}[kind](
            folder, arguments, chance, kills
        )
        assert_whole(folder)
        if moment is None:  # the study was over first
            _finish(folder, arguments, expected, kills)
            folder = None
            continue
        kills.kinds[kind] += 1
        kills.moments.append(f"{kind}: {moment}")
        log(f"{kills.kinds.total():3} {kills.moments[-1]}")
    if folder is not None:
        _finish(folder, arguments, expected, kills)
    return kills


def _finish(folder: Path, arguments: tuple[str, ...], expected: dict[str, bytes], kills: Kills) -> None:
    finish(folder, *arguments)
    actual = {name: content for name, content in contents(folder).items() if name in expected}
    assert differing(actual, expected) == [], f"{folder}: bytes differ from the uninterrupted study's"
    assert left_over(folder) == []
    kills.studies += 1
    kills.resumed += sum(read_json(path, Measured).resumed > 0 for path in (home(folder) / "measured").rglob("*.json"))


# ---------------------------------------------------------------------------------------------------- one kill


def _kill_write(folder: Path, arguments: tuple[str, ...], chance: random.Random, kills: Kills) -> str | None:
    there = {path.name for path in home(folder).rglob("*")}
    names = [name for name in WRITES if name in OFTEN or not any(name in one for one in there)]
    names += WRITES_OF_DVC if (folder / "dvc.yaml").exists() else ()
    name, count = chance.choice(names), folder.parent / f"{folder.name}-writes"
    count.unlink(missing_ok=True)
    plan = {
        "name": name,
        "after": chance.randrange(12) if name in OFTEN else 0,
        "point": chance.choice(("half", "half", "before", "after")),
        "all": chance.random() < 0.5,
        "count": str(count),
    }
    variables = {"COLLABENCH_TEST_KILL_WRITE": json.dumps(plan)}
    started = Started(folder, command(*arguments), prepend_path=KILLING, **variables)
    try:
        code = started.wait()
        started.wait_for_the_end_of_all(SECONDS_TO_DIE)
    finally:
        started.kill_all()
    left = [path for place in (home(folder), folder / ".dvc" / "tmp") for path in place.rglob(".*.tmp")]
    kills.abandoned += len(left)
    if not count.exists() or count.stat().st_size <= plan["after"]:
        assert code == 0, started.output[-4000:]
        return None
    assert plan["point"] == "after" or left or plan["name"] == "i", f"nothing half-written was left by {plan}"
    scope = "all processes" if plan["all"] else "the writer"
    return f"write {plan['after'] + 1} of *{name}*, {plan['point']} its replacement, SIGKILL to {scope}"


def _kill_orchestrator(folder: Path, arguments: tuple[str, ...], chance: random.Random, kills: Kills) -> str | None:
    started = Started(folder, command(*arguments))
    try:
        if chance.random() < 0.5:
            wait_for_training(started, folder)
            time.sleep(chance.uniform(0, 1))
        else:
            time.sleep(chance.uniform(0.2, 6))
        candidates = {process.pid: name for process in started.living() if (name := _orchestrates(process, started))}
        number = chance.randrange(1 << 30)
        if started.process.poll() is not None or not candidates:
            assert started.wait() == 0, started.output[-4000:]
            return None
        pid = sorted(candidates)[number % len(candidates)]
        sent = chance.choice((signal.SIGKILL, signal.SIGTERM))
        begin = time.monotonic()
        with suppress(ProcessLookupError):
            psutil.Process(pid).send_signal(sent)
        if pid == started.process.pid:
            left = started.wait_for_the_end_of_all(SECONDS_TO_DIE)
            assert not left, f"lived on after {sent.name} to {candidates[pid]}: {[one.cmdline() for one in left]}"
            kills.survived_seconds = max(kills.survived_seconds, time.monotonic() - begin)
        started.wait()
    finally:
        started.kill_all()
    return f"{sent.name} to {candidates[pid]}"


def _orchestrates(process: psutil.Process, started: Started) -> str | None:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return None
    if process.pid == started.process.pid:
        return "collabench"
    return next((name for name in ("dvc repro", "pipeline.snakemake") if name in words and "-c" not in words), None)


def _kill_training(folder: Path, arguments: tuple[str, ...], chance: random.Random, kills: Kills) -> str | None:
    started = Started(folder, command(*arguments))
    try:
        if wait_for_training(started, folder) is None:
            assert started.wait() == 0, started.output[-4000:]
            return None
        time.sleep(chance.uniform(0, 1.5))
        record = wait_for_training(started, folder)
        if record is None:
            assert started.wait() == 0, started.output[-4000:]
            return None
        sent = chance.choice((signal.SIGKILL, signal.SIGTERM))
        with suppress(psutil.NoSuchProcess):
            psutil.Process(record["pid"]).send_signal(sent)
        started.wait()
        left = started.wait_for_the_end_of_all(SECONDS_TO_DIE)
        assert not left, [one.cmdline() for one in left]
    finally:
        started.kill_all()
    return f"{sent.name} to the one that trains {record['run_id']}, epoch {record['epoch']}"


def wait_for_training(started: Started, folder: Path) -> dict | None:
    """The progress record of a process of this study that trains; None if the study ends first."""
    while started.process.poll() is None:
        for path in (home(folder) / "state" / "progress").glob("*.json"):
            with suppress(OSError, ValueError, psutil.Error):
                record = json.loads(path.read_bytes())
                if any(process.pid == record["pid"] for process in started.living()):
                    return record
        time.sleep(0.02)
    return None


# ------------------------------------------------------------------------------------------------ what is left


def named(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder that have their name: what is being written, or was by a killed process, lies in a hidden
    folder."""
    found = folder.rglob(pattern)
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def assert_whole(folder: Path) -> None:
    """Every file that has its name is whole: the library, which checks every checksum, reads it."""
    study = load_study(folder, PROFILE)
    workspace = study.workspace
    for key in study.inputs.dataset_keys():
        if (workspace.datasets / key / data.MANIFEST).exists():
            data.load(workspace.datasets / key)
    for path in named(workspace.noise, "*.safetensors"):
        noise.read_static(path)
    for run in study.plan.runs:
        if (workspace.folder(run) / RESULT).exists():
            load_result(workspace.folder(run), run)
    for path in named(workspace.measured, "*.json"):
        read_json(path, Measured)
    for path in (workspace.state / "checkpoints").glob("[!.]*"):
        checkpoint.load(path, torch.device("cpu"))
    for path in (workspace.state / "failures").glob("[!.]*"):
        raise AssertionError(f"a kill was recorded as a failure: {read_json(path, Failure).reason}")

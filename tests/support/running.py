"""A small study as a folder of its own, the processes that run it, and what it leaves: shared by the tests of survival.

The study has every kind of file that a study writes: a data set, static noise, checkpoints, teachers, results, a
report.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from tests.support import project, warm
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT

PROFILE = "small"
#: In the environment of everything that a study starts, so that no process of it is overlooked.
MARK = "COLLABENCH_TEST_STUDY"
#: On the path of a process, its ``sitecustomize`` ends the process in the middle of a write; see ``kills.py``.
KILLING = ROOT / "tests" / "support" / "killing"


def small_project(
    folder: Path, *, epochs: int = 3, seeds: int = 1, methods: str = "individual kd hierarchical-4 wang2018"
) -> Path:
    """A project with one small profile; enough for ``collabench run``."""
    folder.mkdir(parents=True)
    text = params_yaml(
        {
            PROFILE: profile(
                table(methods, name="small", datasets="digits-tiny", noise="uniform20", models="resnet8",
                    recipes="short"),
                description="a study of seconds", seeds=seeds, seeds_per_job=1,
            )
        },
        datasets={"digits-tiny": "{source: digits, train_images: 160, test_images: 100}"},
        noise="clean uniform20",
        models={"resnet8": "{family: cifar_resnet, depth: 8, width: 4}"},
        recipes={
            "short": f"{{epochs: {epochs}, batch_size: 32, learning_rate: 0.1, nesterov: true, weight_decay: 1e-4, "
            "milestones: [1], augmentation: {shift: 1}}"
        },
        methods={
            "individual": "",
            "kd": "",
            "hierarchical-4": "{method: song2018, graph: hierarchical_ilr, heads: 4}",
            "wang2018": "{method: wang2018}",
        },
    )  # fmt: skip
    (folder / "params.yaml").write_text(text)
    return folder


def smoke_project(folder: Path) -> Path:
    """A project with the profile ``smoke`` of this tree's ``params.yaml``, under the name of :data:`PROFILE`."""
    folder.mkdir(parents=True)
    definitions, profiles = (ROOT / "params.yaml").read_text().split("\nprofiles:\n")
    (smoke,) = re.findall(r"(?m)^  smoke:\n((?:    .*\n)+)", profiles)
    (folder / "params.yaml").write_text(f"{definitions}\nprofiles:\n  {PROFILE}:\n{smoke}")
    return folder


def with_workflow(folder: Path) -> Path:
    """Add what ``collabench reproduce``, ``dvc repro`` and ``snakemake`` need: the workflow, and DVC without git."""
    for name in project.CODE:
        shutil.copytree(project.compiled() / name, folder / name)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    for name in ("Snakefile", "dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "papers").mkdir()
    (folder / "papers" / "none.txt").write_text("no paper is needed here\n")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text(
        "[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n"
    )
    return folder


def environment(folder: Path, **further: str) -> dict[str, str]:
    """What the processes of a study see: nothing of the test's own settings. The shell is the plain one, which stays
    between a tool and the command that it starts."""
    return project.environment(folder if (folder / "src").is_dir() else ROOT) | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHELL": "/bin/sh",
        "CUDA_VISIBLE_DEVICES": "",
        "COLLABENCH_CHECKPOINT_SECONDS": "0.2",
        **further,
    }


COLLABENCH = [sys.executable, "-c", warm.CODE]
#: Two processes that share every run.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "collabench"]


def command(*arguments: str) -> list[str]:
    """``collabench`` with these arguments, on the small profile."""
    name, *rest = arguments
    return [*COLLABENCH, name, "-p", PROFILE, *rest]


class Started:
    """A running study: a process in a session of its own, whose output goes to a file."""

    def __init__(
        self, folder: Path, arguments: list[str], *, prepend_path: Path | None = None, **variables: str
    ) -> None:
        self.mark = uuid.uuid4().hex
        if prepend_path is not None:
            variables["PYTHONPATH"] = f"{prepend_path}{os.pathsep}{environment(folder)['PYTHONPATH']}"
        handle, name = tempfile.mkstemp(prefix="study-", suffix=".log")  # the project's folder may be full or read-only
        self.log, self._kept = Path(name), ""
        with open(handle, "w") as file:
            self.process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=environment(folder, **{MARK: self.mark}, **variables),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Tests that a shell started in the background ignore Ctrl-C, and so would this.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def output(self) -> str:
        return self._kept or self.log.read_text(errors="replace")

    def wait(self, seconds: float = 900) -> int:
        return self.process.wait(seconds)

    def living(self) -> list[psutil.Process]:
        """Every process that carries this study's mark, whoever its parent is by now."""
        return [process for process in psutil.process_iter() if _has(process, self.mark)]

    def wait_for_the_end_of_all(self, seconds: float) -> list[psutil.Process]:
        """Wait until no process of the study lives; those that still do after ``seconds``."""
        self.process.poll()
        end = time.monotonic() + seconds
        while (left := self.living()) and time.monotonic() < end:
            self.process.poll()
            time.sleep(0.05)
        return left

    def kill_all(self) -> None:
        """At once, as a power cut does; also the end of a test."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        for process in self.living():
            with suppress(psutil.Error):
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self._kept = self.output or " "
        self.log.unlink(missing_ok=True)


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark
    except psutil.Error:
        return False


def finish(folder: Path, *arguments: str, expect: int | None = 0, **variables: str) -> str:
    """Run ``collabench`` on the small profile to its end; its output."""
    words = command(*arguments)
    if all(name.startswith("COLLABENCH_") for name in variables):  # others may matter to Python's start
        given = environment(folder, **variables)
        words = warm.command(words, given)
        variables |= {name: given[name] for name in (warm.WARM,) if name in given}
    started = Started(folder, words, **variables)
    try:
        code = started.wait()
        assert expect is None or code == expect, f"exit code {code}:\n{started.output[-4000:]}"
        return started.output
    finally:
        started.kill_all()


def home(folder: Path) -> Path:
    return folder / "artifacts" / PROFILE


def compared_files(folder: Path) -> Iterator[Path]:
    """What must be the same to the byte however often a study was interrupted: data sets, noise, results, report."""
    for part in ("datasets", "noise", "runs", "report"):
        yield from sorted(path for path in (home(folder) / part).rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    """Name → content of :func:`compared_files`."""
    return {str(path.relative_to(home(folder))): path.read_bytes() for path in compared_files(folder)}


def results(folder: Path) -> dict[str, bytes]:
    """Name → content of the files of the runs themselves: result.json, logits and weights."""
    return {name: content for name, content in contents(folder).items() if "/seed-" in name and "runs/" in name}


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of files that are not the same, for a message that can be read."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def left_over(folder: Path) -> list[Path]:
    """Temporary files, and state that a finished study has no use for."""
    state = home(folder) / "state"
    places = (folder / "artifacts", folder / ".dvc" / "tmp")
    found = [path for place in places for path in place.rglob("*") if path.name.endswith((".tmp", ".old"))]
    return found + [path for part in ("checkpoints", "progress", "failures") for path in (state / part).glob("*")]

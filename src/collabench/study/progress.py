"""Progress for a person who waits: runs, epochs, error, images per second and time left."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.live import Live
from rich.text import Text

from collabench.config.configuration import Run
from collabench.core.errors import ResultError
from collabench.core.text import counted, printable
from collabench.storage.files import read_json
from collabench.storage.locks import is_held
from collabench.storage.results import RESULT, InProgress, load_measured
from collabench.study.growth import Round, only, round_in_progress
from collabench.study.study import Study

PLAIN_SECONDS = 10.0
"""Seconds between two reports without a terminal."""

_SHOWN = 16
"""Number of runs in progress that a terminal shows; a log shows fewer."""


class Watcher:
    """Reads the progress files of training processes, however they were started.

    runs: the runs that are waited for. workers: number of runs side by side. note: one line on what is done while no
    run is trained. rounds: the present round's number and all runs that are waited for by then, if that has changed
    since it was asked last, else None. clock: returns seconds.
    """

    def __init__(
        self,
        study: Study,
        workers: int,
        runs: Sequence[Run] | None = None,
        note: Callable[[], str] = lambda: "",
        rounds: Callable[[], tuple[int, Sequence[Run]] | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace, self._workers, self._note = study.workspace, max(1, workers), note
        self._runs = list(study.plan.runs if runs is None else runs)
        self._left = {run.id: run for run in self._runs}
        self._seconds: dict[str, list[float]] = {}  # by configuration, of the runs that ended while this object watched
        self._clock, self._nothing_until = clock, clock()  # the last time at which no run had started
        self._rounds, self._round = rounds, 1
        self._take_finished(timed=False)

    def _take_round(self) -> None:
        """Wait for the runs of the present round instead, if it is another one."""
        if (found := self._rounds()) is not None:
            self._round, self._runs = found[0], list(found[1])
            self._left = {run.id: run for run in self._runs if run.id in self._left} | {
                run.id: run for run in self._runs if not (self._workspace.folder(run) / RESULT).exists()
            }

    def _take_finished(self, *, timed: bool = True) -> None:
        workspace = self._workspace
        for run in list(self._left.values()):
            configuration = run.configuration.id
            if (workspace.folder(run) / RESULT).exists():
                del self._left[run.id]
                if timed and (seconds := self._measured(run)) is not None:
                    self._seconds.setdefault(configuration, []).append(seconds)

    def _measured(self, run: Run) -> float | None:
        try:
            found = load_measured(self._workspace.measured_file(run), run)
        except ResultError:
            return None
        return found.train_seconds + found.evaluate_seconds

    def _running(self) -> list[InProgress]:
        """The progress records of runs that a living process is training."""
        records = []
        for path in sorted((self._workspace.state / "progress").glob("*.json")):
            if path.stem in self._left and is_held(self._workspace.lock(path.stem)):
                try:
                    records.append(read_json(path, InProgress))
                except ResultError:
                    continue
        return records

    def _failed(self) -> set[str]:
        return {name for name in self._left if self._workspace.failure(name).exists()}

    def _seconds_left(self, running: list[InProgress], failed: set[str]) -> float | None:
        """Estimated seconds until the study ends; None before anything is known.

        It is the remaining time of the runs in progress plus, for each other run, the average time of its
        configuration's runs (or of all runs) and of the work around a run, as observed so far.
        """
        known = {name: statistics.fmean(values) for name, values in self._seconds.items()}
        for record in running:
            if 0 < record.epoch < record.epochs:
                whole = record.seconds_left * record.epochs / (record.epochs - record.epoch)
                known.setdefault(self._left[record.run_id].configuration.id, whole)
        if not known:
            self._nothing_until = self._clock()
            return None
        usual = statistics.fmean(known.values())
        ahead = self._left.keys() - {record.run_id for record in running} - failed
        work = sum(record.seconds_left for record in running)
        around = self._around_a_run(running)
        work += sum(known.get(self._left[name].configuration.id, usual) + around for name in ahead)
        longest = max((record.seconds_left for record in running), default=0.0)
        return max(work / max(self._workers, len(running)), longest)

    def _around_a_run(self, running: list[InProgress]) -> float:
        """Seconds for each ended run that were not training: starting processes and opening data."""
        ended = sum(map(len, self._seconds.values()))
        trained = sum(map(sum, self._seconds.values()))
        trained += sum(r.seconds_left * r.epoch / (r.epochs - r.epoch) for r in running if r.epoch < r.epochs)
        passed = (self._clock() - self._nothing_until) * self._workers
        return max(0.0, passed - trained) / ended if ended else 0.0

    def study_line(self) -> str:
        """The number of finished runs and the time left for all."""
        self._take_round()
        self._take_finished()
        return self._study_line(self._running())

    def _study_line(self, running: list[InProgress]) -> str:
        failed = self._failed()
        left = self._seconds_left(running, failed)
        if self._left.keys() <= failed:
            ahead = "none left to train" if failed else "all trained"
        elif left is not None:
            ahead = f"about {_duration(left)} left"
        else:
            ahead = "time left unknown until a run has begun"
        done = len(self._runs) - len(self._left)
        which = f"round {self._round}: " if self._round > 1 else ""
        state = f"{which}{done} of {counted(len(self._runs), 'run')} done"
        return f"{state}{f', {len(failed)} failed' if failed else ''}, {ahead}"

    def lines(self) -> list[str]:
        """One line for the study and one for each run in progress, or for what is done instead."""
        self._take_round()
        self._take_finished()
        running = self._running()
        numbers = {run.id: number for number, run in enumerate(self._runs, 1)}
        lines = [self._study_line(running)]
        for record in running:
            error = "–" if record.error is None else f"{100 * record.error:.1f} %"
            lines.append(
                f"  epoch {record.epoch}/{record.epochs}, error {error}, {_duration(record.seconds_left)} left: "
                f"run {numbers[record.run_id]} of {len(self._runs)}, {record.label}, seed {record.seed}, "
                f"{record.images_per_second:,.0f} images/s"
            )
        if not running and (note := self._note()):
            lines.append(f"  {note}")
        return lines


def rounds_of(study: Study, part: Callable[[Study], Sequence[Run]]) -> Callable[[], tuple[int, Sequence[Run]] | None]:
    """What a :class:`Watcher` asks for the rounds of a study that another process schedules.

    part: the study's runs that are waited for.
    """
    last: Round | None = None

    def ask() -> tuple[int, Sequence[Run]] | None:
        nonlocal last
        current = round_in_progress(study.workspace)
        if current is None or current == last:
            return None
        last, now = current, study.grown()
        return current.number, part(now.with_growth(only(now.plan.growth, current.blocks)))

    return ask


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def watch(watcher: Watcher, is_running: Callable[[], bool], console: Console | None = None) -> None:
    """Show progress until ``is_running`` returns False: updated in place on a terminal, as plain lines elsewhere."""
    console = console or Console(file=getattr(sys.stdout, "unfiltered", sys.stdout))
    if console.is_terminal:
        with Live(Text(""), console=console, refresh_per_second=4, transient=True) as live:
            while is_running():
                lines = watcher.lines()
                more = len(lines) - 1 - _SHOWN
                lines = [*lines[: _SHOWN + 1], *([f"  and {more} more"] if more > 0 else [])]
                live.update(Text(printable("\n".join(lines)), no_wrap=True, overflow="ellipsis"))
                time.sleep(0.5)
        return
    last, said = time.monotonic(), ""
    while is_running():
        time.sleep(0.2)
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            text = "\n".join(watcher.lines()[:3]) + "\n"
            if text != said:
                console.file.write(printable(text))
                console.file.flush()
            said = text


@contextmanager
def watching(watcher: Watcher, console: Console | None = None) -> Iterator[None]:
    """Show progress as :func:`watch` does while the block runs. Output of the block is printed above it."""
    over = Event()
    thread = Thread(target=watch, args=(watcher, lambda: not over.is_set(), console), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

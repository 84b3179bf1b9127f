"""What a person who waits sees: which run of how many, epoch, error, images per second, time left for the study."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from collabench.results import RESULT
from collabench.study import Study

PLAIN_SECONDS = 10.0


class Watcher:
    """Reads the progress files of a study's training processes; needs nothing of how they were started."""

    def __init__(self, study: Study, workers: int) -> None:
        self._study, self._workers = study, max(1, workers)
        self._runs = [(study.workspace.run(run.configuration.id, run.seed) / RESULT, run) for run in study.plan.runs]
        self._begin, self._done_at_begin = time.monotonic(), self._done()

    def _done(self) -> int:
        return sum(path.exists() for path, _ in self._runs)

    def lines(self) -> list[str]:
        """A line for the study and one for each run in progress."""
        done, running = self._done(), []
        for path in sorted((self._study.workspace.state / "progress").glob("*.json")):
            try:
                running.append(json.loads(path.read_text()))
            except (OSError, ValueError):
                continue
        spent = time.monotonic() - self._begin
        finished = done - self._done_at_begin
        left = len(self._runs) - done
        if left == 0:
            ahead = "building the report"
        elif finished:
            ahead = f"about {_duration(left * spent / finished)} left"
        else:
            ahead = "time left unknown until the first run ends"
        lines = [f"{done} of {len(self._runs)} runs done, {ahead}"]
        for record in running:
            error = "–" if record["error"] is None else f"{100 * record['error']:.1f} %"
            lines.append(
                f"  {record['label']}, seed {record['seed']}: epoch {record['epoch']}/{record['epochs']}, "
                f"error {error}, {record['images_per_second']:.0f} images/s, {_duration(record['seconds_left'])} left"
            )
        return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def watch(watcher: Watcher, is_running: Callable[[], bool]) -> None:
    """Show progress until ``is_running`` says no: live on a terminal, as plain lines elsewhere."""
    console = Console()
    if console.is_terminal:
        with Live(Text(""), console=console, refresh_per_second=4, transient=True) as live:
            while is_running():
                live.update(Text("\n".join(watcher.lines())))
                time.sleep(0.5)
        return
    last = time.monotonic()
    while is_running():
        time.sleep(0.2)
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            print("\n".join(watcher.lines()[:3]), flush=True)

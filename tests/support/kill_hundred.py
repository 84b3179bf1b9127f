"""The long form of ``test_kills.py``: a hundred kills at random moments, four in five of them of ``collabench run``,
the others of ``collabench reproduce`` with DVC and Snakemake beneath.

``python -m tests.support.kill_hundred [--kills 100] [--seed 0] [--only run|reproduce]``, in the repository's root.
Prints every kill and a summary; ends with an error at the first file that is torn, process that lives on, or byte that
differs from an uninterrupted study's. Takes about a quarter of an hour on two idle cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path

from tests.support.kills import KINDS, kill_often
from tests.support.running import contents, finish, small_project, with_workflow

EPOCHS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("run", "reproduce"))
    options = parser.parse_args()
    log = partial(print, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder, numbers = Path(name), count()
        whole = small_project(folder / "whole", epochs=EPOCHS)
        finish(whole, "run", "--cores", "2")
        expected = contents(whole)

        def project(command: str) -> Path:
            made = small_project(folder / f"study-{next(numbers)}", epochs=EPOCHS)
            return with_workflow(made) if command == "reproduce" else made

        shares = {"run": options.kills - options.kills // 5, "reproduce": options.kills // 5}
        if options.only:
            shares = {options.only: options.kills}
        for command, kills in shares.items():
            wanted = {kind: (kills + place) // len(KINDS) for place, kind in enumerate(KINDS)}
            begin = time.monotonic()
            done = kill_often(partial(project, command), (command, "--cores", "2"), wanted, expected, options.seed, log)
            log(f"collabench {command}: {done.describe()}; {time.monotonic() - begin:.0f} s")
    log("every study ended with the bytes of the uninterrupted one")


if __name__ == "__main__":
    main()

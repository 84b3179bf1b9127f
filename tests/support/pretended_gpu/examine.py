"""Runs parts of the self-test on the pretended GPU, and prints each check as a line of JSON."""

from __future__ import annotations

import sys
from pathlib import Path

from collabench.core.resources import Resources
from collabench.study.gpu_check import examination
from tests.support.pretended_gpu import ROOT, device

ONE_GPU = Resources(4, ("0",), 2, "a test", (device.MEMORY,))


def main(parts: list[str], root: Path) -> None:
    for name in parts:
        for check in examination.run_part(name, ONE_GPU, root):
            print(check.model_dump_json(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:], ROOT)

"""Runs parts of the self-test on the pretended GPU, and prints each check as a line of JSON."""

from __future__ import annotations

import sys
from pathlib import Path

from collabench.config.configuration import Configuration
from collabench.core.resources import Resources
from collabench.study.gpu_check import examination, numbers
from collabench.study.gpu_check.cases import cases
from tests.support.pretended_gpu import ROOT, device

ONE_GPU = Resources(4, ("0",), 2, "a test", (device.MEMORY,))


#: One case of every kind of path; :mod:`tests.support.pretended_gpu.compare` trains all of them.
FEW = ("song2018", "kd", "dml in turn on a VGG", "wang2018 consensus", "fang2021 on a ResNet")


def few(**recipe: object) -> dict[str, Configuration]:
    found = cases(**recipe)
    return {name: found[name] for name in FEW}


def main(parts: list[str], root: Path) -> None:
    numbers.cases = few
    for name in parts:
        for check in examination.run_part(name, ONE_GPU, root):
            print(check.model_dump_json(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:], ROOT)

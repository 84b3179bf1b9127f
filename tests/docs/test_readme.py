"""The README's tree of the repository: it names every folder and every package, from the ground up."""

from __future__ import annotations

import re
import subprocess

import collabench
from tests.support.project import ROOT

TREE = re.search(r"^## The repository\n\n```\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[
    1
]


def test_it_names_every_package_in_the_reading_order():
    named = re.findall(r"^  (\w+)/ +\S", TREE, re.MULTILINE)
    assert named == re.findall(r"``(\w+)``", collabench.__doc__.split("\n\n")[1])
    there = {path.parent.name for path in (ROOT / "src/collabench").glob("*/__init__.py")}
    assert set(named) == there


def test_it_names_every_folder():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    folders = {line.split("/")[0] for line in listed.splitlines() if "/" in line and not line.startswith(".")}
    assert folders <= set(re.findall(r"(?:^|, )(\w+)/", TREE, re.MULTILINE))

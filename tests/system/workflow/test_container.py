"""The container images are made from the lock file, and Snakemake's jobs train in one where it is named."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib

import pytest

from tests.support.project import ROOT, contents, copy_project, environment

DOCKER = ROOT / "containers" / "Dockerfile"
APPTAINER = ROOT / "containers" / "apptainer.def"
PARAMS = """
  contained:
    description: jobs in a container
    seeds: 1
    device: cpu
    tables:
      - {name: two, datasets: [digits-tiny], models: [resnet8], recipes: [smoke], methods: [individual]}
"""

#: A program in place of apptainer: it notes the image, and calls the command without one.
PRETENDED = """#!/bin/sh
case "$1" in --version) echo "apptainer version 1.3.4"; exit 0;; esac
while [ "$1" != "{image}" ]; do shift; done
echo "$*" >> {log}
shift
exec "$@"
"""


@pytest.mark.parametrize("path", [DOCKER, APPTAINER], ids=lambda path: path.name)
def test_an_image_has_the_packages_of_the_lock_file_and_no_other_versions(path):
    text = path.read_text()
    (version,) = re.findall(r"python:(\d+\.\d+)-slim", text)
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = (tuple(map(int, part.split("."))) for part in re.findall(r"[\d.]+", supported))
    assert low <= tuple(map(int, version.split("."))) < high
    assert "pip install --no-cache-dir -r requirements.lock" in text and "--no-deps ." in text
    assert not re.findall(r"\w==\d", text)  # the lock file is the only place with versions
    for name in ("requirements.lock", "pyproject.toml", "README.md", "LICENSE", "src"):
        assert name in text and (ROOT / name).exists()
        if path == DOCKER:
            assert f"!{name}" in (ROOT / "containers" / "Dockerfile.dockerignore").read_text().split()


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed: pip install uv")
def test_uv_finds_every_version_of_the_lock_file(tmp_path):
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^\$ (uv .*)$", page, re.MULTILINE)]
    assert [command[1:3] for command in commands[:2]] == [["venv", "--python"], ["pip", "sync"]]
    shutil.copy(ROOT / "requirements.lock", tmp_path / "requirements.lock")
    plain = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    for command in (["uv", "venv", "--python", sys.executable, ".venv"], [*commands[1], "--dry-run"]):
        done = subprocess.run(command, cwd=tmp_path, env=plain, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert f" + torch=={pinned('torch')}" in done.stderr


def pinned(name: str) -> str:
    (version,) = re.findall(rf"^{name}==(.*)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return version


@pytest.mark.slow
def test_jobs_train_in_the_image_that_is_named_and_give_the_same_bytes(tmp_path):
    project, log, image = tmp_path / "project", tmp_path / "calls.txt", tmp_path / "collabench.sif"
    image.touch()
    copy_project(project, PARAMS)
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(PRETENDED.format(image=image, log=log))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    plain = environment(project)
    given = plain | {"COLLABENCH_CONTAINER": str(image), "PATH": f"{program.parent}{os.pathsep}{plain['PATH']}"}
    start = ["python", "-c", "from collabench.cli import main; main()"]
    command = [*start, "reproduce", "-p", "contained", "--cores", "1"]
    done = subprocess.run(command, cwd=project, env=given, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    calls = log.read_text().splitlines()
    assert calls and all("python -m pipeline.stages.train contained" in call for call in calls)
    runs = "artifacts/contained/runs"
    trained = {name: content for name, content in contents(project / runs).items() if not name.endswith(".done")}
    again = tmp_path / "again"
    copy_project(again, PARAMS)
    run = [*start, "run", "-p", "contained", "--cores", "1"]
    subprocess.run(run, cwd=again, env=environment(again), check=True, capture_output=True)
    assert contents(again / runs) == trained

"""The container images are made from the lock file, and Snakemake's jobs train in one where it is named."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from collabench.study.initial import WORKFLOW
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
PRETENDED = """case "$1" in --version) echo "apptainer version 1.3.4"; exit 0;; esac
while [ "$1" != "{image}" ]; do shift; done
echo "$*" >> {log}
shift
exec "$@"
"""


RECIPES = pytest.mark.parametrize("path", [DOCKER, APPTAINER], ids=lambda path: path.name)
PLACE = "/opt/collabench"


def copied(path: Path) -> dict[str, str]:
    """File or folder of the project → where a recipe puts it in the image."""
    text, found = path.read_text(), {}
    if path == APPTAINER:
        section = re.split(r"^%(\w+)$", text, flags=re.MULTILINE)
        return dict(line.split() for line in section[section.index("files") + 1].splitlines() if line.strip())
    assert re.findall(r"^WORKDIR (.*)$", text, re.MULTILINE)[0] == PLACE
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        *names, target = line.split()
        for name in names:  # docker copies the content of a folder, not the folder
            inside = target if not target.endswith("/") else f"{target}{name}"
            assert not (ROOT / name).is_dir() or not target.endswith("/"), name
            found[name] = f"{PLACE}/{inside.removeprefix('./')}"
    return found


def shell_of(path: Path, torch: str) -> str:
    """The commands of a recipe, as the shell of the image gets them. torch: the build argument TORCH."""
    text = path.read_text()
    if path == APPTAINER:
        assert re.search(r"^%arguments\n    TORCH=$", text, re.MULTILINE)
        section = re.split(r"^%(\w+)$", text, flags=re.MULTILINE)
        return section[section.index("post") + 1].replace("{{ TORCH }}", torch)
    commands = re.findall(r"^RUN ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert "ARG TORCH=\n" in text
    return "\n".join(f"( {command}\n) || exit" for command in commands)


@RECIPES
def test_an_image_has_the_packages_of_the_lock_file_and_no_other_versions(path):
    text = path.read_text()
    (version,) = re.findall(r"python:(\d+\.\d+)-slim", text)
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = (tuple(map(int, part.split("."))) for part in re.findall(r"[\d.]+", supported))
    assert low <= tuple(map(int, version.split("."))) < high
    assert not re.findall(r"\w==\d", text)  # the lock file is the only place with versions
    files = copied(path)
    assert files == {name: f"{PLACE}/{name}" for name in files}
    build = {"requirements.lock", "pyproject.toml", "setup.py", "README.md", "LICENSE", "src"}
    assert files.keys() == build | set(WORKFLOW)
    if path == DOCKER:
        first, *rest = (ROOT / "containers" / "Dockerfile.dockerignore").read_text().split()
        assert first == "*" and {line[1:] for line in rest if line.startswith("!")} == files.keys()


@RECIPES
@pytest.mark.parametrize("torch", ["", "cpu"])
def test_the_commands_of_a_recipe_install_what_it_says(tmp_path, path, torch):
    """Run by a shell, with programs that note how they were called in place of the image's."""
    programs, log, place = tmp_path / "bin", tmp_path / "calls.txt", tmp_path / "place"
    place.mkdir()
    shutil.copy(ROOT / "requirements.lock", place)
    for name in ("apt-get", "pip", "git", "rm"):
        note(programs / name, f'echo {name} "$@" >> {log}')
    script = shell_of(path, torch).replace(PLACE, str(place)).replace("/var/lib/apt", "/nowhere")
    variables = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "TORCH": torch}
    done = subprocess.run(["sh", "-c", script], cwd=place, env=variables, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    calls = log.read_text().splitlines()
    system = ["apt-get update", "apt-get install -y --no-install-recommends git make", "rm -rf /nowhere/lists/*"]
    assert [call for call in calls if not call.startswith(("pip", "git"))] == system
    builds = [f"torch=={pinned('torch')} torchvision=={pinned('torchvision')}"] if torch else []
    index = f"--index-url https://download.pytorch.org/whl/{torch}"
    assert [call for call in calls if call.startswith("pip")] == [
        *(f"pip install --no-cache-dir {build} {index}" for build in builds),
        "pip install --no-cache-dir -r requirements.lock",
        "pip install --no-cache-dir --no-deps .",
    ]
    for name in ("apt-get", "pip", *(["git"] if path == DOCKER else [])):
        working = (programs / name).read_text()
        note(programs / name, "exit 3")
        done = subprocess.run(["sh", "-c", script], cwd=place, env=variables, capture_output=True, check=False)
        assert done.returncode == 3, f"{name} fails, and the build goes on"
        (programs / name).write_text(working)


def note(program: Path, text: str) -> None:
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


@RECIPES
@pytest.mark.slow
def test_what_an_image_copies_is_enough_for_the_package_with_its_workflow(tmp_path, path):
    for name in copied(path):
        source, target = ROOT / name, tmp_path / "place" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, "."]
    subprocess.run(command, cwd=tmp_path / "place", check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in WORKFLOW:
        assert any(f"{entry}/".startswith(f"collabench/workflow/{name}/") for entry in names), name


@pytest.mark.slow
def test_uv_finds_every_version_of_the_lock_file(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^\$ (uv .*)$", page, re.MULTILINE)]
    assert [command[1:3] for command in commands[:2]] == [["venv", "--python"], ["pip", "sync"]]
    shutil.copy(ROOT / "requirements.lock", tmp_path / "requirements.lock")
    plain = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    for command in (["uv", "venv", "--python", sys.executable, ".venv"], [*commands[1], "--dry-run"]):
        done = subprocess.run([uv, *command[1:]], cwd=tmp_path, env=plain, text=True, capture_output=True, check=False)
        if done.returncode and re.search("Failed to fetch|dns error|error sending request", done.stderr):
            pytest.skip("the registry cannot be reached")
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
    note(program, PRETENDED.format(image=image, log=log))
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

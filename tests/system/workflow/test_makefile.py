"""The targets of the Makefile, in a folder with a pretended environment: what they call, what they say."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from collabench.study.gpu_check.facts import OLDEST_DRIVER
from tests.support.project import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def folder(tmp_path) -> Path:
    """The Makefile beside an environment whose programs only say how they were called."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    for program in ("collabench", "python"):
        script(tmp_path / ".venv" / "bin" / program, f'echo "{program}:" "$@" "threads=$OMP_NUM_THREADS"')
    (tmp_path / ".venv" / "installed").touch()
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "OMP_"))}
    environment = {
        key: value
        for key, value in plain.items()
        if key not in ("PROFILE", "CORES", "GPUS", "HOURS", "PYTHON", "TORCH")
    }
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, text=True, capture_output=True, check=False
    )


def test_without_a_target_make_lists_them(folder):
    done = make(folder)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0].startswith("make TARGET [PROFILE=default]")
    targets = [line.split()[0] for line in lines[1:]]
    wanted = "reproduce smoke check test test-slow test-all test-gpu bench share clean-env"
    assert targets == wanted.split()
    assert all(len(line.split()) > 2 and len(line) <= 120 for line in lines[1:])


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["reproduce"], "collabench: reproduce --profile default --cores  --gpus  threads="),
        (
            ["reproduce", "PROFILE=digits", "CORES=2", "GPUS=0,1"],
            "collabench: reproduce --profile digits --cores 2 --gpus 0,1 threads=",
        ),
        (
            ["reproduce", "HOURS=0.5"],
            "collabench: reproduce --profile default --cores  --gpus  --hours 0.5 threads=",
        ),
        (["smoke", "CORES=2"], "collabench: reproduce --profile smoke --cores 2 --gpus  threads="),
        (["share", "PROFILE=smoke"], "collabench: share --profile smoke threads="),
        (["test"], "python: -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m not slow threads=1"),
        (
            ["test-slow"],
            "python: -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m slow "
            "--durations=25 --durations-min=5 threads=1",
        ),
        (["test-all"], "python: -m pytest -q -n auto --dist loadfile --no-loadscope-reorder threads=1"),
        (["test-gpu"], "collabench: doctor --gpu threads="),
        (["bench"], "python: -m benchmarks threads=1"),
    ],
)
def test_what_a_target_calls(folder, arguments, called):
    done = make(folder, *arguments)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, called, "")


def test_check_calls_every_checker_and_ends_with_the_first_that_fails(folder):
    for program in ("ruff", "mypy"):
        script(folder / ".venv" / "bin" / program, f'echo "{program}:" "$@"')
    first, second, *both = make(folder, "check").stdout.splitlines()
    assert (first, second) == ("ruff: format --check --quiet", "ruff: check --quiet")
    types, tests = sorted(both)  # at once, on two cores
    assert types.strip() == "mypy:" and tests.startswith("python: -m pytest") and "-m not slow" in tests
    paths = [word for word in tests.split() if word.startswith("tests/")]
    assert "tests/test_architecture.py" in paths and all((ROOT / path).exists() for path in paths)
    script(folder / ".venv" / "bin" / "mypy", "echo an error; exit 1")
    done = make(folder, "check")
    assert done.returncode == 2 and "an error\n" in done.stdout
    script(folder / ".venv" / "bin" / "ruff", "echo a word too many; exit 1")
    done = make(folder, "check")
    assert done.returncode == 2 and done.stdout == "a word too many\n", "what is quick comes first"


def test_the_commands_exit_code_ends_make(folder):
    script(folder / ".venv" / "bin" / "collabench", "echo no such profile >&2; exit 2")
    done = make(folder, "reproduce", "PROFILE=smal")
    assert done.returncode == 2 and "no such profile" in done.stderr


@pytest.mark.parametrize("version", ["3.10.14", "3.14.0"])
def test_a_python_that_does_not_do_is_named_before_anything_is_installed(folder, version):
    (folder / ".venv" / "installed").unlink()
    major, minor, micro = version.split(".")
    pretend = (
        f"import sys; sys.version_info = ({major}, {minor}, {micro}); sys.version = '{version} (main)'; "
        "exec(sys.argv[1])"
    )
    real = shutil.which("python3")
    script(folder / "old-python", f'shift; exec {real} -c "{pretend}" "$1"')
    done = make(folder, "reproduce", f"PYTHON={folder / 'old-python'}")
    assert done.returncode == 2
    assert f"collabench needs Python 3.11, 3.12 or 3.13, this is {version}; choose another: make PYTHON=" in done.stderr
    assert "creating" not in done.stdout


def test_a_python_without_its_venv_module_is_mended_in_a_line(folder):
    (folder / ".venv" / "installed").unlink()
    real = shutil.which("python3")
    script(folder / "bare-python", f'case "$2" in *ensurepip*) exit 1;; esac; exec {real} -c "pass"')
    done = make(folder, "test", f"PYTHON={folder / 'bare-python'}")
    assert done.returncode == 2 and "creating" not in done.stdout
    assert done.stdout == "Python lacks its venv module; mend it with: apt-get install python3-venv\n"


def test_an_environment_that_is_only_linked_to_is_not_emptied(folder, tmp_path_factory):
    """``venv --clear`` follows a link: another checkout's environment would be gone, and what runs in it would fail."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / ".venv"
    (folder / ".venv").rename(elsewhere)
    (folder / ".venv").symlink_to(elsewhere)
    assert make(folder, "share").returncode == 0, "a link to a complete environment is used"
    (elsewhere / "installed").unlink()
    script(
        folder / "python", f'case "$*" in *--clear*) exec {sys.executable} -m venv --without-pip --clear .venv;; esac'
    )
    done = make(folder, "reproduce", f"PYTHON={folder / 'python'}")
    assert done.returncode == 2 and done.stdout.startswith(f".venv: is a link to {elsewhere}, "), done
    assert done.stdout.count("\n") == 1 and (elsewhere / "bin" / "collabench").exists()


@pytest.mark.parametrize("build", ["CPU", "cu", "12.6", "cu126;x"])
def test_another_build_of_torch_than_there_is_is_named_before_anything_is_installed(folder, build):
    (folder / ".venv" / "installed").unlink()
    done = make(folder, "reproduce", f"TORCH={build}")
    assert done.returncode == 2
    assert done.stdout == (
        f"TORCH={build}: there are cpu, and pytorch.org's builds such as cu126 and rocm7.2; leave TORCH out for the "
        "usual build with CUDA\n"
    )


def test_the_page_names_the_builds_and_drivers_of_the_pinned_version():
    """Another version of torch has other builds: its release matrix must be read again."""
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    (pinned,) = re.findall(r"^torch==(\d+\.\d+)\.", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert f"For torch {pinned}, the pinned version, PyTorch's release" in page
    drivers = dict(re.findall(r"by CUDA (\d+)\.\d.* \| (\d+) or later \|", page))
    assert drivers == {major: str(OLDEST_DRIVER[int(major)]) for major in ("12", "13")}


@pytest.mark.parametrize("build", ["cpu", "cu126", "rocm7.2"])
def test_a_build_of_torch_comes_from_its_own_index(folder, build):
    (folder / ".venv" / "installed").unlink()
    done = make(folder, "--dry-run", "test", f"TORCH={build}")
    assert f"https://download.pytorch.org/whl/{build}" in done.stdout


def wheel(folder: Path, name: str, version: str) -> None:
    """A wheel whose module says its version, in an index as pip reads it: ``<name>/index.html`` beside the files."""
    folder = folder / name
    folder.mkdir(parents=True)
    info = f"{name}-{version}.dist-info"
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{quote(file.name)}">{file.name}</a>\n')


@pytest.mark.slow
def test_the_cpu_builds_of_torch_and_torchvision_come_from_one_index(folder):
    """pytorch.org's index of CPU builds cannot be reached by tests: a folder with its layout stands for it."""
    (folder / ".venv" / "installed").unlink()
    (folder / "requirements.lock").write_text("torch==2.13.0\ntorchvision==0.28.0\n")
    for name, version in (("torch", "2.13.0"), ("torchvision", "0.28.0")):
        wheel(folder / "pytorch" / "cpu", name, f"{version}+cpu")
        wheel(folder / "pypi", name, version)  # the build with CUDA
    real, usual = f"{sys.executable} -m pip --isolated --python .venv/bin/python", f"--index-url file://{folder}/pypi"
    pip = f'case "$*" in *"-e ."*) ;; *--index-url*) exec {real} "$@";; *) exec {real} "$@" {usual};; esac'
    script(folder / "pip", pip)
    made = f"{sys.executable} -m venv --without-pip --clear .venv && cp pip .venv/bin/pip"
    script(folder / "python", f'case "$*" in *--clear*) {made};; esac')
    given = ("TORCH=cpu", f"PYTHON={folder / 'python'}", f"TORCH_INDEX=file://{folder}/pytorch")
    done = make(folder, ".venv/installed", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    said = "import torch, torchvision; print(torch.__version__, torchvision.__version__)"
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    python = folder / ".venv" / "bin" / "python"
    seen = subprocess.run([python, "-c", said], cwd=folder, env=plain, text=True, capture_output=True, check=True)
    assert seen.stdout.split() == ["2.13.0+cpu", "0.28.0+cpu"]


def test_a_build_that_its_index_lacks_is_said_in_a_line(folder):
    (folder / ".venv" / "installed").unlink()
    pip = 'mkdir -p .venv/bin; printf "#!/bin/sh\\nexit 1\\n" > .venv/bin/pip; chmod +x .venv/bin/pip'
    script(folder / "python", f'case "$*" in *--clear*) {pip};; esac')
    (folder / "requirements.lock").write_text("torch==2.13.0\n")
    done = make(folder, "test", "TORCH=cu126", f"PYTHON={folder / 'python'}")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == (
        "TORCH=cu126: https://download.pytorch.org/whl/cu126 has no torch==2.13.0 for this Python, or cannot be "
        "reached; pytorch.org names the builds"
    )


def test_the_environment_is_made_again_when_the_lock_file_changes(folder):
    (folder / ".venv" / "installed").touch()
    later = (folder / ".venv" / "installed").stat().st_mtime + 10
    os.utime(folder / "requirements.lock", (later, later))
    done = make(folder, "--dry-run", "test", "TORCH=cpu")
    assert "-m venv --clear .venv" in done.stdout and "-r requirements.lock" in done.stdout
    assert "https://download.pytorch.org/whl/cpu" in done.stdout


def test_clean_env_removes_the_environment(folder):
    assert make(folder, "clean-env").returncode == 0 and not (folder / ".venv").exists()


def test_the_workflow_for_github_runs_the_targets_of_the_script_for_any_other_ci():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["test"]["steps"]
    targets = [line.split("#")[0].strip() for line in lines if line.startswith("make ")]
    assert targets[0] == "make check" and targets == [
        step["run"] for step in steps if step.get("run", "").startswith("make ")
    ]

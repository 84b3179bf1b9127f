"""`reproduce` says its last words about a finished study again, without DVC, as long as everything is as it was. What
it finds to be unchanged is unchanged for DVC, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo
from filelock import FileLock

from collabench.storage import archives
from collabench.storage.results import LOGITS, RESULT, WEIGHTS
from collabench.storage.workspace import Workspace
from collabench.study import dvc_state, finished
from tests.support.project import ROOT

PROFILE = "small"
TARGETS = [f"{stage}@{PROFILE}" for stage in dvc_state.STAGES]
SAID = "the tables, and what to do next"

OWN_METHOD = "collabench_methods/mine.py"
#: Files that a finished study has beside its results, with any content.
FURTHER = {
    "papers/none.txt": "no paper is needed here\n",
    "src/collabench/study/code.py": "one = 1\n",
    "src/collabench/data/code.py": "two = 2\n",
    "pipeline/plan.py": "three = 3\n",
    "Snakefile": "rule all:\n",
    "README.md": "what was found\n",
    OWN_METHOD: "four = 4\n",
    f"artifacts/{PROFILE}/report/README.md": "tables\n",
    f"artifacts/{PROFILE}/report/figures/curve.svg": "<svg/>\n",
    f"artifacts/{PROFILE}/costs/README.md": "costs\n",
    f"artifacts/{PROFILE}/state/report.done": "",
    f"artifacts/{PROFILE}/state/unpacked.json": "{}",
    f"reports/{PROFILE}/README.md": "accepted tables\n",
    "reports/other/claims.json": "{}",
    "reports/index.html": "<html/>",
    "reports/accepted-code.json": "{}",
    "artifacts/other/report/report.json": "{}",
    "outside/network.py": "five = 5\n",
}


def asked_dvc(root: Path) -> dict:
    """What DVC says of the profile's stages."""
    with chdir(root), Repo(root) as repo:  # it takes params.yaml from the present folder
        return repo.status(TARGETS)


@pytest.fixture(scope="module")
def recorded(_finished, tmp_path_factory) -> Path:
    """A finished study whose stages DVC has recorded."""
    root = tmp_path_factory.mktemp("recorded") / "project"
    shutil.copytree(_finished, root)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    for name, content in FURTHER.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    archives.pack_runs(Workspace(root, PROFILE))
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    with chdir(root), Repo(root) as repo:
        for target in TARGETS:
            repo.commit(target, force=True)
    assert asked_dvc(root) == {}
    return root


@pytest.fixture
def study(recorded, tmp_path) -> Workspace:
    """The same for one test alone, with the last words of `reproduce`."""
    root = tmp_path / "project"
    shutil.copytree(recorded, root, symlinks=True)
    workspace = Workspace(root, PROFILE)
    finished.remember(workspace, SAID, [root / "outside" / "network.py"], finished.settings_of(workspace))
    assert finished.said_before(workspace) == SAID
    return workspace


REPRODUCE = (
    "import sys; from collabench.cli import main; sys.argv[0] = 'collabench'\ntry: main()\nfinally: "
    "print(sorted({'torch', 'pandas', 'dvc', 'snakemake'} & sys.modules.keys()))"
)


def test_the_command_says_it_again_without_importing_what_takes_long(study):
    command = [sys.executable, "-c", REPRODUCE, "reproduce", "-p", PROFILE, "--root", str(study.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{SAID}\n[]\n"


def first(folder: Path, name: str) -> Path:
    return min(folder.rglob(name))


def flip(path: Path) -> None:
    """Change one bit; size and time of modification stay."""
    about = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


#: What DVC compares, by its content.
OF_DVC: dict[str, Callable[[Workspace], Path]] = {
    "params.yaml": lambda w: w.params,
    "a paper": lambda w: w.papers / "none.txt",
    "the library's code": lambda w: w.root / "src/collabench/data/code.py",
    "a result": lambda w: first(w.runs, RESULT),
    "logits": lambda w: first(w.runs, LOGITS),
    "weights": lambda w: first(w.runs, WEIGHTS),
    "a data set": lambda w: first(w.datasets, "arrays.safetensors"),
    "its manifest": lambda w: first(w.datasets, "manifest.json"),
    "noise": lambda w: first(w.noise, "*.safetensors"),
    "an archive": lambda w: first(w.packed_runs, "*.tar"),
    "a page": lambda w: w.report / "README.md",
    "a figure": lambda w: w.report / "figures" / "curve.svg",
}


@pytest.mark.parametrize("what", OF_DVC)
def test_one_bit_of_what_dvc_compares_is_noticed(study, what):
    path = OF_DVC[what](study)
    flip(path)
    assert dvc_state.entries_if_unchanged(study.root, PROFILE) is None
    assert finished.said_before(study) is None
    flip(path)
    assert finished.said_before(study) == SAID
    path.unlink()
    assert dvc_state.entries_if_unchanged(study.root, PROFILE) is None
    assert finished.said_before(study) is None


def without_cached_page(w: Workspace) -> None:
    md5 = next(entry["md5"] for entry in dvc_state.entries_if_unchanged(w.root, PROFILE)[f"report@{PROFILE}"]["outs"])
    (w.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()


#: Changes that DVC answers by running a stage.
RUNS_A_STAGE: dict[str, Callable[[Workspace], object]] = {
    "other seeds": lambda w: replace(w.params, "seeds: ", "seeds: 1"),
    "a new paper": lambda w: write(w.papers / "new.yaml", "{}\n"),
    "a new module": lambda w: write(w.root / "src/collabench/new.py", "\n"),
    "a run too many": lambda w: write(w.runs / "another" / "seed-0" / RESULT, "{}"),
    "a run less": lambda w: shutil.rmtree(first(w.runs, RESULT).parent),
    "no noise": lambda w: shutil.rmtree(w.noise),
    "a page too many": lambda w: write(w.report / "new.md", "\n"),
    "dvc.lock is gone": lambda w: (w.root / "dvc.lock").unlink(),
    "a stage is not recorded": lambda w: replace(w.root / "dvc.lock", f"  noise@{PROFILE}:", "  noise@other:"),
    "a stage is out of date": lambda w: replace(w.root / "dvc.lock", "md5: ", "md5: 0123"),
    "another command was recorded": lambda w: replace(w.root / "dvc.lock", "env -u", "env  -u"),
    "another command is asked for": lambda w: replace(w.root / "dvc.yaml", "${key} noise", "${key} noise -n"),
    "a further dependency": lambda w: replace(w.root / "dvc.yaml", "deps: [", "deps: [README.md, "),
    "DVC's cache lacks the report": without_cached_page,
}  # fmt: skip


@pytest.mark.parametrize("what", RUNS_A_STAGE)
def test_what_dvc_would_run_is_never_taken_for_done(study, what):
    RUNS_A_STAGE[what](study)
    assert asked_dvc(study.root) != {}
    assert dvc_state.entries_if_unchanged(study.root, PROFILE) is None
    assert finished.said_before(study) is None


#: Forms of DVC's files that are not compared here: DVC is then asked.
NOT_COMPARED: dict[str, Callable[[Workspace], object]] = {
    "dvc.lock is no YAML": lambda w: (w.root / "dvc.lock").write_bytes(b"\x00{"),
    "dvc.lock is a list": lambda w: (w.root / "dvc.lock").write_text("[]"),
    "dvc.lock is empty": lambda w: (w.root / "dvc.lock").write_text(""),
    "other files are ignored": lambda w: write(w.root / ".dvcignore", "artifacts/**\n"),
    "a folder ignores files": lambda w: write(w.runs / ".dvcignore", "*.json\n"),
    "so does a folder above": lambda w: write(w.home / ".dvcignore", "*.json\n"),
    "a pipe among results": lambda w: os.mkfifo(w.runs / "pipe"),
    "a stage has parameters": lambda w: replace(w.root / "dvc.yaml", "      outs:", "      params: [x]\n      outs:"),
    "an output has other options": lambda w: replace(w.root / "dvc.yaml", "{persist: true}", "{push: false}"),
    "the cache lies elsewhere": lambda w: shutil.move(w.root / ".dvc/cache", w.root / "elsewhere"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", NOT_COMPARED)
def test_what_is_not_understood_is_never_taken_for_done(study, what):
    NOT_COMPARED[what](study)
    assert dvc_state.entries_if_unchanged(study.root, PROFILE) is None
    assert finished.said_before(study) is None


def lock_of_a_dvc(w: Workspace) -> None:
    write(w.root / ".dvc/tmp/rwlock", json.dumps({"write": {str(w.runs): {"pid": 1, "cmd": "dvc repro"}}}))


#: Changes that DVC does not see.
BESIDE_DVC: dict[str, Callable[[Workspace], object]] = {
    "a measurement": lambda w: flip(first(w.measured, "*.json")),
    "costs": lambda w: flip(w.costs / "README.md"),
    "an accepted page": lambda w: flip(w.accepted_report / "README.md"),
    "an accepted page too many": lambda w: write(w.accepted_report / "new.md", "\n"),
    "another profile's claims": lambda w: flip(w.root / "reports/other/claims.json"),
    "another profile's report, built here": lambda w: flip(w.root / "artifacts/other/report/report.json"),
    "the page of all profiles": lambda w: w.page.unlink(),
    "such a page of what was built": lambda w: write(w.built_page, "<html/>"),
    "what was found, in the README": lambda w: flip(w.root / "README.md"),
    "code that was accepted": lambda w: flip(w.accepted_code),
    "a method of the user's": lambda w: flip(w.root / OWN_METHOD),
    "a module beside it": lambda w: write(w.root / "collabench_methods/more.py", "\n"),
    "a network of the user's": lambda w: flip(w.root / "outside/network.py"),
    "the workflow": lambda w: flip(w.root / "pipeline/plan.py"),
    "the Snakefile": lambda w: flip(w.root / "Snakefile"),
    "DVC's configuration": lambda w: write(w.root / ".dvc/config.local", "[core]\n"),
    "a failed run": lambda w: write(w.failure("run"), "{}"),
    "a checkpoint": lambda w: write(w.checkpoint("run"), ""),
    "a round that was killed": lambda w: write(w.round, "{}"),
    "the report's marker": lambda w: (w.state / "report.done").unlink(),
    "what a killed process was writing": lambda w: (w.runs / f".{RESULT}.x.tmp").mkdir(),
    "a lock that a killed DVC has left": lock_of_a_dvc,
    "the record of what was said": lambda w: flip(w.finished),
    "a record that is cut short": lambda w: w.finished.write_text('{"said": "'),
}


@pytest.mark.parametrize("what", BESIDE_DVC)
def test_what_dvc_does_not_see_is_noticed_too(study, what):
    BESIDE_DVC[what](study)
    assert finished.said_before(study) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda w: write(w.root / "src/collabench/__pycache__/code.pyc", "x"),
        lambda w: write(w.root / "pipeline/__pycache__/code.pyc", "x"),
        lambda w: write(w.state / "logs" / "reproduce.log", "x"),
        lambda w: write(w.root / ".dvc/tmp/rwlock", '{"read": {}, "write": {}}'),
        lambda w: os.utime(first(w.runs, RESULT)),
        lambda w: replace(w.root / "dvc.lock", "schema: '2.0'\n", "schema: '2.0'\n# another profile ran\n"),
    ],
    ids=["bytecode", "the workflow's bytecode", "a log", "an empty record", "a time", "elsewhere in dvc.lock"],
)
def test_what_says_nothing_about_results_changes_nothing(study, change):
    change(study)
    assert asked_dvc(study.root) == {}
    assert finished.said_before(study) == SAID


def test_a_study_that_somebody_works_on_is_asked_for_anew(study):
    with FileLock(study.reproduce_lock):
        assert finished.said_before(study) is None
    assert finished.said_before(study) == SAID


def test_another_arithmetic_and_another_place_are_another_study(study, monkeypatch, tmp_path):
    moved = Workspace(tmp_path / "moved", PROFILE)
    shutil.copytree(study.root, moved.root)
    assert finished.said_before(moved) is None
    monkeypatch.setenv("COLLABENCH_ARITHMETIC", "native")
    assert finished.said_before(study) is None


def test_the_library_that_runs_counts_wherever_it_lies(study, monkeypatch, tmp_path):
    package = tmp_path / "collabench"
    write(package / "study" / "code.py", "six = 6\n")
    monkeypatch.setattr(finished, "PACKAGE", package)
    finished.remember(study, SAID, [], finished.settings_of(study))
    assert finished.said_before(study) == SAID
    flip(package / "study" / "code.py")
    assert finished.said_before(study) is None


def test_nothing_is_recorded_that_is_not_whole(study):
    settings = finished.settings_of(study)
    finished.remember(study, SAID, [], "of other settings")  # edited while the study ran
    assert not study.finished.exists()
    finished.remember(study, SAID, [], settings)
    assert study.finished.exists()
    flip(first(study.runs, WEIGHTS))  # damaged since DVC recorded it
    finished.remember(study, SAID, [], settings)
    assert not study.finished.exists()

"""Nothing of the surroundings leaks into a study: the same bytes, whatever the environment holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from collabench.storage.files import read_json
from collabench.storage.results import Measured
from tests.support.project import ROOT, contents
from tests.support.running import COLLABENCH, environment
from tests.support.tiny import PROFILE, tiny_project

HOSTILE = {
    "figures": {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MPLCONFIGDIR": "/nonexistent"},
    "letters": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"},
    "git": {"GIT_DIR": "/nonexistent", "GIT_WORK_TREE": "/", "GIT_CONFIG_PARAMETERS": "'core.worktree'='/'"},
    "processes": {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "x.org", "OMP_NUM_THREADS": "3",
                  "NUMBA_DISABLE_JIT": "1", "PIP_USER": "1", "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "7",
                  "TZ": "Asia/Kathmandu", "COLUMNS": "20"},
}  # fmt: skip


def project(root: Path) -> Path:
    return tiny_project(root, dataset=", title: Größe − $x_1$", methods="individual kd", noise="clean")


def made(root: Path, variables: dict[str, str]) -> dict[str, bytes]:
    """Results and report of a study in this environment; what was measured differs by nature."""
    for arguments in (["run", "-p", PROFILE, "--cores", "1"], ["report", "-p", PROFILE]):
        done = subprocess.run(
            [*COLLABENCH, *arguments], cwd=root, env=environment(root, **variables), capture_output=True
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-3000:]
    home = root / "artifacts" / PROFILE
    return {f"{part}/{name}": content for part in ("runs", "report", "datasets", "noise") if (home / part).exists()
            for name, content in contents(home / part).items()}  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    return made(project(tmp_path_factory.mktemp("plain")), {})


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", HOSTILE)
def test_the_same_bytes_in_hostile_surroundings(tmp_path, expected, kind):
    root = project(tmp_path)
    if kind == "figures":
        (root / "matplotlibrc").write_text("axes.grid: True\ntext.usetex: True\nsavefig.dpi: 17\nfont.size: 30\n")
    found = made(root, HOSTILE[kind])
    assert found.keys() == expected.keys() and any(name.endswith(".svg") for name in found)
    assert [name for name in found if found[name] != expected[name]] == []
    measured = [read_json(path, Measured) for path in (root / "artifacts").rglob("measured/*/*.json")]
    assert measured and all(one.commit is None and one.commit_unknown for one in measured)


@pytest.mark.parametrize("stage", ["datasets", "noise", "train", "report"])
def test_the_commands_of_dvc_find_the_workflow_under_pythonsafepath(stage):
    """As DVC starts them by itself: in a shell, in the project's folder."""
    command = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["do"]["cmd"]
    python, module, _ = command.partition(" -m pipeline.snakemake ")
    assert module
    variables = os.environ | {"PYTHONSAFEPATH": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    asked = f"{python} -c 'import os, pipeline; print(pipeline.__file__, os.environ.get(\"PYTHONSAFEPATH\"))'"
    done = subprocess.run(asked, shell=True, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.stdout == f"{ROOT / 'pipeline' / '__init__.py'} None\n", done.stderr

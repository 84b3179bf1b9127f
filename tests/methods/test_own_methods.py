"""Methods in a package of the user's own: found, identified, and refused in one line."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from collabench.config.method_files import check_methods
from collabench.core.errors import ConfigError
from collabench.core.registry import Registry
from collabench.methods import METHODS, OWN
from collabench.study import source_code
from tests.support.project import ROOT, environment

CODE = "from collabench.cli import main; main()"


def process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        cwd=folder, env=environment(ROOT), text=True, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path) -> Path:
    """What ``collabench init`` writes of a method of one's own, without the workflow around it."""
    folder, source = tmp_path / "mine", ROOT / "src" / "collabench" / "study" / "new_project"
    (folder / OWN).mkdir(parents=True)
    shutil.copyfile(source / "params.yaml", folder / "params.yaml")
    shutil.copyfile(source / "mine.py.txt", folder / OWN / "mine.py")
    return folder


@pytest.mark.slow
def test_a_method_of_the_project_trains_and_its_file_is_in_the_digest(project):
    given = ("run", "-p", "smoke", "--method", "mine", "--seed", "0", "--cores", "1", "--root", str(project))
    done = process(project.parent, *given)
    assert done.returncode == 0 and "1 trained" in done.stdout, done.stderr
    (path,) = (project / "artifacts" / "smoke" / "runs").glob("*mine*/seed-0/result.json")
    result = json.loads(path.read_text())
    assert set(result["curves"]["losses"]) == {"hard", "confidence"}
    file = project / "collabench_methods" / "mine.py"
    file.write_text(file.read_text().replace("* entropy\n", "* 2 * entropy\n"))
    assert "other code: digits-small · uniform20 · resnet8 · brief · mine" in (
        said := process(project, "plan", "-p", "smoke").stdout
    ), said


@pytest.fixture
def registry(project, monkeypatch) -> Iterator[Callable[[], Registry]]:
    """Finds the library's methods and those of the project, as a process does that begins in its folder."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == OWN]:
            del sys.modules[name]

    forget()
    monkeypatch.syspath_prepend(project)
    yield lambda: Registry("collabench.methods", "method", own=OWN)
    forget()


def test_a_file_of_the_project_is_a_method_beside_the_librarys(registry):
    assert set(registry()) == {*METHODS, "mine"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dml.py", "Settings = object", "the library has a method 'dml'; rename the file"),
        ("broken.py", "import nothing_of_this", "collabench_methods.broken: cannot be imported (ModuleNotFound"),
        ("broken.py", "def", "collabench_methods.broken: cannot be imported (SyntaxError"),
        ("other.py", "from collabench_methods.mine import Settings", "must have the field method: Literal['other']"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_line(project, registry, name, text, message):
    (project / OWN / name).write_text(f"{text}\n")
    with pytest.raises(ConfigError) as error:
        registry()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Method(", "class Methd(", "must have a class Method that inherits from collabench.methods.Method"),
        ("class Method(AnyMethod[Backbone]):", "class Method:", "must have a class Method that inherits from"),
        ("class Settings(MethodSettings):", "class Settings(__import__('pydantic').BaseModel):",
         "must have a class Settings that inherits from collabench.methods.MethodSettings"),
        ("revision = 1", "revision = '2'", "Method.revision must be a whole number from 1 (it is '2')"),
    ],
)  # fmt: skip
def test_a_file_that_lacks_what_a_method_has_is_refused(project, registry, old, new, message):
    path = project / OWN / "mine.py"
    check_methods(registry())
    path.write_text(path.read_text().replace(old, new, 1))
    for name in [name for name in sys.modules if name.split(".")[0] == OWN]:
        del sys.modules[name]
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {message}")):
        check_methods(registry())


@pytest.mark.parametrize(
    ("returned", "wrong"),
    [
        ("{}", "it returned none"),
        ("None", "it returned NoneType"),
        ("terms['hard']", "it returned Tensor"),
        ("{1: terms['hard']}", "the name 1 is no text"),
        ("{'hard': 1.0}", "'hard' is no tensor but float"),
        ("{'hard': logits}", "'hard' has the shape (2, 10) and must be one number, a mean over the batch"),
        ("{'hard': terms['hard'].detach()}", "none of its terms has a gradient"),
        ("terms", ""),
    ],
)
def test_what_losses_returns_is_checked_by_name(project, registry, returned, wrong):
    path = project / OWN / "mine.py"
    path.write_text(path.read_text().replace("        return terms\n", f"        return {returned}\n"))
    for _ in range(2):  # a second check adds nothing
        check_methods(registry())
    module = registry()["mine"]
    method = SimpleNamespace(settings=module.Settings(method="mine"))
    network, batch = torch.nn.Linear(3, 10), SimpleNamespace(images=torch.rand(2, 3), labels=torch.tensor([0, 1]))
    if not wrong:
        assert set(module.Method.losses(method, network, batch)) == {"hard", "confidence"}
        return
    with pytest.raises(ConfigError) as error:
        module.Method.losses(method, network, batch)
    assert str(error.value) == f"{path}: losses must return the terms of the loss, {{name: scalar}}; {wrong}"


def test_an_error_names_its_line_in_the_users_own_code(project, registry):
    """Without a traceback nobody finds a mistake in a method of several hundred lines."""
    path = project / OWN / "mine.py"
    number = next(n for n, line in enumerate(path.read_text().splitlines(), 1) if "logits = network(" in line)
    module = registry()["mine"]

    class Own:
        model, peer_models = None, {}
        method = module.Settings(method="mine")

    try:
        module.Method.losses(None, lambda images: 1 / 0, SimpleNamespace(images=None))
    except ZeroDivisionError as error:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source_code, "METHODS", {"mine": module})
            assert source_code.place_in_own_code(error, Own) == f" (collabench_methods/mine.py, line {number})"
            assert source_code.place_in_own_code(ZeroDivisionError(), Own) == ""


@pytest.mark.slow
def test_a_mistake_in_a_file_ends_a_command_with_its_line(project):
    (project / OWN / "broken.py").write_text("def\n")
    done = process(project, "plan", "-p", "smoke")
    assert done.returncode == 2 and "collabench_methods.broken: cannot be imported (SyntaxError" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_folder_an_entry_is_refused_as_ever(project, collabench):
    called = collabench("plan", "-p", "smoke", "--root", project)
    assert called.code == 2 and "methods.mine.method: must be " in called.err

"""What others made is read, never executed: no foreign pickle, no code in a checkpoint, no shell, no open port."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from collabench.config.params import load_params
from collabench.core.errors import ConfigError, DataError, ResultError
from collabench.data.archives import members
from collabench.data.pickles import read_pickle
from collabench.training import checkpoint
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT

SOURCES = sorted(path for part in ("src", "pipeline") for path in (ROOT / part).rglob("*.py"))

#: The one reader of foreign pickles, whose Unpickler finds no function but its own.
PICKLES = ROOT / "src/collabench/data/pickles.py"

#: Calls that execute what they are given, or hand it to a shell.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "os.execv", "os.execvp", "os.spawnl", "os.spawnv", "pty.spawn",
    "subprocess.getoutput", "subprocess.getstatusoutput",
    "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open", "dill.load", "joblib.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "torch.hub.load",
    "shutil.unpack_archive", "importlib.import_module",
}  # fmt: skip

#: ``importlib.import_module`` of modules by name: the package's own, and the one in which a user writes a model of
#: their own.
MAY_IMPORT = {ROOT / "src/collabench/core/registry.py", ROOT / "src/collabench/models/families/custom.py"}

#: ``compile`` and ``exec`` of code that the same module wrote, from the layers and operations that torch recorded: it
#: checks that the code computes what the network computes, before the code is given away.
MAY_EXECUTE = {ROOT / "src/collabench/sharing/plain_code.py"}

#: It listens on a socket in a folder of its own, which no network reaches.
SERVER_OF_JOBS = ROOT / "src/collabench/core/server.py"

#: Calls that open a port.
LISTENING = {"bind", "listen", "create_server", "HTTPServer", "ThreadingHTTPServer", "TCPServer", "serve_forever"}


def calls(source: str) -> list[tuple[str, ast.Call]]:
    """Every call of a file, by the dotted name that stands there."""
    return [(ast.unparse(node.func), node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


@cache
def calls_of(path: Path) -> list[tuple[str, ast.Call]]:
    return calls(path.read_text())


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def value(call: ast.Call, name: str) -> object:
    """What a call gives by a keyword, where it is written there; else None."""
    found = keyword(call, name)
    return found.value if isinstance(found, ast.Constant) else None


def executed(path: Path, found: list[tuple[str, ast.Call]]) -> Iterator[str]:
    """Calls that execute what they are given, read a file that can say so, or hand a text to a shell."""
    for name, call in found:
        where = f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)[:80]}"
        if name == "importlib.import_module" and path in MAY_IMPORT:
            continue
        if name in ("compile", "exec") and path in MAY_EXECUTE:
            continue
        if name in FORBIDDEN:
            yield where
        if name.endswith("torch.load") and "safetensors" not in name and value(call, "weights_only") is not True:
            yield f"{where}: weights_only=True is missing"
        if name in ("np.load", "numpy.load") and value(call, "allow_pickle") is not False:
            yield f"{where}: allow_pickle=False is missing"
        if keyword(call, "shell") is not None and value(call, "shell") is not False:
            yield f"{where}: a shell"
        if name.endswith((".extractall", ".extract")):
            yield f"{where}: archives are read, not unpacked"


def commands_as_text(path: Path, found: list[tuple[str, ast.Call]]) -> Iterator[str]:
    """A program is started with a list of arguments: a value can be an argument, never a command."""
    for name, call in found:
        if name.startswith("subprocess.") and name.removeprefix("subprocess.") in (
            "run", "Popen", "call", "check_call", "check_output",
        ):  # fmt: skip
            first = call.args[0] if call.args else keyword(call, "args")
            if isinstance(first, (ast.Constant, ast.JoinedStr, ast.BinOp)):
                yield f"{path.relative_to(ROOT)}:{call.lineno}: {ast.unparse(call)[:80]}"


def listening(path: Path, found: list[tuple[str, ast.Call]]) -> Iterator[str]:
    """Calls that open a port, where the server of jobs may listen at a file that only this user reaches."""
    made = [ast.unparse(call) for name, call in found if name == "socket.socket"]
    if path == SERVER_OF_JOBS:
        if set(made) != {"socket.socket(socket.AF_UNIX)"}:
            yield f"{path.relative_to(ROOT)}: {made}"
        found = [(name, call) for name, call in found if name not in ("listener.bind", "listener.listen")]
    for name, call in found:
        if name.rpartition(".")[2] in LISTENING and not name.startswith("inspect."):
            yield f"{path.relative_to(ROOT)}:{call.lineno}: {name}"


#: Rule → calls, each of which breaks it.
PLANTED = {
    executed: (
        "eval(text)", "os.system(text)", "pickle.loads(content)", "torch.load(path)",
        "torch.load(path, weights_only=x)",
        "np.load(path)", "subprocess.run(words, shell=True)", "archive.extractall(folder)",
        "importlib.import_module(name)", "exec(code)", "yaml.load(text)",
    ),
    commands_as_text: ("subprocess.run('ls')", "subprocess.Popen(f'ls {name}')", "subprocess.call('ls ' + name)"),
    listening: ("server.listen()", "HTTPServer(address)", "one.bind(('', 0))"),
}  # fmt: skip


@pytest.mark.parametrize("rule", PLANTED)
def test_no_file_breaks_the_rule(rule):
    assert [line for path in SOURCES for line in rule(path, calls_of(path))] == []


@pytest.mark.parametrize("rule", PLANTED)
def test_the_rule_sees_a_planted_call(rule):
    elsewhere = ROOT / "src/collabench/core/text.py"
    for source in PLANTED[rule]:
        assert len(list(rule(elsewhere, calls(source)))) == 1, source
    assert list(listening(SERVER_OF_JOBS, calls("socket.socket()")))


def test_only_one_module_reads_pickles():
    users = [path for path in SOURCES if any(_imports_pickle(node) for node in ast.walk(ast.parse(path.read_text())))]
    # These name the error that torch raises; they unpickle nothing themselves.
    others = [ROOT / "src/collabench" / name for name in ("models/pretrained.py", "training/checkpoint.py")]
    assert users == [PICKLES, *others]
    names = {name for path in others for name, _ in calls_of(path)}
    assert not any(name.startswith("pickle.") for name in names)


def _imports_pickle(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name in ("pickle", "cPickle", "marshal", "dill") for alias in node.names)
    return isinstance(node, ast.ImportFrom) and node.module in ("pickle", "cPickle", "marshal", "dill")


def test_the_server_of_jobs_listens_at_a_file_that_only_this_user_reaches():
    source = SERVER_OF_JOBS.read_text()
    assert source.count("socket.socket(") == source.count("socket.socket(socket.AF_UNIX)") == 2
    assert "tempfile.mkdtemp(" in source  # made with mode 0700


def test_shell_lines_of_the_workflow_hold_names_of_this_project_only():
    """Snakemake's rules and DVC's stages are lines for a shell. What stands in them: the interpreter, the profile's
    name, whose letters the configuration's reader restricts, and quoted keys that are made of digests."""
    stages = [
        line for line in (ROOT / "pipeline/rules/common.smk").read_text().splitlines() if line.startswith("STAGES")
    ]
    assert stages == ['STAGES = "exec {sys.executable:q} -m pipeline.stages"'], "a path with a space is one word"
    for path in (ROOT / "pipeline/rules").glob("*.smk"):
        text = path.read_text()
        for line in text.splitlines():
            if "{STAGES}." in line:
                inserted = line.replace("{STAGES}", "").replace("{PROFILE}", "")
                assert inserted.count("{{") == inserted.count(":q}}"), f"{path.name}: {line.strip()}"


@pytest.mark.parametrize(
    "name", ["a; touch pwned", "$(touch pwned)", "`touch pwned`", "a b", "../up", "a'b", "-x", "a\nb"]
)
def test_a_profiles_name_cannot_be_a_command(tmp_path, name):
    text = params_yaml({json.dumps(name): profile(table())})
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_params(tmp_path / "params.yaml")


class Evil:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_foreign_pickle_is_refused_and_not_executed(tmp_path):
    with pytest.raises(DataError, match="refused"):
        read_pickle(pickle.dumps(Evil(tmp_path / "executed")), "data_batch_1")
    assert not (tmp_path / "executed").exists()


def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path):
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, {"run_id": Evil(tmp_path / "executed")})
    with pytest.raises(ResultError) as caught:
        checkpoint.load(path, torch.device("cpu"))
    assert str(path) in str(caught.value) and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_an_archive_cannot_reach_outside(tmp_path, name):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match="leads out of the archive"):
        list(members(tmp_path / "a.tar", 1000))

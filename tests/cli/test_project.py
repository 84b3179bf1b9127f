"""What editors and shells ask of the command: the schema of params.yaml, completion, the version."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

import collabench as package
from collabench.config.yaml_file import read_yaml
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT, environment

#: The committed schema, which the first line of ``params.yaml`` names.
COMMITTED = "docs/reference/params.schema.json"
COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'collabench'; from collabench.cli import main; main()"]


def validate(value: object) -> None:
    Draft202012Validator(json.loads((ROOT / COMMITTED).read_text())).validate(value)


def test_the_committed_schema_is_what_the_command_prints(collabench):
    assert collabench("schema").out == (ROOT / COMMITTED).read_text(), f"collabench schema > {COMMITTED}"


def test_params_yaml_names_the_schema_and_keeps_to_it():
    path = ROOT / "params.yaml"
    assert path.read_text().startswith(f"# yaml-language-server: $schema={COMMITTED}\n")
    Draft202012Validator.check_schema(json.loads((ROOT / COMMITTED).read_text()))
    validate(read_yaml(path).value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 2", "epoch: 2"),
        ("epochs: 2", "epochs: two"),
        ("epochs: 2", "epochs: 0"),
        ("kind: none", "kind: nothing"),
        ("family: cifar_resnet", "family: none"),
        ("{method: individual}", "{method: individual, beta: 1}"),
        ("seeds: 1", "seeds: -1"),
    ],
)
def test_the_schema_refuses_what_the_command_refuses(tmp_path, old, new):
    text = params_yaml({"tiny": profile(table())})
    path = tmp_path / "params.yaml"
    path.write_text(text)
    validate(read_yaml(path).value)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValidationError):
        validate(read_yaml(path).value)


def test_the_version(collabench):
    called = collabench("--version")
    assert (called.code, called.out) == (0, f"collabench {package.__version__}\n")


def complete(folder, line: str) -> list[str]:
    """What bash offers for the last word of a line, by the completion that the command itself prints."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_COLLABENCH_COMPLETE": "complete_bash"}
    done = subprocess.run(
        COMMAND, cwd=folder, env=environment(ROOT) | asked, text=True, capture_output=True, check=False
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("collabench ve", ["verify"]),
        ("collabench run --retr", ["--retry-failed"]),
        ("collabench run -p ti", ["tiny", "tiny-2"]),
        ("collabench run -p x", []),
    ],
)
def test_a_shell_completes_commands_options_and_profiles(tmp_path, line, offered):
    (tmp_path / "params.yaml").write_text(params_yaml({"tiny": profile(table()), "tiny-2": profile(table())}))
    assert complete(tmp_path, line) == offered


def test_completion_without_a_readable_file_offers_nothing(tmp_path):
    assert complete(tmp_path, "collabench run -p ti") == []
    (tmp_path / "params.yaml").write_text("profiles: [")
    assert complete(tmp_path, "collabench run -p ti") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_its_completion_for_each_shell(shell):
    given = environment(ROOT) | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*COMMAND, "--show-completion", shell], env=given, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0 and "_COLLABENCH_COMPLETE" in done.stdout

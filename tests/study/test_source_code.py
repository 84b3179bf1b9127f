"""Runs that other code computed: the digest of the code, the messages about such runs, and their acceptance."""

from __future__ import annotations

import ast
import shutil

import pytest

from collabench.storage.files import read_json, write_json
from collabench.storage.results import RESULT, Result
from collabench.study import source_code
from collabench.study.other_code import AcceptedCode, runs_of_other_code
from collabench.study.source_code import canonical, source_digest
from collabench.study.study import load_study

CODE = '''
"""A module."""
def loss(x):
    """What it gives."""
    return x * 2  # twice
'''


def of(code: str) -> str:
    return canonical(ast.parse(code))


def test_comments_docstrings_and_formatting_do_not_count_and_everything_else_does():
    assert of(CODE) == of("def loss(x):\n\n    return (x\n      *2)")
    for other in (
        "def loss(x):\n    return x * 3",
        "def loss(y):\n    return y * 2",
        "def loss(x, z=1):\n    return x * 2",
    ):
        assert of(CODE) != of(other)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The library's code as a copy that may be edited."""
    shutil.copytree(source_code.PACKAGE, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source_code, "PACKAGE", tmp_path / "code")

    def edit(module: str, text: str) -> None:
        with (tmp_path / "code" / f"{module}.py").open("a") as file:
            file.write(text)
        forget()

    def forget() -> None:
        for function in (
            source_code._tree,
            source_code._imports,
            source_code._reached,
            source_code._text,
            source_code._digest,
        ):
            function.cache_clear()

    forget()
    yield edit
    forget()


@pytest.mark.slow
def test_the_digest_covers_what_computes_a_run_and_nothing_else(finished, copied):
    study = load_study(finished, "small")
    configuration = next(iter(study.plan.configurations.values()))
    before = source_digest(configuration)
    for module in ("report/pages/tables", "methods/song2018", "models/families/vgg", "data/download", "cli/app"):
        copied(module, "\nADDED = 1\n")
        assert source_digest(configuration) == before, module
    copied("methods/individual", "\n# a comment\n")
    assert source_digest(configuration) == before
    seen = {before}
    for module in (
        "methods/individual",
        "methods/losses",
        "models/families/cifar_resnet",
        "training/loop",
        "data/batches",
    ):
        copied(module, "\nADDED = 1\n")
        assert source_digest(configuration) not in seen, module
        seen.add(source_digest(configuration))


def test_every_module_that_is_left_out_exists():
    for module in source_code.NOT_COMPUTING:
        assert (source_code.PACKAGE / f"{module}.py").is_file(), module


def test_runs_of_two_codes_are_named_until_a_person_accepts_them(collabench, finished):
    study = load_study(finished, "small")
    assert runs_of_other_code(study) == []
    run = study.plan.runs[0]
    path = study.workspace.folder(run) / RESULT
    write_json(path, read_json(path, Result).model_copy(update={"source": "f" * 64}))
    (found,) = runs_of_other_code(study)
    assert found.configuration.id == run.configuration.id and sorted(map(len, found.seeds.values())) == [1, 3]
    for command in ("plan", "report"):
        out = collabench(command, "-p", "small", "--root", finished).out
        assert (
            f"other code: {run.configuration.label}" in out and "1 by code ffffffffffff, 3 by the present code" in out
        )
        assert "raise `revision`" in out and "--accept-code" in out
    out = collabench("plan", "-p", "small", "--root", finished, "--accept-code").out
    assert f"accepted: {run.configuration.label}" in out and "other code" not in out
    assert "other code" not in collabench("report", "-p", "small", "--root", finished).out
    accepted = read_json(study.workspace.accepted_code, AcceptedCode)
    assert accepted.same == (("f" * 64, source_digest(run.configuration)),)


def test_acceptance_goes_from_old_to_new_and_over_several_steps():
    accepted = AcceptedCode(same=(("a", "b"), ("b", "c"), ("x", "y")))
    assert accepted.all_like("c") == {"a", "b", "c"} and accepted.all_like("b") == {"a", "b"}
    assert accepted.all_like("a") == {"a"}

"""The documentation is true: the tutorial's commands print what the page says, and what any page names exists.

Fenced blocks of ``docs/tutorial.md`` are carried out in order, in a scratch copy of the project:

* ``console``: each line after ``$`` is run; what it prints is compared with the lines below it;
* ``diff``: an edit of ``params.yaml``;
* ``python file=PATH``: a file to write;
* ``sh``: not run (it installs packages), but its commands must exist, as on every page.

In an output, a line ``…`` stands for any lines and ``…`` within a line for any text. Numbers are compared exactly on
the type of processor and the version of torch that the page names. Elsewhere they are masked, since rounding may
differ.
"""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.support import warm
from tests.support.project import ROOT, copy_project, environment

TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Tells what was, too: its links must work, but not the names in it.
CHANGES = ROOT / "CHANGELOG.md"
ANY = "…"

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBERS = re.compile(r"<!-- numbers: torch (\S+), (\S+) -->")


class Block(NamedTuple):
    """A fenced block. line: where its first line stands on the page."""

    kind: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    return [Block(m[1].strip(), m[2], page[: m.start(2)].count("\n") + 1) for m in FENCE.finditer(page)]


# ------------------------------------------------------------------------------------------------ the tutorial


def matches(expected: list[str], printed: list[str]) -> bool:
    parts = (r"(?:.*\n)*?" if line == ANY else re.escape(line).replace(ANY, ".*") + r"\n" for line in expected)
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in printed)) is not None


def masked(line: str) -> str:
    """A line without its numbers, and without what depends on how wide they are."""
    return re.sub(r"\s+", " ", re.sub(r"-{3,}", "---", re.sub(r"[+−-]?\d[\d,]*(?:\.\d+)?", "#", line))).strip()


def same_output(expected: list[str], printed: list[str], exact: bool) -> bool:
    if exact:
        return matches(expected, printed)
    return matches([masked(line) for line in expected], [masked(line) for line in printed])


def numbers_are_exact(page: str) -> bool:
    """Whether this machine rounds as the one whose numbers the page shows."""
    found = NUMBERS.search(page)
    assert found, "the page doesn't say which version and processor its numbers are from"
    return found.groups() == (torch.__version__, torch.backends.cpu.get_cpu_capability())


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the output that the page shows."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *output = part.splitlines()
        yield command, output


def apply_diff(text: str, path: Path) -> None:
    """Lines that begin with a blank or with - must stand in the file once, together and in this order."""
    lines = text.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    before = path.read_text()
    assert f"\n{before}".count(f"\n{old}") == 1, f"{path.name} does not hold these lines exactly once:\n{old}"
    path.write_text(f"\n{before}".replace(f"\n{old}", f"\n{new}", 1)[1:])


def problems_of(page: str, folder: Path) -> Iterator[str]:
    """Carry the page out in a copy of the project, up to the first problem."""
    exact = numbers_are_exact(page)
    for block in blocks(page):
        where = f"docs/tutorial.md:{block.line}"
        kind, _, target = block.kind.partition(" file=")
        if kind == "console":
            for command, expected in commands_of(block.text):
                done = subprocess.run(
                    command, shell=True, cwd=folder, env=warm.with_programs(environment(folder)), text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
                )  # fmt: skip
                printed = [line.rstrip() for line in done.stdout.splitlines()]
                if done.returncode:
                    yield f"{where}: {command!r} ends with exit code {done.returncode}:\n{done.stdout}"
                elif not same_output([line.rstrip() for line in expected], printed, exact):
                    compared = "\n".join(difflib.unified_diff(expected, printed, "the page", "printed", lineterm=""))
                    yield f"{where}: {command!r} prints something else:\n{compared}"
        elif kind == "diff":
            apply_diff(block.text, folder / "params.yaml")
        elif target:
            (folder / target).write_text(block.text)
        elif kind != "sh":
            yield f"{where}: a block of kind {block.kind!r}, which nothing carries out"


@pytest.mark.slow
def test_every_command_of_the_tutorial_prints_what_the_page_says(tmp_path):
    copy_project(tmp_path)
    problem = next(problems_of(TUTORIAL.read_text(), tmp_path), None)
    assert problem is None, problem


@pytest.mark.parametrize(
    ("expected", "printed", "exact", "same"),
    [
        (["12 done", ANY, "end"], ["12 done", "1", "2", "end"], True, True),
        (["12 done", ANY, "end"], ["12 done", "end"], True, True),
        (["in …/data"], ["in /tmp/x/data"], True, True),
        (["12 done"], ["13 done"], True, False),
        (["12 done"], ["13 done"], False, True),
        (["12 done"], ["12 failed"], False, False),
        (["a"], ["a", "b"], True, False),
        (["a", "b"], ["a"], True, False),
        (["18.50 ± 3.32  4  –"], ["9.50 ± 13.32   4  –"], False, True),
    ],
)
def test_an_output_that_differs_is_seen(expected, printed, exact, same):
    assert same_output(expected, printed, exact) == same


def test_a_wrong_command_and_a_wrong_output_are_seen(tmp_path):
    head = f"<!-- numbers: torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()} -->\n"
    for body in ("```console\n$ echo 12\n13\n```\n", "```console\n$ no-such-command\n```\n", "```text\nx\n```\n"):
        assert len(list(problems_of(head + body, tmp_path))) == 1
    assert not list(problems_of(f"{head}```console\n$ echo 12\n12\n```\n", tmp_path))


# ---------------------------------------------------------------------------------------- what the pages name


def plain(page: str) -> str:
    """The page with fenced blocks emptied, line for line."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), page)


def heading_anchors(page: str) -> set[str]:
    """As GitHub makes them from headings."""
    titles = re.findall(r"^#+ +(.+?) *$", plain(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path: Path, page: str) -> list[str]:
    found = []
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", plain(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve()
        there = file.exists() if name else True
        if not there or (anchor and anchor not in heading_anchors(file.read_text() if name else page)):
            found.append(target)
    return found


#: Files and folders of the repository, named from its root.
NAMED_PATH = re.compile(r"(?<![\w./<>-])(?:src|tests|benchmarks|pipeline|papers|profiles|docs)/[\w./-]*\w")
NAMED_TEST = re.compile(r"(?<![\w/.])((?:[\w-]+/)*test_\w+\.py)(?:::(test_\w+))?")


def missing_paths(page: str) -> list[str]:
    written = {target for block in blocks(TUTORIAL.read_text()) if (target := block.kind.partition(" file=")[2])}
    named = set(NAMED_PATH.findall(re.sub(r"\]\([^)]*\)", "]", page))) - written
    return sorted(name for name in named if not (ROOT / name).exists())


def missing_tests(page: str) -> list[str]:
    """Test modules that exist nowhere, and tests that their module doesn't have. ``…`` may end a test's name."""
    found = []
    for name, function in NAMED_TEST.findall(page):
        modules = [path for path in (ROOT / "tests").rglob(Path(name).name) if path.as_posix().endswith(name)]
        if not modules or (function and not any(f"def {function}" in module.read_text() for module in modules)):
            found.append(f"{name}::{function}" if function else name)
    return found


def code_of(page: str) -> Iterator[str]:
    """Lines of code: those of fenced blocks, and inline code."""
    for block in blocks(page):
        if block.kind.split(" ")[0] in ("sh", "console", ""):
            yield from block.text.splitlines()
    yield from re.findall(r"`([^`\n]+)`", plain(page))


@cache
def the_command():
    from typer.main import get_command

    from collabench.cli.app import app

    return get_command(app)


def _options(command) -> set[str]:
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("-")} | {"--help"}


def unknown_commands(page: str) -> list[str]:
    """Commands of ``collabench``, targets of make and modules after ``python -m`` that don't exist, and options."""
    top = the_command()
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = []
    for code in code_of(page):
        code = re.sub(r"\s#.*| \| .*| (?:->|→) .*", "", code)
        for call in re.findall(r"(?:^|[\s;&])collabench((?: +[^\s;&]+)*)", code):
            words = call.split()
            command, path = top, ["collabench"]
            while words and hasattr(command, "commands") and re.fullmatch(r"[a-z]+", words[0]):
                path.append(words.pop(0))
                command = command.commands.get(path[-1])
                if command is None:
                    break
            if command is None:
                found.append(" ".join(path))
                continue
            named = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            found += [f"{' '.join(path)} {name}" for name in sorted(named - _options(command))]
        for target in re.findall(r"(?:^|[\s;&])make +([a-z][\w-]*)", code):
            if target not in targets:
                found.append(f"make {target}")
        for module in re.findall(r"python3? -m ((?:benchmarks|tests|collabench|pipeline)[\w.]*)", code):
            file = (ROOT / "src" if module.startswith("collabench") else ROOT) / module.replace(".", "/")
            if not (file.with_suffix(".py").exists() or (file / "__main__.py").exists()):
                found.append(f"python -m {module}")
    return found


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PAGES, CHANGES], ids=label)
def test_links_lead_somewhere(path):
    assert broken_links(path, path.read_text()) == []


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_named_files_and_tests_exist(path):
    page = path.read_text()
    assert missing_paths(page) + missing_tests(page) == []


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_named_commands_and_options_exist(path):
    assert unknown_commands(path.read_text()) == []


def test_what_does_not_exist_is_seen():
    page = "[a](no/such/page.md) [b](#no-heading)\n# A heading\n[c](#a-heading)\n"
    assert broken_links(ROOT / "README.md", page) == ["no/such/page.md", "#no-heading"]
    assert missing_paths("`src/collabench/no_such.py` and `src/collabench`") == ["src/collabench/no_such.py"]
    assert missing_tests("`test_no_such.py`, test_tutorial.py::test_links_lead_…, test_tutorial.py::test_no_such") == [
        "test_no_such.py", "test_tutorial.py::test_no_such",
    ]  # fmt: skip
    page = "`collabench plan --no-such -p x`, `collabench nosuch`, `collabench data digest NAME`, `make nosuch`"
    assert unknown_commands(page) == ["collabench plan --no-such", "collabench nosuch", "make nosuch"]
    assert unknown_commands("```sh\npython -m benchmarks.no_such --write\n```\n") == ["python -m benchmarks.no_such"]


def _commands(command, path: str = "collabench") -> Iterator[tuple[str, set[str]]]:
    """Every command, with its options."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _commands(child, f"{path} {name}")
    else:
        yield path, _options(command)


def test_the_reference_lists_every_command_with_its_options():
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    listed = {
        row[1]: set(re.findall(r"`(--[\w-]+)`", row[2].replace("no `--profile`", "")))
        for row in re.finditer(r"^\| `(collabench [a-z ]+)` \|[^|]*\|([^|\n]*)\|$", page, re.MULTILINE)
    }
    usual = {"--profile", "-p", "--root", "--help"}
    assert listed == {name: options - usual for name, options in _commands(the_command())}


def test_the_reference_names_every_field_of_params_yaml_and_of_a_result():
    from collabench.config import data_sections, sections
    from collabench.storage.results import Result

    page = (ROOT / "docs" / "reference" / "params.md").read_text()
    classes = ("DatasetConfig", "NoiseConfig", "Augmentation", "RecipeConfig", "TableConfig", "ProfileConfig")
    fields = {
        field for name in classes for field in vars(data_sections).get(name, vars(sections).get(name)).model_fields
    }
    assert sorted(field for field in fields if f"`{field}`" not in page) == []
    page = (ROOT / "docs" / "reference" / "files.md").read_text()
    assert sorted(set(Result.model_fields) - {"schema_version"} - set(re.findall(r"`(\w+)`", page))) == []


def test_the_reference_names_every_family_method_and_profile():
    from collabench.methods import METHODS
    from collabench.models import FAMILIES

    page = (ROOT / "docs" / "reference" / "params.md").read_text()
    profiles = re.findall(r"^  ([\w-]+):$", (ROOT / "params.yaml").read_text().split("\nprofiles:\n")[1], re.MULTILINE)
    assert [name for name in (*FAMILIES, *profiles) if f"`{name}`" not in page] == []
    page = (ROOT / "docs" / "methods.md").read_text()
    assert [name for name in METHODS if f"| [{name}](" not in page] == []


def test_every_page_of_the_documentation_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([^)#\s]+)", index))

"""Facts that stand in one place: the five names of a configuration, and whether noise is static.

What must spell the names out has the same ones.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from collabench.config.configuration import CONDITION, PARTS, SECTIONS
from collabench.config.params import Params
from collabench.config.plan import resolve
from collabench.papers.schema import Names
from tests.support.project import ROOT

#: The one file that may list them.
PLACE = "src/collabench/config/configuration.py"
ASKS = re.compile(r"\.when (==|!=|in) ")


def test_everyone_has_the_same_parts_in_the_same_order():
    assert (*CONDITION, "method") == PARTS
    assert tuple(Names.model_fields) == PARTS
    assert tuple(name for name in inspect.signature(resolve).parameters if name in SECTIONS) == PARTS
    assert set(SECTIONS.values()) == set(Params.model_fields) - {"profiles", "remotes"}


def lists_of_parts(source: str) -> Iterator[int]:
    """Lines that list the names of a condition, or give one of the five its section."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            listed = {item.value for item in node.elts if isinstance(item, ast.Constant)}
            if listed >= set(CONDITION):
                yield node.lineno
        elif isinstance(node, ast.Dict):
            pairs = {
                (key.value, value.value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
            if len(pairs & set(SECTIONS.items())) > 1:
                yield node.lineno


def test_nobody_else_lists_them():
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py"), *(ROOT / "pipeline").rglob("*.smk")]
    found = {path.relative_to(ROOT).as_posix(): list(lists_of_parts(python_of(path))) for path in files}
    assert [file for file, lines in found.items() if lines] == [PLACE]


def python_of(path: Path) -> str:
    """The source; of Snakemake's files what lies in functions, since the rules are no Python."""
    text = path.read_text()
    functions = re.findall(r"^def .*:\n(?:(?:    .*)?\n)*", text, re.MULTILINE)
    return text if path.suffix == ".py" else "\n".join(functions)


def test_the_page_of_all_profiles_has_them_in_the_same_order():
    script = (ROOT / "src/collabench/report/html/assets/leaderboard.js").read_text()
    assert f"const PARTS = {list(CONDITION)};".replace("'", '"') in script


def test_a_second_list_is_seen():
    assert list(lists_of_parts('x = ("dataset", "noise", "model", "recipe")')) == [1]
    assert list(lists_of_parts('x = {"dataset": "datasets", "model": "models"}')) == [1]
    assert not list(lists_of_parts('x = {"dataset": dataset, "noise": noise}'))


def test_nobody_else_says_whether_noise_is_static():
    """``NoiseConfig.is_static`` and ``is_drawn_anew`` do."""
    files = [path for folder in ("src", "pipeline") for path in (ROOT / folder).rglob("*") if path.is_file()]
    asking = [path for path in files if path.suffix in (".py", ".smk") and ASKS.search(path.read_text())]
    assert [path.relative_to(ROOT).as_posix() for path in asking] == ["src/collabench/config/data_sections.py"]

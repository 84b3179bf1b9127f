"""The house: fourteen packages, the direction of their imports, and what the library must not know.

Every rule is a function from modules to the lines that break it, so that a planted violation shows that the rule sees
it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "collabench"
TESTS = ROOT / "tests"

#: Package, from the ground up → the packages that it may import beside itself.
ALLOWED = {
    "core": "",
    "stats": "core",
    "models": "core",
    "methods": "core models",
    "config": "core models methods",
    "papers": "core config",
    "storage": "core config",
    "data": "core config storage",
    "training": "core models methods config storage data",
    "report": "core stats config papers storage data training",
    "study": "core stats models methods config papers storage data training report",
    "sharing": "core stats models methods config papers storage data training report study",
    "api": "core models methods config storage training report study",
    "cli": "core stats models methods config papers storage data training report study sharing",
}
TOP = {"__init__.py", "__main__.py"}
TOP_OF_TESTS = {"__init__", "conftest", "test_architecture"}
#: Folders of test modules beside one for each package.
ACROSS = {"docs", "system/survival", "system/cluster", "system/workflow", "system/bad_input"}
MOST_LINES = 400
#: Folders with sources beside the library.
AROUND = ("pipeline", "benchmarks")
#: What only tests use, each with the reason.
FOR_TESTS = {
    "assembly": "shows the instructions that a loop was compiled to, which no result shows",
    "not_portable": "shows that no layer was left out, which no result shows",
}

#: A module's path below the package (of tests: below ``tests``), without ``.py`` → its source.
Modules = Mapping[str, str]


def library(folder: Path = PACKAGE) -> dict[str, str]:
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path.read_text() for path in sorted(folder.rglob("*.py"))
    }


def sources() -> dict[str, str]:
    """The library and what surrounds it; the names of the latter begin with two dots."""
    around = {f"../{name}/{module}": source for name in AROUND for module, source in library(ROOT / name).items()}
    return library() | around


def suite() -> dict[str, str]:
    return library(TESTS)


@cache
def tree_of(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def statements(source: str) -> tuple[tuple[str, bool], ...]:
    """(what is imported, dotted; whether that happens when the module is imported) for every import in the source."""
    tree, found = tree_of(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in tree.body) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            found += [(f"{node.module}.{alias.name}", node in tree.body) for alias in node.names]
    return tuple(found)


def imports(modules: Modules) -> Iterator[tuple[str, str, bool]]:
    """(module, module of the library that it imports, whether at its own import), names resolved to modules."""
    for name, source in modules.items():
        for imported, at_import in statements(source):
            parts = imported.split(".")
            if parts[0] != "collabench":
                continue
            places = ["/".join(parts[1:end]) for end in range(len(parts), 0, -1)]
            found = next(
                (x for place in places for x in (place, f"{place}/__init__".lstrip("/")) if x in modules), None
            )
            assert found, f"{name} imports {imported}, which is nowhere"
            if found != name:
                yield name, found, at_import


def forbidden_directions(modules: Modules) -> list[str]:
    lines = []
    for name, imported, _ in imports(modules):
        own, other = name.split("/")[0], imported.split("/")[0]
        if own in ALLOWED and other != own and other not in ALLOWED[own].split():
            lines.append(f"{name} imports {imported}: {own} may import {ALLOWED[own] or 'nothing'}")
    return lines


def circles(modules: Modules) -> list[str]:
    """Modules that import each other, in whatever function the import stands, except a package's ``__init__``, which a
    module of the package may import for what it defines before its own modules."""
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, imported, _ in imports(modules):
        graph[name].add(imported)
    lines, done = [], set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            lines.append(" → ".join((*path[path.index(name) :], name)))
            return
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    return lines


def private_imports(modules: Modules) -> list[str]:
    """Imports of an underscore module by another package, or of a module's underscore names by another module."""
    lines = []
    for name, source in modules.items():
        for imported, _ in statements(source):
            parts = imported.split(".")
            hidden = [i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")]
            if parts[0] == "collabench" and hidden:
                is_module = "/".join(parts[1 : hidden[0] + 1]) in modules
                if not is_module or parts[1] != name.split("/")[0]:
                    lines.append(f"{name} imports {imported}")
    return lines


def misplaced(modules: Modules) -> list[str]:
    """Modules outside of the fourteen packages."""
    return [
        name for name in modules if f"{name}.py" not in TOP and (name.split("/")[0] not in ALLOWED or "/" not in name)
    ]


def too_long(modules: Modules) -> list[str]:
    counts = {name: len(source.splitlines()) for name, source in modules.items()}
    return [f"{name}: {count} lines" for name, count in counts.items() if count > MOST_LINES]


def knows_its_users(modules: Modules) -> list[str]:
    """Imports of what schedules and versions the studies, which know the library and not the reverse.

    One module asks about Snakemake's executor plugins, which a package of their own lists. dvclive only writes curves.
    """
    outside = re.compile(r"(snakemake\w*|dvc(_\w+)?|pipeline|tests|benchmarks)(\.|$)")
    allowed = ("study/executors", "snakemake_interface_executor_plugins.registry")
    found = ((name, imported) for name, source in modules.items() for imported, _ in statements(source))
    return [
        f"{name} imports {imported}"
        for name, imported in found
        if outside.match(imported) and (name, ".".join(imported.split(".")[:2])) != allowed
    ]


def asks_for_the_working_directory(modules: Modules) -> list[str]:
    """Uses of the working directory; the command line alone turns it into a root."""
    asking = ("getcwd", "Path.cwd", "chdir")
    return [
        name for name, source in modules.items() if not name.startswith("cli/") and any(a in source for a in asking)
    ]


def texts_of_the_system(modules: Modules) -> list[str]:
    """Texts that another system would read in its own encoding, or write with its own line ends (Windows does both):
    ``write_text`` at all, since bytes are the same everywhere, and ``read_text`` or ``text=True`` without an encoding.
    ``training/device`` reads the kernel's files, which Linux alone has."""
    lines = []
    for name, source in modules.items():
        for node in ast.walk(tree_of(source)):
            if not isinstance(node, ast.Call) or name == "training/device":
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if called == "write_text" or (called == "read_text" and not node.args and "encoding" not in given):
                lines.append(f"{name}:{node.lineno}: {called}")
            if "text" in given and "encoding" not in given and called in ("run", "Popen", "check_output"):
                lines.append(f"{name}:{node.lineno}: {called}(text=…)")
    return lines


@cache
def names_used(source: str) -> set[str]:
    """Names that code reads, by themselves or as attributes. An import uses what it gives another name, and else
    nothing."""
    nodes = list(ast.walk(tree_of(source)))
    return {
        *(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)),
        *(node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)),
        *(node.name for node in nodes if isinstance(node, ast.alias) and node.asname is not None),
    }


def used_by_tests_alone(modules: Modules) -> list[str]:
    """Functions, classes and constants of a module that neither the library nor what surrounds it uses."""
    around = [source for folder in AROUND for source in library(ROOT / folder).values()]
    rules = " ".join(path.read_text() for path in (ROOT / "Snakefile", *(ROOT / "pipeline").rglob("*.smk")))
    used = set(re.findall(r"\w+", rules)).union(*map(names_used, (*modules.values(), *around)))
    lines = []
    for name, source in modules.items():
        for node in tree_of(source).body if name.split("/")[0] not in ("api", "cli") else ():  # what others call
            defined = {getattr(node, "name", None)}
            defined |= {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}
            lines += [
                f"{name}: {one}" for one in defined - used - {None} - FOR_TESTS.keys() if not one.startswith("__")
            ]
    return lines


def imports_of_tests(tests: Modules) -> list[str]:
    """Imports of a test module by anything; what several of them need lies in ``tests/support``."""
    found = ((name, imported.split(".")) for name, source in tests.items() for imported, _ in statements(source))
    return [f"{name} imports {'.'.join(parts)}" for name, parts in found
            if parts[0] == "tests" and parts[1:2] != ["support"]]  # fmt: skip


def misplaced_tests(tests: Modules) -> list[str]:
    """Test modules outside of the packages' folders and of those for what crosses packages, and helpers among them."""
    lines = []
    for name in tests:
        folder, _, module = name.rpartition("/")
        is_test = module.startswith("test_")
        helps = folder.split("/")[0] == "support"
        if name not in TOP_OF_TESTS and (is_test == helps or not (helps or folder in ALLOWED.keys() | ACROSS)):
            lines.append(name)
    return lines


#: Rule → the modules that keep to it.
RULES = {
    forbidden_directions: library,
    circles: library,
    private_imports: library,
    misplaced: library,
    too_long: sources,
    knows_its_users: library,
    asks_for_the_working_directory: library,
    texts_of_the_system: library,
    used_by_tests_alone: library,
    imports_of_tests: suite,
    misplaced_tests: suite,
}

#: Rule → modules that are added, and what the rule says of them.
PLANTED = {
    forbidden_directions: {"stats/planted": "def f():\n    from collabench.config.plan import Plan"},
    circles: {
        "core/planted": "from collabench.core import planted_too",
        "core/planted_too": "def f():\n    import collabench.core.planted",
    },
    private_imports: {"config/planted": "from collabench.methods._networks import anything"},
    misplaced: {"planted": "", "fifteenth/__init__": ""},
    too_long: {"core/planted": "\n" * (MOST_LINES + 1)},
    knows_its_users: {
        "study/planted": "def f():\n    import snakemake.api",
        "study/planted_too": "from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry",
        "data/planted": "import dvc_data",
    },
    asks_for_the_working_directory: {"data/planted": "import os\nHERE = os.getcwd()"},
    texts_of_the_system: {
        "core/planted": "path.write_text('x', 'utf-8')",
        "core/planted_too": "path.read_text()",
        "data/planted": "import subprocess\nsubprocess.run(['x'], text=True)",
    },
    used_by_tests_alone: {"stats/planted": "def planted_and_used_by_nobody(): ..."},
    imports_of_tests: {"stats/test_planted": "def test():\n    from tests.stats.test_ranks import loop"},
    misplaced_tests: {"support/test_planted": "", "stats/planted": "", "planted/test_x": "", "test_planted": ""},
}


@pytest.mark.parametrize("rule", RULES)
def test_every_module_keeps_to_the_rule(rule):
    assert rule(RULES[rule]()) == []


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_sees_a_planted_violation(rule):
    found = rule(RULES[rule]() | PLANTED[rule])
    assert found and all("planted" in line or "fifteenth" in line for line in found)


def test_every_misplaced_module_is_named():
    for rule in (misplaced, misplaced_tests):
        assert set(rule(RULES[rule]() | PLANTED[rule])) == PLANTED[rule].keys()


def test_a_private_name_of_another_module_is_seen():
    assert private_imports(library() | {"config/planted": "from collabench.stats.ranks import _anything"})


def test_every_package_is_there_and_says_what_it_is():
    modules = library()
    assert {name.split("/")[0] for name in modules if "/" in name} == set(ALLOWED)
    for name, source in modules.items():
        assert ast.get_docstring(tree_of(source)), f"{name} has no docstring"


def test_the_order_of_packages_is_from_the_ground_up():
    order = list(ALLOWED)
    for package, allowed in ALLOWED.items():
        assert all(order.index(other) < order.index(package) for other in allowed.split()), package

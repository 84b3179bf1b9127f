"""A digest of the source code that computes a run. Comments, docstrings and formatting do not change it.

A run's id covers its settings and the declared revision of its method, but not the code itself. The digest covers
syntax trees: of the method's module, of the modules of its model families, of the training loop, and of all modules
that these import and that affect a run's numbers.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from collabench.methods import METHODS, OWN

if TYPE_CHECKING:
    from collabench.config.configuration import Configuration

PACKAGE = Path(__file__).resolve().parent.parent

#: Modules that compute every run, in addition to its method and model families.
LOOP = ("training/loop", "training/context", "data/batches", "data/streaming", "core/seeding")

#: Packages whose modules affect a run's numbers.
COMPUTING = ("methods", "models", "training", "data")

#: Modules of these packages that do not affect a run's numbers, each with the reason.
NOT_COMPUTING = {
    "data/archives": "reads files; a result holds the digest of the images",
    "data/official": "names files; their checksums are pinned",
    "data/pickles": "reads files; a result holds the digest of the images",
    "data/preparation": "prepares files; a result holds the digest of the images",
    "data/manifest": "describes files; a result holds the digest of the images",
    "data/download": "fetches files; their checksums are pinned",
    "data/images": "decodes files; a result holds the digest of the images",
    "data/sources": "reads files; a result holds the digest of the images",
    "data/label_files": "reads files; their checksums are pinned, and a result holds the digest of static labels",
    "data/tensors": "reads and writes files, which have checksums",
    "training/checkpoint": "reads and writes files; a test shows that resuming changes no byte",
    "training/flops": "counts operations",
    "training/memory": "counts memory",
    "core/torchvision_import": "imports torchvision",
}


def source_digest(configuration: Configuration) -> str:
    """Return the SHA-256, in hexadecimal digits, of the code that computes runs of this configuration."""
    models = (configuration.model, *configuration.peer_models.values())
    roots, method = set(LOOP), METHODS[configuration.method.method]
    roots |= {f"models/families/{model.family}" for model in models}
    outside = files_of_the_user(configuration)
    if (own := _file_of_the_user(method)) is not None:
        roots |= {module for module in _imports_of(own) if module.split("/")[0] in COMPUTING}
    else:
        roots.add(f"methods/{configuration.method.method}")
    return _digest(_reached(tuple(sorted(roots))), tuple(map(str, outside)))


def read_all() -> None:
    """Parse every module that may affect a run's numbers, so that digests in forks of this process take no time."""
    for package in COMPUTING:
        for path in (PACKAGE / package).rglob("*.py"):
            _text(path)
    _reached(LOOP)


def files_of_the_user(configuration: Configuration) -> list[Path]:
    """Return the files outside the library whose code computes runs of this configuration."""
    models = (configuration.model, *configuration.peer_models.values())
    found = {path for model in models if (path := _module_of_the_user(model)) is not None}
    own = _file_of_the_user(METHODS[configuration.method.method])
    return sorted(found | ({own} if own is not None else set()), key=str)


def place_in_own_code(error: BaseException, configuration: Configuration) -> str:
    """Return in brackets, after a space, where an error arose in the files of the user; empty if it did not.

    It is the last line of such a file that the call went through.
    """
    own = {path.resolve(): f"{path.parent.name}/{path.name}" for path in files_of_the_user(configuration)}
    frames = [(Path(frame.filename).resolve(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return next((f" ({own[file]}, line {line})" for file, line in reversed(frames) if file in own), "")


def _file_of_the_user(method: ModuleType) -> Path | None:
    """Return the file of a method of the user's own; None for other methods."""
    own = method.__name__.startswith(f"{OWN}.") and method.__file__
    return Path(own) if own else None


def _module_of_the_user(model: object) -> Path | None:
    """Return the file of a user's own model (``family: custom``); None for other models."""
    name = getattr(model, "import_", None)
    if not isinstance(name, str):
        return None
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


@cache
def _reached(roots: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``roots`` and the modules that they import, directly or indirectly, and that affect a run's numbers."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [m for m in _imports(module) if m.split("/")[0] in COMPUTING and m not in NOT_COMPUTING]
    return tuple(sorted(found))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _path(module: str) -> Path:
    path = PACKAGE / f"{module}.py"
    return path if path.exists() else PACKAGE / module / "__init__.py"


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Return the modules of the library that a module imports, also within functions."""
    return _imports_of(_path(module))


def _imports_of(path: Path) -> tuple[str, ...]:
    found = []
    for node in ast.walk(_tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            places = ["/".join(parts[1:end]) for end in (len(parts), len(parts) - 1) if end > 1]
            found += [place for place in places if parts[0] == "collabench" and _path(place).exists()][:1]
    return tuple(dict.fromkeys(found))


@cache
def _digest(modules: tuple[str, ...], outside: tuple[str, ...]) -> str:
    content = hashlib.sha256()
    for name, path in [(module, _path(module)) for module in modules] + [(Path(p).stem, Path(p)) for p in outside]:
        content.update(f"{name}\n{_text(path)}\n".encode())
    return content.hexdigest()


@cache
def _text(path: Path) -> str:
    return canonical(_tree(path))


def canonical(tree: ast.AST) -> str:
    """Return a syntax tree as text without docstrings. It is the same in every supported version of Python."""
    return " ".join(_parts(tree))


def _parts(node: object) -> Iterator[str]:
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in sorted(ast.iter_fields(node)):
            if (
                name == "body"
                and isinstance(value, list)
                and not isinstance(node, ast.If | ast.For | ast.While | ast.With)
            ):
                value = _without_docstring(value)
            if value is None or value == [] or name in ("ctx", "kind", "type_comment"):
                continue  # some versions of Python omit these fields, others add them
            yield name
            yield from _parts(value)
    elif isinstance(node, list):
        yield "("
        for entry in node:
            yield from _parts(entry)
        yield ")"
    else:
        yield repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return [
        statement
        for statement in body
        if not (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
    ]

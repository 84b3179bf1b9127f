"""The only reader of YAML: bounded in size, strict in its scalars, with the line number of each key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from collabench.core.errors import ConfigError

# ------------------------------------------------------------------------------------------------ reading YAML


#: Limits of a configuration file. They are far above any need and can be read within seconds.
MAX_YAML_BYTES = 1_000_000
MAX_YAML_VALUES = 50_000
MAX_YAML_DEPTH = 100


class _Limited(yaml.composer.Composer):
    """Rejects a document that is too large or too deep while it is read."""

    values = depth = 0
    if TYPE_CHECKING:  # a method of the parser that a subclass adds

        def peek_event(self) -> Any: ...

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.values, self.depth = self.values + 1, self.depth + 1
        if self.values > MAX_YAML_VALUES or self.depth > MAX_YAML_DEPTH:
            problem = f"more than {MAX_YAML_VALUES:,} values" if self.depth <= MAX_YAML_DEPTH else "nested too deeply"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(_Limited, yaml.SafeLoader):
    """The core scalars of YAML 1.2: ``1e-4`` is a number; ``off`` and ``012`` do not have their meaning of YAML 1.1."""


_LOADERS: tuple[type[_FastLoader | _Loader], ...]
if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class _FastLoader(_Limited, CParser, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
        """The same with libyaml's parser, which takes a fifth of the time."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            yaml.composer.Composer.__init__(self)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    _LOADERS = (_FastLoader, _Loader)
else:
    _LOADERS = (_Loader,)

_TAG = "tag:yaml.org,2002:"

#: Tag of a scalar → its pattern, and the characters with which it can begin.
_SCALARS = {
    f"{_TAG}bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    f"{_TAG}null": (re.compile(r"(?:~|null|Null|NULL|)"), ["~", "n", "N", ""]),
    f"{_TAG}int": (re.compile(r"[-+]?[0-9]+"), "-+0123456789"),
    f"{_TAG}float": (
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        "-+.0123456789",
    ),
}


def _whole_number(loader: Any, node: yaml.ScalarNode) -> int:
    """A decimal number: YAML 1.1 would read 012 as octal."""
    return int(loader.construct_scalar(node))


for _loader in _LOADERS:
    _loader.yaml_implicit_resolvers = {}
    for _name, (_pattern, _first) in _SCALARS.items():
        _loader.add_implicit_resolver(_name, re.compile(f"^(?:{_pattern.pattern})$"), list(_first))
    _loader.add_constructor(f"{_TAG}int", _whole_number)

#: Largest number of digits of a whole number, which fits 64 bits. No field needs a larger one.
_MAX_DIGITS = 18

#: Characters that no title, name or path contains and no file may contain: control characters and surrogates.
_HIDDEN = yaml.reader.Reader.NON_PRINTABLE

KeyPath = tuple[str | int, ...]


class Document:
    """A parsed YAML file with the line number of each key.

    settings: the values that are not the file's, but the command line's: where they are → the argument of ``--set``.
    """

    def __init__(
        self, path: Path, value: Any, lines: dict[KeyPath, int], settings: Mapping[KeyPath, str] | None = None
    ) -> None:
        self.path, self.value, self._lines = path, value, lines
        self.settings: Mapping[KeyPath, str] = settings or {}

    def with_settings(self, value: Any, settings: Mapping[KeyPath, str]) -> Document:
        """The document with another value, in which the command line's settings stand."""
        return Document(self.path, value, self._lines, settings)

    def place(self, key_path: KeyPath) -> str:
        """``params.yaml:12``, or the settings that a value comes from, or by which an entry differs from the file."""
        for path, setting in self.settings.items():
            if key_path[: len(path)] == path:
                return f"--set {setting}"
        below = [
            f"--set {s}" for path, s in self.settings.items() if len(key_path) > 1 and path[: len(key_path)] == key_path
        ]
        return ", with ".join([f"{self.path}:{self.line(key_path)}", *below])

    def where(self, key_path: KeyPath) -> str:
        """``params.yaml:12: recipes.fast.epochs`` for the deepest part of ``key_path`` that is in the file."""
        return f"{self.place(key_path)}: {_shown(key_path)}"

    def line(self, key_path: KeyPath) -> int:
        """The line of the deepest part of ``key_path`` that is in the file."""
        while key_path and key_path not in self._lines:
            key_path = key_path[:-1]
        return self._lines.get(key_path, 1)

    def error(self, key_path: KeyPath, message: str) -> ConfigError:
        return ConfigError(f"{self.where(key_path)}: {message}")


def _where(path: Path, line: int, key_path: KeyPath) -> str:
    return f"{path}:{line}: {_shown(key_path)}"


def _shown(key_path: KeyPath) -> str:
    return ".".join(map(_shown_part, key_path)) or "the file"


def _shown_part(part: str | int) -> str:
    """A key as it is in the file; quoted and shortened if it is not a plain word."""
    text = str(part)
    return text if text.isprintable() and 0 < len(text) <= 80 and " " not in text else shorten(text)


def read_yaml(path: Path, texts: tuple[KeyPath, ...] = ()) -> Document:
    """Read one YAML file. All keys are text.

    texts: where values are text as they are written, even ``1e3`` or ``null``; ``*`` stands for any key.
    Raises ConfigError (one line) for a file that is missing, not UTF-8 or not YAML, that has a duplicate key, refers to
    itself, is too large, or has a tag for anything other than plain data.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device might be read without end
            raise ConfigError(f"{path}: is not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(raw) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: a configuration file has at most {MAX_YAML_BYTES:,} bytes, this one has more")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text (byte 0x{raw[error.start]:02x})") from None
    for loader in _LOADERS[:-1]:
        with suppress(yaml.YAMLError):
            return _parse(path, text, loader, texts)
    try:  # the slow loader explains more clearly what is wrong
        return _parse(path, text, _Loader, texts)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = (error.problem or error.context or "not YAML").replace("\n", " ")
        raise ConfigError(f"{path}:{line}: not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(
            f"{path}:{line}: not text: the character {chr(error.character)!r} cannot stand here"
        ) from None


def parse_value(text: str, key_path: KeyPath, place: str, texts: tuple[KeyPath, ...] = ()) -> Any:
    """One value in YAML for ``key_path``, read as :func:`read_yaml` reads a file's. Nothing stands for null.

    Raises ConfigError, beginning with ``place``.
    """
    if any(_fits(pattern, key_path) for pattern in texts):
        return text
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{place}: a value has at most {MAX_YAML_BYTES:,} characters")
    try:
        # a value of flow style, as it would stand behind its key
        (value,) = _parse(Path(place), f"value: {text}", _Loader, ()).value.values()
        return value
    except ConfigError as error:
        raise ConfigError(f"{place}: {str(error).removeprefix(f'{place}:1: ')}") from None
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or "not one value"
        raise ConfigError(f"{place}: not a value in YAML: {problem}") from None


def _parse(path: Path, text: str, loader_class: Callable[[str], Any], texts: tuple[KeyPath, ...]) -> Document:
    value, lines = _parsed(path, text, loader_class, texts)
    return Document(path, _copied(value), lines)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


@lru_cache(maxsize=32)
def _parsed(
    path: Path, text: str, loader_class: Callable[[str], Any], texts: tuple[KeyPath, ...]
) -> tuple[Any, dict[KeyPath, int]]:
    """The value and the lines of a document, which this process, or the server that forked it, may have parsed before.
    Neither must be changed."""
    loader = loader_class(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{path}:1: the file is empty")
        lines: dict[KeyPath, int] = {}
        _check_nodes(path, node, (), lines, frozenset(), [0], texts)
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def _check_nodes(
    path: Path,
    node: yaml.Node,
    key_path: KeyPath,
    lines: dict[KeyPath, int],
    parents: frozenset[int],
    count: list[int],
    texts: tuple[KeyPath, ...],
) -> None:
    """Fill ``lines``, make every key text, and reject what is not plain data.

    Rejected: duplicate keys, keys that are not text, cycles, alias bombs, tags, whole numbers beyond 64 bits.
    """
    line = node.start_mark.line + 1
    lines.setdefault(key_path, line)

    def refuse(problem: str, at: int = line, key: KeyPath = key_path) -> ConfigError:
        return ConfigError(f"{_where(path, at, key)}: {problem}")

    if id(node) in parents:
        raise refuse("an alias refers to the block that it stands in")
    # An alias counts every time it is used, and long text counts by its length, so that the expanded document is small.
    count[0] += 1 + (len(node.value) // 100 if isinstance(node, yaml.ScalarNode) else 0)
    if count[0] > MAX_YAML_VALUES or len(parents) > MAX_YAML_DEPTH:
        raise refuse(f"more than {MAX_YAML_VALUES:,} values" if count[0] > MAX_YAML_VALUES else "nested too deeply")
    if isinstance(node, yaml.ScalarNode) and (hidden := _HIDDEN.search(node.value)):
        raise refuse(f"the character {hidden[0]!r} cannot stand here, nor be written as an escape")
    parents = parents | {id(node)}
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        seen: dict[str, int] = {}
        for position, (key_node, value_node) in enumerate(node.value):
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.tag.startswith(_TAG):
                raise refuse("a key must be plain text", key_line)
            key = key_node.value
            if key == "<<":
                raise refuse("merge keys (<<) are not supported; write the values out", key_line)
            if key in seen:
                raise refuse(f"stands here and on line {seen[key]}; keep one of them", key_line, (*key_path, key))
            seen[key] = key_line
            lines[(*key_path, key)] = key_line
            if hidden := _HIDDEN.search(key):
                raise refuse(f"the character {hidden[0]!r} cannot stand here, nor be written as an escape", key_line)
            text = yaml.ScalarNode(f"{_TAG}str", key, key_node.start_mark, key_node.end_mark)
            if any(_fits(pattern, (*key_path, key)) for pattern in texts) and isinstance(value_node, yaml.ScalarNode):
                marks = value_node.start_mark, value_node.end_mark
                value_node = yaml.ScalarNode(f"{_TAG}str", value_node.value, *marks)
            node.value[position] = (text, value_node)
            _check_nodes(path, value_node, (*key_path, key), lines, parents, count, texts)
    elif isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        for index, child in enumerate(node.value):
            _check_nodes(path, child, (*key_path, index), lines, parents, count, texts)
    elif not isinstance(node, yaml.ScalarNode) or node.tag not in (*_SCALARS, f"{_TAG}str"):
        raise refuse(f"the tag {shorten(node.tag)} is not supported; remove it")
    elif node.tag in _SCALARS and not _SCALARS[node.tag][0].fullmatch(node.value):
        raise refuse(f"{shorten(node.value)} is not of type {node.tag.removeprefix(_TAG)}, as tagged; remove the tag")
    elif node.tag == f"{_TAG}int" and len(node.value) > _MAX_DIGITS:
        raise refuse(f"the number {node.value[:12]}… is too large; in quotes, if it is text")


def _fits(pattern: KeyPath, key_path: KeyPath) -> bool:
    return len(pattern) == len(key_path) and all(
        wanted in ("*", part) for wanted, part in zip(pattern, key_path, strict=True)
    )


def is_text_everywhere(name: str) -> bool:
    """Whether every reader of YAML, and of a command line, takes a plain word for text: not for a number, a truth
    value, a date or nothing."""
    if name.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"):
        return False
    parsers: tuple[Callable[[str], Any], ...] = (int, float, lambda text: int(text, 0))
    for parse in parsers:
        with suppress(ValueError):
            parse(name)
            return False
    try:
        return isinstance(yaml.safe_load(name), str)  # YAML 1.1
    except (yaml.YAMLError, ValueError):  # 2024-13-01 is no date
        return False


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"

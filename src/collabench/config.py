"""Typed, strict configuration, and the only reader of YAML in the project.

``params.yaml`` defines data sets, noise, models, recipes, methods and profiles. Everything in it is checked before
anything runs: an unknown key, a wrong type, a value out of range or a name that is not defined gives one
:class:`~collabench.errors.ConfigError` that says file, line, key and what would be right.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import Field, PrivateAttr, StringConstraints, TypeAdapter, ValidationError, model_validator

from collabench.errors import ConfigError
from collabench.methods import METHODS
from collabench.models import FAMILIES
from collabench.strict import NO_REPEATS, Strict

# ------------------------------------------------------------------------------------------------ reading YAML


#: What a configuration file can be: far more than any needs, and read within seconds.
MAX_YAML_BYTES = 1_000_000
MAX_YAML_VALUES = 50_000
MAX_YAML_DEPTH = 100


class _Limited(yaml.composer.Composer):
    """Refuses a document that is too large or too deep while it is read."""

    values = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.values, self.depth = self.values + 1, self.depth + 1
        if self.values > MAX_YAML_VALUES or self.depth > MAX_YAML_DEPTH:
            problem = f"more than {MAX_YAML_VALUES:,} values" if self.depth <= MAX_YAML_DEPTH else "nested too deeply"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(_Limited, yaml.SafeLoader):
    """YAML 1.2's core scalars: ``1e-4`` is a number, ``off`` and ``012`` are not what YAML 1.1 makes of them."""


if yaml.__with_libyaml__:

    class _FastLoader(_Limited, yaml.cyaml.CParser, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
        """The same with libyaml's parser: a fifth of the time, which every command waits for."""

        def __init__(self, text: str) -> None:
            yaml.cyaml.CParser.__init__(self, text)
            yaml.composer.Composer.__init__(self)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    _LOADERS = (_FastLoader, _Loader)
else:
    _LOADERS = (_Loader,)


_TAG = "tag:yaml.org,2002:"

#: Tag of a scalar → how it is written, and with which characters it can begin.
_SCALARS = {
    f"{_TAG}bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    f"{_TAG}null": (re.compile(r"(?:~|null|Null|NULL|)"), ["~", "n", "N", ""]),
    f"{_TAG}int": (re.compile(r"[-+]?[0-9]+"), "-+0123456789"),
    f"{_TAG}float": (
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
        "-+.0123456789",
    ),
}
for _loader in _LOADERS:
    _loader.yaml_implicit_resolvers = {}
    for _name, (_pattern, _first) in _SCALARS.items():
        _loader.add_implicit_resolver(_name, re.compile(f"^(?:{_pattern.pattern})$"), list(_first))
    # YAML 1.1 would read 012 as an octal number.
    _loader.add_constructor(f"{_TAG}int", lambda loader, node: int(loader.construct_scalar(node)))

#: Digits of a whole number: what fits 64 bits. No field means a larger one.
_MAX_DIGITS = 18

#: What no title, name or path holds and no file may: control characters, and halves of characters.
_HIDDEN = yaml.reader.Reader.NON_PRINTABLE

KeyPath = tuple[str | int, ...]


class Document:
    """A parsed YAML file that remembers on which line each key stands."""

    def __init__(self, path: Path, value: Any, lines: dict[KeyPath, int]) -> None:
        self.path, self.value, self._lines = path, value, lines

    def where(self, key_path: KeyPath) -> str:
        """``params.yaml:12: recipes.fast.epochs`` for the deepest part of ``key_path`` that stands in the file."""
        return _where(self.path, self.line(key_path), key_path)

    def line(self, key_path: KeyPath) -> int:
        """The line of the deepest part of ``key_path`` that stands in the file."""
        while key_path and key_path not in self._lines:
            key_path = key_path[:-1]
        return self._lines.get(key_path, 1)

    def error(self, key_path: KeyPath, message: str) -> ConfigError:
        return ConfigError(f"{self.where(key_path)}: {message}")


def _where(path: Path, line: int, key_path: KeyPath) -> str:
    return f"{path}:{line}: {'.'.join(map(_shown_part, key_path)) or 'the file'}"


def _shown_part(part: str | int) -> str:
    """A key as it stands in the file, or quoted and shortened where it is no plain word."""
    text = str(part)
    return text if text.isprintable() and 0 < len(text) <= 80 and " " not in text else _shorten(text)


def read_yaml(path: Path) -> Document:
    """Read one YAML file.

    Keys are text, whatever they look like. Raises ConfigError in one line for a file that is missing, not UTF-8, not
    YAML, has a key twice, refers to itself, is too large, or has a tag that asks for something else than plain data.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would be waited for without end
            raise ConfigError(f"{path}: is no file")
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
            return _parse(path, text, loader)
    try:  # what is no YAML is read by the slow loader, which says what is wrong more clearly
        return _parse(path, text, _Loader)
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


def _parse(path: Path, text: str, loader_class: type[Any]) -> Document:
    loader = loader_class(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{path}:1: the file is empty")
        lines: dict[KeyPath, int] = {}
        _check_nodes(path, node, (), lines, frozenset(), [0])
        return Document(path, loader.construct_document(node), lines)
    finally:
        loader.dispose()


def _check_nodes(
    path: Path, node: yaml.Node, key_path: KeyPath, lines: dict[KeyPath, int], parents: frozenset[int], count: list[int]
) -> None:
    """Fill ``lines`` and make every key text; refuse what is not plain data: duplicate keys, keys that are no text, cycles,
    alias bombs, tags, whole numbers beyond 64 bits."""
    line = node.start_mark.line + 1
    lines.setdefault(key_path, line)

    def refuse(problem: str, at: int = line, key: KeyPath = key_path) -> ConfigError:
        return ConfigError(f"{_where(path, at, key)}: {problem}")

    if id(node) in parents:
        raise refuse("an alias refers to the block that it stands in")
    # An alias counts as often as it is used, and long text by its length: what is written out must stay small, too.
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
            node.value[position] = (text, value_node)
            _check_nodes(path, value_node, (*key_path, key), lines, parents, count)
    elif isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        for index, child in enumerate(node.value):
            _check_nodes(path, child, (*key_path, index), lines, parents, count)
    elif not isinstance(node, yaml.ScalarNode) or node.tag not in (*_SCALARS, f"{_TAG}str"):
        raise refuse(f"the tag {_shorten(node.tag)} is not supported; remove it")
    elif node.tag in _SCALARS and not _SCALARS[node.tag][0].fullmatch(node.value):
        raise refuse(f"{_shorten(node.value)} is no {node.tag.removeprefix(_TAG)}, as its tag says; remove the tag")
    elif node.tag == f"{_TAG}int" and len(node.value) > _MAX_DIGITS:
        raise refuse(f"the number {node.value[:12]}… is too large; in quotes, if it is text")


def validate(document: Document, kind: Any, value: Any, key_path: KeyPath = ()) -> Any:
    """Check ``value`` (a part of ``document`` at ``key_path``) against a type; raise ConfigError in one line."""
    bad = _not_finite(value, key_path)
    if bad is not None:
        raise document.error(bad, "is not a finite number")
    try:
        # JSON mode is strict about types and still takes a list where a tuple is declared.
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise _explain(document, error, kind, key_path) from None


def _not_finite(value: Any, key_path: KeyPath) -> KeyPath | None:
    if isinstance(value, float) and not math.isfinite(value):
        return key_path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((bad for key, child in children if (bad := _not_finite(child, (*key_path, key)))), None)


def _explain(document: Document, error: ValidationError, kind: Any, key_path: KeyPath) -> ConfigError:
    """One validation error in one line (an unknown key before others: it often explains them)."""
    errors = error.errors(include_url=False)
    places = [_location(document.value, key_path, e) for e in errors]
    # A value that fits none of several types has one error for each of them; one inside it says most.
    inside = [i for i, place in enumerate(places) if place[: len(places[0])] == places[0]]
    unknown = [i for i, e in enumerate(errors) if e["type"] == "extra_forbidden"]
    chosen = unknown[0] if unknown else max(inside, key=lambda i: len(places[i]))
    first, location = errors[chosen], places[chosen]
    same = [e for e, place in zip(errors, places, strict=True) if place == location and e["type"] != "extra_forbidden"]
    messages = dict.fromkeys(e["msg"].removeprefix("Value error, ") for e in same)
    message, says = ", or ".join(messages), first["input"]
    if first["type"] == "extra_forbidden":
        message = (
            f"unknown key {_shorten(location[-1])}; keys that would be right: {', '.join(_keys_at(kind, first['loc']))}"
        )
        says = None
    elif first["type"] in ("missing", "union_tag_not_found"):
        message, says = f"the key {location[-1]!r} is missing", None
    elif first["type"] == "union_tag_invalid":
        says = says[location[-1]]
        message = f"Input should be {' or '.join(first['ctx']['expected_tags'].rsplit(', ', 1))}"
    if says is not None and not isinstance(says, dict | list):
        message += f" (it says {_shorten(says)})"
    elsewhere = {place for place in places if place != location[: len(place)]}
    if elsewhere:
        message += f" (and {len(elsewhere)} more)"
    return document.error(location, message)


#: Keys that choose among several kinds of entry.
_CHOOSING = ("family", "method", "kind")


def _location(value: Any, key_path: KeyPath, error: Any) -> KeyPath:
    """Where in the file an error of pydantic stands. Its own location also names the members of unions, and ends in
    ``[key]`` where a key is wrong; a choice among several kinds of entry is wrong at the key that chooses."""
    kind, kept, member_of = error["type"], list[str | int](), None
    location = [*key_path, *error["loc"]]
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(value, dict) and member_of is not value and part in (value.get(key) for key in _CHOOSING):
            member_of = value  # the kind that the entry says it is, which may also be the name of one of its keys
        elif (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value, kept = value[part], [*kept, part]
        elif last and kind in ("missing", "extra_forbidden"):
            kept.append(part)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        kept.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(kept)


def _keys_at(kind: Any, location: KeyPath) -> list[str]:
    """The valid keys beside the last part of a pydantic error location."""
    for part in location[:-1]:
        kind = _child_type(kind, part)
    kind = _bare(kind)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Strict) else []


def _bare(kind: Any) -> Any:
    """``kind`` without ``Annotated`` and without ``| None``."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else kind
    return kind


def _child_type(kind: Any, part: str | int) -> Any:
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Strict):
        return kind.model_fields[part].annotation if part in kind.model_fields else kind  # else: a union's only member
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):  # a discriminated union: the part is the member's tag
        return next(
            (m for m in arguments if any(part in get_args(f.annotation) for f in m.model_fields.values())), None
        )
    return arguments[-1 if get_origin(kind) is dict else 0] if arguments else None


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# ------------------------------------------------------------------------------------------------ the sections

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
#: Text in one line.
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\r\n\x85\u2028\u2029]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

#: Data sets whose files the project can find or fetch without being told a checksum.
PINNED_SOURCES = ("digits", "cifar10", "cifar100", "stl10")


class DatasetConfig(Strict):
    """Where images come from and which of them are used.

    ``train_images`` and ``test_images`` take stratified subsets (``split_seed`` decides which; the split is the same
    for every run, so the test set is fixed). ``test_on_rest``: every image that is not trained on is a test image.
    """

    source: Literal["digits", "cifar10", "cifar100", "stl10", "imagenet32", "imagenet", "images"]
    title: Annotated[Line, Field(max_length=80)] | None = None
    path: str | None = Field(default=None, min_length=1)
    sha256: Sha256 | None = None
    mirrors: Annotated[tuple[str, ...], NO_REPEATS] = ()
    resize: int | None = Field(default=None, ge=4, le=1024)
    train_images: int | None = Field(default=None, ge=2, le=100_000_000)
    test_images: int | None = Field(default=None, ge=2, le=100_000_000)
    test_on_rest: bool = False
    split_seed: int = Field(default=0, ge=0, lt=10_000)

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        if self.source in PINNED_SOURCES:
            for field in ("sha256", "resize"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field} is fixed by the source {self.source!r}; remove it")
        if self.source == "digits" and self.path is not None:
            raise ValueError("digits is embedded and has no path; remove it")
        if self.source not in PINNED_SOURCES and self.path is None:
            raise ValueError(f"the source {self.source!r} needs a path: the folder or archive that holds its files")
        if self.mirrors and self.source not in ("cifar10", "cifar100", "stl10"):
            raise ValueError(f"mirrors are for data sets that can be downloaded; {self.source!r} is not")
        for mirror in self.mirrors:
            if not re.match(r"^https?://", mirror):
                raise ValueError(f"the mirror {mirror!r} must begin with http:// or https://")
        if self.test_on_rest and (self.train_images is None or self.source != "digits"):
            raise ValueError("test_on_rest is for digits with train_images set")
        return self

    def identity(self) -> dict[str, Any]:
        """What of this data set can change a run's numbers: not where it lies, not what it is called."""
        return self.model_dump(exclude={"title", "path", "mirrors"})


class NoiseConfig(Strict):
    """Label noise of the training split. ``rate`` is the share of labels redrawn (``uniform``: over all classes, so
    one in m of them stays right) or wrong (``symmetric``, ``asymmetric``)."""

    kind: Literal["none", "uniform", "symmetric", "asymmetric"]
    rate: float = Field(default=0.0, ge=0.0, le=1.0)
    when: Literal["static", "per_epoch"] = "static"
    count: Literal["exact", "bernoulli"] = "exact"
    hit: Literal["redrawn", "fixed"] = "redrawn"
    pairs: dict[Name, Name] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "none") != (self.rate == 0.0):
            raise ValueError("kind: none goes with rate 0, every other kind with a rate above 0")
        if self.kind == "none" and (self.when, self.count, self.hit) != ("static", "exact", "redrawn"):
            raise ValueError("kind: none changes no label; remove when, count and hit")
        if self.pairs is not None and self.kind != "asymmetric":
            raise ValueError("pairs belong to kind: asymmetric")
        if self.pairs is not None and not self.pairs:
            raise ValueError("pairs names no pair, so no label could be wrong; remove it or name some")
        for name, partner in (self.pairs or {}).items():
            if name == partner:
                raise ValueError(f"pairs: {name!r} is paired with itself")
        if self.hit == "fixed" and self.when == "static":
            raise ValueError("hit: fixed belongs to when: per_epoch (static noise hits the same images always)")
        return self


class Augmentation(Strict):
    """Random changes of training images: a shift by up to ``shift`` pixels (zero padding and crop), a horizontal flip,
    or a random resized crop (``random_resized_crop`` is the side of its output; test images are then resized to
    8/7 of that side and cropped in the middle)."""

    shift: int = Field(default=0, ge=0, le=32)
    flip: bool = False
    random_resized_crop: int | None = Field(default=None, ge=8, le=512)

    @model_validator(mode="after")
    def _one_way_to_move(self) -> Self:
        if self.shift and self.random_resized_crop is not None:
            raise ValueError("shift and random_resized_crop exclude each other; remove one of them")
        return self


class RecipeConfig(Strict):
    """How long and how fast: everything about optimisation that methods share, so that methods differ only in method.

    ``milestones``: the learning rate is multiplied by ``gamma`` after these epochs. ``validation_fraction`` of the
    training split is held out (stratified; 0 for published cells), with noisy labels if ``validation_noisy``. ``processes``
    share every batch of a run, each on a GPU or a core of its own (docs/multi-gpu.md). ``convolution``: on a CPU,
    ``tuned`` gives every 3x3 convolution the form that suits its shape: faster, with other rounding (docs/performance.md). On a GPU
    cuDNN chooses either way.
    ``compile``: by ``torch.compile``, with ``cuda-graphs`` also recorded as CUDA graphs, which a GPU replays without waiting for
    the host to launch one kernel after the other.
    """

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=2, le=65_536)
    learning_rate: float = Field(gt=0, le=100)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    augmentation: Augmentation = Augmentation()
    validation_fraction: float = Field(default=0.0, ge=0, lt=0.9)
    validation_noisy: bool = False
    evaluate_every: int = Field(default=1, ge=1, le=10_000)
    evaluation_batch_size: int = Field(default=500, ge=1, le=65_536)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool | Literal["cuda-graphs"] = False
    convolution: Literal["torch", "tuned"] = "torch"
    processes: int = Field(default=1, ge=1, le=1024)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if self.milestones and not 1 <= self.milestones[0] <= self.milestones[-1] < self.epochs:
            raise ValueError(f"milestones must lie between 1 and epochs - 1 = {self.epochs - 1}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        if self.validation_noisy and not self.validation_fraction:
            raise ValueError("validation_noisy needs validation_fraction above 0")
        if self.processes > self.batch_size:
            raise ValueError(f"{self.processes} processes cannot share a batch of {self.batch_size} images")
        if self.convolution == "tuned" and (self.precision != "float32" or self.compile):
            raise ValueError("convolution: tuned goes with precision: float32 and compile: false only")
        return self

    def identity(self) -> dict[str, Any]:
        """What of the recipe can change a run's numbers: all of it. One process and torch's convolutions, the rule, go
        without saying."""
        usual = {"processes": 1, "convolution": "torch"}
        return self.model_dump(exclude={name for name, value in usual.items() if getattr(self, name) == value})


ModelConfig = Annotated[FAMILIES.settings_union(), Field(discriminator="family")]
MethodConfig = Annotated[METHODS.settings_union(), Field(discriminator="method")]

Names = Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS]


class TableConfig(Strict):
    """A grid of configurations that a report shows together: one table per data set, noise, model and recipe, with the
    methods as rows. ``baseline`` is the method that the others are compared with; the Holm correction runs over
    ``family`` (by default the table)."""

    name: Name
    title: Line | None = None
    datasets: Names
    noise: Names = ("clean",)
    models: Names
    recipes: Names
    methods: Names
    baseline: Name = "individual"
    family: Name | None = None
    seeds: int | None = Field(default=None, ge=1, lt=1000)

    @model_validator(mode="after")
    def _baseline_is_a_row(self) -> Self:
        if self.baseline not in self.methods:
            raise ValueError(f"the baseline {self.baseline!r} must be one of the table's methods")
        return self


class ProfileConfig(Strict):
    """A study: its tables, the seeds that each configuration is run with, and how the runs are packed into jobs.

    The seeds are ``first_seed``, ``first_seed`` + 1 … A study that is to test what other seeds suggested begins with seeds
    that had no part in it.
    """

    description: Line
    seeds: int = Field(ge=1, lt=1000)
    first_seed: int = Field(default=0, ge=0, lt=1000)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seeds_per_job: int = Field(default=4, ge=1, le=1000)
    tables: tuple[TableConfig, ...] = ()
    papers: Annotated[tuple[Name, ...], NO_REPEATS] = ()

    @model_validator(mode="after")
    def _has_tables(self) -> Self:
        if not self.tables and not self.papers:
            raise ValueError("a profile needs tables or papers")
        if self.first_seed + max([self.seeds, *(table.seeds or 0 for table in self.tables)]) > 1000:
            raise ValueError("seeds go up to 999: first_seed and seeds together must not exceed 1000")
        names = [table.name for table in self.tables]
        if len(set(names)) != len(names):
            raise ValueError("two tables have the same name")
        return self

    def seed_range(self, count: int | None = None) -> tuple[int, ...]:
        """The first ``count`` seeds of the study (default: all of them)."""
        return tuple(range(self.first_seed, self.first_seed + (count or self.seeds)))


class Params(Strict):
    """The whole of ``params.yaml``."""

    datasets: dict[Name, DatasetConfig]
    noise: dict[Name, NoiseConfig]
    models: dict[Name, ModelConfig]
    recipes: dict[Name, RecipeConfig]
    methods: dict[Name, MethodConfig]
    profiles: dict[Name, ProfileConfig]
    _document: Document | None = PrivateAttr(default=None)

    def place(self, key: KeyPath) -> str:
        """``params.yaml:12: `` for an entry, as the beginning of a message; empty where no file was read."""
        return "" if self._document is None else f"{self._document.path}:{self._document.line(key)}: "


_SECTION_OF = {
    "datasets": "datasets", "noise": "noise", "models": "models", "recipes": "recipes", "methods": "methods",
    "baseline": "methods",
}  # fmt: skip


def load_params(path: Path) -> Params:
    """Read and check ``params.yaml``. Raises ConfigError in one line."""
    if not path.exists() and path.parent.is_dir():
        raise ConfigError(f"{path}: does not exist; call collabench in the project's folder, or name it with --root")
    document = read_yaml(path)
    params: Params = validate(document, Params, document.value)
    params._document = document
    for profile_name, profile in params.profiles.items():
        for index, table in enumerate(profile.tables):
            for field, section in _SECTION_OF.items():
                names = getattr(table, field)
                for position, name in enumerate(names if isinstance(names, tuple) else (names,)):
                    key: KeyPath = ("profiles", profile_name, "tables", index, field)
                    key = (*key, position) if isinstance(names, tuple) else key
                    check_name(document, key, params, section, name)
    for name, method in params.methods.items():
        for field, section, other in method.references():
            check_name(document, ("methods", name, field), params, section, other)
        params.methods[name] = method.located(path.absolute().parent)
    _refuse_teacher_cycles(document, params)
    return params


def check_name(document: Document, key: KeyPath, params: Params, section: str, name: str) -> None:
    """Raise ConfigError if ``name`` is not defined in ``section``."""
    known = getattr(params, section)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise document.error(key, f"{name!r} is not defined under {section}{hint}; defined there: {', '.join(known)}")


def _refuse_teacher_cycles(document: Document, params: Params) -> None:
    for start in params.methods:
        path = [start]
        while True:
            following = [n for _, section, n in params.methods[path[-1]].references() if section == "methods"]
            if not following:
                break
            if following[0] in path:
                raise document.error(("methods", start), f"depends on itself: {' → '.join([*path, following[0]])}")
            path.append(following[0])


def profile_of(params: Params, name: str, path: Path) -> ProfileConfig:
    """The named profile. Raises ConfigError that lists the profiles that exist."""
    if name not in params.profiles:
        raise ConfigError(f"{path}: there is no profile {name!r}; profiles: {', '.join(params.profiles)}")
    return params.profiles[name]

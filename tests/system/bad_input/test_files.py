"""Files that are damaged as a whole: encoding, truncation, aliases, nesting, tags, a folder in the file's place."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from collabench.config.params import load_params
from collabench.config.yaml_file import MAX_YAML_BYTES, read_yaml
from collabench.core.errors import ConfigError
from collabench.papers.claims import CLAIMS, load_claims
from collabench.papers.tables import PAPER, load_papers

GOOD = """\
# A comment with a letter beyond ASCII: é
datasets:
  digits: {source: digits}
noise:
  clean: {kind: none}
  pairs: {kind: asymmetric, rate: 0.25, pairs: {"1": "7"}}
models:
  small: {family: cifar_resnet, depth: 8}
recipes:
  fast: {epochs: 3, batch_size: 32, learning_rate: 1e-1, milestones: [1, 2], augmentation: {shift: 1}}
methods:
  individual: {method: individual}
  tree:
    method: song2018
    splits:
      - after: stage1
        branches: 2
profiles:
  tiny:
    description: "a \\"test\\""
    seeds: 2
    tables:
      - {name: one, datasets: [digits], models: [small], recipes: [fast], methods: [individual, tree]}
"""


def refusal(path: Path, read=load_params) -> str:
    """The one line with which the file is refused."""
    with pytest.raises(ConfigError) as error:
        read(path)
    message = str(error.value)
    assert message.isprintable() and len(message) <= 2100 and message.startswith(f"{path}:"), message
    return message.removeprefix(f"{path}:")


def answered(path: Path) -> bool:
    """Whether a damaged file is refused; it fails where the refusal is not one line with the file's name."""
    try:
        load_params(path)
    except ConfigError as error:
        message = str(error)
        assert message.isprintable() and message.startswith(f"{path}:"), message
        return True
    return False


def bomb(levels: int) -> str:
    """Aliases of aliases: ten to the power of ``levels`` values when written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


LONG = "x" * 500_000

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "1: the file is empty"),
    "only a comment": (b"# nothing\n", "1: the file is empty"),
    "only null": (b"~\n", "1: the file: "),
    "a list": (b"- datasets\n- noise\n", "1: the file: "),
    "a word": (b"datasets\n", "1: the file: "),
    "a number": (b"12\n", "1: the file: "),
    "two documents": (GOOD.encode() + b"---\n" + GOOD.encode(), "24: not valid YAML"),
    "UTF-16": (GOOD.encode("utf-16"), "1: not UTF-8 text"),
    "UTF-16 without mark": (GOOD.encode("utf-16-le"), "1: not"),
    "Latin-1": (GOOD.encode("latin-1"), "1: not UTF-8 text (byte 0xe9)"),
    "an image": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "1: not UTF-8 text"),
    "a zero byte": (GOOD.replace("seeds: 2", "seeds: 2\0").encode(), "21: not text"),
    "a control character": (GOOD.replace("test", "\x1b[31mtest").encode(), "20: not text"),
    "zeros": (bytes(5000), "1: not text"),
    "a tab": (GOOD.replace("  digits:", "\tdigits:").encode(), "3: not valid YAML"),
    "a key twice": (GOOD.replace("depth: 8", "depth: 8, depth: 8").encode(),
        "8: models.small.depth: stands here and on"),
    "a section twice": ((GOOD + "noise:\n  clean: {kind: none}\n").encode(), "24: noise: stands here and on line 4"),
    "a key twice, quoted": (GOOD.replace("clean:", '"clean": {kind: none}\n  clean:').encode(),
        "6: noise.clean: stands"),
    "null twice": (GOOD.replace("clean:", "~: {kind: none}\n  ~: {kind: none}\n  clean:").encode(),
        "6: noise.~: stands"),
    "a whole number as key": (GOOD.replace("fast: {", "fast: {1: 2, ").encode(), "10: recipes.fast.1: unknown key '1'"),
    "a truth value as key": (GOOD.replace("fast: {", "fast: {true: 2, ").encode(),
        "10: recipes.fast.true: unknown key"),
    "a list as key": (GOOD.replace("fast: {", "fast: {[1, 2]: 2, ").encode(),
        "10: recipes.fast: a key must be plain text"),
    "a mapping as key": (b"? {a: 1}\n: 2\n", "1: the file: a key must be plain text"),
    "a merge key": (GOOD.replace("fast: {", "fast: {<<: {epochs: 3}, ").encode(), "10: recipes.fast: merge keys"),
    "a cycle": (GOOD.replace("fast: {", "fast: &f {epochs: *f, ").encode(), "10: recipes.fast.epochs: an alias refers"),
    "a cycle in a list": (b"datasets: &x [*x]\n", "1: datasets.0: an alias refers"),
    "a longer cycle": (b"datasets: &x {a: &y [*x, *y]}\n", "1: datasets.a.0: an alias refers"),
    "an unknown alias": (b"datasets: *nowhere\n", "1: not valid YAML: found undefined alias"),
    "an alias bomb": (bomb(9).encode(), "more than 50,000 values"),
    "long text by many aliases": (f"a: &a {LONG}\nb: [{', '.join(['*a'] * 200)}]\n".encode(),
        "more than 50,000 values"),
    "many values": (b"datasets: [" + b"1," * 60_000 + b"]\n", "more than 50,000 values"),
    "deep brackets": (b"datasets: " + b"[" * 100_000, "nested too deeply"),
    "deep braces": (b"{a: " * 20_000, "nested too deeply"),
    "deep dashes": (b"- " * 20_000 + b"1", "nested too deeply"),
    "deep by aliases": (
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))).encode(), "nested too deeply"
    ),
    "deep lines": ("".join(f"{' ' * n}a:\n" for n in range(500)).encode(), "nested too deeply"),
    "long text": (GOOD.replace('a \\"test', LONG[:500_000]).encode(), "20: profiles.tiny.description: "),
    "a long key": (GOOD.replace("fast: {", f"fast: {{{'k' * 900}: 1, ").encode(), "10: recipes.fast."),
    "a key in two lines": (GOOD.replace("fast: {", 'fast: {"a\\nb": 1, ').encode(),
        "10: recipes.fast.'a\\nb': unknown key"),
    "a large number": (GOOD.replace("epochs: 3", f"epochs: {'9' * 400}").encode(),
        "10: recipes.fast.epochs: the number"),
    "a large fraction": (GOOD.replace("1e-1", "1e400").encode(), "10: recipes.fast.learning_rate: is not a finite"),
    "too many bytes": (GOOD.encode() + b"# " + b"x" * MAX_YAML_BYTES, " a configuration file has at most 1,000,000"),
    "a Python object": (b"datasets: !!python/object/apply:os.system [echo]\n", "1: datasets: the tag"),
    "a Python name": (b"datasets: !!python/name:os.system ''\n", "1: datasets: the tag"),
    "an own tag": (b"datasets: !mine {a: 1}\n", "1: datasets: the tag"),
    "a tag on a key": (b"!mine datasets: {a: 1}\n", "1: the file: a key must be plain text"),
    "a set": (b"datasets: !!set {a, b}\n", "1: datasets: the tag"),
    "an ordered mapping": (b"datasets: !!omap [a: 1]\n", "1: datasets: the tag"),
    "bytes": (b"datasets: !!binary aGVsbG8=\n", "1: datasets: the tag"),
    "a date": (b"datasets: !!timestamp 2001-01-01\n", "1: datasets: the tag"),
    "a number that is none": (b"datasets: !!int seven\n", "1: datasets: 'seven' is not of type int"),
    "a fraction that is none": (b"datasets: !!float seven\n", "1: datasets: 'seven' is not of type float"),
    "a truth value that is none": (b"datasets: !!bool seven\n", "1: datasets: 'seven' is not of type bool"),
    "a null that is none": (b"datasets: !!null seven\n", "1: datasets: 'seven' is not of type null"),
    "a number tag on a list": (b"datasets: !!int [1]\n", "1: datasets: the tag"),
    "text tag on a mapping": (b"datasets: !!str {a: 1}\n", "1: datasets: the tag"),
    "an open quote": (GOOD.replace('"a', "\"a '").replace('\\"test\\""', "").encode(), "not valid YAML"),
    "a conflict of versions": (GOOD.replace("noise:\n", "<<<<<<< ours\nnoise:\n=======\n", 1).encode(),
        "5: not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_files(tmp_path, what):
    content, expected = DAMAGED[what]
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    started = time.process_time()
    assert expected in refusal(path)
    assert time.process_time() - started < 60


def test_forms_of_the_same_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(GOOD, encoding="utf-8")
    params = load_params(path)
    for other in (
        "\ufeff" + GOOD,  # the mark that some editors put before UTF-8
        GOOD.replace("\n", "\r\n"),
        GOOD.rstrip("\n"),
        "---\n" + GOOD + "...\n",
        GOOD.replace("clean: {kind: none}", "clean: &c {kind: none}\n  same: *c"),
        GOOD.replace("epochs: 3", "epochs: !!int 3"),
    ):
        path.write_bytes(other.encode())
        assert load_params(path).recipes == params.recipes and load_params(path).profiles == params.profiles


def test_an_alias_of_a_key_is_text_and_its_value_stays_what_it_is(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("number: &n 5\n*n : text\n7: seven\n")
    assert read_yaml(path).value == {"number": 5, "5": "text", "7": "seven"}


def test_what_is_no_file(tmp_path):
    path = tmp_path / "params.yaml"
    assert refusal(path) == " does not exist; call collabench in the project's folder, or name it with --root"
    assert refusal(path, read_yaml) == " cannot be read (No such file or directory)"
    path.mkdir()
    assert refusal(path) == " is not a regular file"
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere")
    assert "does not exist" in refusal(path) and "cannot be read" in refusal(path, read_yaml)
    path.unlink()
    path.symlink_to(path)
    assert "does not exist" in refusal(path) and "cannot be read" in refusal(path, read_yaml)
    path.unlink()
    os.mkfifo(path)
    assert refusal(path) == " is not a regular file"  # and does not wait for somebody to write into it
    path.unlink()
    path.write_text(GOOD)
    assert "cannot be read (Not a directory)" in refusal(path / "params.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_without_permission(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    assert refusal(path) == " cannot be read (Permission denied)"


def test_truncated_anywhere(tmp_path):
    """What is left of a file is refused, or is a whole file by itself, and never anything else."""
    path = tmp_path / "params.yaml"
    content = GOOD.encode()
    complete = content.index(b"profiles:")
    refused = 0
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refused += answered(path)
        assert length > complete or refused == length // 7 + 1
    assert refused > 0.9 * len(content) / 7


def test_every_line_left_out_doubled_or_indented(tmp_path):
    path = tmp_path / "params.yaml"
    lines = GOOD.splitlines(keepends=True)
    refused = 0
    for position, line in enumerate(lines):
        for replaced in ([], [line, line], ["    " + line], ["\t" + line]):
            path.write_text("".join([*lines[:position], *replaced, *lines[position + 1 :]]))
            refused += answered(path)
    assert refused > 2 * len(lines)


def test_random_bytes_changed(tmp_path):
    generator = random.Random(0)
    path = tmp_path / "params.yaml"
    for _ in range(200):
        content = bytearray(GOOD.encode())
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.choice([*range(256), *b"{}[],:-&*!|>'\"%@`#?\t\n"])
        path.write_bytes(bytes(content))
        answered(path)


@pytest.mark.parametrize(
    "what", ["empty", "a list", "Latin-1", "a zero byte", "a cycle in a list", "deep brackets", "a set"]
)
def test_the_files_of_papers_are_read_by_the_same_reader(tmp_path, what):
    content, _ = DAMAGED[what]
    (tmp_path / "params.yaml").write_text(GOOD)
    params = load_params(tmp_path / "params.yaml")
    folder = tmp_path / "papers"
    (folder / "one").mkdir(parents=True)
    about, table, claims = folder / "one" / PAPER, folder / "one" / "table.yaml", folder / CLAIMS
    about.write_text("{title: A paper, authors: Somebody, published: somewhere, sources: {}}\n")
    load_papers(folder, params)
    for path, read in ((table, load_papers), (claims, load_claims), (about, load_papers)):
        path.write_bytes(content)
        refusal(path, lambda _, read=read: read(folder, params))
        if path != about:
            path.unlink()
            path.mkdir()
            refusal(path, lambda _, read=read: read(folder, params))
            path.rmdir()


@pytest.mark.parametrize("escape", ["\\0", "\\a", "\\e[31m", "\\ud800", "\\x7f"])
@pytest.mark.parametrize(("place", "key"), [('"a \\"test\\""', "profiles.tiny.description"), ("tiny:", "profiles")])
def test_a_character_that_is_only_written_as_an_escape_is_refused_by_line_and_key(tmp_path, escape, place, key):
    """Terminals obey them, XML has none of them, and half a character cannot be encoded."""
    path = tmp_path / "params.yaml"
    path.write_text(GOOD.replace(place, f'"a{escape}"' if place.startswith('"') else f'"tiny{escape}":'))
    line, said = refusal(path).split(":", 1)
    assert int(line) == GOOD[: GOOD.index(place)].count("\n") + 1
    assert said.startswith(f" {key}: the character") and "cannot stand here" in said

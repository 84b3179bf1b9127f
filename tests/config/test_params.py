"""Configuration errors: one line that names file, line, key and what would be right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from collabench.config import yaml_file
from collabench.config.fields import PATTERNS
from collabench.config.json_schema import schema_text
from collabench.config.params import load_params
from collabench.config.yaml_file import read_yaml
from collabench.core.errors import ConfigError
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT

GOOD = params_yaml(
    {"tiny": profile(table("individual tree"), seeds=2)},
    models={"small": "{family: cifar_resnet, depth: 8}"},
    recipes={"fast": "{epochs: 2, batch_size: 32, learning_rate: 1e-1, weight_decay: 1e-4, milestones: [1]}"},
    methods="individual tree",
)


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_params(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_good_file(tmp_path):
    params = load_params(write(tmp_path, GOOD))
    assert params.recipes["fast"].weight_decay == 1e-4 and params.recipes["fast"].learning_rate == 0.1


@pytest.mark.parametrize(
    "old,new,where,what",
    [
        (
            "epochs: 2",
            "epoch: 2",
            ":8: recipes.fast.epoch",
            "'epoch' (did you mean epochs?); keys that would be right: epochs, b",
        ),
        ("epochs: 2", "epochs: two", ":8: recipes.fast.epochs", "must be a whole number (it says 'two')"),
        ("epochs: 2", "epochs: '2'", ":8: recipes.fast.epochs", "whole number (it says '2': remove the quotes)"),
        ("epochs: 2", "epochs: 0", ":8: recipes.fast.epochs", "must be at least 1 (it says 0)"),
        ("epochs: 2", "epochs: 2.5", ":8: recipes.fast.epochs", "must be a whole number (it says 2.5)"),
        ("epochs: 2", "epochs: yes", ":8: recipes.fast.epochs", "must be a whole number (it says 'yes')"),
        ("epochs: 2", "epochs: true", ":8: recipes.fast.epochs", "must be a whole number (it says true)"),
        ("epochs: 2", "epochs:", ":8: recipes.fast.epochs", "must be a whole number (it says nothing)"),
        ("epochs: 2", "epochs: [2]", ":8: recipes.fast.epochs", "must be a whole number (it says [2])"),
        ("epochs: 2", "epochs: 2, betas: [0.9]", ":8: recipes.fast.betas: must", "at least 2 entries"),
        ("epochs: 2", "epochs: 2, betas: [0, 0, 0]", ":8: recipes.fast.betas: must", "at most 2 entries"),
        ("epochs: 2", "epochs: 2, compile: 3", ":8: recipes.fast.compile", "must be true or false, or 'cuda-graphs' ("),
        ("epochs: 2", "epochs: 2, augmentation: flip", "fast.augmentation", "must have keys, as in {key: value} (it"),
        (
            "milestones: [1]",
            "milestones: 1",
            "recipes.fast.milestones",
            "must be a list, in square brackets (it says 1)",
        ),
        (
            "source: digits}",
            "source: images, path: x, sha256: AB}",
            ":2: datasets.digits.sha256",
            "must be a SHA-256: ",
        ),
        ("description: a test", "description: ''", ":14: profiles.tiny.description", "must not be empty"),
        (
            "models: [small]",
            "models: []",
            ":17: profiles.tiny.tables.0.models",
            "must have at least 1 entry (it says [])",
        ),
        ("kind: none", "kind: uniform", ":4: noise.clean", "kind: uniform needs a rate above 0"),
        ("epochs: 2, ", "", ":8: recipes.fast.epochs", "missing"),
        ("learning_rate: 1e-1", "learning_rate: .nan", ":8: recipes.fast.learning_rate", "not a finite number"),
        ("milestones: [1]", "milestones: [5]", ":8: recipes.fast", "between 1 and epochs - 1"),
        ("depth: 8", "depth: 9", ":6: models.small.depth", "8, 14, 20, 32, 44, 56 or 110"),
        ("depth: 8", "depth: 8, widht: 4", ":6: models.small.widht", "keys that would be right: family, depth, width"),
        ("family: cifar_resnet", "family: resnot", ":6: models.small", "cifar_resnet"),
        ("method: song2018", "method: song2019", ":11: methods.tree", "song2018"),
        ("method: song2018", "method: song2018, heads: 3", ":11: methods.tree", "binary tree"),
        ("method: song2018", "method: song2018, beta: 1.5", ":11: methods.tree.beta", "must be at most 1"),
        ("source: digits}", "source: digitz}", ":2: datasets.digits.source", "'digits', 'cifar10'"),
        ("kind: none", "kind: none, rate: 0.5", ":4: noise.clean", "no rate above 0; remove"),
        ("models: [small]", "models: [big]", ":17: profiles.tiny.tables.0.models.0", "defined there: small"),
        ("methods: [individual, tree]", "methods: [tree]", ":17: profiles.tiny.tables.0", "baseline 'individual'"),
        ("seeds: 2", "seeds: 2\n    seeds: 3", ":16:", "stands here and on line 15"),
        ("description: a test", "description: off", ":14", ""),
    ],
)
def test_mistakes(tmp_path, old, new, where, what):
    path = write(tmp_path, GOOD.replace(old, new, 1))
    if new == "description: off":
        assert load_params(path).profiles["tiny"].description == "off"  # YAML 1.1 would make it false
        return
    message = refusal(path)
    assert where in message and what in message, message


def test_a_misspelt_key_is_one_mistake_although_the_right_one_is_missing(tmp_path):
    assert "more mistake" not in refusal(write(tmp_path, GOOD.replace("epochs: 2", "epoch: 2", 1)))
    assert refusal(write(tmp_path, GOOD.replace("epochs: 2", "epoch: 2, width: 3", 1))).endswith("(and 1 more mistake)")


def test_every_pattern_of_the_schema_has_words_of_its_own():
    """A regular expression says nothing to somebody who mistyped a name."""
    patterns = {json.loads(text) for text in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', schema_text())}
    assert len(patterns) > 3 and patterns <= set(PATTERNS)


@pytest.mark.parametrize(
    "content,what",
    [
        (b"", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: [1, 2", "not valid YAML"),
        (b"a: &x [*x]", "alias refers to the block"),
        (b"a: !!python/object:os.system {}", "not"),
        (b"a: 99999999999999999999999999", "too large"),
        (b"<<: {a: 1}", "merge keys"),
        (b"[1, 2]", "must have keys, as in"),
        (b"- " * 3000 + b"1", ""),
    ],
)
def test_damaged_files(tmp_path, content, what):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert what in refusal(path)


def test_missing_file(tmp_path):
    assert "does not exist" in refusal(tmp_path / "params.yaml")


def test_scalars_are_what_they_look_like(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1e-4\nb: off\nc: 012\nd: 1_000\ne: 1:30\nf: ~\ng: yes\nh: -3\ni: 2001-01-01\n")
    assert read_yaml(path).value == {
        "a": 1e-4, "b": "off", "c": 12, "d": "1_000", "e": "1:30", "f": None, "g": "yes", "h": -3, "i": "2001-01-01",
    }  # fmt: skip


def test_libyaml_and_the_loader_in_python_read_the_same(monkeypatch):
    files = [ROOT / "params.yaml", *sorted((ROOT / "papers").rglob("*.yaml"))]
    fast = [read_yaml(path) for path in files]
    monkeypatch.setattr(yaml_file, "_LOADERS", yaml_file._LOADERS[-1:])
    for path, one in zip(files, fast, strict=True):
        other = read_yaml(path)
        assert (one.value, one._lines) == (other.value, other._lines), path


@pytest.mark.parametrize(
    "text",
    ["", "a: [1", "a: 1\na: 2", "{" * 200, "a: &x [*x]", "a: \x07", "a: !!python/name:os.system", "\ta: 1", "é: [\n"],
)
def test_a_mistake_is_told_in_the_same_words_with_and_without_libyaml(monkeypatch, tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    told = []
    for loaders in (yaml_file._LOADERS, yaml_file._LOADERS[-1:]):
        monkeypatch.setattr(yaml_file, "_LOADERS", loaders)
        with pytest.raises(ConfigError) as error:
            read_yaml(path)
        told.append(str(error.value))
    assert told[0] == told[1]

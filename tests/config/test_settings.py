"""``--set``: values of the command line in place of those of params.yaml, and what is said of a mistake in them."""

from __future__ import annotations

import pytest

from collabench.config.params import load_params
from collabench.core.errors import ConfigError
from tests.support.params import params_yaml, profile, table

PARAMS = params_yaml(
    {"tiny": profile(table())},
    recipes={
        "fast": "{epochs: 4, batch_size: 32, learning_rate: 0.1, milestones: [2]}",
        "fast.v1": "{epochs: 5, batch_size: 32, learning_rate: 0.1}",
    },
    noise={"clean": "", "flips": "{kind: asymmetric, rate: 0.4, pairs: {a: b}}"},
)


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return path


def test_a_value_is_that_of_the_command_line_and_the_file_stays(params):
    found = load_params(params, ["recipes.fast.epochs=40", "models.small.width=8"])
    assert found.recipes["fast"].epochs == 40 and found.models["small"].width == 8
    assert found.recipes["fast.v1"].epochs == 5
    assert params.read_text() == PARAMS and load_params(params).recipes["fast"].epochs == 4


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("recipes.fast.learning_rate=1e-3", lambda p: p.recipes["fast"].learning_rate == 1e-3),
        ("recipes.fast.milestones=[1, 3]", lambda p: p.recipes["fast"].milestones == (1, 3)),
        ("recipes.fast.augmentation.shift=2", lambda p: p.recipes["fast"].augmentation.shift == 2),
        ("recipes.fast.augmentation={flip: true}", lambda p: p.recipes["fast"].augmentation.flip),
        ("recipes.fast.v1.epochs=9", lambda p: p.recipes["fast.v1"].epochs == 9),
        ("methods.individual.label_smoothing=0.2", lambda p: p.methods["individual"].label_smoothing == 0.2),
        ("profiles.tiny.tables.0.seeds=3", lambda p: p.profiles["tiny"].tables[0].seeds == 3),
        ("profiles.tiny.description=two: words", None),
        ("noise.flips.pairs.c=1e3", lambda p: p.noise["flips"].pairs == {"a": "b", "c": "1e3"}),
        ("datasets.digits.train_images=", lambda p: p.datasets["digits"].train_images is None),
    ],
)
def test_every_kind_of_value_can_be_set(params, setting, value):
    if value is None:
        with pytest.raises(ConfigError, match="not a value in YAML"):
            load_params(params, [setting])
    else:
        assert value(load_params(params, [setting]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["recipes.fast.epochs=ten"], "--set recipes.fast.epochs=ten: recipes.fast.epochs: must be a whole number"),
        (["recipes.fast.epoch=10"], "--set recipes.fast.epoch=10: recipes.fast.epoch: unknown key 'epoch' ("),
        (["recipes.fast.epochs=1"],
         "params.yaml:9, with --set recipes.fast.epochs=1: recipes.fast: milestones must lie between 1 and"),
        (["recipes.fats.epochs=1"],
         "--set recipes.fats.epochs=1: recipes has no 'fats' (did you mean fast?); it has fast, fast.v1"),
        (["recipe.fast.epochs=1"], "--set recipe.fast.epochs=1: params.yaml has no 'recipe' (did you mean recipes?)"),
        (["recipes.fast"], "--set recipes.fast: must be section.name.key=value, such as recipes.digits.epochs=40"),
        (["recipes.fast={epochs: 3}"], "must name a key of an entry: section.name.key=value"),
        (["=3"], "--set =3: must be section.name.key=value"),
        (["recipes.fast.epochs.more=3"], "recipes.fast.epochs is a single value and has no keys"),
        (["profiles.tiny.tables.7.seeds=3"], "profiles.tiny.tables is a list of 1: 0 is its first entry"),
        (["recipes.fast.epochs=3", "recipes.fast.epochs=4"],
         "--set recipes.fast.epochs=4: --set recipes.fast.epochs=3 changes the same value; keep one of them"),
        (["recipes.fast.milestones=[1"], "--set recipes.fast.milestones=[1: not a value in YAML: expected"),
        (["recipes.fast.learning_rate=.nan"], "recipes.fast.learning_rate: is not a finite number"),
        (["recipes.fast.epochs=!!python/name:os.system"], "--set recipes.fast.epochs=!!python/name:os.system: "),
        (["recipes.fast.epochs=3\nrecipes: {}"], "not a value in YAML: not one value"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_argument(params, settings, message):
    with pytest.raises(ConfigError) as error:
        load_params(params, settings)
    assert message in str(error.value) and "\n" not in str(error.value)

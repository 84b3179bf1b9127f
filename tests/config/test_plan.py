"""Identity, expansion, order and pairing of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from collabench.config.configuration import dataset_key, differences, member_seed, noise_key
from collabench.config.params import load_params
from collabench.config.plan import make_plan
from collabench.core.errors import ConfigError
from collabench.methods import METHODS
from tests.support.params import params_yaml, profile, table

TEXT = params_yaml(
    {
        "tiny": profile(
            table("individual tree ensemble"),
            table("individual", name="two", datasets="digits few", noise="clean uniform20"),
            seeds=3, seeds_per_job=2,
        )
    },
    datasets={
        "digits": "",
        "again": "{source: digits, title: the same images}",
        "few": "{source: digits, train_images: 100}",
    },
    noise="clean uniform20",
    methods={
        "individual": "",
        "tree": "{method: song2018, graph: simple_ilr, heads: 2}",
        "ensemble": "{method: ensemble, members: 3}",
    },
)  # fmt: skip


def plan(folder: Path, text: str = TEXT, profile: str = "tiny"):
    path = folder / "params.yaml"
    path.write_text(text)
    return make_plan(load_params(path), profile)


def ids(plan) -> dict[str, str]:
    return {cell.configuration.label: cell.configuration.id for cell in plan.cells}


def test_every_run_once_in_seed_blocks_with_requirements_first(tmp_path):
    runs = plan(tmp_path).runs
    assert len({run.id for run in runs}) == len(runs)
    position = {run.id: index for index, run in enumerate(runs)}
    for run in runs:
        for required in run.requires():
            assert position[required.id] < position[run.id]
    # Blocks of two seeds: everything of seeds 0 and 1 comes before anything of seed 2.
    in_tables = [run.seed for run in runs if run.seed < 1000]
    last_of_first_block = max(index for index, seed in enumerate(in_tables) if seed < 2)
    assert last_of_first_block < in_tables.index(2)


def test_members_are_disjoint_derived_and_counted(tmp_path):
    runs = plan(tmp_path).runs
    individual = next(r.configuration.id for r in runs if r.configuration.label.endswith("individual"))
    seeds = [run.seed for run in runs if run.configuration.id == individual]
    assert sorted(seeds) == [0, 1, 2, 100_000, 100_001, 100_002, 200_000, 200_001, 200_002]
    members = [[r.seed for r in run.requires()] for run in runs if run.configuration.method.method == "ensemble"]
    assert members == [[0, 100_000, 200_000], [1, 100_001, 200_001], [2, 100_002, 200_002]]
    assert member_seed(5, 0) == 5
    assert {run.data_seed for run in runs} == {0, 1, 2}


@pytest.mark.parametrize(
    "old,new",
    [
        ("epochs: 2", "epochs: 3"),
        ("learning_rate: 0.1", "learning_rate: 0.2"),
        ("width: 4", "width: 5"),
        ("digits: {source: digits}", "digits: {source: digits, split_seed: 1, train_images: 100}"),
    ],
)
def test_what_changes_numbers_changes_the_identity(tmp_path, old, new):
    label = "digits · clean · small · fast · individual"
    assert ids(plan(tmp_path))[label] != ids(plan(tmp_path, TEXT.replace(old, new)))[label]


@pytest.mark.parametrize(
    "old,new",
    [
        ("digits: {source: digits}", "digits: {source: digits, title: Handwritten digits}"),
        ("seeds: 3", "seeds: 9"),
        ("description: a test", "description: another"),
        ("batch_size: 32, learning_rate: 0.1", "learning_rate: 1e-1, batch_size: 32"),
        ("individual: {method: individual}", "individual: {method: individual, label_smoothing: 0.0}"),
    ],
)
def test_cosmetic_edits_change_no_identity(tmp_path, old, new):
    assert ids(plan(tmp_path)) == ids(plan(tmp_path, TEXT.replace(old, new)))


def test_a_renamed_method_keeps_its_runs(tmp_path):
    before, after = plan(tmp_path), plan(tmp_path, TEXT.replace("tree", "baum"))
    assert {run.id for run in before.runs} == {run.id for run in after.runs}


def test_two_names_for_one_data_set_share_runs_and_files(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    params = load_params(path)
    assert dataset_key(params.datasets["digits"]) == dataset_key(params.datasets["again"])
    assert dataset_key(params.datasets["digits"]) != dataset_key(params.datasets["few"])
    assert noise_key(params.datasets["few"], params.noise["uniform20"]).startswith("digits-")


def test_a_method_revision_changes_the_identity(tmp_path, monkeypatch):
    before = ids(plan(tmp_path))
    monkeypatch.setattr(METHODS["song2018"].Method, "revision", 99)
    after = ids(plan(tmp_path))
    changed = {label for label in before if before[label] != after[label]}
    assert changed == {"digits · clean · small · fast · tree"}


def test_a_change_of_the_member_changes_the_ensemble(tmp_path):
    text = TEXT.replace("individual: {method: individual}", "individual: {method: individual, label_smoothing: 0.1}")
    label = "digits · clean · small · fast · ensemble"
    assert ids(plan(tmp_path))[label] != ids(plan(tmp_path, text))[label]


def test_differences_name_the_field(tmp_path):
    first = plan(tmp_path).cells[0].configuration.identity()
    second = plan(tmp_path, TEXT.replace("epochs: 2", "epochs: 40")).cells[0].configuration.identity()
    assert list(differences(first, second)) == ["recipe.epochs: 2 → 40"]


def test_a_split_point_that_the_backbone_lacks(tmp_path):
    text = TEXT.replace("graph: simple_ilr, heads: 2", "graph: simple_ilr, heads: 2, split_after: [stage7]")
    with pytest.raises(ConfigError, match="no split point 'stage7'; split points: input, stem, stage1"):
        plan(tmp_path, text)


def test_a_method_that_depends_on_itself(tmp_path):
    text = TEXT.replace("members: 3}", "members: 3, of: ensemble}")
    with pytest.raises(ConfigError, match=r"methods\.ensemble: depends on itself: ensemble → ensemble"):
        plan(tmp_path, text)

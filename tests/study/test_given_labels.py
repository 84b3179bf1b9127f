"""Label noise that a file or a matrix gives, in a study: what is trained on, recorded, shown and refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collabench.config.configuration import noise_key
from collabench.config.params import load_params
from collabench.config.plan import make_plan
from collabench.core.errors import ConfigError, DataError
from collabench.data.label_files import check_noise_file, read_labels
from collabench.data.noise import NoisyLabels, realised
from collabench.sharing.verify import verify
from collabench.storage.files import read_json
from collabench.storage.results import RESULT, Result
from collabench.study.inputs import share_wrong_by_chance
from collabench.study.study import Study, load_study
from tests.support.official_formats import labels_of, write_cifar10n, write_cifar100n
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT
from tests.support.studies import train_all

MATRIX = [
    [0.7 if row == column else 0.3 if column == (row + 1) % 10 else 0.0 for column in range(10)] for row in range(10)
]
SPLITS = {"fixed": "", "per_seed": ", split: per_seed"}


def digits_labels() -> np.ndarray:
    """Labels of the 1,437 training images of digits, in the source's order."""
    from collabench.config.data_sections import DatasetConfig
    from collabench.data.sources import open_source

    return open_source(DatasetConfig(source="digits"), Path(), None, print).train_labels.numpy()


def write_labels(path: Path, shift: int = 3) -> np.ndarray:
    """Every second image has the label of another class."""
    labels = digits_labels()
    noisy = np.where(np.arange(len(labels)) % 2 == 0, (labels + shift) % 10, labels)
    np.save(path, noisy)
    return noisy


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def study_of(root: Path, noise: str, split: str = "fixed", methods: str = "individual") -> Study:
    text = params_yaml(
        {"given": profile(table(methods, datasets="few", noise="given"), seeds=2, device="cpu")},
        datasets={"few": f"{{source: digits, train_images: 60, test_images: 40{SPLITS[split]}}}"},
        noise={"given": noise},
        methods=methods,
    )
    (root / "params.yaml").write_text(text)
    return load_study(root, "given")


@pytest.mark.parametrize("split", SPLITS)
def test_a_study_with_the_labels_of_a_file(tmp_path, split):
    noisy = write_labels(tmp_path / "labels.npy")
    study = study_of(tmp_path, f"{{kind: file, path: labels.npy, sha256: {sha256_of(tmp_path / 'labels.npy')}}}", split)
    study.check_files(study.plan.runs)
    train_all(study)
    source = digits_labels()
    for run in study.plan.runs:
        drawn = study.inputs.static_noise(run)
        dataset = study.inputs.dataset(run)
        # digits are told apart by their pixels; a label is wrong exactly for every second image of the source
        assert torch.equal(drawn.clean, dataset.train_labels)
        wrong = drawn.noisy != drawn.clean
        assert torch.equal(drawn.noisy[wrong], (drawn.clean[wrong] + 3) % 10) and 0.3 < drawn.corruption < 0.7
        result = read_json(study.workspace.folder(run) / RESULT, Result)
        assert result.noise.rate is None and result.noise.kind == "file" and result.noise.asked is None
        assert result.noise.corruption == drawn.corruption
        assert torch.equal(
            torch.tensor(result.noise.realised, dtype=torch.float64), realised(drawn.clean, drawn.noisy, 10)
        )
    assert (noisy != source).mean() > 0.49
    first, second = (study.inputs.static_noise(run).noisy for run in study.plan.runs)
    assert torch.equal(first, second) == (split == "fixed")
    found = verify(study, sample=1, log=lambda line: None)
    assert not found.differences and found.hashed["noise files"] == 2


def test_the_report_shows_what_a_matrix_asked_for_and_what_came_of_it(tmp_path, collabench):
    study = study_of(tmp_path, f"{{kind: matrix, rows: {json.dumps(MATRIX)}}}")
    train_all(study)
    result = read_json(study.workspace.folder(study.plan.runs[0]) / RESULT, Result)
    assert [list(row) for row in result.noise.asked] == MATRIX
    # six images of each class: 1.8 of them are to be wrong
    assert [row[index] for index, row in enumerate(result.noise.realised)] == [pytest.approx(4 / 6)] * 10
    called = collabench("report", "-p", "given", "--root", tmp_path)
    assert called.code == 0, called.err
    page = (study.workspace.report / "one.md").read_text()
    assert "noise by a matrix, 30 % wrong on average over classes" in page
    assert "asked for: a matrix of probabilities; realised: 33.33 % of the training labels are wrong" in page
    assert "| 9 | 30.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 70.0 |" in page
    assert "| 9 | 33.3 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 66.7 |" in page


@pytest.mark.parametrize("split", SPLITS)
def test_labels_that_depend_on_the_image(tmp_path, split, collabench):
    study = study_of(tmp_path, "{kind: instance, rate: 0.4}", split)
    train_all(study)
    shares = []
    for run in study.plan.runs:
        drawn, dataset = study.inputs.static_noise(run), study.inputs.dataset(run)
        result = read_json(study.workspace.folder(run) / RESULT, Result)
        assert torch.equal(drawn.clean, dataset.train_labels) and result.noise.rate == 0.4
        assert result.noise.asked is None and result.noise.corruption == drawn.corruption
        assert torch.equal(torch.tensor(result.noise.realised, dtype=torch.float64), drawn.transition)
        shares.append(drawn.corruption)
    assert shares[0] != shares[1] and 0.2 < np.mean(shares) < 0.6
    assert collabench("report", "-p", "given", "--root", tmp_path).code == 0
    page = (study.workspace.report / "one.md").read_text()
    assert "40 % instance-dependent noise" in page and "by probabilities that depend on the image" in page
    assert "Realised, in % of the images of each class (rows) with each label (columns), mean over runs:" in page
    assert not verify(study, sample=1, log=lambda line: None).differences


def test_labels_that_depend_on_images_that_are_not_in_memory_are_refused(tmp_path, monkeypatch):
    study = study_of(tmp_path, "{kind: instance, rate: 0.4}")
    study.inputs.prepare_datasets(lambda line: None)
    run = study.plan.runs[0]
    pool = study.inputs.dataset(run)
    with pytest.raises(DataError, match="kind: instance reads the pixels of images that fit in memory"):
        study.inputs.drawn_noise(run, replace(pool, train_images=object()))


def test_ids_are_those_of_the_content(tmp_path):
    def identity(name: str, key: str, **changed: int) -> tuple[str, str]:
        labels = digits_labels()
        write_cifar10n(tmp_path / name, labels + changed.get("shift", 0) * (labels < 9))
        study = study_of(tmp_path, f"{{kind: file, path: {name}, sha256: {sha256_of(tmp_path / name)}, key: {key}}}")
        run = study.plan.runs[0]
        return run.id, noise_key(run.configuration.dataset, run.configuration.noise)

    first = identity("a.pt", "worse_label")
    others = (identity("a.pt", "aggre_label"), identity("a.pt", "worse_label", shift=1))
    assert len({first, *others}) == 3 and len({key for _, key in (first, *others)}) == 3


def test_a_copy_of_a_file_has_the_same_ids(tmp_path):
    write_labels(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    pin = sha256_of(tmp_path / "a.npy")
    ids = [
        study_of(tmp_path, f"{{kind: file, path: {name}, sha256: {pin}}}").plan.runs[0].id
        for name in ("a.npy", "b.npy")
    ]
    assert ids[0] == ids[1]


def refusal(study: Study) -> str:
    with pytest.raises(ConfigError) as error:
        study.check_files(study.plan.runs)
    return str(error.value)


def test_what_is_refused_before_anything_is_trained(tmp_path, collabench):
    labels = tmp_path / "labels.npy"
    line = f"{tmp_path}/params.yaml:4: noise.given: path: {labels}: "
    assert (
        refusal(study_of(tmp_path, "{kind: file, path: labels.npy}")) == f"{line}does not exist; place the file there"
    )
    write_labels(labels)
    pin = sha256_of(labels)
    study = study_of(tmp_path, "{kind: file, path: labels.npy}")
    expected = f"{line}is not pinned; if it is what you want, add to the noise: sha256: {pin}"
    assert refusal(study) == expected
    called = collabench("run", "-p", "given", "--root", tmp_path)
    assert called.code == 2 and expected in called.err and called.err.count("\n") == 1
    assert not study.workspace.runs.exists() and not study.workspace.noise.exists()
    study = study_of(tmp_path, f"{{kind: file, path: labels.npy, sha256: {pin}}}")
    study.check_files(study.plan.runs)
    write_labels(labels, shift=4)
    assert "another file" in refusal(study)
    study.inputs.prepare_datasets(lambda line: None)
    with pytest.raises(DataError, match="another file"):  # also where it changed since
        study.inputs.prepare_noise(lambda line: None)
    np.save(labels, digits_labels()[:-1])
    short = study_of(tmp_path, f"{{kind: file, path: labels.npy, sha256: {sha256_of(labels)}}}")
    assert "holds 1,436 labels, and there are 1,437 training images" in refusal(short)
    with pytest.raises(DataError, match=r"^noise\.given: path: .*labels\.npy: holds 1,436 labels"):
        short.inputs.prepare_noise(lambda line: None)  # where the number of images is known only then
    (tmp_path / "m.csv").write_text("0.5,0.5\n0.5,0.5\n")
    small = study_of(tmp_path, f"{{kind: matrix, path: m.csv, sha256: {sha256_of(tmp_path / 'm.csv')}}}")
    assert "is 2 x 2, and the data set has 10 classes" in refusal(small)
    with pytest.raises(ConfigError, match=r"noise\.given: rows: is 2 x 2, and the data set has 10 classes"):
        study_of(tmp_path, "{kind: matrix, rows: [[0.5, 0.5], [0.5, 0.5]]}")


def remarks(tmp_path: Path, labels: np.ndarray) -> list[str]:
    """What is said of the order of a file of labels, once for all seeds."""
    np.save(tmp_path / "labels.npy", labels)
    study = study_of(tmp_path, f"{{kind: file, path: labels.npy, sha256: {sha256_of(tmp_path / 'labels.npy')}}}")
    lines: list[str] = []
    study.inputs.prepare_datasets(lines.append)
    study.inputs.prepare_noise(lines.append)
    return [line for line in lines if "labels in a wrong order would give" in line]


def test_labels_that_agree_with_the_data_set_no_more_than_by_chance_are_remarked(tmp_path):
    (line,) = remarks(tmp_path, (digits_labels() + 1) % 10)
    assert "100.0 % of its labels are not the data set's; labels in a wrong order would give about 90.0 %" in line


@pytest.mark.parametrize("seed", range(4))
def test_labels_in_another_order_are_remarked_whichever_order_it_is(tmp_path, seed):
    """Half of all orders have fewer wrong labels than the mean over all orders."""
    assert remarks(tmp_path, np.random.default_rng(seed).permutation(digits_labels()))


def test_an_order_is_remarked_where_most_images_have_one_class(tmp_path):
    """There a wrong order leaves most labels right. Noise of half the labels, in the right order, is no sign of it."""
    clean = np.where(np.arange(1000) < 800, 0, 1 + np.arange(1000) % 9)
    random = np.random.default_rng(0)

    def drawn(noisy: np.ndarray) -> NoisyLabels:
        tensors = torch.from_numpy(clean), torch.from_numpy(noisy)
        return NoisyLabels(*tensors, tensors[0] != tensors[1], 0.0, torch.eye(10))

    assert 0.34 < share_wrong_by_chance(drawn(random.permutation(clean))) < 0.37
    assert not remarks(tmp_path, np.where(random.random(1437) < 0.5, random.integers(0, 10, 1437), digits_labels()))


def test_the_profile_of_cifar10n_reads_the_official_format(tmp_path):
    """The real entries, on a file in the official format: 50,000 labels of each kind."""
    text = (ROOT / "params.yaml").read_text()
    path = tmp_path / "data" / "CIFAR-10_human.pt"
    path.parent.mkdir()
    pin = write_cifar10n(path, labels_of(50_000, 10))
    (tmp_path / "params.yaml").write_text(
        text.replace("path: data/CIFAR-10_human.pt,", f"path: data/CIFAR-10_human.pt, sha256: {pin},")
    )
    params = load_params(tmp_path / "params.yaml")
    plan = make_plan(params, "cifar10n")
    kinds = {c.names["noise"]: c.noise.key for c in plan.configurations.values()}
    assert kinds == {
        "cifar10n-aggregate": "aggre_label", "cifar10n-random1": "random_label1", "cifar10n-worst": "worse_label"
    }  # fmt: skip
    assert len(plan.configurations) == 12
    for configuration in plan.configurations.values():
        check_noise_file(configuration)
    write_cifar10n(path, labels_of(49_999, 10))
    with pytest.raises(ConfigError, match="another file"):
        check_noise_file(configuration)


def test_every_entry_of_cifar_n_reads_its_labels(tmp_path):
    """All six kinds of labels that CIFAR-N has, by the entries of the real params.yaml."""
    (tmp_path / "data").mkdir()
    clean = {"cifar10": labels_of(50_000, 10), "cifar100": labels_of(50_000, 100)}
    pins = {
        "cifar10": write_cifar10n(tmp_path / "data" / "CIFAR-10_human.pt", clean["cifar10"]),
        "cifar100": write_cifar100n(tmp_path / "data" / "CIFAR-100_human.pt", clean["cifar100"]),
    }
    keys = {}
    for name, noise in load_params(ROOT / "params.yaml").noise.items():
        if noise.kind != "file":
            continue
        dataset = "cifar100" if name.startswith("cifar100n") else "cifar10"
        path = tmp_path / "data" / Path(noise.path).name
        pinned = noise.model_copy(update={"path": str(path), "sha256": pins[dataset]})
        classes = tuple(f"class {number}" for number in range(int(dataset.removeprefix("cifar"))))
        given = read_labels(pinned, torch.from_numpy(clean[dataset]), classes)
        assert given.tolist() == torch.load(path, weights_only=False)[noise.key].tolist()
        keys[name] = noise.key
    assert keys == {
        "cifar10n-aggregate": "aggre_label", "cifar10n-random1": "random_label1", "cifar10n-random2": "random_label2",
        "cifar10n-random3": "random_label3", "cifar10n-worst": "worse_label", "cifar100n": "noisy_label",
    }  # fmt: skip

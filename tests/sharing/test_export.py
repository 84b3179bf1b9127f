"""`collabench export`: the model card's own code, run in a folder of its own, gives the network that the run
deployed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from collabench.cli.app import app
from collabench.config.configuration import Run
from collabench.config.known_datasets import KNOWN, terms_of
from collabench.data import names_in_source
from collabench.stats import summary
from collabench.storage.files import read_json
from collabench.storage.results import LOGITS, RESULT, WEIGHTS, Measured, Result
from collabench.study.runner import Runner
from collabench.study.study import Study, load_study
from tests.support.params import real_definitions

RECIPE = """\
  brief: {epochs: 1, batch_size: 32, learning_rate: 0.05}
  cropped: {epochs: 1, batch_size: 32, learning_rate: 0.05, augmentation: {random_resized_crop: 16}}
"""
PROFILE = """\
  small:
    description: every way to load
    seeds: 2
    tables:
      - {name: digits, datasets: [digits-tiny], noise: [uniform20],
          models: [resnet8, densenet40-12, vgg16-small, resnet18-small],
         recipes: [brief], methods: [individual]}
      - {name: others, datasets: [digits-tiny], models: [resnet8], recipes: [brief],
         methods: [individual, ensemble-2, wang2018, wang2018-without-memory]}
      - {name: colours, datasets: [colours], models: [plain-resnet18, small-stem, assembled], recipes: [brief],
         methods: [individual, wang2018]}
      - {name: photos, datasets: [photos], noise: [as-given], models: [resnet8],
         recipes: [brief, cropped], methods: [individual]}
"""
MODELS = """\
  plain-resnet18: {family: torchvision_model, name: resnet18}
  small-stem: {family: torchvision_model, name: resnet18, small_stem: true}
  assembled: {family: custom, import: "exported_model:make", arguments: {width: 6},
    stages: {first: [first], pool: [pool, flatten], last: [last]}}
"""
CUSTOM = """\
from torch import nn


class Small(nn.Module):
    def __init__(self, channels, width, classes):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(width, classes)

    def forward(self, images):
        return self.last(self.pool(self.first(images)).flatten(1))


def make(input_shape, classes, width):
    return Small(input_shape[0], width, classes)
"""

#: Makes everything unimportable but Python and what torch, torchvision and safetensors need.
WITH_THREE_PACKAGES = """\
import re, sys
from importlib import metadata

def needed(name, found):
    for line in metadata.requires(name) or ():
        other = re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-")
        if "extra ==" not in line and other not in found:
            try:
                metadata.distribution(other)
            except metadata.PackageNotFoundError:  # for another system
                continue
            found.add(other)
            needed(other, found)
    return found

three = {"torch", "torchvision", "safetensors"}
for name in tuple(three):
    needed(name, three)
hidden = {
    top for top, names in metadata.packages_distributions().items()
    if not {name.lower().replace("_", "-") for name in names} & three
} - {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
assert {"collabench", "pandas", "scipy", "sklearn", "pydantic", "yaml"} <= hidden | {"collabench"}

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden | {"collabench"}:
            raise ModuleNotFoundError(f"hidden: {name}", name=name)

sys.meta_path.insert(0, Hidden())
"""

#: Makes the package unimportable, after torchvision's import has been let through on builds that don't fit the torch
#: beside it.
WITHOUT_THE_PACKAGE = """\
import sys
from collabench.core.torchvision_import import import_torchvision
import_torchvision()
for name in [name for name in sys.modules if name.split(".")[0] == "collabench"]:
    del sys.modules[name]
sys.modules["collabench"] = None
"""


def write_project(root: Path) -> None:
    colours = "  colours: {source: images, path: colours, resize: 32}\n"
    colours += "  photos: {source: images, path: photos, resize: 24, test_fraction: 0.3}\n"
    as_given = "  as-given: {kind: none}\n"
    text = real_definitions(PROFILE, recipes=RECIPE, models=MODELS, datasets=colours, noise=as_given)
    (root / "params.yaml").write_text(text)
    (root / "exported_model.py").write_text(CUSTOM)
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for kind in ("dark", "light"):
            folder = root / "colours" / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 128, (32, 32, 3), dtype=np.uint8) + (0 if kind == "dark" else 120)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    for kind in ("dark", "light"):
        (root / "photos" / kind).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 128, (30 + number, 44 - number, 3), dtype=np.uint8)
            pixels = np.asarray(Image.fromarray(pixels).resize((44 - number, 30 + number), Image.Resampling.BOX))
            Image.fromarray(pixels + (0 if kind == "dark" else 120)).save(root / "photos" / kind / f"{number}.png")
    from collabench.config.params import load_params
    from collabench.data import source_digest

    path = root / "params.yaml"
    for name in ("colours", "photos"):
        digest = source_digest(load_params(path).datasets[name], root)
        path.write_text(path.read_text().replace(f"path: {name},", f"path: {name}, sha256: {digest},"))


pytestmark = pytest.mark.slow  # trains 27 networks


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    root = tmp_path_factory.mktemp("export") / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        write_project(root)
        study = load_study(root, "small")
        study.inputs.prepare_datasets(lambda line: None)
        study.inputs.prepare_noise(lambda line: None)
        outcome = Runner(study).train(study.plan.runs, device="cpu", log=lambda line: None)
        assert not outcome.failed
        yield study


def one(study: Study, model: str, method: str, table: str | None = None) -> str:
    (found,) = {
        cell.configuration.id
        for cell in study.plan.cells
        if (cell.configuration.names["model"], cell.configuration.names["method"]) == (model, method)
        and table in (None, cell.table)
    }
    return found


def export(study: Study, configuration: str, out: Path, *options: str):
    arguments = ["export", "-p", "small", "--root", str(study.workspace.root), "--configuration", configuration]
    return CliRunner().invoke(app, [*arguments, "--seed", "1", "--out", str(out), *options], catch_exceptions=True)


def code_of(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


def logits_of_the_card(study: Study, configuration: str, out: Path, monkeypatch):
    """Run the card's code where only the exported files are, and give it the test images."""
    monkeypatch.chdir(out)
    monkeypatch.syspath_prepend(str(out))
    monkeypatch.delitem(sys.modules, "network", raising=False)
    names: dict = {}
    exec(compile(code_of((out / "MODEL_CARD.md").read_text()), "MODEL_CARD.md", "exec"), names)
    dataset = study.inputs.dataset(Run(study.plan.configurations[configuration], 0))
    return names["predict"](dataset.test_images.permute(0, 3, 1, 2)), dataset.test_labels, names["network"]


@pytest.mark.parametrize(
    ("model", "method", "table"),
    [
        ("resnet8", "individual", "digits"),
        ("densenet40-12", "individual", None),
        ("vgg16-small", "individual", None),
        ("resnet18-small", "individual", None),
        ("plain-resnet18", "individual", None),
        ("small-stem", "individual", None),
        ("assembled", "individual", None),
        ("resnet8", "wang2018", None),
        ("resnet8", "wang2018-without-memory", None),
        ("plain-resnet18", "wang2018", None),
    ],
)
def test_the_cards_code_gives_the_logits_that_the_run_stored(study, tmp_path, monkeypatch, model, method, table):
    configuration = one(study, model, method, table)
    done = export(study, configuration, tmp_path / "out")
    assert done.exit_code == 0, done.output
    logits, _, network = logits_of_the_card(study, configuration, tmp_path / "out", monkeypatch)
    folder = study.workspace.runs / configuration / "seed-1"
    stored = load_file(folder / LOGITS)["deployed"].float()
    assert logits.shape == stored.shape
    # float16 logits, and pixels normalised in another order of operations
    assert (logits - stored).abs().max() <= 2e-3 * stored.abs().max().clamp(min=1)
    assert not network.training
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_torchvision_model_needs_no_code_of_this_project(study, tmp_path):
    for model in ("plain-resnet18", "small-stem"):
        assert export(study, one(study, model, "individual"), tmp_path / model).exit_code == 0
        code = code_of((tmp_path / model / "MODEL_CARD.md").read_text())
        assert "torchvision.models.resnet18(num_classes=2)" in code and "collabench" not in code
        blocked = f"{WITHOUT_THE_PACKAGE}{code}\nprint(sum(1 for _ in network.parameters()))"
        done = subprocess.run(
            [sys.executable, "-c", blocked], cwd=tmp_path / model, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["62"]


@pytest.mark.parametrize("recipe", ["brief", "cropped"])
def test_photos_are_classified_with_three_packages_alone(study, tmp_path, recipe):
    """The card's code in a child process that can import torch, torchvision and safetensors, and what these need."""
    (configuration,) = [
        cell.configuration
        for cell in study.plan.cells
        if cell.table == "photos" and cell.configuration.names["recipe"] == recipe
    ]
    assert export(study, configuration.id, tmp_path / "out").exit_code == 0
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "| labels | labels as given |" in card and "clean" not in card
    workspace = study.workspace
    names = names_in_source(configuration.dataset, 1, workspace.downloads, workspace.base_of_data)[1]
    paths = [str(workspace.root / "photos" / name) for name in names]
    last = f"import json\nprint(json.dumps([predict_file(path) for path in {paths}]))"
    program = f"{WITH_THREE_PACKAGES}{code_of(card)}\n{last}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "out", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    stored = load_file(study.workspace.runs / configuration.id / "seed-1" / LOGITS)["deployed"].double()
    expected = stored.softmax(dim=1).tolist()
    assert len(found) == len(expected) == 12
    for probabilities, (dark, light) in zip(found, expected, strict=True):
        # a run resizes whole arrays, in floating-point numbers, for the recipe's crop; a photo is resized in bytes
        assert probabilities["dark"] == pytest.approx(dark, abs=0.02 if recipe == "cropped" else 2e-3)
        assert probabilities["light"] == pytest.approx(light, abs=0.02 if recipe == "cropped" else 2e-3)
        assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)


def test_the_plain_network_of_wang2018_is_exported_with_the_error_that_it_has(study, tmp_path, monkeypatch):
    import torchvision

    configuration = one(study, "plain-resnet18", "wang2018")
    with_memory, without = tmp_path / "with", tmp_path / "without"
    assert export(study, configuration, with_memory).exit_code == 0
    done = export(study, configuration, without, "--without-memory")
    assert done.exit_code == 0, done.output
    kept, plain = load_file(with_memory / "model.safetensors"), load_file(without / "model.safetensors")
    assert {name for name in kept if name not in plain} == {
        "memory.slots", "assistance.encode.weight", "assistance.encode.bias", "assistance.assist.weight",
        "assistance.assist.bias",
    }  # fmt: skip
    torchvision.models.resnet18(num_classes=2).load_state_dict(plain)
    logits, labels, _ = logits_of_the_card(study, configuration, without, monkeypatch)
    error = 100 * (logits.argmax(dim=1) != labels).double().mean().item()
    assert f"test error {error:.2f} %" in done.output
    card = (without / "MODEL_CARD.md").read_text()
    assert f"| test error of this network | {error:.2f} %" in card and "without its memory" in card
    assert "with its frozen memory" in (with_memory / "MODEL_CARD.md").read_text()


def test_the_card_says_what_how_and_whence(study, tmp_path):
    configuration = one(study, "resnet8", "individual", "digits")
    assert export(study, configuration, tmp_path).exit_code == 0
    card = (tmp_path / "MODEL_CARD.md").read_text()
    folders = [study.workspace.runs / configuration / f"seed-{seed}" for seed in (0, 1)]
    results = [read_json(folder / RESULT, Result) for folder in folders]
    measured = read_json(study.workspace.measured / configuration / "seed-1.json", Measured)
    found = summary([100 * result.last.error for result in results])
    interval = (
        f"95 % interval of the mean {found.low:.2f} to {found.high:.2f} %" if found.low is not None else "no interval"
    )
    for text in (
        f"| test error of this network | {100 * results[1].last.error:.2f} %",
        f"mean {found.mean:.2f} %, standard deviation {found.sd:.2f}, n = 2; {interval}",
        "uniform, drawn once for each seed; asked for: 20 % of the labels are drawn anew",
        f"{100 * results[1].noise.corruption:.2f} % of the training labels were wrong",
        '"epochs": 1',
        "160 training and 100 test images",
        terms_of("digits").origin,
        f"| licence or terms | {terms_of('digits').licence} |",
        results[1].dataset_digest,
        hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest(),
        f"torch {measured.versions['torch']}",
        measured.device,
        results[1].run_id,
    ):
        assert text in card, text


def test_what_is_not_known_is_called_unknown(study, tmp_path):
    configuration = one(study, "assembled", "individual")
    path = study.workspace.measured / configuration / "seed-1.json"
    content = path.read_bytes()
    path.unlink()
    try:
        assert export(study, configuration, tmp_path).exit_code == 0
    finally:
        path.write_bytes(content)
    card = (tmp_path / "MODEL_CARD.md").read_text()
    for row in ("commit", "device", "versions", "finished"):
        assert f"| {row} | unknown |" in card
    assert "| licence or terms | unknown: ask whoever made the files |" in card


def test_every_source_but_a_users_own_has_terms():
    from typing import get_args

    from collabench.config.data_sections import DatasetConfig

    assert KNOWN.keys() == set(get_args(DatasetConfig.model_fields["source"].annotation)) - {"images", "medmnist"}


@pytest.mark.parametrize(
    ("source", "package", "name"),
    [
        ("digits", "sklearn", "datasets/descr/digits.rst"),
        ("cifar10", "torchvision", "datasets/cifar.py"),
        ("cifar100", "torchvision", "datasets/cifar.py"),
        ("stl10", "torchvision", "datasets/stl10.py"),
        ("imagenet32", "torchvision", "datasets/imagenet.py"),
        ("imagenet", "torchvision", "datasets/imagenet.py"),
    ],
)
def test_the_page_of_a_source_is_the_one_that_an_installed_file_names(source, package, name):
    (folder,) = importlib.util.find_spec(package).submodule_search_locations
    licence = terms_of(source).licence
    assert licence.startswith("unknown: see https://")
    text = (Path(folder) / name).read_text()
    assert licence.removeprefix("unknown: see https").removesuffix("/") in text


@pytest.mark.parametrize(
    ("model", "method", "options", "message"),
    [
        ("resnet8", "ensemble-2", (), "has no weights of its own"),
        ("resnet8", "individual", ("--without-memory",), "was not deployed with a memory"),
        ("resnet8", "wang2018", ("--seed", "7"), "seed 7: not run"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line_and_nothing_is_written(
    study, tmp_path, model, method, options, message
):
    table = "others" if method == "individual" else None
    done = export(study, one(study, model, method, table), tmp_path / "out", *options)
    assert done.exit_code == 1 and message in str(done.exception) and "\n" not in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_an_unknown_configuration_and_a_file_as_folder_are_refused(study, tmp_path):
    assert "no configuration 'nonsense'" in str(export(study, "nonsense", tmp_path / "out").exception)
    configuration = one(study, "assembled", "individual")
    assert "must be a folder" in str(export(study, configuration, tmp_path / "head.safetensors").exception)


def test_damaged_weights_are_not_exported(study, tmp_path):
    configuration = one(study, "assembled", "individual")
    path = study.workspace.runs / configuration / "seed-1" / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        done = export(study, configuration, tmp_path / "out")
    finally:
        path.write_bytes(content)
    assert "damaged" in str(done.exception) and str(path) in str(done.exception)
    assert not (tmp_path / "out").exists()

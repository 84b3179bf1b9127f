"""Training that begins with the weights of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from collabench.config.compatibility import check_files
from collabench.config.configuration import Run
from collabench.core.errors import ConfigError
from collabench.models import build_backbone
from collabench.models.pretrained import PretrainedWeights, load_pretrained, read_weights
from collabench.report.titles import model as title
from collabench.training import make_context
from collabench.training.flops import count
from tests.support.synthetic import CLASSES, SMALL_MODELS, configuration_of, model_of, settings_of
from tests.support.training_cases import SHAPE, train

RESNET = SMALL_MODELS[0]


def weights_of(classes: int = CLASSES, seed: int = 11) -> dict[str, torch.Tensor]:
    return build_backbone(model_of(RESNET), SHAPE, classes, seed).state_dict()


def saved(path: Path, weights: object, fresh: tuple[str, ...] = ()) -> PretrainedWeights:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path)
    return PretrainedWeights(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), fresh=fresh)


def configuration(weights: PretrainedWeights | None, method: str = "individual", **values: object):
    return configuration_of(
        settings_of(method, **values), model_of(RESNET | ({} if weights is None else {"weights": weights}))
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "nested.pth"])
def test_training_begins_with_the_weights_of_the_file(tmp_path, name):
    weights = weights_of()
    entry = saved(tmp_path / name, {"state_dict": weights, "epoch": 3} if name.startswith("nested") else weights)
    context = make_context(configuration(entry), SHAPE, CLASSES, 5)
    for copy in (0, 1):
        assert all(torch.equal(value, weights[key]) for key, value in context.make_backbone(copy).state_dict().items())
    still = {"learning_rate": 1e-30, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    run = Run(configuration_of(settings_of("individual"), model_of(RESNET | {"weights": entry}), **still), 0)
    found = train(run).weights
    assert found is not None and torch.equal(found["stem.0.weight"], weights["stem.0.weight"])


def test_fresh_modules_keep_their_initial_weights_which_differ_between_copies(tmp_path):
    weights = weights_of(classes=9)
    entry = saved(tmp_path / "w.safetensors", weights, ("classifier",))
    plain = make_context(configuration(None), SHAPE, CLASSES, 5)
    context = make_context(configuration(entry, "dml"), SHAPE, CLASSES, 5)
    for copy in (0, 1):
        found, initial = context.make_backbone(copy).state_dict(), plain.make_backbone(copy).state_dict()
        assert torch.equal(found["classifier.weight"], initial["classifier.weight"])
        assert torch.equal(found["stage2.0.conv1.weight"], weights["stage2.0.conv1.weight"])
    assert len(train(Run(configuration(entry, "dml"), 5)).result.heads) == 2


def test_the_order_of_fresh_modules_changes_no_id(tmp_path):
    orders = ("classifier", "stem"), ("stem", "classifier")
    first, second = (saved(tmp_path / "w.safetensors", weights_of(), fresh) for fresh in orders)
    assert configuration(first).id == configuration(second).id


def test_the_checksum_and_what_is_fresh_are_in_the_id_and_the_path_is_not(tmp_path):
    entry = saved(tmp_path / "w.safetensors", weights_of())
    ids = {
        configuration(None).id,
        configuration(entry).id,
        configuration(entry.model_copy(update={"sha256": "0" * 64})).id,
        configuration(entry.model_copy(update={"fresh": ("classifier",)})).id,
    }
    assert len(ids) == 4
    assert configuration(entry.model_copy(update={"path": "elsewhere"})).id == configuration(entry).id
    assert "weights" not in configuration(None).identity()["model"]
    assert title("small", configuration(entry).model) == f"ResNet-8 (width 4), pretrained ({entry.sha256[:8]})"


def refusal(entry: PretrainedWeights) -> str:
    with pytest.raises(ConfigError) as error:
        check_files(configuration(entry))
    message = str(error.value)
    assert message.isprintable() and "models.model: weights." in message
    return message


def test_what_does_not_fit_is_named_before_training(tmp_path):
    weights = weights_of(classes=10)  # of digits, which the configuration names
    fits = saved(tmp_path / "w.safetensors", weights)
    check_files(configuration(fits))
    renamed = {f"module.{key}" if key.startswith("stem.0") else key: value for key, value in weights.items()}
    message = refusal(saved(tmp_path / "renamed.safetensors", renamed))
    assert "stem.0.weight is missing; module.stem.0.weight is not of this model; weights.fresh" in message
    message = refusal(saved(tmp_path / "other.safetensors", weights_of(classes=7)))
    assert "classifier.weight is (7, 16) and should be (10, 16); classifier.bias is (7,) and should be (10,)" in message
    assert "no module 'head'; its modules: stem" in refusal(fits.model_copy(update={"fresh": ("head",)}))
    without_effect = {
        ("pool",): "weights.fresh: the module 'pool' has no weights, so that naming it changes nothing",
        ("stem", "stem.0"): "weights.fresh: the module 'stem.0' is within 'stem', which is named too",
    }
    for fresh, message in without_effect.items():
        assert message in refusal(fits.model_copy(update={"fresh": fresh}))
    assert "its SHA-256 is" in refusal(fits.model_copy(update={"sha256": "0" * 64}))
    assert "cannot be read (No such file" in refusal(fits.model_copy(update={"path": str(tmp_path / "none")}))
    without_counts = {key: value for key, value in weights.items() if "num_batches" not in key}
    check_files(configuration(saved(tmp_path / "old.safetensors", without_counts)))


class Planted:
    """Something that a pickle would call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "what"),
    [(Planted(), "nor one that torch.save wrote of tensors alone"), ({"a": 1}, "does not hold tensors by name"),
     ([torch.zeros(1)], "does not hold tensors by name")],
)  # fmt: skip
def test_nothing_in_a_file_is_executed(tmp_path, content, what, capsys):
    entry = saved(tmp_path / "w.pt", content)
    with pytest.raises(ConfigError, match=what):
        read_weights(Path(entry.path), entry.sha256)
    assert "executed" not in capsys.readouterr().out


def test_costs_are_counted_without_numbers(tmp_path):
    entry = saved(tmp_path / "w.safetensors", weights_of())
    assert count(configuration(entry), SHAPE, CLASSES) == count(configuration(None), SHAPE, CLASSES)
    with torch.device("meta"):
        backbone = build_backbone(model_of(RESNET), SHAPE, CLASSES, 0)
    load_pretrained(backbone, entry)

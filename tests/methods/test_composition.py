"""Methods with every kind of backbone, with label smoothing, with mixed precision; what is deployed after training;
models that somebody else wrote; sizes against published ones. What is refused:
tests/system/bad_input/test_combinations.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from collabench.config.configuration import RequiredRun, Run
from collabench.core.errors import ConfigError
from collabench.core.seeding import stream_seed
from collabench.core.torchvision_import import import_torchvision
from collabench.data import Dataset
from collabench.methods import METHODS
from collabench.methods.wang2018 import AssistedBackbone
from collabench.models import build_backbone
from collabench.training import Trained, loop, make_context, train_run
from collabench.training.context import make_method
from collabench.training.flops import count
from tests.support.synthetic import CLASSES, SMALL_MODELS, blobs, configuration_of, model_of, settings_of

CPU = torch.device("cpu")
SMALL, LARGE = (1, 8, 8), (3, 32, 32)
TRAINED = [name for name in METHODS if METHODS[name].Method.trains]

CUSTOM = {
    "family": "custom",
    "import": "tests.support.networks:make",
    "arguments": {"width": 6},
    "stages": {"body": ("conv",), "pool": ("pool", "flatten"), "classifier": ("fc",)},
}
#: Name → settings and images.
MODELS = {
    "cifar_resnet": (SMALL_MODELS[0], SMALL),
    "vgg": (SMALL_MODELS[1], SMALL),
    "resnet": (SMALL_MODELS[2], SMALL),
    "densenet": ({"family": "densenet", "depth": 10, "growth": 3}, SMALL),
    "densenet-bc": ({"family": "densenet", "depth": 10, "growth": 3, "bottleneck": True, "compression": 0.5}, SMALL),
    "custom": (CUSTOM, SMALL),
    "torchvision": ({"family": "torchvision_model", "name": "resnet18"}, LARGE),
}
#: What a method needs on a backbone that has none of its default split points and no intermediate stage.
SPLIT = {"song2018": {"graph": "simple_ilr", "split_after": ("body",)}, "one": {"split_after": "body"},
    "okddip": {"split_after": "body"}, "auxiliary": {"after": ("body",)}}  # fmt: skip


def run_on(model: str, method: str, recipe: dict | None = None, models: dict | None = None, **values) -> Run:
    settings = settings_of(method, **(SPLIT.get(method, {}) if model == "custom" else {}), **values)
    on = model_of(MODELS[model][0])
    recipe = {"epochs": 1, "batch_size": 8, "learning_rate": 0.002} | (recipe or {})
    plain = configuration_of(settings_of("individual"), on, **recipe)
    requires = tuple(RequiredRun(configuration=plain, member=r.member) for r in settings.requires())
    peer_models = {name: model_of(entry) for name, entry in (models or {}).items()}
    return Run(configuration_of(settings, on, requires=requires, peer_models=peer_models, **recipe), 3)


def train(model: str, method: str, **values) -> tuple[Trained, Run, Dataset]:
    """A few steps on the model's images."""
    run, shape = run_on(model, method, **values), MODELS[model][1]
    teachers = [
        build_backbone(r.configuration.model, shape, CLASSES, stream_seed(r.seed, "init",
            0)).eval() for r in run.requires()
    ]  # fmt: skip
    dataset = blobs(16, 6, shape)
    return train_run(run, dataset, device=CPU, teachers=teachers), run, dataset


def images_of_test(dataset: Dataset) -> Tensor:
    """(N, C, H, W), normalised."""
    images = dataset.test_images.float() / 255
    return ((images - torch.tensor(dataset.mean)) / torch.tensor(dataset.std)).permute(0, 3, 1, 2)


def fits(method: str, model: str) -> bool:
    return method != "fang2021" or model in ("vgg", "resnet")


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.slow if name == "torchvision" else ()) for name in MODELS]
)
@pytest.mark.parametrize("method", TRAINED)
def test_every_method_trains_and_deploys_a_plain_network_of_every_kind(method, model):
    """With label smoothing. The deployed weights are those of the plain model, which gives the recorded outputs."""
    values = {"label_smoothing": 0.1} | ({"deployment": "without_memory"} if method == "wang2018" else {})
    if not fits(method, model):
        settings, shape = settings_of(method, **values), MODELS[model][1]
        with pytest.raises(ValueError, match="needs a backbone") as error:
            settings.check_fits(build_backbone(model_of(MODELS[model][0]), shape, CLASSES, 0), "float32", shape)
        assert "\n" not in str(error.value)
        return
    trained, run, dataset = train(model, method, **values)
    curves = trained.result.curves.losses
    assert curves and all(math.isfinite(value) for values in curves.values() for value in values)
    plain = build_backbone(run.configuration.model, MODELS[model][1], CLASSES, 99).eval()
    plain.load_state_dict(trained.weights)  # every key, and no other
    with torch.no_grad():
        outputs = plain(images_of_test(dataset))
    assert torch.allclose(outputs, trained.logits["deployed"].float(), rtol=2e-3, atol=2e-3)
    assert trained.result.parameters == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("memory", ["shared", "private"])
@pytest.mark.parametrize(
    "model,peer", [("cifar_resnet", "densenet"), ("densenet", "vgg"), ("resnet", "custom"), ("vgg", "cifar_resnet")]
)
def test_the_mutual_knowledge_base_joins_networks_of_different_kinds(model, peer, memory):
    """Deployed with its frozen memory: the recorded outputs, the plain keys beside the memory's, and what that
    costs."""
    run = run_on(model, "wang2018", None, {"peer": MODELS[peer][0]}, memory=memory, peers=("peer",))
    dataset = blobs(16, 6, SMALL)
    trained = train_run(run, dataset, device=CPU)
    method = make_method(run.configuration, make_context(run.configuration, SMALL, CLASSES, run.seed))
    network = method.build()
    assert [type(b).__name__ for b in network.backbones] == ["Backbone", "Backbone"]
    assert network.backbones[0].stage_names != network.backbones[1].stage_names
    deployed = method.deploy(network).eval()
    assert isinstance(deployed, AssistedBackbone)
    deployed.load_state_dict(trained.weights)
    with torch.no_grad():
        outputs = deployed(images_of_test(dataset))
    assert torch.allclose(outputs, trained.logits["deployed"].float(), rtol=2e-3, atol=2e-3)
    plain = build_backbone(run.configuration.model, SMALL, CLASSES, 99)
    memory = [p for part in (deployed.assistance, deployed.memory) for p in part.parameters()]
    assert trained.result.parameters == sum(p.numel() for p in (*plain.parameters(), *memory))


@pytest.mark.parametrize("method", TRAINED)
def test_mixed_precision(method, monkeypatch):
    """bfloat16 arithmetic under autocast: losses close to those of float32 arithmetic, weights in float32."""
    monkeypatch.setattr(loop, "check_execution", lambda *arguments: None)  # it would be slow here, but right
    model = "vgg" if method == "fang2021" else "cifar_resnet"
    plain, _, _ = train(model, method)
    mixed, _, _ = train(model, method, recipe={"precision": "bfloat16"})
    assert mixed.weights and all(value.dtype in (torch.float32, torch.int64) for value in mixed.weights.values())
    assert any(not torch.equal(value, mixed.weights[key]) for key, value in plain.weights.items())
    for name, losses in plain.result.curves.losses.items():
        assert mixed.result.curves.losses[name] == pytest.approx(losses, rel=0.1, abs=0.05), name


# --------------------------------------------------------------------------------------- models of somebody else


class Branching(nn.Module):
    """What no chain of its modules is."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc(self.pool(x + self.other(x)).flatten(1))


def branching(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Branching(input_shape[0], classes)


def test_a_chain_that_is_not_the_model_is_refused_in_one_line():
    entry = CUSTOM | {
        "import": f"{__name__}:branching", "arguments": {},
        "stages": {"body": ("conv", "other"), "pool": ("pool", "flatten"), "classifier": ("fc",)},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="does not reproduce the model's own output in training") as error:
        build_backbone(model_of(entry), SMALL, CLASSES, 0)
    assert "\n" not in str(error.value)


def test_a_custom_model_with_its_flattening_stated_is_the_model_bit_for_bit():
    from tests.support.networks import make

    backbone = build_backbone(model_of(CUSTOM), SMALL, CLASSES, 0).eval()
    model = make(SMALL, CLASSES, width=6).eval()
    model.load_state_dict(backbone.state_dict())
    images = torch.randn(3, *SMALL, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone(images), model(images))
    assert backbone.stage_names == ("body", "pool", "classifier")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,stages",
    [
        ("resnet50", None),
        ("mobilenet_v2", {"low": ("features.0", "features.1", "features.2"),
                          "high": tuple(f"features.{i}" for i in range(3, 19)),
                          "pool": (), "classifier": ("classifier",)}),
        ("vgg11", {"features": ("features",), "pool": ("avgpool", "flatten"), "classifier": ("classifier",)}),
    ],
)  # fmt: skip
def test_any_torchvision_model_whose_stages_are_named(name, stages):
    """Bit for bit, or one line: mobilenet_v2 pools by a function that no module names."""
    shape = (3, 64, 64)
    if name == "mobilenet_v2":
        entry = {"family": "torchvision_model", "name": name, "stages": {k: v for k, v in stages.items() if v}}
        with pytest.raises(ConfigError) as error:
            build_backbone(model_of(entry), shape, 7, 0)
        assert "\n" not in str(error.value) and "mobilenet_v2" in str(error.value)
        return
    entry = {"family": "torchvision_model", "name": name} | ({"stages": stages} if stages else {})
    backbone = build_backbone(model_of(entry), shape, 7, 0).eval()
    plain = getattr(import_torchvision().models, name)(num_classes=7).eval()
    plain.load_state_dict(backbone.state_dict())
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(backbone(images), plain(images))


# ---------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "name,weights",
    [
        pytest.param("resnet50", "ResNet50_Weights", marks=pytest.mark.slow),
        pytest.param("resnet101", "ResNet101_Weights", marks=pytest.mark.slow),
        ("resnet18", "ResNet18_Weights"),
    ],
)  # fmt: skip
def test_parameters_and_multiply_adds_are_those_that_torchvision_publishes(name, weights):
    """Its model cards: number of parameters, and 10^9 multiply-adds of one 224x224 image."""
    published = getattr(import_torchvision().models, weights).IMAGENET1K_V1.meta
    entry = {"family": "torchvision_model", "name": name}
    counts = count(configuration_of(settings_of("individual"), model_of(entry), batch_size=2), (3, 224, 224), 1000)
    assert counts.parameters == published["num_params"]
    assert counts.forward / 2 / 1e9 == pytest.approx(published["_ops"], abs=0.0015)

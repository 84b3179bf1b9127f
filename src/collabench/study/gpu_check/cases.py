"""The configurations that are trained on a GPU and on the CPU: every method, and the switches that take other paths.

The models are small and the images have 8x8 pixels, so that all of them take seconds.
"""

from __future__ import annotations

from typing import Any

from collabench.config.configuration import CONDITION, Configuration, RequiredRun
from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.config.dataset_shape import DatasetShape
from collabench.config.sections import RecipeConfig
from collabench.methods import METHODS, MethodSettings
from collabench.models import FAMILIES, ModelSettings
from collabench.models.on_meta import backbone_on_meta, shapes_only

CLASSES = 4
SHAPE = (1, 8, 8)
#: torchvision's networks take images of three channels.
COLOURED = (3, 8, 8)

#: Small models for 1x8x8 images, in the order in which a method is offered them.
SMALL_MODELS: tuple[dict[str, Any], ...] = (
    {"family": "cifar_resnet", "depth": 8, "width": 4},
    {"family": "vgg", "blocks": (1, 1), "width": 4, "poolings": 1, "hidden": 8},
    {"family": "resnet", "blocks": (1, 1), "width": 4, "hidden": 8},
)
VGG, RESNET = SMALL_MODELS[1], SMALL_MODELS[2]
DENSENET = {"family": "densenet", "depth": 10, "growth": 4}
TORCHVISION = {"family": "torchvision_model", "name": "resnet18", "small_stem": True}

#: Name → method, its settings, the model if it is not the first small one that the method accepts.
SWITCHES: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "song2018 alternating": ("song2018", {"optimisation": "alternating"}, None),
    "song2018 loss scaling": ("song2018", {"scaling": "loss_scaling"}, None),
    "song2018 through the target": ("song2018", {"gradient_through_target": True}, None),
    "song2018 label smoothing": ("song2018", {"label_smoothing": 0.1}, None),
    "song2018 on a VGG": ("song2018", {}, VGG),
    "dml in turn on a VGG": ("dml", {"optimisation": "in_turn"}, VGG),
    "dml through the target": ("dml", {"gradient_through_target": True}, None),
    "one through the target": ("one", {"gradient_through_target": True}, None),
    "okddip through the target": ("okddip", {"gradient_through_target": True}, None),
    "one as published": ("one", {"heads": 3, "gate": "normalised", "ramp_epochs": 2}, None),
    "okddip as published": (
        "okddip",
        {"target_average": "logits", "attention_divisor": 8, "ramp_epochs": 2, "gradient_through_target": True},
        None,
    ),
    "wang2018 consensus": ("wang2018", {"consensus_weight": 1.0}, None),
    "wang2018 without memory": ("wang2018", {"deployment": "without_memory"}, None),
    "fang2021 out on a VGG": ("fang2021", {"losses": ("out",), "out_added": True, "out_shared_masks": True}, VGG),
    "fang2021 mid on a ResNet": ("fang2021", {"losses": ("mid",), "mid_include_output": True}, RESNET),
    "fang2021 pull-push of pixels": (
        "fang2021", {"losses": ("pull_push",), "input_descriptor": "pixels", "centre": "sample"}, RESNET,
    ),
    "fang2021 kernel on all layers": (
        "fang2021", {"losses": ("kernel",), "kernel_groups": None, "kernel_shortcuts": True}, RESNET,
    ),
    "fang2021 on a ResNet": ("fang2021", {}, RESNET),
    "individual on a DenseNet": ("individual", {}, DENSENET),
    "individual on torchvision's ResNet": ("individual", {}, TORCHVISION),
}  # fmt: skip


def settings_of(method: str, **values: Any) -> MethodSettings:
    """A method's settings: its defaults but for ``values``."""
    found: MethodSettings = METHODS[method].Settings(method=method, **values)
    return found


def model_of(values: dict[str, Any]) -> ModelSettings:
    """A model's settings."""
    found: ModelSettings = FAMILIES[values["family"]].Settings(**values)
    return found


def configuration_of(
    method: MethodSettings,
    model: ModelSettings | None = None,
    noise: NoiseConfig | None = None,
    requires: tuple[RequiredRun, ...] = (),
    peer_models: dict[str, ModelSettings] | None = None,
    **recipe: Any,
) -> Configuration:
    """A configuration for images made of random numbers: the data set's entry is only a name here."""
    values: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.05,
        "weight_decay": 1e-4,
        "nesterov": True,
    } | recipe
    return Configuration(
        names={part: part for part in CONDITION} | {"method": method.method},
        dataset=DatasetConfig(source="digits"),
        noise=noise or NoiseConfig(kind="none"),
        model=model or model_of(SMALL_MODELS[0]),
        recipe=RecipeConfig(**values),
        method=method,
        requires=requires,
        peer_models=peer_models or {},
    )


def configuration(method: str, **recipe: Any) -> Configuration:
    """The method with its default settings on the first small model that it accepts. Raises ValueError if none."""
    settings = settings_of(method)
    refusals = []
    for values in SMALL_MODELS:
        model = model_of(values)
        backbone = backbone_on_meta(model, SHAPE, CLASSES)
        try:
            with shapes_only():
                settings.check_fits(backbone, "float32", SHAPE)
        except ValueError as error:
            refusals.append(str(error))
            continue
        plain = configuration_of(settings_of("individual"), model, **recipe)
        requires = tuple(RequiredRun(configuration=plain, member=r.member) for r in settings.requires())
        return configuration_of(settings, model, requires=requires, **recipe)
    raise ValueError(f"{method} accepts none of the small models: {refusals}")


def cases(**recipe: Any) -> dict[str, Configuration]:
    """Name → configuration of every method and switch, at a learning rate at which rounding does not grow.

    torchvision's network needs a smaller one. Its last stages normalise few numbers: in float32 a rounding error that
    switches a rectifier changed a loss by 2e-3 after three steps, between two layouts on one CPU.
    """
    recipe = {"learning_rate": 1e-3} | recipe
    found = {name: configuration(name, **recipe) for name in METHODS}
    for name, (method, settings, model) in SWITCHES.items():
        chosen = model_of(model) if model else configuration(method).model
        smaller = {"learning_rate": 1e-4} if model is TORCHVISION else {}
        found[name] = configuration_of(settings_of(method, **settings), chosen, **(recipe | smaller))
    return found


def form_of(chosen: Configuration) -> DatasetShape:
    """The shape of the images that a case is trained on, and their number."""
    shape = COLOURED if chosen.model.family == "torchvision_model" else SHAPE
    return DatasetShape(shape=shape, classes=CLASSES, train_images=48, test_images=24)

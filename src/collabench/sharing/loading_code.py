"""The code of a model card: it loads an exported network and predicts the classes of images and of photos."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from collabench.config.configuration import Configuration

if TYPE_CHECKING:
    from torch import Tensor, nn

    from collabench.data import Manifest

MODEL, NETWORK = "model.safetensors", "network.py"

_PREDICT_FILE = '''

def fitted(image, width, height, scale):
    """The image resized by a factor (bilinear, antialiased), and the middle of it, width x height pixels."""
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.crop((left, top, left + width, top + height))


def predict_file(path):
    """Class: probability of an image file, the most probable class first."""
    image = {open}.convert("{mode}")
{fit}
    pixels = torch.from_numpy(numpy.array(image)).reshape(1, image.height, image.width, -1).permute(0, 3, 1, 2)
    probabilities = torch.softmax(predict(pixels)[0], dim=0).tolist()
    return dict(sorted(zip(classes, probabilities), key=lambda pair: -pair[1]))'''


def build_deployed(configuration: Configuration, manifest: Manifest, weights: dict[str, Tensor]) -> nn.Module:
    """The deployed network with its weights, in eval mode, on the CPU."""
    from collabench.methods.wang2018 import Assistance, AssistedBackbone, MutualKnowledgeBase
    from collabench.models import build_backbone

    shape = manifest.form.network_shape(configuration.recipe)
    network: nn.Module = build_backbone(configuration.model, shape, len(manifest.classes), weights_seed=0)
    if has_memory(weights):
        width, features = weights["assistance.encode.weight"].shape
        memory = MutualKnowledgeBase(len(weights["memory.slots"]), width)
        network = AssistedBackbone(network, Assistance(features, width), memory)  # type: ignore[arg-type]
    network.load_state_dict(weights)
    return network.eval()


def has_memory(weights: dict[str, Tensor]) -> bool:
    """Whether a network was deployed with a frozen memory (wang2018)."""
    return "memory.slots" in weights


def loading_code(
    configuration: Configuration, manifest: Manifest, weights: dict[str, Tensor]
) -> tuple[str, str | None]:
    """Python code that loads :data:`MODEL` from the working directory, and the content of :data:`NETWORK`, which it
    imports; None if it needs none.

    The code defines ``network``, in eval mode, ``predict`` and ``predict_file``. It needs torch and safetensors, and
    Pillow and NumPy, which torchvision brings; of torchvision's models it needs torchvision, of a user's own model its
    module. A network that torch cannot record as plain code needs this package.
    """
    from collabench.models.families import custom, torchvision_model
    from collabench.sharing.plain_code import NotPlain, plain_code

    shape, classes = manifest.form.network_shape(configuration.recipe), len(manifest.classes)
    model, plain = configuration.model, None
    if isinstance(model, torchvision_model.Settings) and not has_memory(weights):
        imports = ["import torchvision"]
        lines = [f"network = torchvision.models.{model.name}(num_classes={classes})"]
        if model.small_stem:
            channels, inputs = weights["conv1.weight"].shape[:2]
            lines += [
                f"network.conv1 = torch.nn.Conv2d({inputs}, {channels}, 3, 1, 1, bias=False)",
                "network.maxpool = torch.nn.Identity()",
            ]
    elif isinstance(model, custom.Settings) and not has_memory(weights):
        module, _, name = model.import_.partition(":")
        imports = [f"import {module}"]
        arguments = "".join(f", {key}={value!r}" for key, value in model.arguments.items())
        lines = [f"network = {module}.{name}(input_shape={shape}, classes={classes}{arguments})"]
    else:
        try:
            plain = plain_code(configuration.label, build_deployed(configuration, manifest, weights), shape)
            imports, lines = ["from network import Network"], ["network = Network()"]
        except NotPlain:
            imports, lines = _with_this_package(configuration, weights, shape, classes)
    return _card_code(configuration, manifest, imports, lines), plain


def _with_this_package(
    configuration: Configuration, weights: dict[str, Tensor], shape: tuple[int, int, int], classes: int
) -> tuple[list[str], list[str]]:
    """Imports, and lines that build the deployed network."""
    model = configuration.model
    settings = json.dumps(model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"weights"}))
    imports = ["from collabench.models import FAMILIES, build_backbone"]
    lines = [
        f"settings = FAMILIES[{model.family!r}].Settings.model_validate_json({settings!r})",
        f"network = build_backbone(settings, {shape}, {classes}, weights_seed=0)",
    ]
    if has_memory(weights):
        imports += ["from collabench.methods.wang2018 import AssistedBackbone, Assistance, MutualKnowledgeBase"]
        width, features = weights["assistance.encode.weight"].shape
        made = f"Assistance({features}, {width}), MutualKnowledgeBase({len(weights['memory.slots'])}, {width})"
        lines.append(f"network = AssistedBackbone(network, {made})")
    return imports, lines


def _card_code(configuration: Configuration, manifest: Manifest, imports: list[str], lines: list[str]) -> str:
    from collabench.data.batches import resized_side

    shape, classes = manifest.form.network_shape(configuration.recipe), len(manifest.classes)
    crop = configuration.recipe.augmentation.random_resized_crop
    first = f", their shorter side resized to {resized_side(crop)} and the middle cropped" if crop else ""
    upright = configuration.dataset.upright
    fit = []
    if not manifest.streamed or manifest.resize is not None:
        height, width = manifest.image_shape[1:]
        fit.append(f"image = fitted(image, {width}, {height}, max({width} / image.width, {height} / image.height))")
    if crop:
        fit.append(f"image = fitted(image, {crop}, {crop}, {resized_side(crop)} / min(image.size))")
    return "\n".join(
        [
            "import numpy",
            "import torch",
            *imports,
            f"from PIL import Image{', ImageOps' if upright else ''}",
            "from safetensors.torch import load_file",
            "",
            *lines,
            f'network.load_state_dict(load_file("{MODEL}"))',
            "network.eval()",
            f"classes = {list(manifest.classes)}",
            f"mean = torch.tensor({list(manifest.mean)}).view(1, -1, 1, 1)",
            f"std = torch.tensor({list(manifest.std)}).view(1, -1, 1, 1)",
            "",
            "",
            "def predict(pixels):",
            f'    """Logits (B, {classes}) of images (B, {shape[0]}, {shape[1]}, {shape[2]}) '
            f'with values from 0 to 255{first}."""',
            "    with torch.inference_mode():",
            "        return network((pixels / 255 - mean) / std)",
            _PREDICT_FILE.format(
                open="ImageOps.exif_transpose(Image.open(path))" if upright else "Image.open(path)",
                mode="L" if shape[0] == 1 else "RGB",
                fit="\n".join(f"    {line}" for line in fit),
            ),
        ]
    )

"""A method in a training loop of one's own, on a network of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from collabench.api.arguments import check_mapping, check_texts, check_whole
from collabench.config.compatibility import check_settings_have_effect
from collabench.config.sections import MethodConfig
from collabench.config.validation import validate
from collabench.config.wording import must
from collabench.config.yaml_file import Document
from collabench.core.errors import ConfigError
from collabench.core.seeding import dropout_seed, stream_seed
from collabench.methods import METHODS, Batch, Context, Method, MethodSettings
from collabench.models import Backbone
from collabench.models.chain import ChainSettings, Stages, chain, one_line
from collabench.models.dropout import assign_generators, number_copy, seed_dropout

_numbers = itertools.count()


class _OwnNetwork(ChainSettings):
    """Tells the networks of one learner from those of another, so that each is checked."""

    draws_dropout: ClassVar[bool] = True
    family: Literal["own"] = "own"
    number: int
    stages: dict[str, tuple[str, ...]]


class Learner:
    """A training network that a method builds of your module, with the method's losses and its dropout streams.

    ::

        learner = Learner(make, method={"method": "song2018", "graph": "simple_ilr", "heads": 2},
                          stages={"body": ["conv", "relu"], "head": ["pool", "flatten", "fc"]},
                          input_shape=(3, 32, 32), classes=10, epochs=30)
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
        for epoch in range(30):
            learner.begin_epoch(epoch)
            for images, labels in loader:
                learner.step(images, labels, optimizer)
        network = learner.deploy()

    Initial weights, additional layers and dropout masks depend on ``seed`` only, by streams of their own: torch's
    global generator is neither read nor advanced. ``network`` is the training network.

    Args:
        make: returns your module, which maps images (B, C, H, W) to logits (B, ``classes``). It is called for every
            copy that the method trains, with torch's generator seeded for the call.
        method: an entry of ``methods`` in ``params.yaml``, as a mapping, or its settings.
        stages: stage → its modules in order of execution, by attribute name or path (``features.3``); the word
            ``flatten`` stands for flattening. Default: each direct child is a stage. Branches begin between stages.
        input_shape: (C, H, W) of the images.
        epochs: of the whole training, for methods whose weights change with the epoch.
        seed: of weights and dropout.
        device: where the training network is.
        teachers: the networks that a distillation method learns from, in order. They are frozen and in eval mode.

    Raises:
        ConfigError: (one line) the method's settings are wrong or do not fit the module; the stages do not reproduce
            it; it draws random numbers that no seed fixes; or the number of teachers is not what the method needs.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        *,
        method: Mapping[str, Any] | MethodSettings,
        input_shape: tuple[int, int, int],
        classes: int,
        epochs: int,
        stages: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        teachers: Sequence[nn.Module] = (),
    ) -> None:
        _check_arguments(input_shape, classes, epochs, seed, device)
        self.seed, self.device, self.epoch = seed, torch.device(device), 0
        self.settings = _settings(method).for_images(input_shape)
        _check(self.settings, len(teachers))
        key = _own_network(stages)

        def make_backbone(copy: int, model: str | None = None) -> Backbone:
            with torch.random.fork_rng(devices=[]), torch.device("cpu"):
                torch.manual_seed(stream_seed(seed, "init", copy))
                module = _made(make)
            named = key.stages or {name: (name,) for name, _ in module.named_children()}
            name = type(module).__name__
            backbone = chain(key, name, module, named, input_shape, classes)
            seed_dropout(backbone, name, input_shape, (key, input_shape, classes))
            number_copy(backbone, copy)
            return backbone

        def make_layers(name: str, make: Callable[[], Any]) -> Any:
            with torch.random.fork_rng(devices=[]), torch.device("cpu"):
                torch.manual_seed(stream_seed(seed, "init", name))
                return make()

        for teacher in teachers:
            teacher.to(self.device).eval().requires_grad_(False)
        context = Context(make_backbone, make_layers, input_shape, classes, epochs, tuple(teachers))
        try:
            self.settings.check_fits(make_backbone(0), "float32", input_shape)
        except ValueError as error:
            raise ConfigError(f"method {self.settings.method}: {error}") from None
        self._method: Method[Any] = METHODS[self.settings.method].Method(self.settings, context)
        self.network: nn.Module = self._method.build().to(device=self.device, memory_format=torch.channels_last)
        self._generators = assign_generators(self.network, self.device)
        self.begin_epoch(0)

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that an optimizer updates."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0: training mode, and dropout streams at their beginning for it."""
        self.epoch = epoch
        for number, generator in self._generators.items():
            generator.manual_seed(dropout_seed(self.seed, epoch, number))
        self.network.train()

    def step(self, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Train on one batch: losses, gradients and the optimizer's step, once or as often as the method asks.

        images (B, C, H, W) and labels (B,) are moved to the device. Returns the weighted terms of the loss (scalars,
        means over the batch, without gradients), whose sum is minimised.
        """

        def update(loss: Tensor, parameters: Sequence[nn.Parameter] | None = None) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward(inputs=None if parameters is None else list(parameters))
            optimizer.step()

        terms = self._method.step(self.network, self._batch(images, labels), update)
        return {name: term.detach() for name, term in terms.items()}

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the loss with gradients, for a loop that sums and updates by itself.

        Methods that update several times a batch (``optimisation: alternating``, ``in_turn``) have :meth:`step` only:
        one update with the sum of these terms is their simultaneous form.
        """
        return self._method.losses(self.network, self._batch(images, labels))

    def predict(self, images: Tensor) -> Tensor:
        """Logits (heads, B, classes) of every head, in eval mode and without gradients. The first head is deployed."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                return self._method.predict(self.network, self._images(images))
        finally:
            self.network.train(training)

    def deploy(self) -> nn.Module:
        """The network to keep, in eval mode, on the training device: one head without the method's additional parts.

        Its state dict has your module's keys, unless the method itself extends the deployed network (wang2018).
        """
        return self._method.deploy(self.network).eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint needs beside the optimizer's state: weights, epoch and dropout streams."""
        streams = {number: generator.get_state() for number, generator in self._generators.items()}
        return {"network": self.network.state_dict(), "epoch": self.epoch, "streams": streams}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict` of a learner with the same arguments."""
        self.network.load_state_dict(state["network"])
        self.epoch = state["epoch"]
        for number, generator in self._generators.items():
            generator.set_state(state["streams"][number])

    def _images(self, images: Tensor) -> Tensor:
        return images.to(self.device, memory_format=torch.channels_last)

    def _batch(self, images: Tensor, labels: Tensor) -> Batch:
        return Batch(self._images(images), labels.to(self.device), self._generators[0], self.epoch)


def _check_arguments(input_shape: object, classes: int, epochs: int, seed: int, device: object) -> None:
    check_whole("classes", classes, 2)
    check_whole("epochs", epochs, 1)
    check_whole("seed", seed, 0)
    if not isinstance(input_shape, tuple | list) or len(input_shape) != 3:
        raise ConfigError(f"input_shape {input_shape!r}: must be (channels, height, width)")
    for number in input_shape:
        check_whole("input_shape", number, 1)
    try:
        torch.device(device)  # type: ignore[call-overload]
    except (RuntimeError, TypeError):
        raise ConfigError(f"device {device!r}: must be a device of torch, such as 'cpu' or 'cuda'") from None


def _settings(method: Mapping[str, Any] | MethodSettings) -> MethodSettings:
    if isinstance(method, MethodSettings):
        return method
    check_mapping("method", method, "{'method': 'dml'}")
    place = Path("Learner")
    try:
        found: MethodSettings = validate(
            Document(place, {"method": dict(method)}, {}), MethodConfig, dict(method), ("method",)
        )
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix(f"{place}:1: ")) from None
    return found


def _check(settings: MethodSettings, teachers: int) -> None:
    """Raise ConfigError if a loop of one's own cannot train with these settings."""
    name = settings.method
    check_settings_have_effect(settings)
    if not METHODS[name].Method.trains:
        raise ConfigError(f"method {name}: trains nothing, it averages finished networks; train them with individual")
    if others := [model for _, section, model in settings.references() if section == "models"]:
        raise ConfigError(
            f"method {name}: names the model {others[0]!r} of params.yaml; here every copy is your module"
        )
    if (wanted := len(settings.requires())) != teachers:
        raise ConfigError(f"method {name}: needs {wanted} trained networks as teachers, {teachers} are given")


def _own_network(stages: Mapping[str, Sequence[str]] | None) -> _OwnNetwork:
    number = next(_numbers)
    if stages is None:
        return _OwnNetwork.model_construct(number=number, stages={})
    check_mapping("stages", stages, "{'body': ['conv', 'relu'], 'head': ['flatten', 'fc']}")
    for name, modules in stages.items():
        check_texts(f"stages[{name!r}]", modules, "['conv', 'relu']")
    found = {name: tuple(modules) for name, modules in stages.items()}
    try:
        TypeAdapter(Stages).validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(": ".join(["stages", *map(str, first["loc"]), must(first)])) from None
    return _OwnNetwork.model_construct(number=number, stages=found)


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    try:
        module = make()
    except Exception as error:  # a user's function can raise anything
        raise ConfigError(f"make: cannot make the module ({one_line(error)})") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"make: gives a {type(module).__name__}; it must return a torch.nn.Module")
    return module

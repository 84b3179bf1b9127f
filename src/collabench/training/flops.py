"""Arithmetic and parameters of a configuration, counted in one step on fake tensors.

A fake tensor has a shape and no numbers, so that counting needs neither data nor memory for any size. Convolutions and
matrix products are counted, a multiply-add as two floating-point operations (FLOPs). All other operations of these
networks are passes over memory.

torch's own counter overestimates the backward pass of a grouped convolution several times. Here each gradient of a
convolution costs as much as its forward pass, for any number of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from collabench.config.configuration import Configuration
from collabench.config.dataset_shape import shape_without_files
from collabench.methods import Batch, Method
from collabench.models import build_backbone
from collabench.models.dropout import assign_generators
from collabench.training.averaging import WeightAverage
from collabench.training.context import make_context, make_method
from collabench.training.device import autocast
from collabench.training.optimizer import make_optimizer


@dataclass(frozen=True)
class Counts:
    """FLOPs per image, and numbers of parameters.

    forward: one pass of the plain backbone. deployed: one pass of the deployed network. predict: all heads in
    evaluation. training: a whole training step (forward, backward, and the passes of frozen teachers); 0 if nothing is
    trained. parameters: of the deployed network. training_parameters: of the network that the optimizer updates.
    """

    forward: int
    deployed: int
    predict: int
    training: int
    parameters: int
    training_parameters: int


@dataclass
class FakeTraining:
    """A configuration's training on fake tensors; valid inside :func:`fake_training`.

    ``network``, ``teachers``, ``optimizer``, ``batch`` and ``average`` (averaged weights, if the recipe has them)
    contain what exists at the beginning of a step.
    """

    method: Method
    network: nn.Module
    teachers: list[nn.Module]
    batch: Batch
    optimizer: torch.optim.Optimizer
    precision: Callable[[], AbstractContextManager[None]]
    average: list[Tensor]

    def update(self, loss: Tensor, parameters: Sequence[nn.Parameter] | None = None) -> None:
        """:class:`collabench.methods.Update`."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=None if parameters is None else list(parameters))
        self.optimizer.step()

    def step(self) -> None:
        """Train on one batch, as the training loop does."""
        with self.precision():
            self.method.step(self.network, self.batch, self.update)


@contextmanager
def fake_training(
    configuration: Configuration, shape: tuple[int, int, int], classes: int, batch_size: int | None = None
) -> Iterator[FakeTraining]:
    """A configuration ready for its first step, on fake tensors.

    shape: (C, H, W) that the network receives. batch_size: the default is the recipe's.
    """
    recipe = configuration.recipe
    with FakeTensorMode(allow_non_fake_inputs=True), _modules_stay():
        method, teachers = _method(configuration, shape, classes)
        network = method.build()
        network.train()
        generators = assign_generators(network, torch.device("cpu"))
        optimizer = make_optimizer(list(network.parameters()), recipe)
        size = batch_size or recipe.batch_size
        labels = torch.zeros(size, dtype=torch.long) if recipe.mixup_alpha is None else torch.zeros(size, classes)
        batch = Batch(torch.empty(size, *shape), labels, generators[0])
        precision = partial(autocast, recipe.precision, torch.device("cpu"))
        average = [] if recipe.ema_decay is None else WeightAverage(network, recipe.ema_decay).state()
        yield FakeTraining(method, network, teachers, batch, optimizer, precision, average)


@contextmanager
def _modules_stay() -> Iterator[None]:
    """Within the block ``Module.to`` does nothing: torch cannot replace fake parameters, and layout and device change
    no count."""
    original = nn.Module.to
    nn.Module.to = lambda module, *_, **__: module  # type: ignore[method-assign, assignment] # meant: patched
    try:
        yield
    finally:
        nn.Module.to = original  # type: ignore[method-assign] # meant: the patch ends


def _method(configuration: Configuration, shape: tuple[int, int, int], classes: int) -> tuple[Method, list[nn.Module]]:
    teachers = []
    for required in configuration.requires:
        teacher, _ = _method(required.configuration, shape, classes)
        teachers.append(_deployed(teacher, teacher.build()).requires_grad_(False))
    return make_method(configuration, make_context(configuration, shape, classes, 0, teachers)), teachers


def _deployed(method: Method, network: nn.Module) -> nn.Module:
    return method.deploy(network).eval()


def _convolution_backward(
    gradient_shape: Sequence[int],
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    output_mask: Sequence[bool],
    out_shape: object = None,
) -> int:
    """FLOPs of the requested gradients: input and weight each cost as much as the forward pass."""
    forward = conv_flop_count(list(x_shape), list(weight_shape), list(gradient_shape), transposed)
    return forward * sum(bool(wanted) for wanted in output_mask[:2])


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        yield counter


def flops_of(work: Callable[[], object]) -> int:
    """FLOPs of ``work()``, on fake or real tensors."""
    with _counting() as counter:
        work()
    return counter.get_total_flops()


def _per_image(network: Callable[[Tensor], object], images: Tensor) -> int:
    return round(flops_of(lambda: network(images)) / len(images))


def count(
    configuration: Configuration, shape: tuple[int, int, int] | None = None, classes: int | None = None
) -> Counts:
    """Count a configuration. shape: (C, H, W) that the network receives. classes: their number.

    The defaults are those that are known without files.
    """
    if shape is None or classes is None:
        form = shape_without_files(configuration)
        shape, classes = form.network_shape(configuration.recipe), form.classes
    with fake_training(configuration, shape, classes) as training:
        images, network, method = training.batch.images, training.network, training.method
        per_step = flops_of(training.step) if method.trains else 0
        updated = sum(p.numel() for p in network.parameters()) if method.trains else 0
        network.eval()
        plain = build_backbone(configuration.model, shape, classes, 0).eval()
        deployed = _deployed(method, network)
        with torch.no_grad():
            return Counts(
                forward=_per_image(plain, images),
                deployed=_per_image(deployed, images),
                predict=_per_image(lambda x: method.predict(network, x), images),
                training=round(per_step / len(images)),
                parameters=sum(p.numel() for p in deployed.parameters()),
                training_parameters=updated,
            )

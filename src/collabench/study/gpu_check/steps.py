"""A configuration's training step by step, on any device and in any precision."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from collabench.config.configuration import Configuration
from collabench.config.dataset_shape import DatasetShape
from collabench.core.seeding import dropout_seed
from collabench.methods import Batch
from collabench.models.dropout import assign_generators
from collabench.study.timing import random_teachers
from collabench.training.context import make_context, make_method
from collabench.training.device import computing
from collabench.training.optimizer import make_optimizer


class Steps:
    """The network, method and optimizer of a configuration, as the training loop makes them.

    form: of the images. dtype: of weights and images. masks: the device whose generators draw dropout masks; with the
    CPU's, every device has the same masks. channels_last: the layout.
    """

    def __init__(
        self,
        configuration: Configuration,
        form: DatasetShape,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        masks: torch.device | None = None,
        channels_last: bool = True,
    ) -> None:
        self.recipe, self.device, self.dtype = configuration.recipe, device, dtype
        self._shape, self._classes = form.network_shape(configuration.recipe), form.classes
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        teachers = random_teachers(configuration, form)
        for teacher in teachers:
            teacher.to(device=device, dtype=dtype).eval().requires_grad_(False)
        context = make_context(configuration, self._shape, self._classes, 0, teachers)
        self.method = make_method(configuration, context)
        self.network: nn.Module = self.method.build().to(device=device, dtype=dtype)
        self.network.to(memory_format=self._layout)
        self.network.train()
        self.generators = assign_generators(self.network, masks or device)
        for number, generator in self.generators.items():
            generator.manual_seed(dropout_seed(0, 0, number))
        self.optimizer = make_optimizer(list(self.network.parameters()), self.recipe)

    def batch(self, size: int, number: int = 0) -> tuple[Tensor, Tensor]:
        """Random images and labels of a batch, the same on every device."""
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(size, *self._shape, generator=generator, dtype=torch.float64).to(self.dtype)
        labels = torch.randint(0, self._classes, (size,), generator=generator)
        return images.to(self.device).to(memory_format=self._layout), labels.to(self.device)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Train on one batch, as the training loop does; the terms of the loss."""
        with computing(self.recipe, self.device):
            return self.method.step(self.network, Batch(images, labels, self.generators[0], 0), self._update)

    def _update(self, loss: Tensor, parameters: Sequence[nn.Parameter] | None = None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=False) if self.recipe.precision != "float32" else nullcontext():
            loss.backward(inputs=None if parameters is None else list(parameters))
        self.optimizer.step()
        torch.clear_autocast_cache()

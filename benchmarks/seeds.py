"""Several seeds of one configuration at once: a loop, one network of grouped convolutions, `torch.func.vmap`.

Each form is a training step on images (S, B, C, H, W) and labels (S, B) of S seeds that gives every seed's loss (S,).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference import optimizer_of
from collabench.models import Backbone
from collabench.models.families.cifar_resnet import BasicBlock, PadShortcut

Step = Callable[[Tensor, Tensor], Tensor]


def loop(networks: list[Backbone]) -> Step:
    """One network after the other."""
    networks = [network.to(memory_format=torch.channels_last) for network in networks]
    optimizers = [optimizer_of(network) for network in networks]

    def step(images: Tensor, labels: Tensor) -> Tensor:
        losses = []
        for network, optimizer, x, y in zip(networks, optimizers, images, labels, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    return step


class GroupedConvolution(nn.Conv2d):
    """The convolutions of all seeds as one with a group for each."""

    def __init__(self, layers: list[nn.Conv2d]) -> None:
        first, count = layers[0], len(layers)
        super().__init__(
            count * first.in_channels, count * first.out_channels, first.kernel_size, first.stride, first.padding,
            groups=count, bias=False,
        )  # fmt: skip
        self.weight.data.copy_(torch.cat([layer.weight.data for layer in layers]))


class GroupedShortcut(nn.Module):
    """The shortcut's zero channels belong on both sides of every seed's own channels."""

    def __init__(self, layer: PadShortcut, count: int) -> None:
        super().__init__()
        self.layer, self.count = layer, count

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        apart = x.reshape(batch * self.count, channels // self.count, height, width)
        padded = self.layer(apart)
        return padded.reshape(batch, -1, *padded.shape[2:])


def _grouped(modules: list[nn.Module]) -> nn.Module:
    first = modules[0]
    if isinstance(first, nn.Conv2d):
        return GroupedConvolution(modules)
    if isinstance(first, nn.BatchNorm2d):
        return nn.BatchNorm2d(len(modules) * first.num_features)  # fresh ones are all alike
    if isinstance(first, PadShortcut):
        return GroupedShortcut(first, len(modules))
    made = copy.copy(first)
    made._modules = {name: _grouped([m._modules[name] for m in modules]) for name in first._modules}
    return made


def grouped(networks: list[Backbone]) -> Step:
    """One network whose channels are those of all seeds side by side."""
    count = len(networks)
    assert any(isinstance(module, BasicBlock) for module in networks[0].modules())
    names = networks[0].stage_names[:-2]  # without pooling and classifier
    body = nn.Sequential(*(_grouped([network.module_at(name) for network in networks]) for name in names))
    body = body.to(memory_format=torch.channels_last).train()
    weights = nn.Parameter(torch.stack([network.module_at("classifier").weight.data.T for network in networks]))
    biases = nn.Parameter(torch.stack([network.module_at("classifier").bias.data for network in networks])[:, None])
    optimizer = optimizer_of(nn.ParameterList([*body.parameters(), weights, biases]))

    def step(images: Tensor, labels: Tensor) -> Tensor:
        seeds, batch = labels.shape
        optimizer.zero_grad(set_to_none=True)
        side_by_side = images.transpose(0, 1).reshape(batch, -1, *images.shape[3:])
        maps = body(side_by_side.contiguous(memory_format=torch.channels_last))
        features = maps.mean(dim=(2, 3)).view(batch, seeds, -1).transpose(0, 1)
        logits = torch.baddbmm(biases, features, weights)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(seeds, batch).mean(1)
        losses.sum().backward()
        optimizer.step()
        assert seeds == count
        return losses.detach()

    return step


def vmapped(networks: list[Backbone]) -> Step:
    """`torch.func`: the parameters of all seeds stacked, one call mapped over them."""
    parameters, buffers = torch.func.stack_module_state(networks)
    template = copy.deepcopy(networks[0])
    for module in template.modules():  # torch's relu_ and add_ are out of place in the blocks' outputs under vmap
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None
    buffers = {name: value for name, value in buffers.items() if not name.endswith("num_batches_tracked")}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def loss_of(weights: dict, statistics: dict, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(template, (weights, statistics), (x,)), y)

    mapped = torch.func.vmap(loss_of)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        losses = mapped(parameters, buffers, images, labels)
        losses.sum().backward()
        optimizer.step()
        return losses.detach()

    return step


FORMS: dict[str, Callable[[list[Backbone]], Step]] = {"loop": loop, "grouped": grouped, "vmap": vmapped}

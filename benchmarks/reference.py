"""The reference: the same training as people write it. A torchvision data set with PIL transforms, a DataLoader,
modules in their default layout, heads in a loop. It computes what the library computes
(`tests/training/test_reference.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from collabench.core.torchvision_import import import_torchvision

torchvision = import_torchvision()
from torchvision import transforms  # noqa: E402 (torchvision must be imported as the line above does)

MEAN, STD = 0.5, 0.25


class Colour(torchvision.datasets.CIFAR10):
    """torchvision's CIFAR-10 with other pixels: uint8 (N, H, W, 3)."""

    def __init__(self, images: np.ndarray, labels: Sequence[int], transform: Callable) -> None:
        self.data, self.targets = images, labels
        self.transform, self.target_transform = transform, None


class Grey(torchvision.datasets.MNIST):
    """torchvision's MNIST with other pixels: uint8 (N, H, W)."""

    def __init__(self, images: np.ndarray, labels: Sequence[int], transform: Callable) -> None:
        self.data, self.targets = torch.from_numpy(images), labels
        self.transform, self.target_transform = transform, None


def loader(images: Tensor, labels: Tensor, batch_size: int, shift: int, flip: bool, workers: int) -> DataLoader:
    """A DataLoader over uint8 images (N, H, W, C)."""
    side, channels = images.shape[1], images.shape[3]
    steps = [transforms.RandomCrop(side, padding=shift)] if shift else []
    steps += [transforms.RandomHorizontalFlip()] if flip else []
    steps += [transforms.ToTensor(), transforms.Normalize((MEAN,) * channels, (STD,) * channels)]
    transform = transforms.Compose(steps)
    if channels == 3:
        dataset = Colour(images.numpy(), labels.tolist(), transform)
    else:
        dataset = Grey(images.squeeze(3).numpy(), labels.tolist(), transform)
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=workers)


class Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.added = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride != 1 or self.added:
            before = self.added // 2
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.added - before))
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


def stage(blocks: int, channels_in: int, channels: int, stride: int) -> nn.Sequential:
    rest = [Block(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(channels_in, channels, stride), *rest)


def parts(depth: int, channels: int, classes: int) -> list[Callable[[], nn.Module]]:
    """Makers of stem, three stages, and the classifier of a residual network for small images."""
    blocks = (depth - 2) // 6
    return [
        lambda: nn.Sequential(nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        lambda: stage(blocks, 16, 16, 1),
        lambda: stage(blocks, 16, 32, 2),
        lambda: stage(blocks, 32, 64, 2),
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)),
    ]


class Tree(nn.Module):
    """Heads that share their first parts. splits: (number of parts before the split, branches), in order."""

    def __init__(self, makers: list[Callable[[], nn.Module]], splits: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        first = splits[0][0] if splits else len(makers)
        self.shared = nn.Sequential(*(make() for make in makers[:first]))
        rest = [(at - first, branches) for at, branches in splits[1:]]
        branches = splits[0][1] if splits else 0
        self.branches = nn.ModuleList(Tree(makers[first:], rest) for _ in range(branches))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (B, classes) of every head."""
        x = self.shared(x)
        if not len(self.branches):
            return [x]
        return [logits for branch in self.branches for logits in branch(x)]


#: Parts before each split, and branches, as the library's graphs of four heads.
GRAPHS: dict[str, tuple[tuple[int, int], ...]] = {
    "individual": (),
    "simple-4": ((2, 4),),
    "hierarchical-4": ((2, 2), (3, 2)),
    "multi-instance-4": ((0, 4),),
}


def collaborative_loss(
    logits: list[Tensor], labels: Tensor, beta: float = 0.5, temperature: float = 2.0, factor: float | None = None
) -> Tensor:
    """Song and Chai's objective, summed over the heads; with one head the cross entropy. factor: of the soft part,
    instead of the temperature's square."""
    factor = temperature**2 if factor is None else factor
    if len(logits) == 1:
        return F.cross_entropy(logits[0], labels)
    loss = torch.zeros(())
    for own, z in enumerate(logits):
        others = torch.stack([other.detach() for index, other in enumerate(logits) if index != own]).mean(dim=0)
        target = F.softmax(others / temperature, dim=1)
        soft = -(target * F.log_softmax(z / temperature, dim=1)).sum(dim=1).mean()
        loss = loss + beta * F.cross_entropy(z, labels) + (1 - beta) * factor * soft
    return loss


def intra_model_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Fang and Lin's losses as people write them, on the modules of the library's network
    (`fang2021.IntraModelNetwork`).

    A layer's own loss is kept from the layers below by a second pass of the layer on a detached input; branches, layers
    and predictions are loops. The second pass moves the running statistics of batch normalisation once more.
    """
    backbone, chosen = network.backbone, network.settings
    local = len(network.classifiers) > 0 or len(network.projections) > 0
    own: list[Tensor] = []

    def layer(module: nn.Module, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if local:
            own.append(module(x.detach(), None if skip is None else skip.detach()))
        return module(x, skip)

    x = images
    hidden = "out" in chosen.losses
    for stage in backbone.stage_names:
        if hidden and stage.startswith("hidden"):
            break
        for name in backbone.stages[stage]:
            module = backbone.module_at(name)
            for part in module if isinstance(module, nn.Sequential) else [module]:
                if hasattr(part, "conv"):
                    x = layer(part, x)
                elif hasattr(part, "layer2"):
                    x = layer(part.layer2, layer(part.layer1, x), x)
                else:
                    x = part(x)
    loss = torch.zeros(())
    if hidden:
        first, second, last = (backbone.module_at(name) for name in ("hidden1", "hidden2", "classifier"))
        logits = []
        for _ in range(chosen.out_branches):
            one = F.dropout(F.relu(first.linear(x)), first.dropout.probability)
            for _ in range(chosen.out_branches):
                logits.append(last(F.dropout(F.relu(second.linear(one)), second.dropout.probability)))
        loss = collaborative_loss(logits, labels, chosen.out_alpha, chosen.out_temperature, 1.0) / len(logits)
    else:
        loss = F.cross_entropy(x, labels)
    if len(network.classifiers):
        temperature = chosen.mid_temperature
        logits = [classify(h) for classify, h in zip(network.classifiers, own, strict=True)]
        for index, z in enumerate(logits):
            loss = loss + chosen.mid_alpha * F.cross_entropy(z / temperature, labels)
            if index + 1 < len(logits):
                deeper = torch.stack([other.detach() for other in logits[index + 1 :]]).mean(dim=0)
                target = F.softmax(deeper / temperature, dim=1)
                soft = -(target * F.log_softmax(z / temperature, dim=1)).sum(dim=1).mean()
                loss = loss + chosen.mid_beta * soft
    if len(network.projections):

        def similarity(vectors: Tensor) -> Tensor:
            unit = F.normalize(vectors - vectors.mean(dim=0))
            return unit @ unit.T

        of_images = similarity(images.flatten(2).std(dim=2, correction=0))
        of_labels = similarity(F.one_hot(labels, 10).float())
        for index, (project, h) in enumerate(zip(network.projections, own, strict=True)):
            place = index / max(1, len(own) - 1)
            pull = chosen.pull_first + (chosen.pull_last - chosen.pull_first) * place
            push = chosen.push_first + (chosen.push_last - chosen.push_first) * place
            of_layer = similarity(project(h).flatten(2).std(dim=2, correction=0))
            loss = loss + pull * torch.norm(of_layer - of_labels) - push * torch.norm(of_layer - of_images)
    if "kernel" in chosen.losses:
        for weight in network.kernels():
            rows = weight.flatten(1)
            rows = (rows - rows.mean(dim=1, keepdim=True)) / rows.std(dim=1, correction=0, keepdim=True)
            covariance = rows @ rows.T / rows.shape[1]
            loss = loss + chosen.kernel_weight * torch.norm(covariance - torch.diag(torch.diag(covariance)))
    return loss


def optimizer_of(network: nn.Module, **form: bool) -> torch.optim.SGD:
    """``form``: torch's own default, or ``foreach=True``."""
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, **form)


def steps(
    network: nn.Module, batches: DataLoader, loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor]
) -> Iterator[int]:
    """Train for ever; yields the number of images of every step."""
    optimizer = optimizer_of(network)
    network.train()
    while True:
        for images, labels in batches:
            optimizer.zero_grad()
            loss = loss_of(network, images, labels)
            loss.backward()
            optimizer.step()
            loss.item()  # as people print it
            yield len(labels)

"""The reference: the same training as people write it. A torchvision data set with PIL transforms, a DataLoader, modules
in their default layout, heads in a loop. It computes what the library computes: `tests/cost/test_reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from collabench.models._torchvision import import_torchvision

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


def collaborative_loss(logits: list[Tensor], labels: Tensor, beta: float = 0.5, temperature: float = 2.0) -> Tensor:
    """Song and Chai's objective, summed over the heads; with one head the cross entropy."""
    if len(logits) == 1:
        return F.cross_entropy(logits[0], labels)
    loss = torch.zeros(())
    for own, z in enumerate(logits):
        others = torch.stack([other.detach() for index, other in enumerate(logits) if index != own]).mean(dim=0)
        target = F.softmax(others / temperature, dim=1)
        soft = -(target * F.log_softmax(z / temperature, dim=1)).sum(dim=1).mean()
        loss = loss + beta * F.cross_entropy(z, labels) + (1 - beta) * temperature**2 * soft
    return loss


def optimizer_of(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)


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

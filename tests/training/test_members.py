"""Members of an ensemble: networks of their own, trained on the data of their pair."""

from __future__ import annotations

import pytest
import torch

from collabench.config.configuration import Run, member_seed
from collabench.config.data_sections import NoiseConfig
from collabench.training.loop import _Trainer
from tests.support.defaults import configuration
from tests.support.synthetic import blobs

CPU = torch.device("cpu")


def trainer(seed: int, noise: NoiseConfig) -> _Trainer:
    noisy = configuration("individual", validation_fraction=0.25).model_copy(update={"noise": noise})
    return _Trainer(Run(noisy, seed), blobs(), CPU, None, ())


@pytest.mark.parametrize("epoch", [0, 1])
def test_they_see_the_same_labels_and_hold_out_the_same_images(epoch):
    noise = NoiseConfig(kind="uniform", rate=0.5, when="per_epoch")
    own, other, stranger = (trainer(seed, noise) for seed in (3, member_seed(3, 1), 4))
    assert torch.equal(own.epoch_labels(epoch), other.epoch_labels(epoch))
    assert torch.equal(own.train_index, other.train_index) and torch.equal(own.validation_index, other.validation_index)
    assert not torch.equal(own.epoch_labels(epoch), stranger.epoch_labels(epoch))
    assert not torch.equal(own.train_index, stranger.train_index)


def test_they_differ_in_initial_weights_and_in_order():
    own, other = (trainer(seed, NoiseConfig(kind="none")) for seed in (3, member_seed(3, 1)))
    assert any(not torch.equal(a, b) for a, b in zip(own.parameters, other.parameters, strict=True))
    labels = torch.arange(len(own.train_index))
    orders = [torch.cat([targets for _, targets in one.batches.epoch(0, labels)]) for one in (own, other)]
    assert not torch.equal(*orders) and torch.equal(*(order.sort().values for order in orders))

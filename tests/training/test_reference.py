"""The benchmark's reference does the same work to the same numbers, or its ratios would mean nothing."""

from __future__ import annotations

import pytest
import torch

from benchmarks import reference, seeds
from collabench.config.sections import Augmentation
from collabench.data.batches import TrainingBatches
from collabench.methods import METHODS, Batch
from collabench.models import build_backbone
from collabench.models.dropout import SeededDropout
from collabench.models.families.cifar_resnet import Settings
from collabench.training.context import make_context, make_method
from tests.support.synthetic import configuration_of, model_of, settings_of

MODEL = Settings(family="cifar_resnet", depth=8)
GRAPHS = {
    "individual": {"graph": "individual", "heads": 1},
    "simple-4": {"graph": "simple_ilr", "heads": 4},
    "hierarchical-4": {"graph": "hierarchical_ilr", "heads": 4},
    "multi-instance-4": {"graph": "multi_instance", "heads": 4},
}


def images_of(shape, count=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=generator), torch.arange(count) % 10


@pytest.mark.parametrize("graph", GRAPHS)
def test_same_weights_and_batch_give_the_same_loss_and_gradients(graph):
    module = METHODS["song2018"]
    settings = module.Settings(method="song2018", scaling="none", **GRAPHS[graph])
    backbone = lambda copy: build_backbone(MODEL, (3, 16, 16), 10, copy)  # noqa: E731
    tree = module.TrainingTree(backbone, settings.tree(backbone(0).stage_names)).train()
    plain = reference.Tree(reference.parts(8, 3, 10), reference.GRAPHS[graph]).train()
    state, own = plain.state_dict(), tree.state_dict()
    assert [v.shape for v in state.values()] == [v.shape for v in own.values()]
    plain.load_state_dict(dict(zip(state, own.values(), strict=True)))
    images, labels = images_of((3, 16, 16))
    terms = module.Method(settings, None).losses(tree, Batch(images, labels, torch.Generator()))
    expected = sum(terms.values())
    loss = reference.collaborative_loss(plain(images), labels)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    loss.backward()
    for ours, theirs in zip(tree.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-3, atol=1e-4)


INTRA_MODELS = (
    {"family": "vgg", "blocks": (1, 2), "width": 4, "poolings": 1, "hidden": 8},
    {"family": "resnet", "blocks": (1, 1), "width": 4, "hidden": 8},
)


@pytest.mark.parametrize("model", INTRA_MODELS, ids=lambda model: model["family"])
@pytest.mark.parametrize("loss", ["out", "mid", "pull_push", "kernel"])
def test_each_loss_inside_one_network_is_that_of_the_reference(model, loss):
    configuration = configuration_of(settings_of("fang2021", losses=(loss,)), model_of(model))
    method = make_method(configuration, make_context(configuration, (3, 8, 8), 10, 0))
    networks = [method.build().double().train() for _ in range(2)]
    for network in networks:
        for module in network.modules():
            if isinstance(module, SeededDropout):
                module.probability = 0.0  # their masks are drawn in another order
    images, labels = images_of((3, 8, 8))
    images = images.double()
    terms = method.losses(networks[0], Batch(images, labels, torch.Generator()))
    expected, actual = sum(terms.values()), reference.intra_model_loss(networks[1], images, labels)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    expected.backward()
    actual.backward()
    for (name, ours), theirs in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("channels", [1, 3])
def test_both_input_pipelines_give_the_same_pixels(channels):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (7, 8, 8, channels), generator=generator, dtype=torch.uint8)
    labels = torch.arange(7)
    normalisation = ((reference.MEAN,) * channels, (reference.STD,) * channels)
    ours, order = next(TrainingBatches(images, *normalisation, Augmentation(), 7, 0).epoch(0, labels))
    theirs, their_order = next(iter(reference.loader(images, labels, 7, 0, False, 0)))
    torch.testing.assert_close(ours[order.argsort()], theirs[their_order.argsort()], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", seeds.FORMS)
def test_every_form_of_several_seeds_computes_the_same_losses(form):
    images, labels = images_of((1, 8, 8))
    networks = lambda: [build_backbone(MODEL, (1, 8, 8), 10, seed).train() for seed in range(3)]  # noqa: E731
    batches, targets = torch.stack([images, -images, images.flip(0)]), torch.stack([labels, labels, labels.flip(0)])
    loop = seeds.FORMS["loop"](networks())
    other = seeds.FORMS[form](networks())
    for _ in range(3):
        torch.testing.assert_close(other(batches, targets), loop(batches, targets), rtol=1e-3, atol=1e-3)

"""The tree of heads: what is shared, how gradients are scaled, what a path is."""

from __future__ import annotations

import pytest
import torch

from collabench.core.seeding import stream_seed
from collabench.models import build_backbone
from collabench.models.families.cifar_resnet import Settings
from collabench.models.tree import INPUT, Split, TrainingTree, simple_tree

SHAPE, CLASSES = (1, 8, 8), 5
MODEL = Settings(family="cifar_resnet", depth=8, width=4)

GRAPHS = {
    "individual": (),
    "multi_instance": (Split(INPUT, 3),),
    "simple": simple_tree("stage1", 3),
    "hierarchical": (Split("stage1", 2), Split("stage2", 2)),
    "deep": (Split("stem", 2), Split("stage1", 1), Split("stage2", 3)),
}


def make_backbone(copy: int):
    return build_backbone(MODEL, SHAPE, CLASSES, stream_seed(7, "init", copy))


def tree(name: str, rescale: bool = False) -> TrainingTree:
    return TrainingTree(make_backbone, GRAPHS[name], rescale)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", GRAPHS)
def test_each_path_is_a_plain_backbone_with_equal_outputs(name, images):
    network = tree(name).eval()
    logits = network(images)
    assert logits.shape == (network.heads, 6, CLASSES)
    for head in range(network.heads):
        path = network.path(head).eval()
        plain = make_backbone(99).eval()
        plain.load_state_dict(path.state_dict())
        assert torch.equal(plain(images), logits[head])
        assert list(plain.state_dict()) == list(path.state_dict())


@pytest.mark.parametrize("name", GRAPHS)
def test_the_first_path_starts_as_the_individual_network(name):
    path = tree(name).path(0).state_dict()
    assert all(torch.equal(value, path[key]) for key, value in make_backbone(0).state_dict().items())


def test_copies_are_initialised_independently():
    network = tree("multi_instance")
    first, second = network.path(0).state_dict(), network.path(1).state_dict()
    assert not torch.equal(first["stem.0.weight"], second["stem.0.weight"])


def test_what_the_hierarchical_tree_shares():
    network = tree("hierarchical")
    paths = [network.path(head) for head in range(4)]
    assert len({id(path.stem) for path in paths}) == len({id(path.stage1) for path in paths}) == 1
    assert [id(p.stage2) for p in paths][0::2] == [id(p.stage2) for p in paths][1::2]
    assert len({id(path.stage2) for path in paths}) == 2
    assert len({id(path.stage3) for path in paths}) == 4
    plain = sum(p.numel() for p in make_backbone(0).parameters())
    assert plain < sum(p.numel() for p in network.parameters()) < 4 * plain


def gradients(name: str, rescale: bool, images: torch.Tensor) -> dict[str, torch.Tensor]:
    network = tree(name, rescale).double()
    weights = torch.randn(network.heads, 6, CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (network(images.double()) * weights).sum().backward()
    return {key: parameter.grad for key, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", GRAPHS)
def test_rescaling_divides_shared_gradients_and_leaves_branches_alone(name, images):
    """The factor of a node is the product of the numbers of branches of the splits above the loss and below it."""
    plain, rescaled = gradients(name, False, images), gradients(name, True, images)
    splits = GRAPHS[name]
    for key in plain:
        depth = key.count("branches.")
        factor = 1
        for split in splits[depth:]:
            factor *= split.branches
        assert torch.allclose(plain[key], rescaled[key] * factor, rtol=1e-12, atol=1e-14), key


def test_multi_instance_is_unaffected_by_rescaling(images):
    plain, rescaled = gradients("multi_instance", False, images), gradients("multi_instance", True, images)
    assert all(torch.equal(plain[key], rescaled[key]) for key in plain)


def test_path_parameters_are_those_of_the_path():
    network = tree("hierarchical")
    for head in range(4):
        assert {id(p) for p in network.path_parameters(head)} == {id(p) for p in network.path(head).parameters()}


def test_features_and_shared_outputs(images):
    network = tree("simple").eval()
    features = network.features(images)
    assert features.shape == (3, 6, 16)
    assert torch.equal(network.path(1).eval().features(images), features[1])
    assert torch.equal(network.shared(images), network.path(2).eval().run(("stem", "stage1"), images))


@pytest.mark.parametrize(
    "splits,message",
    [
        ((Split("stage9", 2),), "no split point 'stage9'; split points: input, stem, stage1"),
        ((Split("classifier", 2),), "no split point 'classifier'"),
        ((Split("stage2", 2), Split("stage1", 2)), "must follow the order"),
        ((Split("stage1", 2), Split("stage1", 2)), "must follow the order"),
        ((Split("stage1", 0),), "at least one branch"),
    ],
)
def test_impossible_splits_are_refused_in_one_line(splits, message):
    with pytest.raises(ValueError, match=message) as error:
        TrainingTree(make_backbone, splits)
    assert "\n" not in str(error.value)

"""What is deployed, and what the mutual knowledge base costs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from collabench.methods._branches import run_branches
from collabench.methods.wang2018 import MutualKnowledgeBase
from collabench.models import Backbone, build_backbone
from tests.support.synthetic import CLASSES, SMALL_MODELS, model_of
from tests.support.training_cases import IMAGES, OTHER, SHAPE, built, trained

CASES = [
    ("kd", {}),
    ("dml", {"networks": 3}),
    ("dml", {"peers": ("other",)}),
    ("auxiliary", {}),
    ("one", {}),
    ("okddip", {}),
    ("wang2018", {"deployment": "without_memory"}),
]


@pytest.mark.parametrize("method,values", CASES)
def test_a_plain_backbone_is_deployed(method, values):
    instance, network = built(method, models={"other": OTHER}, **values)
    network.eval()
    deployed = instance.deploy(network)
    assert isinstance(deployed, Backbone)
    plain = build_backbone(model_of(SMALL_MODELS[0]), SHAPE, CLASSES, 99).double().eval()
    plain.load_state_dict(deployed.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(IMAGES.double()), instance.predict(network, IMAGES.double())[0])


def test_the_leader_of_okddip_and_branch_0_of_one_are_head_0():
    for method in ("one", "okddip"):
        instance, network = built(method)
        network.eval()
        with torch.no_grad():
            assert torch.equal(instance.deploy(network)(IMAGES.double()), network.tree(IMAGES.double())[0])


@pytest.mark.parametrize("split_after", ["input", "stage1", "pool"])
def test_one_pass_through_the_branches_equals_the_tree(split_after):
    _, network = built("one", split_after=split_after)
    network.eval()
    outputs = run_branches(network.tree, IMAGES.double())
    assert torch.equal(outputs.logits, network.tree(IMAGES.double()))
    assert torch.equal(outputs.features, network.tree.features(IMAGES.double()))
    assert torch.equal(outputs.shared, network.tree.shared(IMAGES.double()))


@pytest.mark.parametrize("memory", ["shared", "private"])
def test_network_0_is_deployed_with_its_own_frozen_memory(memory):
    instance, network = built("wang2018", memory=memory)
    network.eval()
    deployed = instance.deploy(network)
    images = IMAGES.double()
    with torch.no_grad():
        expected = instance.predict(network, images)
        assert torch.equal(deployed(images), expected[0])
        network.memory_of(0).slots.add_(1.0)  # what happens to the training network no longer matters
        assert torch.equal(deployed(images), expected[0])
        assert not torch.allclose(instance.predict(network, images)[0], expected[0])
    assert not deployed.memory.slots.requires_grad


def test_the_state_dict_holds_the_backbones_own_keys_and_the_memory():
    instance, network = built("wang2018")
    deployed = instance.deploy(network)
    plain = build_backbone(model_of(SMALL_MODELS[0]), SHAPE, CLASSES, 99).double()
    missing, unexpected = plain.load_state_dict(deployed.state_dict(), strict=False)
    assert not missing
    assert set(unexpected) == {
        "memory.slots", "assistance.encode.weight", "assistance.encode.bias", "assistance.assist.weight",
        "assistance.assist.bias",
    }  # fmt: skip
    images = IMAGES.double()
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), network.backbones[0].eval()(images))
    again = instance.deploy(built("wang2018", seed=8)[1])
    again.load_state_dict(deployed.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images), deployed.eval()(images))


def test_the_mutual_knowledge_base_is_deployed_apart():
    _, network = built("wang2018", n_slots=8, width=4)
    memory = network.memory_of(0)
    assert list(memory.state_dict()) == ["slots"]
    other = MutualKnowledgeBase(8, 4).double()
    other.load_state_dict(memory.state_dict())
    query = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other(query), memory(query))
    assert memory.attention(query).sum(dim=1).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("n_slots,width", [(64, 64), (8, 5)])
def test_what_the_memory_costs(n_slots, width):
    instance, network = built("wang2018", n_slots=n_slots, width=width)
    deployed = instance.deploy(network).eval()
    plain = network.backbones[0].eval()
    count = {}
    for name, module in (("with", deployed), ("without", plain)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(IMAGES[:1].double())
        count[name] = counter.get_total_flops(), sum(p.numel() for p in module.parameters())
    n, d, f = n_slots, width, deployed.assistance.assist.out_features
    assert count["with"][1] - count["without"][1] == n * d + 2 * f * d + f + d
    assert count["with"][0] - count["without"][0] == 2 * (2 * n * d + 2 * f * d)  # a multiply-add is two FLOPs


def test_deployment_is_a_matter_of_testing_not_of_training():
    with_memory, without = trained("wang2018"), trained("wang2018", deployment="without_memory")
    assert all(torch.equal(with_memory.weights[key], value) for key, value in without.weights.items())
    assert not torch.equal(with_memory.logits["deployed"], without.logits["deployed"])
    assert with_memory.result.parameters > without.result.parameters


def test_networks_of_different_kinds_share_one_memory():
    _, network = built("wang2018", peers=("other", "other"), models={"other": OTHER})
    assert len(network.backbones) == 3 and len(network.memories) == 1
    assert [assistance.encode.in_features for assistance in network.assistance] == [16, 24, 24]
    first, second = network.backbones[1].state_dict(), network.backbones[2].state_dict()
    assert not torch.equal(first["stem.0.weight"], second["stem.0.weight"])


def test_extra_layers_depend_on_the_seed_and_disturb_no_backbone():
    for method in ("auxiliary", "one", "okddip", "wang2018"):
        states = [built(method, seed=seed)[1].state_dict() for seed in (3, 3, 4)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        extra = [
            key for key in states[0] if key.startswith(("classifiers", "gate", "attention", "assistance", "memories"))
        ]
        assert extra and all(not torch.equal(states[0][key], states[2][key]) for key in extra)
    (_, one), (_, individual) = built("one"), built("individual")
    assert torch.equal(one.tree.path(0).stage2[0].conv1.weight, individual.stage2[0].conv1.weight)

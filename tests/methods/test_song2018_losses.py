"""Song & Chai's loss, values and gradients, against a slow second implementation written from the equations."""

from __future__ import annotations

import math

import pytest
import torch

from collabench.methods.losses import consensus, hard_cross_entropy, soft_cross_entropy
from collabench.methods.song2018 import Method, Settings


def softmax(z: list[float], temperature: float) -> list[float]:
    largest = max(v / temperature for v in z)
    exponentials = [math.exp(v / temperature - largest) for v in z]
    return [e / sum(exponentials) for e in exponentials]


def log_softmax(z: list[float], temperature: float) -> list[float]:
    largest = max(v / temperature for v in z)
    log_sum = largest + math.log(sum(math.exp(v / temperature - largest) for v in z))
    return [v / temperature - log_sum for v in z]


def slow_loss(z, labels, beta, temperature, squared, smoothing=0.0, targets=None):
    """Sum over heads of beta CE(y, z; 1) + (1 - beta) T^2 CE(q, z; T), mean over images; and q."""
    heads, images, classes = len(z), len(z[0]), len(z[0][0])
    total, all_targets = 0.0, []
    for h in range(heads):
        for b in range(images):
            hot = [smoothing / classes + (1 - smoothing) * (k == labels[b]) for k in range(classes)]
            hard = -sum(hot[k] * log_softmax(z[h][b], 1.0)[k] for k in range(classes))
            if heads == 1:
                total += hard / images
                continue
            others = [sum(z[j][b][k] for j in range(heads) if j != h) / (heads - 1) for k in range(classes)]
            q = softmax(others, temperature) if targets is None else targets[h][b]
            all_targets.append(q)
            soft = -sum(q[k] * log_softmax(z[h][b], temperature)[k] for k in range(classes))
            total += (beta * hard + (1 - beta) * (temperature**2 if squared else 1.0) * soft) / images
    return total, [all_targets[h * images : (h + 1) * images] for h in range(heads)] if all_targets else None


def numerical_gradient(function, z, step=1e-6):
    gradient = torch.zeros_like(z)
    for position in range(z.numel()):
        shift = torch.zeros_like(z).flatten()
        shift[position] = step
        shift = shift.view_as(z)
        gradient.flatten()[position] = (function(z + shift) - function(z - shift)) / (2 * step)
    return gradient


def fast_terms(settings: Settings, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    method = Method(settings, context=None)
    terms = method._terms(z, labels, method._targets(z), range(len(z)))
    return sum(terms.values())


@pytest.mark.parametrize("heads,images,classes", [(1, 3, 4), (2, 1, 2), (3, 3, 4), (4, 2, 10), (5, 3, 4)])
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("through_target", [True, False])
def test_loss_and_gradient_equal_the_equations(heads, images, classes, squared, through_target):
    generator = torch.Generator().manual_seed(heads * 100 + images * 10 + classes)
    z = torch.randn(heads, images, classes, dtype=torch.float64, generator=generator) * 2
    labels = torch.randint(classes, (images,), generator=generator)
    settings = Settings(
        method="song2018", graph="multi_instance", heads=heads, beta=0.3, temperature=3.0,
        temperature_squared=squared, gradient_through_target=through_target, label_smoothing=0.1,
    )  # fmt: skip
    leaf = z.clone().requires_grad_()
    loss = fast_terms(settings, leaf, labels)
    loss.backward()
    expected, targets = slow_loss(z.tolist(), labels.tolist(), 0.3, 3.0, squared, 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    fixed = None if through_target else targets
    slow = numerical_gradient(lambda v: slow_loss(v.tolist(), labels.tolist(), 0.3, 3.0, squared, 0.1, fixed)[0], z)
    assert torch.allclose(leaf.grad, slow, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("heads,images,classes", [(1, 2, 4), (2, 1, 2), (3, 2, 4), (5, 1, 2)])
@pytest.mark.parametrize("scale", [1e4, -1e4, 0.0])
@pytest.mark.parametrize("through_target", [True, False])
def test_extreme_and_constant_logits(dtype, heads, images, classes, scale, through_target):
    """Finite in both precisions; in float64 the value is that of the equations."""
    z = torch.zeros(heads, images, classes, dtype=dtype)
    z[0, :, 1] = scale
    z[-1, :, 0] = -scale
    z.requires_grad_()
    labels = torch.arange(images) % classes
    loss = fast_terms(
        Settings(method="song2018", graph="multi_instance", heads=heads, gradient_through_target=through_target),
        z,
        labels,
    )
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()
    expected, _ = slow_loss(z.tolist(), labels.tolist(), 0.5, 2.0, True)
    assert loss.item() == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_one_head_has_weight_1_whatever_beta(beta):
    z, labels = torch.randn(1, 3, 4, dtype=torch.float64), torch.tensor([0, 3, 1])
    loss = fast_terms(Settings(method="song2018", graph="individual", heads=1, beta=beta), z, labels)
    assert loss.item() == hard_cross_entropy(z[0], labels).item()


def test_beta_1_leaves_the_cross_entropies_and_beta_0_the_soft_terms():
    z, labels = torch.randn(3, 2, 4, dtype=torch.float64), torch.tensor([0, 3])
    settings = {"method": "song2018", "graph": "multi_instance", "heads": 3}
    hard = sum(hard_cross_entropy(own, labels) for own in z)
    assert fast_terms(Settings(beta=1.0, **settings), z, labels).item() == pytest.approx(hard.item(), rel=1e-14)
    soft = sum(soft_cross_entropy(q, own, 2.0) for q, own in zip(consensus(z, 2.0), z, strict=True))
    assert fast_terms(Settings(beta=0.0, **settings), z, labels).item() == pytest.approx(4 * soft.item(), rel=1e-14)


def test_at_a_high_temperature_the_soft_terms_tend_to_log_m():
    z, labels = torch.randn(3, 2, 5, dtype=torch.float64), torch.tensor([0, 3])
    settings = Settings(
        method="song2018", graph="multi_instance", heads=3, beta=0.0, temperature=1000.0, temperature_squared=False
    )
    assert fast_terms(settings, z, labels).item() == pytest.approx(3 * math.log(5), rel=1e-5)


def test_large_temperature_makes_the_target_uniform():
    q = consensus(torch.randn(3, 2, 5, dtype=torch.float64), 1e9)
    assert torch.allclose(q, torch.full_like(q, 0.2), atol=1e-8)


def test_consensus_by_hand():
    z = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]], [[0.0, 4.0]]], dtype=torch.float64)
    q = consensus(z, 2.0)
    # Head 0 sees the mean of (2, 0) and (0, 4), which is (1, 2); divided by T = 2: (0.5, 1).
    assert q[0, 0].tolist() == pytest.approx([1 / (1 + math.e**0.5), math.e**0.5 / (1 + math.e**0.5)])
    assert q[2, 0].tolist() == pytest.approx([math.e**0.5 / (1 + math.e**0.5), 1 / (1 + math.e**0.5)])


def test_two_heads_teach_each_other():
    z = torch.randn(2, 3, 4)
    assert torch.equal(consensus(z, 2.0), torch.softmax(z.flip(0) / 2.0, dim=-1))


def test_renamed_heads_permute_the_targets():
    z = torch.randn(4, 3, 5, dtype=torch.float64)
    order = [2, 0, 3, 1]
    assert torch.allclose(consensus(z[order], 2.0), consensus(z, 2.0)[order], atol=1e-15)


def test_consensus_of_one_head_is_refused():
    with pytest.raises(ValueError, match="two heads"):
        consensus(torch.zeros(1, 2, 3), 2.0)


def test_cross_entropies_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)  # probabilities 1/4 and 3/4
    assert hard_cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(math.log(4 / 3))
    smoothed = -(0.95 * math.log(3 / 4) + 0.05 * math.log(1 / 4))
    assert hard_cross_entropy(logits, torch.tensor([1]), label_smoothing=0.1).item() == pytest.approx(smoothed)
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    assert soft_cross_entropy(half, logits, 1.0).item() == pytest.approx(-0.5 * (math.log(3 / 4) + math.log(1 / 4)))

"""The losses of kd, dml, auxiliary, one, okddip and wang2018, values and gradients in float64, against slow loops that
are written from the equations and share nothing with the methods."""

from __future__ import annotations

import math

import pytest
import torch

from collabench.methods import METHODS
from collabench.methods.ensemble import Members
from collabench.methods.kd import teacher_log_probabilities
from collabench.methods.losses import kullback_leibler, log_probabilities
from collabench.methods.okddip import PeerAttention
from collabench.methods.one import GatedBranches
from collabench.methods.wang2018 import Assistance, MutualKnowledgeBase
from collabench.models import Backbone

#: Each number of heads with another number of images and classes.
SIZES = pytest.mark.parametrize("images,classes,heads", [(1, 2, 2), (3, 4, 3), (2, 10, 4), (3, 4, 5)])


# ------------------------------------------------------------------------------------- slow, from the equations


def softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    largest = max(value / temperature for value in z)
    exponentials = [math.exp(value / temperature - largest) for value in z]
    return [e / sum(exponentials) for e in exponentials]


def cross_entropy(z: list[list[float]], labels: list[int]) -> float:
    return sum(-math.log(softmax(row)[label]) for row, label in zip(z, labels, strict=True)) / len(z)


def divergence(q: list[float], p: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(q, p, strict=True))


def slow_kd(z, labels, given, weight, temperature, average):
    """(1 - w) CE + w T^2 KL(teacher || student), the teacher's members averaged as probabilities or as logits."""
    total = 0.0
    for b in range(len(z)):
        members = [softmax(member[b], temperature) for member in given]
        q = [sum(member[k] for member in members) / len(members) for k in range(len(z[b]))]
        if average == "logits":
            mean = [sum(member[b][k] for member in given) / len(given) for k in range(len(z[b]))]
            q = softmax(mean, temperature)
        total += divergence(q, softmax(z[b], temperature)) / len(z)
    return (1 - weight) * cross_entropy(z, labels) + weight * temperature**2 * total


def slow_dml(z, labels, weight, temperature, constants):
    """sum_i CE_i + w T^2 mean_{j != i} KL(p_j || p_i); ``constants`` are the logits that p_j is computed from."""
    total = 0.0
    for i in range(len(z)):
        total += cross_entropy(z[i], labels)
        for j in range(len(z)):
            if j != i:
                for b in range(len(labels)):
                    q, p = softmax(constants[j][b], temperature), softmax(z[i][b], temperature)
                    total += weight * temperature**2 * divergence(q, p) / len(labels) / (len(z) - 1)
    return total


def slow_one(z, gates, labels, weight, ensemble_weight, temperature, constant=None):
    """``constant``: (logits, gates) that the teacher is computed from, where it is a constant."""

    def mix(logits, g, b):
        return [sum(g[b][h] * logits[h][b][k] for h in range(len(logits))) for k in range(len(logits[0][b]))]

    total = ensemble_weight * cross_entropy([mix(z, gates, b) for b in range(len(labels))], labels)
    for h in range(len(z)):
        total += cross_entropy(z[h], labels)
        for b in range(len(labels)):
            q = softmax(mix(*(constant or (z, gates)), b), temperature)
            total += weight * temperature**2 * divergence(q, softmax(z[h][b], temperature)) / len(labels)
    return total


def slow_okddip(z, features, query, key, labels, peer_weight, leader_weight, temperature, constant):
    """Head 0 leads. ``constant``: the logits that the peers' probabilities in targets are computed from."""
    total, peers = 0.0, range(1, len(z))

    def project(matrix, vector):
        return [sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix]

    for h in range(len(z)):
        total += cross_entropy(z[h], labels)
    for b in range(len(labels)):
        q = {h: softmax(constant[h][b], temperature) for h in peers}
        mean = [sum(q[h][k] for h in peers) / len(peers) for k in range(len(z[0][b]))]
        total += leader_weight * temperature**2 * divergence(mean, softmax(z[0][b], temperature)) / len(labels)
        for a in peers:
            own = project(query, features[a - 1][b])
            others = [project(key, features[c - 1][b]) for c in peers]
            alpha = softmax([sum(x * y for x, y in zip(own, other, strict=True)) for other in others])
            target = [sum(alpha[c - 1] * q[c][k] for c in peers) for k in range(len(z[0][b]))]
            total += peer_weight * temperature**2 * divergence(target, softmax(z[a][b], temperature)) / len(labels)
    return total


def slow_read(query, slots):
    """sum_n softmax_n(s_n . query / sqrt(d)) s_n."""
    scores = [sum(a * b for a, b in zip(slot, query, strict=True)) / math.sqrt(len(query)) for slot in slots]
    weights = softmax(scores)
    return [sum(weight * slot[i] for weight, slot in zip(weights, slots, strict=True)) for i in range(len(query))]


def slow_consensus(z, labels, weight, temperature, constants):
    """sum_i CE_i + w T^2 KL(softmax(mean_{j != i} z_j; T) || softmax(z_i; T))."""
    total = 0.0
    for i in range(len(z)):
        total += cross_entropy(z[i], labels)
        for b in range(len(labels)):
            others = [j for j in range(len(z)) if j != i]
            mean = [sum(constants[j][b][k] for j in others) / len(others) for k in range(len(z[i][b]))]
            total += (
                weight
                * temperature**2
                * divergence(softmax(mean, temperature), softmax(z[i][b], temperature))
                / len(labels)
            )
    return total


def numerical_gradient(function, at: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
    gradient = torch.zeros_like(at)
    for position in range(at.numel()):
        shift = torch.zeros_like(at)
        shift.view(-1)[position] = step
        gradient.view(-1)[position] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


# ------------------------------------------------------------------------------------------------ comparisons


class Classes:
    """Stands for a context where only the terms are computed."""

    def __init__(self, classes: int) -> None:
        self.classes = classes


def method(name: str, classes: int = 4, **values):
    return METHODS[name].Method(METHODS[name].Settings(method=name, **values), Classes(classes))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


def draw_labels(images: int, classes: int) -> torch.Tensor:
    return torch.randint(classes, (images,), generator=torch.Generator().manual_seed(images))


def compare(terms_of, slow, *values: torch.Tensor) -> None:
    """Values, and gradients with respect to each of ``values``, of a sum of terms and of its slow twin."""
    leaves = [value.clone().requires_grad_() for value in values]
    loss = sum(terms_of(*leaves).values())
    loss.backward()
    assert loss.item() == pytest.approx(slow(*(v.tolist() for v in values)), rel=1e-11)
    for index, leaf in enumerate(leaves):

        def at(value: torch.Tensor, index: int = index) -> float:
            return slow(*((value if i == index else v).tolist() for i, v in enumerate(values)))

        assert torch.allclose(leaf.grad, numerical_gradient(at, values[index]), atol=2e-7), index


@pytest.mark.parametrize("images,classes", [(1, 2), (3, 4), (2, 10)])
@pytest.mark.parametrize("members,average", [(1, "probabilities"), (3, "probabilities"), (3, "logits")])
def test_kd(images, classes, members, average):
    labels, given = draw_labels(images, classes), draw(members, images, classes, seed=1)
    kd = method("kd", weight=0.7, temperature=3.0, teacher_members=members, teacher_average=average)
    compare(
        lambda z: kd.terms(z, labels, given),
        lambda z: slow_kd(z, labels.tolist(), given.tolist(), 0.7, 3.0, average),
        draw(images, classes),
    )


@SIZES
@pytest.mark.parametrize("through_target", [False, True])
def test_dml(images, classes, heads, through_target):
    labels, z = draw_labels(images, classes), draw(heads, images, classes)
    dml = method("dml", weight=0.6, temperature=1.5, networks=heads, gradient_through_target=through_target)

    def summed(logits: torch.Tensor) -> dict[str, torch.Tensor]:
        return {i: sum(dml.terms(logits, labels, i).values()) for i in range(heads)}

    compare(summed, lambda v: slow_dml(v, labels.tolist(), 0.6, 1.5, v if through_target else z.tolist()), z)


@SIZES
def test_auxiliary(images, classes, heads):
    labels, deep = draw_labels(images, classes), method("auxiliary", weight=0.3)
    compare(
        lambda z, auxiliary: deep.terms(z, auxiliary, labels),
        lambda z, auxiliary: (
            cross_entropy(z, labels.tolist()) + 0.3 * sum(cross_entropy(a, labels.tolist()) for a in auxiliary)
        ),
        draw(images, classes),
        draw(heads, images, classes),
    )


@SIZES
@pytest.mark.parametrize("through_target", [False, True])
def test_one(images, classes, heads, through_target):
    labels, z = draw_labels(images, classes), draw(heads, images, classes)
    gates = torch.softmax(draw(images, heads, seed=5), dim=-1)
    one = method("one", heads=heads, weight=0.8, ensemble_weight=1.3, gradient_through_target=through_target)
    constant = None if through_target else (z.tolist(), gates.tolist())
    compare(
        lambda logits, g: one.terms(logits, g, labels),
        lambda logits, g: slow_one(logits, g, labels.tolist(), 0.8, 1.3, 3.0, constant),
        z,
        gates,
    )


@pytest.mark.parametrize("images,heads", [(1, 2), (3, 4)])
def test_the_gate_of_one(images, heads):
    """g = softmax(W mean over the map of x + b), per image: values, and the gradient on x, W and b."""
    width, weights = 3, draw(images, heads, seed=9)

    class Shared(torch.nn.Module):
        """Stands for a tree: its shared stages give the images back."""

        def __init__(self) -> None:
            super().__init__()
            branch = torch.nn.Module()
            branch.segment = Backbone(
                {"pool": torch.nn.Flatten(), "classifier": torch.nn.Linear(4 * width, 2)}
            ).double()
            self.root = torch.nn.Module()
            self.root.branches = [branch] * heads
            self.shared = torch.nn.Identity()

    network = GatedBranches(Shared(), torch.nn.Linear(width, heads).double())

    def gate(x: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor) -> dict[str, torch.Tensor]:
        values = {"gate.weight": matrix, "gate.bias": bias}
        return {"gate": (torch.func.functional_call(network, values, (x,))[1] * weights).sum()}

    def slow(x: list, matrix: list, bias: list) -> float:
        total = 0.0
        for b, image in enumerate(x):
            means = [sum(v for row in channel for v in row) / 4 for channel in image]
            scores = [
                sum(m * v for m, v in zip(row, means, strict=True)) + s for row, s in zip(matrix, bias, strict=True)
            ]
            total += sum(g * w for g, w in zip(softmax(scores), weights[b].tolist(), strict=True))
        return total

    compare(gate, slow, draw(images, width, 2, 2), draw(heads, width, seed=1), draw(heads, seed=2))


@pytest.mark.parametrize("images,classes,heads", [(1, 2, 3), (3, 4, 4), (2, 10, 5)])
@pytest.mark.parametrize("through_target", [False, True])
def test_okddip(images, classes, heads, through_target):
    labels, z, width = draw_labels(images, classes), draw(heads, images, classes), 5
    okddip = method(
        "okddip", heads=heads, peer_weight=0.8, leader_weight=1.3, attention_width=3,
        gradient_through_target=through_target,
    )  # fmt: skip
    attention = PeerAttention(width, 3).double()

    def terms(logits: torch.Tensor, features: torch.Tensor, query: torch.Tensor, key: torch.Tensor):
        log_alpha = torch.func.functional_call(attention, {"query.weight": query, "key.weight": key}, (features,))
        return okddip.terms(logits, log_alpha, labels)

    compare(
        terms,
        lambda logits, features, query, key: slow_okddip(
            logits, features, query, key, labels.tolist(), 0.8, 1.3, 3.0, logits if through_target else z.tolist()
        ),
        z,
        draw(heads - 1, images, width, seed=2) / 2,
        draw(3, width, seed=3) / 4,
        draw(3, width, seed=4) / 4,
    )


@SIZES
def test_consensus_of_wang2018(images, classes, heads):
    labels, z = draw_labels(images, classes), draw(heads, images, classes)
    wang = method("wang2018", networks=heads, consensus_weight=0.7, temperature=2.5)
    compare(
        lambda logits: wang.terms(logits, labels),
        lambda logits: slow_consensus(logits, labels.tolist(), 0.7, 2.5, z.tolist()),
        z,
    )


@pytest.mark.parametrize("images,slots,width", [(1, 1, 1), (1, 4, 3), (3, 2, 5)])
def test_reading_the_mutual_knowledge_base(images, slots, width):
    memory, weights = MutualKnowledgeBase(slots, width).double(), draw(images, width, seed=9)

    def read(query: torch.Tensor, values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"read": (torch.func.functional_call(memory, {"slots": values}, (query,)) * weights).sum()}

    def slow(query: list, values: list) -> float:
        reads = [slow_read(row, values) for row in query]
        return sum(x * w for row, ws in zip(reads, weights.tolist(), strict=True) for x, w in zip(row, ws, strict=True))

    compare(read, slow, draw(images, width), draw(slots, width, seed=7))


@pytest.mark.parametrize("scale", [1.0, 1e4, -1e4])
@pytest.mark.parametrize("members,images,classes", [(2, 1, 2), (3, 3, 4), (5, 2, 10)])
def test_the_ensemble_is_the_mean_of_its_members_softmax(members, images, classes, scale):
    """Its output is the logarithm of that mean, finite also where every member gives a class the probability 0."""
    z = scale * draw(members, images, classes)

    class Fixed(torch.nn.Module):
        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__()
            self.logits = logits

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits

    found = Members([Fixed(own) for own in z])(torch.zeros(images, 1))
    assert torch.isfinite(found).all()
    for b in range(images):
        expected = [sum(softmax(z[j][b].tolist())[k] for j in range(members)) / members for k in range(classes)]
        assert found[b].exp().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_assistance_by_hand():
    memory, assistance = MutualKnowledgeBase(2, 1).double(), Assistance(2, 1).double()
    with torch.no_grad():
        memory.slots.copy_(torch.tensor([[0.0], [1.0]]))
        assistance.encode.weight.copy_(torch.tensor([[1.0, 2.0]]))
        assistance.encode.bias.zero_()
        assistance.assist.weight.copy_(torch.tensor([[1.0], [10.0]]))
        assistance.assist.bias.copy_(torch.tensor([0.5, 0.0]))
    # The query is 1 + 2 = 3, the scores are 0 and 3; the second slot's weight, and what is read, is 1 / (1 + e^-3).
    read = 1 / (1 + math.exp(-3.0))
    features = torch.ones(1, 2, dtype=torch.float64)
    assert assistance(features, memory)[0].tolist() == pytest.approx([1 + read + 0.5, 1 + 10 * read])


# ------------------------------------------------------------------------------------------- limits and extremes


def test_divergence_by_hand_and_its_properties():
    z = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)  # probabilities 1/4 and 3/4
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert kullback_leibler(half.log(), z, 1.0).item() == pytest.approx(expected)
    certain = torch.tensor([[-math.inf, 0.0]], dtype=torch.float64)
    assert kullback_leibler(certain.clamp(min=-1e300), z, 1.0).item() == pytest.approx(-math.log(0.75))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_identical_predictions_have_no_divergence_and_no_gradient(temperature):
    z = draw(3, 5).requires_grad_()
    value = kullback_leibler(log_probabilities(z.detach(), temperature), z, temperature)
    value.backward()
    assert value.item() == 0.0
    assert z.grad.abs().max() < 1e-16


def test_identical_networks_do_not_mimic():
    z = draw(1, 3, 5).expand(4, 3, 5).clone().requires_grad_()
    dml = method("dml", networks=4)
    for own in range(4):
        term = dml.terms(z, torch.tensor([0, 1, 2]), own)["mimicry"]
        assert term.item() == 0.0
        assert torch.autograd.grad(term, z)[0].abs().max() < 1e-16


def test_at_a_high_temperature_distillation_matches_centred_logits():
    """T^2 KL tends to 1/(2m) sum_k (v_k - z_k)^2 for logits of mean zero (Hinton et al. 2015, in the limit)."""
    z, v = draw(1, 6), draw(1, 6, seed=1)
    z, v = z - z.mean(), v - v.mean()
    kd = method("kd", weight=1.0, temperature=1000.0)
    value = kd.terms(z, torch.tensor([0]), v.unsqueeze(0))["distillation"].item()
    assert value == pytest.approx(((v - z) ** 2).sum().item() / 12, rel=5e-3)


def test_one_member_is_a_plain_teacher_whatever_the_average():
    z = draw(1, 3, 5)
    plain = log_probabilities(z[0], 4.0)
    assert torch.allclose(teacher_log_probabilities(z, 4.0, "probabilities"), plain, atol=1e-15)
    assert torch.equal(teacher_log_probabilities(z, 4.0, "logits"), plain)


def test_two_peers_that_see_only_themselves_are_their_own_targets():
    okddip = method("okddip", heads=3)
    itself = torch.full((2, 2, 2), -1e4, dtype=torch.float64)
    itself[:, [0, 1], [0, 1]] = 0.0
    assert okddip.terms(draw(3, 2, 4), itself, torch.tensor([0, 1]))["peers"].item() == pytest.approx(0, abs=1e-12)


def all_terms(z: torch.Tensor, labels: torch.Tensor):
    """Every loss of this file, with every setting of its targets, at logits z (heads, B, m)."""
    heads, _, classes = z.shape
    gates = torch.softmax(z[..., 0].T, dim=-1)
    log_alpha = log_probabilities(z[1:, :, :1].transpose(0, 1) * z[1:, :, 1].T.unsqueeze(1), 1.0)
    for average in ("probabilities", "logits"):
        kd = method("kd", classes, teacher_members=heads, teacher_average=average)
        yield kd.terms(z[0], labels, z.detach())
    yield method("auxiliary").terms(z[0], z[1:], labels)
    yield method("wang2018", consensus_weight=1.0, networks=heads).terms(z, labels)
    for through in (False, True):
        dml = method("dml", gradient_through_target=through, networks=heads)
        for own in range(heads):
            yield dml.terms(z, labels, own)
        yield method("one", gradient_through_target=through).terms(z, gates, labels)
        if heads > 2:
            yield method("okddip", gradient_through_target=through).terms(z, log_alpha, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("heads,images,classes", [(2, 1, 2), (3, 1, 2), (5, 4, 10)])
@pytest.mark.parametrize("scale", [1e4, -1e4, 0.0])
def test_extreme_and_constant_logits_stay_finite(dtype, heads, images, classes, scale):
    z = torch.zeros(heads, images, classes, dtype=dtype)
    z[0, :, 0], z[1, :, 1], z[-1, :, 0] = scale, scale, -scale
    z.requires_grad_()
    count = 0
    for terms in all_terms(z, torch.arange(images) % classes):
        gradient = torch.autograd.grad(sum(terms.values()), z, retain_graph=True)[0]
        assert all(torch.isfinite(term) for term in terms.values()), terms
        assert torch.isfinite(gradient).all()
        count += 1
    assert count >= 4 + 2 * (heads + 1)


@pytest.mark.parametrize("query", [1e4, -1e4, 0.0])
def test_extreme_and_constant_queries_stay_finite(query):
    memory = MutualKnowledgeBase(4, 3)
    leaf = torch.full((2, 3), query, requires_grad=True)
    value = memory(leaf).sum()
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(leaf.grad).all() and torch.isfinite(memory.slots.grad).all()


# ------------------------------------------------------------------------------------------------- permutations

ORDER = [2, 0, 3, 1]


def test_renaming_networks_permutes_the_terms_of_dml():
    z, labels, dml = draw(4, 3, 5), torch.tensor([0, 1, 2]), method("dml", networks=4)
    for position, own in enumerate(ORDER):
        for name, term in dml.terms(z[ORDER], labels, position).items():
            assert term.item() == pytest.approx(dml.terms(z, labels, own)[name].item(), rel=1e-13)


def test_renaming_branches_permutes_the_gradients_of_one():
    labels, one = torch.tensor([0, 1, 2]), method("one")
    z, gates = draw(4, 3, 5), torch.softmax(draw(3, 4), dim=-1)
    check_permuted(lambda v, g: one.terms(v, g, labels), (z, gates), (z[ORDER], gates[:, ORDER]))


def test_renaming_peers_permutes_the_gradients_of_okddip():
    labels, okddip = torch.tensor([0, 1, 2]), method("okddip", heads=5)
    z, log_alpha = draw(5, 3, 5), torch.log_softmax(draw(3, 4, 4), dim=-1)
    renamed = [0, *(1 + peer for peer in ORDER)]
    check_permuted(
        lambda v, a: okddip.terms(v, a, labels), (z, log_alpha), (z[renamed], log_alpha[:, ORDER][:, :, ORDER]), renamed
    )


def test_renaming_networks_permutes_the_gradients_of_the_consensus():
    labels, wang = torch.tensor([0, 1, 2]), method("wang2018", networks=4, consensus_weight=1.0)
    z = draw(4, 3, 5)
    check_permuted(lambda v: wang.terms(v, labels), (z,), (z[ORDER],))


def check_permuted(terms_of, values, renamed, order=tuple(ORDER)) -> None:
    gradients = []
    totals = []
    for inputs in (values, renamed):
        leaves = [value.clone().requires_grad_() for value in inputs]
        terms = terms_of(*leaves)
        totals.append([term.item() for term in terms.values()])
        gradients.append(torch.autograd.grad(sum(terms.values()), leaves[0])[0])
    assert totals[0] == pytest.approx(totals[1], rel=1e-13)
    assert torch.allclose(gradients[0][list(order)], gradients[1], atol=1e-14)

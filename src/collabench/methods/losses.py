"""Loss functions that methods share, in the notation of the papers: pure functions of tensors.

``m`` classes; logits (B, m), or (H, B, m) for H heads; ``softmax(z; T) = softmax(z / T)``; ``CE(q, z; T) = -sum_k q_k
log softmax(z; T)_k``, mean over the batch. Everything is computed in float32 or wider.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def at_least_float32(logits: Tensor) -> Tensor:
    """The logits in float32 or wider: under autocast they may be narrower."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def hard_cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, temperature: float = 1.0
) -> Tensor:
    """``CE(target, z; T)`` with ``target = (1 - epsilon) onehot(y) + epsilon / m``, mean over the batch: a scalar.

    Args:
        logits: (B, m).
        labels: (B,) int64, or probabilities (B, m), which then stand in place of onehot(y).
    """
    logits = at_least_float32(logits)
    if temperature != 1.0:
        logits = logits / temperature
    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def soft_cross_entropy(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """``CE(q, z; T)`` (Fang & Lin, eq. 2): ``-sum_k q_k log softmax(z / T)_k``, mean over all but the last dimension.

    Args:
        target: (..., m) probabilities q.
        logits: (..., m).
    """
    return -(target * torch.log_softmax(at_least_float32(logits) / temperature, dim=-1)).sum(dim=-1).mean()


def consensus(logits: Tensor, temperature: float) -> Tensor:
    """``q^(h) = softmax(mean over j != h of z^(j); T)`` (Fang & Lin, eq. 2; Song & Chai).

    Args:
        logits: (H, B, m) of at least two heads.

    Returns:
        (H, B, m): for every head the softened mean opinion of the others.
    """
    logits = at_least_float32(logits)
    heads = logits.shape[0]
    if heads < 2:
        raise ValueError("a consensus needs at least two heads")
    # Gathered instead of "sum minus own", which loses digits if one head's logits are far larger than the others'.
    head = torch.arange(heads, device=logits.device)
    others = head[:-1] + (head[:-1] >= head[:, None])  # made on the device: a GPU does not wait for a copy
    return torch.softmax(logits[others].mean(dim=1) / temperature, dim=-1)


def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """``log softmax(z / T)`` over the last dimension: finite for every finite z, unlike the logarithm of a softmax."""
    return torch.log_softmax(at_least_float32(logits) / temperature, dim=-1)


def kullback_leibler(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """``KL(q || softmax(z; T)) = sum_k q_k (log q_k - log softmax(z / T)_k)``, mean over all but the last dimension.

    The gradient with respect to ``logits`` is ``(softmax(z / T) - q) / T`` (divided by the number of rows): methods
    multiply by T^2 so that it does not shrink as T grows (Hinton et al. 2015). Zero, with zero gradient, where q is
    ``softmax(z; T)``.

    Args:
        target: (..., m) *logarithms* of the probabilities q, so that value and both gradients stay finite where q is 0.
        logits: (..., m).
    """
    return (
        functional.kl_div(log_probabilities(logits, temperature), target, reduction="none", log_target=True)
        .sum(dim=-1)
        .mean()
    )

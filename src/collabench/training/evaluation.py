"""From logits to figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from collabench.storage.results import Figures


def _as_float16(logits: Tensor) -> Tensor:
    """Logits in the form in which they are kept: what lies beyond float16 becomes its largest number, not infinity."""
    largest = torch.finfo(torch.float16).max
    return logits.clamp(-largest, largest).half().cpu()


@dataclass
class _Final:
    deployed: nn.Module
    logits: dict[str, Tensor]
    heads: list[Figures]
    averaged: Figures | None


CALIBRATION_BINS = 15


def collect_logits(
    predict: Callable[[Tensor], Tensor], batches: Iterable[Tensor], computing: Callable[[], AbstractContextManager]
) -> Tensor:
    """Logits (heads, N, m) in float32 over batches of images, on the images' device, without gradients. ``computing``: the context
    of every batch."""
    with torch.inference_mode():
        parts = []
        for images in batches:
            with computing():
                logits = predict(images)
            parts.append(logits.to(torch.float32, copy=True))  # the next batch may take its memory
        return torch.cat(parts, dim=1)


def figures(logits: Tensor, labels: Tensor) -> Figures:
    """Error, top-5 error, negative log-likelihood (nats) and calibration error of logits (N, m), in float64."""
    logits = logits.detach().to("cpu", torch.float64)
    labels = labels.to("cpu")
    count, classes = logits.shape
    log_probabilities = torch.log_softmax(logits, dim=1)
    confidence, predicted = log_probabilities.max(dim=1)
    correct = predicted == labels
    return Figures(
        error=1 - correct.sum().item() / count,
        top5_error=top5_error(logits, labels) if classes > 5 else None,
        negative_log_likelihood=-log_probabilities.gather(1, labels[:, None]).sum().item() / count,
        calibration_error=_calibration_error(confidence.exp(), correct),
    )


def top5_error(logits: Tensor, labels: Tensor) -> float:
    """Share of the images whose label is not among the five largest of their logits (N, m)."""
    hit = (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    return 1 - hit.sum().item() / len(labels)


def _calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Expected calibration error: mean over bins of equal width of |accuracy - confidence|, weighted by their share."""
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    surplus = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    surplus.index_add_(0, bins, correct.double() - confidence)
    return surplus.abs().sum().item() / len(confidence)


def errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Error of every head (heads,) of logits (heads, N, m), on the logits' device: no synchronisation."""
    return (logits.argmax(dim=2) != labels).double().mean(dim=1)

"""Evaluation of a network, and metrics of logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from collabench import data
from collabench.config.sections import RecipeConfig
from collabench.core import distributed
from collabench.core.errors import RunFailed
from collabench.methods import Method
from collabench.storage.results import TOP5_CLASSES, Metrics
from collabench.training.history import History

CALIBRATION_BINS = 15


def evaluation_sample(recipe: RecipeConfig, test_images: int) -> Tensor | None:
    """Positions (S,) in the test split of the images that are evaluated between epochs.

    They are evenly spaced and the same for every run. None if all images are evaluated.
    """
    wanted = recipe.evaluation_sample
    return None if wanted is None or wanted >= test_images else torch.arange(wanted) * test_images // wanted


@dataclass
class Final:
    """The outcome of the evaluation after the last epoch: the deployed network, stored logits, and metrics of every
    head."""

    deployed: nn.Module
    logits: dict[str, Tensor]
    heads: list[Metrics]
    averaged: Metrics | None


class Evaluator:
    """Evaluates a training network on the test split and on the validation split, if there is one.

    validation_index: positions (V,) of the held-out images in the training split, or None.
    """

    def __init__(
        self,
        method: Method,
        network: nn.Module,
        dataset: data.Dataset,
        recipe: RecipeConfig,
        device: torch.device,
        computing: Callable[[], AbstractContextManager],
        validation_index: Tensor | None,
    ) -> None:
        self._method, self._network, self._dataset, self._recipe = method, network, dataset, recipe
        self._device, self._computing, self._validation_index = device, computing, validation_index
        self._test_labels = dataset.test_labels.to(device)
        self._records_top5 = len(dataset.classes) >= TOP5_CLASSES
        self._sample = evaluation_sample(recipe, len(dataset.test_labels))
        self._last_logits: Tensor | None = None

    def after_epoch(self, history: History, labels: Tensor) -> None:
        """Append the test and validation errors of the deployed network, or None if the recipe skips this epoch.

        The other heads are evaluated after the last epoch only. If the recipe has a sample, the whole test split is
        evaluated after the last epoch, and whenever the validation error is lower than before. labels (N,): the epoch's
        training labels.
        """
        begin, epoch = time.monotonic(), history.epoch
        last = epoch + 1 == self._recipe.epochs
        if not last and (epoch + 1) % self._recipe.evaluate_every:
            history.test_error.append(None)
            history.validation_error.append(None)
            history.test_top5_error.append(None)
            return
        deployed = self._method.deploy(self._network).eval()

        def predict(images: Tensor) -> Tensor:
            return deployed(images).unsqueeze(0)

        sample = None if last else self._sample
        logits = self._all_heads() if last else self._logits("test", predict, sample)
        seen = self._test_labels if sample is None else self._test_labels[sample.to(self._device)]
        self._last_logits = logits if last else None
        history.test_error.append(errors(logits, seen)[0].item())
        history.test_top5_error.append(top5_error(logits[0], seen) if self._records_top5 else None)
        if self._validation_index is None:
            history.validation_error.append(None)
        else:
            source = labels if self._recipe.validation_noisy else self._dataset.train_labels
            wanted = source[self._validation_index].to(self._device)
            error = errors(self._logits("validation", predict, self._validation_index), wanted)[0].item()
            previous = [value for value in history.validation_error if value is not None]
            history.validation_error.append(error)
            if not previous or error < min(previous):
                if sample is not None:
                    logits = self._logits("test", predict)
                history.selected = metrics(logits[0], self._test_labels).model_dump()
                history.selected_epoch = epoch
        history.evaluate_seconds += time.monotonic() - begin

    def final(self) -> Final:
        """Logits and metrics of every head after the last epoch, and the deployed network.

        Raises RunFailed if the logits are not finite.
        """
        logits = self._all_heads() if self._last_logits is None else self._last_logits
        if not torch.isfinite(logits).all():
            raise RunFailed("the test logits are not finite after the last epoch")
        kept = {"deployed": _as_float16(logits[0])}
        averaged = None
        if len(logits) > 1:
            mean = logits.mean(dim=0)
            kept["averaged"] = _as_float16(mean)
            averaged = metrics(mean, self._test_labels)
        heads = [metrics(head, self._test_labels) for head in logits]
        return Final(self._method.deploy(self._network), kept, heads, averaged)

    def _all_heads(self) -> Tensor:
        """Test logits (heads, N, m) of every head."""
        return self._logits("test", partial(self._method.predict, self._network))

    def _logits(
        self,
        split: Literal["test", "validation"],
        predict: Callable[[Tensor], Tensor],
        index: Tensor | None = None,
    ) -> Tensor:
        """Logits (heads, N, m) of a split's images; ``predict`` returns those of a batch.

        index: positions in the test split (None: all of it), or positions in the training split for the validation
        split.
        """
        self._network.eval()
        count = len(self._test_labels) if index is None else len(index)
        shared = 1 < distributed.world() <= count
        if shared:
            own = distributed.own_part().rows(count)
            index = torch.arange(own.start, own.stop) if index is None else index[own]
        batches = data.open_evaluation_batches(
            self._dataset, split, self._recipe.augmentation, self._recipe.evaluation_batch_size, self._device, index
        )
        logits = collect_logits(predict, batches, self._computing)
        return distributed.gathered(logits, count, dim=1) if shared else logits


def collect_logits(
    predict: Callable[[Tensor], Tensor], batches: Iterable[Tensor], computing: Callable[[], AbstractContextManager]
) -> Tensor:
    """Logits (heads, N, m) in float32 over batches of images, on the images' device, without gradients.

    computing: returns the context of a batch.
    """
    with torch.inference_mode():
        parts = []
        for images in batches:
            with computing():
                logits = predict(images)
            parts.append(logits.to(torch.float32, copy=True))  # the next batch may reuse its memory
        return torch.cat(parts, dim=1)


def metrics(logits: Tensor, labels: Tensor) -> Metrics:
    """Error, top-5 error, negative log-likelihood (nats) and calibration error of logits (N, m), in float64."""
    logits = logits.detach().to("cpu", torch.float64)
    labels = labels.to("cpu")
    count, classes = logits.shape
    log_probabilities = torch.log_softmax(logits, dim=1)
    confidence, predicted = log_probabilities.max(dim=1)
    correct = predicted == labels
    return Metrics(
        error=1 - correct.sum().item() / count,
        top5_error=top5_error(logits, labels) if classes > 5 else None,
        negative_log_likelihood=-log_probabilities.gather(1, labels[:, None]).sum().item() / count,
        calibration_error=_calibration_error(confidence.exp(), correct),
    )


def top5_error(logits: Tensor, labels: Tensor) -> float:
    """Share of the images whose label is not among the five largest logits (N, m)."""
    hit = (logits.topk(5, dim=1).indices == labels[:, None]).any(dim=1)
    return 1 - hit.sum().item() / len(labels)


def _calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Expected calibration error: |accuracy - confidence|, averaged over bins of equal width, weighted by their
    shares."""
    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    surplus = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    surplus.index_add_(0, bins, correct.double() - confidence)
    return surplus.abs().sum().item() / len(confidence)


def errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Error of every head (heads,) of logits (heads, N, m), on the logits' device, without synchronisation."""
    return (logits.argmax(dim=2) != labels).double().mean(dim=1)


def _as_float16(logits: Tensor) -> Tensor:
    """Logits as they are stored. Values beyond the range of float16 become its largest number instead of infinity."""
    largest = torch.finfo(torch.float16).max
    return logits.clamp(-largest, largest).half().cpu()

"""The return value of a training, and the result that is made from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from collabench import data
from collabench.config.configuration import Run
from collabench.data import noise
from collabench.storage.results import TOP5_CLASSES, Curves, Measured, Metrics, NoiseRealised, Result
from collabench.training.evaluation import Final, evaluation_sample
from collabench.training.history import History


@dataclass
class Trained:
    """A finished run that is not written yet: ``result`` lacks the files' checksums."""

    result: Result
    measured: Measured
    logits: dict[str, Tensor]
    weights: dict[str, Tensor] | None


def make_result(
    run: Run,
    dataset: data.Dataset,
    history: History,
    final: Final,
    train_images: int,
    parameters: Sequence[nn.Parameter],
) -> Result:
    """The result of a finished run.

    train_images: of the training split, without validation images. parameters: of the training network.
    ``history.epoch`` is 0 for a method that trains nothing.
    """
    configuration = run.configuration
    evaluated = [error for error in history.test_error if error is not None]
    sampled = evaluation_sample(configuration.recipe, len(dataset.test_labels)) is not None
    every_epoch = 0 < history.epoch == len(evaluated) and not sampled
    top5 = None
    if len(dataset.classes) >= TOP5_CLASSES:
        top5 = tuple(history.test_top5_error)
    return Result(
        run_id=run.id,
        configuration_id=configuration.id,
        seed=run.seed,
        identity=configuration.identity(),
        dataset_digest=dataset.digest,
        train_images=train_images,
        test_images=len(dataset.test_labels),
        parameters=sum(p.numel() for p in final.deployed.parameters()),
        training_parameters=sum(p.numel() for p in parameters),
        noise=NoiseRealised(
            kind=configuration.noise.kind,
            rate=configuration.noise.rate,
            corruption=sum(history.corruption) / len(history.corruption),
            flips=(flips := noise.flips(configuration.noise, dataset.classes)),
            classes=None if flips is None else len(dataset.classes),
        ),
        last=final.heads[0],
        best_error=min(evaluated) if every_epoch else None,
        best_epoch=evaluated.index(min(evaluated)) if every_epoch else None,
        best_top5_error=min(error for error in top5 if error is not None) if every_epoch and top5 else None,
        selected=None if history.selected is None else Metrics(**history.selected),
        selected_epoch=history.selected_epoch,
        heads=tuple(final.heads),
        averaged_heads=final.averaged,
        curves=Curves(
            learning_rate=tuple(history.learning_rate),
            losses={name: tuple(values) for name, values in history.losses.items()},
            test_error=tuple(history.test_error),
            validation_error=tuple(history.validation_error) if configuration.recipe.validation_fraction else (),
            test_top5_error=top5,
        ),
        deterministic=not history.nondeterministic,
        files={},
    )

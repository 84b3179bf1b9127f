"""The return value of a training, and the result that is made from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from collabench import data
from collabench.config.configuration import Run
from collabench.config.data_sections import NoiseConfig
from collabench.data import noise
from collabench.storage.results import TOP5_CLASSES, Curves, Measured, Metrics, NoiseRealised, Result
from collabench.training.evaluation import Final, evaluation_sample
from collabench.training.history import History

#: A result holds matrices of label noise for up to so many classes. The file of static noise has all of them.
MOST_CLASSES = 20


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
    static_noise: noise.NoisyLabels | None = None,
) -> Result:
    """The result of a finished run.

    train_images: of the training split, without validation images. parameters: of the training network. static_noise:
    the run's noisy labels if its noise is static.
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
            rate=configuration.noise.asked_rate,
            corruption=sum(history.corruption) / len(history.corruption),
            flips=(flips := noise.flips(configuration.noise, dataset.classes)),
            classes=None if flips is None else len(dataset.classes),
            **_matrices(configuration.noise, dataset.classes, static_noise),
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


def _matrices(
    config: NoiseConfig, classes: tuple[str, ...], drawn: noise.NoisyLabels | None
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """``asked`` and ``realised`` of :class:`collabench.storage.results.NoiseRealised`, as far as there are."""
    found = {}
    if config.kind in ("matrix", *noise.WITHOUT_MATRIX) and len(classes) <= MOST_CLASSES:
        if config.kind == "matrix":
            found["asked"] = noise.transition_matrix(config, classes)
        if drawn is not None:
            found["realised"] = noise.realised(drawn.clean, drawn.noisy, len(classes))
    return {name: tuple(map(tuple, matrix.tolist())) for name, matrix in found.items()}

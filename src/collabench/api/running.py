"""One run from Python: trained, resumed or found, with its result and its network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.api.arguments import check_texts, check_whole
from collabench.api.own_methods import check_own_methods
from collabench.config.configuration import SECTIONS, Configuration, Run
from collabench.config.params import Params, load_params
from collabench.config.plan import Cell, Plan, resolve, with_required
from collabench.config.sections import ProfileConfig
from collabench.core.errors import ConfigError, Log, RunFailed
from collabench.storage.results import LOGITS, Result, load_result, open_tensors
from collabench.storage.workspace import Workspace
from collabench.study.runner import Runner
from collabench.study.study import Study

if TYPE_CHECKING:
    import numpy
    from torch import nn

#: The folder below ``artifacts/`` that holds runs from Python. No profile of ``params.yaml`` can have this name.
PROFILE = "~python"


@dataclass(frozen=True)
class Finished:
    """A finished run.

    result: what configuration and seed determine: errors (shares, 0 to 1), curves, sizes
    (docs/reference/files.md). network: the deployed network, on the CPU, in eval mode. folder: the run's files.
    """

    result: Result
    network: nn.Module
    folder: Path

    @property
    def logits(self) -> numpy.ndarray:
        """Logits (N, classes) of the test images, float16, of the deployed head. Raises ResultError for a damaged
        file."""
        with open_tensors(self.folder / LOGITS) as file:
            logits: numpy.ndarray = file.get_tensor("deployed")
        return logits


def configuration(
    root: str | Path,
    *,
    dataset: str,
    model: str,
    recipe: str,
    method: str,
    noise: str = "clean",
    settings: Sequence[str] = (),
) -> Configuration:
    """The configuration of five names of ``params.yaml``, with all that it requires, such as a teacher.

    Args:
        root: the project's folder, where ``params.yaml`` lies.
        settings: values in place of the file's, as ``collabench run --set`` takes them: ``recipes.digits.epochs=40``.

    Raises:
        ConfigError: a name is not defined, a setting is wrong, or the parts do not fit each other.
    """
    check_texts("settings", settings, "['recipes.digits.epochs=40']")
    path = Path(root).resolve() / "params.yaml"
    check_own_methods(path.parent)
    params = load_params(path, tuple(settings))
    names = {"dataset": dataset, "noise": noise, "model": model, "recipe": recipe, "method": method}
    for part, name in names.items():
        known = getattr(params, SECTIONS[part])
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise ConfigError(f"{part}={name!r}: {path} has no such entry under {SECTIONS[part]}{hint}; it has "
                              f"{', '.join(known)}")  # fmt: skip
    return resolve(params, dataset=dataset, noise=noise, model=model, recipe=recipe, method=method)


def run(
    configuration: Configuration, seed: int, root: str | Path, *, device: str = "auto", log: Log | None = None
) -> Finished:
    """Train one run in this process, and what it requires. A run that is there already is read, not trained again.

    Its files go to ``artifacts/~python/`` below ``root``. A run that was interrupted is resumed. The process is set up
    for reproducible results: on a CPU torch uses one thread from then on, and deterministic algorithms.

    Args:
        configuration: of :func:`configuration`, or of a plan.
        seed: 0 to 999.
        root: the project's folder. Relative paths of data sets refer to it; downloads go to its ``data/``.
        device: ``auto``, ``cpu`` or ``cuda``.
        log: receives lines for a person. None: they are dropped.

    Raises:
        ConfigError: data or files are missing, or the recipe does not suit the device. With ``arithmetic: portable``:
            torch was imported before ``collabench``.
        RunFailed: the run cannot be finished, such as for a loss that is not finite.
    """
    if not isinstance(configuration, Configuration):
        raise ConfigError(f"configuration {configuration!r}: must be what collabench.configuration(…) returns")
    check_whole("seed", seed, 0, 999)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {device!r}: there are auto, cpu and cuda")
    from collabench.training.device import choose_device

    tell: Log = log or (lambda line: None)
    wanted = Run(configuration, int(seed))
    cell = Cell("python", configuration, (seed,))
    runs = tuple(with_required([wanted]))
    study = Study(_params(), Plan(PROFILE, (cell,), runs, first_seed=seed), Workspace(Path(root).resolve(), PROFILE))
    chosen = choose_device(device).type
    study.check_device(chosen)
    study.check_files(runs)
    _, lacking = study.inputs.without_missing_data(list(runs))
    if lacking:
        raise ConfigError("; ".join(lacking))
    study.inputs.prepare_for(runs, tell)
    runner = Runner(study)
    outcome = runner.train(runs, device=chosen, retry_failed=True, log=tell)
    if outcome.failed:
        failed, reason = outcome.failed[0]
        raise RunFailed(f"{failed.configuration.label}, seed {failed.seed}: {reason}")
    folder = study.workspace.folder(wanted)
    return Finished(load_result(folder, wanted), runner.deployed(wanted), folder)


def _params() -> Params:
    """What a study needs of ``params.yaml``: its own profile. The configuration has everything else."""
    profile = ProfileConfig.model_construct(description="runs from Python", seeds=1, seeds_per_job=1)
    return Params.model_construct(datasets={}, noise={}, models={}, recipes={}, methods={}, profiles={PROFILE: profile})

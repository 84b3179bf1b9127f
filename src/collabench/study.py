"""A study: one profile's plan, what of it is done, and the execution of its runs.

Everything here works without Snakemake and DVC; they call the same functions through ``pipeline/``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from collabench import packs
from collabench.compatibility import check_files
from collabench.config import Params, load_params, profile_of
from collabench.errors import CollabenchError, ConfigError, ResultError, RunFailed, StorageError
from collabench.locks import holding, is_held
from collabench.papers.tables import load_papers, plan_cells
from collabench.records import read_json, remove_abandoned, write_atomically, write_json
from collabench.results import (
    LOGITS,
    RESULT,
    WEIGHTS,
    Failure,
    InProgress,
    Result,
    load_result,
    load_weights,
    sha256_of,
)
from collabench.spec import Configuration, Plan, Run, dataset_key, differences, digest, make_plan, noise_key
from collabench.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from collabench import data
    from collabench.training import Trained
    from collabench.training.loop import Progress

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One configuration and one block of its seeds: what one process runs, and what Snakemake schedules.

    ``marker`` is the only file that Snakemake knows of; its name holds the seeds, so that another seed is another job,
    which trains only what is missing. ``priority`` is higher for earlier seed blocks.
    """

    id: str
    configuration: Configuration
    seeds: tuple[int, ...]
    requires: tuple[str, ...]
    priority: int
    marker: Path

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(Run(self.configuration, seed) for seed in self.seeds)

    @property
    def marker_content(self) -> bytes:
        return ("\n".join(run.id for run in self.runs) + "\n").encode()


@dataclass(frozen=True)
class RunStatus:
    """``elsewhere``: another profile has the run, it will be linked. ``why``: the reason of ``failed`` and ``todo``."""

    run: Run
    state: Literal["done", "failed", "running", "elsewhere", "todo"]
    why: str = ""


@dataclass
class Outcome:
    """What became of a list of runs."""

    done: list[Run] = field(default_factory=list)
    trained: list[Run] = field(default_factory=list)
    linked: list[Run] = field(default_factory=list)
    failed: list[tuple[Run, str]] = field(default_factory=list)

    def add(self, other: Outcome, run: Run, finished: Callable[[Run, str], None]) -> None:
        """Take in what became of ``run`` and of what it required; ``finished`` hears of the run's states."""
        for one in fields(other):
            became = getattr(other, one.name)
            getattr(self, one.name).extend(became)
            if became:
                finished(run, one.name)


def load_study(root: Path, profile: str, *, planned: bool = False) -> Study:
    """The study of a profile below the project's root, with the results that came in archives. Raises ConfigError in one line.

    planned: the process that started this one has made this plan, and found that its parts fit each other.
    """
    workspace = Workspace(root, profile)
    params = load_params(workspace.params)
    wanted = profile_of(params, profile, workspace.params)
    asked = f"{workspace.params}: profiles.{profile}.papers"
    trained = workspace.trained()

    def known_to_fit(configuration: Configuration) -> bool:
        return planned or configuration.id in trained  # the id covers all that could not fit, so it needs no second look

    papers = (
        load_papers(workspace.papers, params, wanted.papers, asked, known_to_fit=known_to_fit) if wanted.papers else {}
    )
    plan = make_plan(params, profile, plan_cells(papers, wanted.seed_range()), known_to_fit)
    packs.unpack(root)
    return Study(params, plan, workspace)


class Study:
    """See the module's docstring."""

    def __init__(self, params: Params, plan: Plan, workspace: Workspace) -> None:
        self.params, self.plan, self.workspace = params, plan, workspace
        self._loaded: tuple[str, data.Dataset] | None = None

    @property
    def profile(self):
        """The profile's entry in ``params.yaml``."""
        return self.params.profiles[self.workspace.profile]

    # --------------------------------------------------------------------------------------------------- jobs

    @cached_property
    def _jobs(self) -> list[Job]:
        block = self.profile.seeds_per_job
        grouped: dict[tuple[str, int], list[Run]] = {}
        for run in self.plan.runs:  # in order: earlier seed blocks first, requirements before what needs them
            grouped.setdefault((run.configuration.id, run.seed // block), []).append(run)
        job_of = {run.id: self._job_id(runs) for runs in grouped.values() for run in runs}
        jobs = []
        for position, runs in enumerate(grouped.values()):
            job_id = self._job_id(runs)
            configuration = runs[0].configuration
            jobs.append(
                Job(
                    id=job_id,
                    configuration=configuration,
                    seeds=tuple(run.seed for run in runs),
                    requires=tuple(dict.fromkeys(job_of[r.id] for run in runs for r in run.requires())),
                    priority=len(grouped) - position,
                    marker=self.workspace.runs / configuration.id / f"{job_id.removeprefix(configuration.id)[1:]}.done",
                )
            )
        return jobs

    @staticmethod
    def _job_id(runs: Sequence[Run]) -> str:
        seeds = [run.seed for run in runs]
        return f"{runs[0].configuration.id}.seeds-{min(seeds)}-{max(seeds)}-{digest(seeds)[:6]}"

    def jobs(self) -> list[Job]:
        """All jobs, in run order."""
        return self._jobs

    def job(self, job_id: str) -> Job:
        """The job of this id. Raises CollabenchError where the plan has none."""
        for job in self._jobs:
            if job.id == job_id:
                return job
        raise CollabenchError(f"the plan of profile {self.workspace.profile} has no job {job_id!r}")

    def drop_stale_markers(self, tell: Tell | None = None) -> list[Path]:
        """Remove the markers of jobs whose result files are not all there, so that they are run again.

        tell: if given, every file of the results is also verified by its checksum, and what is damaged is told.
        """
        stale = []
        for job in self._jobs:
            if not job.marker.exists():
                continue
            try:
                if _content(job.marker) != job.marker_content:
                    raise ResultError(f"{job.marker}: damaged marker")
                for run in job.runs:
                    if tell is not None:
                        load_result(self._folder(run), run)
                    elif not (self._folder(run) / RESULT).exists():
                        raise ResultError(f"{self._folder(run) / RESULT}: is missing")
            except ResultError as error:
                if tell is not None:
                    tell(f"{error}; it is made again")
                job.marker.unlink(missing_ok=True)
                stale.append(job.marker)
        return stale

    def drop_damaged_data(self, tell: Tell = print) -> None:
        """Remove manifests and static noise files of the plan that are damaged, or belong to damaged arrays, so that they are
        made again."""
        from collabench import data
        from collabench.data import noise
        from collabench.errors import DataError

        def check(path: Path, read: Callable[[Path], object], source: Path) -> None:
            try:
                if path.exists():
                    read(source)
            except DataError as error:
                tell(f"{error}; it is made again")
                path.unlink(missing_ok=True)

        for key in self.dataset_keys():
            folder = self.workspace.datasets / key
            if folder.exists():  # the lock: another process may be preparing it
                with self._preparing(key, tell):
                    check(folder / data.MANIFEST, data.load, folder)
        for runs in self.noise_files().values():
            for path in map(self.noise_file, runs):
                check(path, noise.read_static, path)

    def mend(self, tell: Tell = print, *, results: bool = True) -> None:
        """Clear what killed processes left behind, verify every file of the plan by its checksum, and remove what no longer
        holds, saying so, so that it is made again. Nothing that is whole is touched.

        results: False where no result is about to be used; data sets and noise only, which takes a moment.
        """
        if self.workspace.home.is_dir():
            for folder in (self.workspace.home, self.workspace.locks_of_all_profiles):
                remove_abandoned(folder)
            self.drop_damaged_data(tell)
            if results:
                self.drop_stale_markers(tell)

    def finish_job(self, job: Job) -> None:
        """Write a job's marker."""
        write_atomically(job.marker, job.marker_content)

    # ------------------------------------------------------------------------------------------------- status

    def _folder(self, run: Run) -> Path:
        return self.workspace.run(run.configuration.id, run.seed)

    def status(self, run: Run) -> RunStatus:
        """Whether a run is done, failed, being trained, available elsewhere, or still to be trained, and why."""
        if (self._folder(run) / RESULT).exists():
            return RunStatus(run, "done")
        if self.workspace.failure(run.id).exists():
            return RunStatus(run, "failed", self._why_failed(run))
        if is_held(self.workspace.lock(run.id)):
            return RunStatus(run, "running")
        for sibling in self.workspace.siblings():
            if (sibling.run(run.configuration.id, run.seed) / RESULT).exists():
                return RunStatus(run, "elsewhere", f"{sibling.title} has it")
        return RunStatus(run, "todo")

    def statuses(self) -> list[RunStatus]:
        """The status of every run of the plan, in run order."""
        return [self.status(run) for run in self.plan.runs]

    def explain_missing(self, runs: Iterable[Run]) -> dict[str, str]:
        """Configuration id → why its runs are not there: the fields in which the nearest stored run differs."""
        wanted = {run.configuration.id: run.configuration for run in runs}
        stored: dict[str, dict] = {}
        places = (self.workspace.runs, self.workspace.aside.runs) if wanted else ()
        for folder in (folder for place in places for folder in sorted(place.glob("*/seed-*"))):
            if folder.parent.name not in stored and folder.parent.name not in self.plan.configurations:
                try:
                    stored[folder.parent.name] = read_json(folder / RESULT, Result).identity
                except ResultError:
                    continue
        reasons = {}
        for identifier, configuration in wanted.items():
            candidates = [_changes(identity, configuration.identity()) for identity in stored.values()]
            nearest = min(candidates, key=len, default=None)
            if any((self.workspace.runs / identifier).glob("seed-*")):
                reasons[identifier] = "new seeds"
            elif not nearest or len(nearest) > 4:
                reasons[identifier] = "never run"
            else:
                reasons[identifier] = "changed: " + "; ".join(nearest)
        return reasons

    def _why_failed(self, run: Run) -> str:
        try:
            return read_json(self.workspace.failure(run.id), Failure).reason
        except ResultError as error:
            return f"reason unknown: {error}"

    # ------------------------------------------------------------------------------------------ data and noise

    def prepare_datasets(self, tell: Tell = print, keys: Iterable[str] | None = None) -> None:
        """Download, verify and cache every data set of the plan, or those of ``keys``. Does nothing for those that are
        there."""
        for key, configuration in self._by_dataset().items():
            if keys is None or key in keys:
                self.prepare_dataset(key, configuration, tell)

    def prepare_for(self, runs: Iterable[Run], tell: Tell = print) -> None:
        """Prepare the data sets and the static noisy labels that ``runs`` need."""
        keys = {dataset_key(run.configuration.dataset) for run in runs}
        self.prepare_datasets(tell, keys)
        noisy = self.noise_files().items()
        self.prepare_noise(tell, [key for key, users in noisy if dataset_key(users[0].configuration.dataset) in keys])

    def without_missing_data(self, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
        """The runs whose data sets are there or can be fetched, and one line on each data set that the others lack."""
        missing = self.missing_datasets()
        possible = [run for run in runs if dataset_key(run.configuration.dataset) not in missing]
        lacking = {dataset_key(run.configuration.dataset) for run in runs} & missing.keys()
        return possible, [missing[key] for key in sorted(lacking)]

    def missing_datasets(self) -> dict[str, str]:
        """Key → one line, for each data set of the plan whose files the user has yet to place or to pin."""
        from collabench import data

        missing = {}
        for key, configuration in self._by_dataset().items():
            if not (self.workspace.datasets / key).exists():
                line = data.what_is_missing(configuration.dataset, self.workspace.root)
                if line is not None:
                    missing[key] = f"data set {configuration.names['dataset']}: {line}"
        return missing

    def _by_dataset(self) -> dict[str, Configuration]:
        return {dataset_key(c.dataset): c for c in reversed(self.plan.configurations.values())}

    def dataset_keys(self) -> list[str]:
        """Keys (:func:`collabench.spec.dataset_key`) of the plan's data sets."""
        return sorted(self._by_dataset())

    def prepare_dataset(self, key: str, configuration: Configuration | None = None, tell: Tell = print) -> None:
        """Prepare the data set of this key (:func:`collabench.spec.dataset_key`)."""
        from collabench import data

        configuration = configuration or self._by_dataset()[key]
        folder = self.workspace.datasets / key
        with self._preparing(key, tell):
            if not folder.exists():
                self._link_dataset(key, folder)
            data.prepare(
                configuration.dataset, self.workspace.downloads, folder, progress=tell, root=self.workspace.root
            )

    def _preparing(self, key: str, tell: Tell) -> AbstractContextManager[None]:
        return holding(self.workspace.lock(f"dataset-{key}"), f"data set {key}", tell)

    def _link_dataset(self, key: str, folder: Path) -> None:
        for sibling in self.workspace.siblings():
            if (sibling.datasets / key).is_dir():
                _link_files(sibling.datasets / key, folder, sorted(p.name for p in (sibling.datasets / key).iterdir()))
                return

    def noise_files(self) -> dict[str, list[Run]]:
        """Noise key → one run for each static noise file that is needed."""
        needed: dict[str, dict[int, Run]] = {}
        for run in self.plan.runs:
            noise = run.configuration.noise
            if noise.kind != "none" and noise.when == "static":
                needed.setdefault(noise_key(run.configuration.dataset, noise), {}).setdefault(run.data_seed, run)
        return {key: list(runs.values()) for key, runs in needed.items()}

    def static_noise(self, run: Run, tell: Tell = print) -> data.NoisyLabels | None:
        """The run's static noisy labels, drawn again if they are damaged; None where its noise isn't static."""
        from collabench.data import noise
        from collabench.errors import DataError

        config = run.configuration.noise
        if config.kind == "none" or config.when != "static":
            return None
        try:
            return noise.read_static(self.noise_file(run))
        except DataError as error:
            tell(f"{error}; drawing it again")
        self._draw_noise(run, tell)
        return noise.read_static(self.noise_file(run))

    def _draw_noise(self, run: Run, tell: Tell) -> None:
        from collabench.data import noise

        config, dataset = run.configuration.noise, self.dataset(run.configuration, tell)
        drawn = noise.draw(config, dataset.train_labels, dataset.classes, run.data_seed)
        noise.write_static(self.noise_file(run), drawn, config, run.data_seed)

    def noise_file(self, run: Run) -> Path:
        """Where the run's static noisy labels lie."""
        key = noise_key(run.configuration.dataset, run.configuration.noise)
        return self.workspace.noise / key / f"seed-{run.data_seed}.safetensors"

    def prepare_noise(self, tell: Tell = print, keys: Iterable[str] | None = None) -> None:
        """Draw the static noisy labels that are missing or damaged; the data sets must be there."""
        from collabench.data import noise
        from collabench.errors import DataError

        files = self.noise_files()
        for key in files if keys is None else keys:
            for run in files[key]:
                path = self.noise_file(run)
                if path.exists():
                    try:
                        noise.read_static(path)
                        continue
                    except DataError as error:
                        tell(f"{error}; drawing it again")
                self._draw_noise(run, tell)

    def dataset(self, configuration: Configuration, tell: Tell = print) -> data.Dataset:
        """The prepared data set of a configuration, made again if it is damaged; the last one stays loaded."""
        from collabench import data
        from collabench.errors import DataError

        key = dataset_key(configuration.dataset)
        if self._loaded is None or self._loaded[0] != key:
            try:
                loaded = data.load(self.workspace.datasets / key)
            except DataError:
                self.prepare_dataset(key, configuration, tell)  # says what was wrong
                loaded = data.load(self.workspace.datasets / key)
            self._loaded = (key, loaded)
        return self._loaded[1]

    # ----------------------------------------------------------------------------------------------- training

    def missing_files(self, runs: Iterable[Run]) -> list[str]:
        """One line on each configuration with unfinished runs that reads a file which is missing or not the one meant."""
        waiting = {run.configuration.id: run for run in runs if not (self._folder(run) / RESULT).exists()}
        lines = []
        for run in waiting.values():
            try:
                check_files(run.configuration)
            except ConfigError as error:
                lines.append(f"{self.params.place(error.key)}{error}")
        return lines

    def check_files(self, runs: Iterable[Run]) -> None:
        """Raise ConfigError, before anything runs, if :meth:`missing_files` are found."""
        lines = self.missing_files(runs)
        if lines:
            raise ConfigError(lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""))

    def check_device(self, device: str) -> None:
        """Raise ConfigError, before anything runs, if a recipe of the plan asks for what this device should not do, or for
        processes that only torchrun starts."""
        for run in self.plan.runs:
            if run.configuration.recipe.processes > 1 and self.status(run).state not in ("done", "elsewhere"):
                self._check_processes(run)
        recipes = {c.names["recipe"]: c.recipe for c in self.plan.configurations.values()}
        unusual = {name: r for name, r in recipes.items() if r.compile or r.precision != "float32"}
        if not unusual:
            return  # without the seconds that torch's import takes
        import torch

        from collabench.training.device import check_execution

        for name, recipe in unusual.items():
            try:
                check_execution(recipe, torch.device(device))
            except ConfigError as error:
                raise ConfigError(f"params.yaml: recipes.{name}: {error}") from None

    def _check_processes(self, run: Run) -> None:
        """Raise ConfigError unless torchrun started as many processes as the run's recipe asks for."""
        from collabench import distributed

        wanted, here = run.configuration.recipe.processes, distributed.launched_world()
        if wanted != here and (here == 1 or wanted == 1):
            started = f"torchrun --nproc-per-node {wanted} -m " if wanted > 1 else ""
            raise ConfigError(
                f"params.yaml: recipes.{run.configuration.names['recipe']}.processes: {wanted} processes share a run, here is "
                f"{here}; train those runs first with `{started}collabench run -p {self.workspace.profile}`"
            )

    def train(
        self, runs: Sequence[Run], *, device: str | None = None, retry_failed: bool = False, tell: Tell = print
    ) -> Outcome:
        """Make every one of ``runs`` available, in order, in this process: keep it, link it, resume it or train it.

        A run that fails is recorded with its reason and the others go on. A run that another living process is training
        is waited for. Raises StorageError where files cannot be written, which no run is blamed for.
        """
        checkpoint_seconds()  # a mistake there is no run's fault
        outcome = Outcome()
        for run in runs:
            everywhere = self.workspace.lock_of_all_profiles(run.id)
            with holding(self.workspace.lock(run.id), run.id, tell), holding(everywhere, run.id, tell):
                self._make_available(run, outcome, device, retry_failed, tell)
        return outcome

    def _make_available(self, run: Run, outcome: Outcome, device: str | None, retry_failed: bool, tell: Tell) -> None:
        folder, failure = self._folder(run), self.workspace.failure(run.id)
        if (folder / RESULT).exists():
            try:
                load_result(folder, run)
                self._forget(run)  # where a kill came between the two
                outcome.done.append(run)
                return
            except ResultError as error:
                tell(f"{error}; training it again")
                (folder / RESULT).unlink(missing_ok=True)
        if failure.exists() and not retry_failed:
            try:
                outcome.failed.append((run, read_json(failure, Failure).reason))
                return
            except ResultError as error:
                tell(f"{error}; training it again")
                failure.unlink(missing_ok=True)
        if self._link_run(run, tell):
            self._forget(run)
            outcome.linked.append(run)
            return
        self._check_processes(run)
        try:
            self._write(run, self._train(run, device, tell))
        except StorageError:
            raise
        except OSError as error:
            place, reason = error.filename or run.id, error.strerror or error
            raise StorageError(f"{place}: {reason}; {run.id} goes on at the next start") from None
        except Exception as error:  # whatever it is, the other runs go on and the report names this one
            reason = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, CollabenchError):
                reason = f"{type(error).__name__}: {reason}"
            write_json(
                failure,
                Failure(
                    run_id=run.id,
                    label=run.configuration.label,
                    reason=reason[:500],
                    when=datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )
            if isinstance(error, RunFailed):  # it diverged: a retry must not go on from there
                self.workspace.checkpoint(run.id).unlink(missing_ok=True)
            outcome.failed.append((run, reason))
            tell(f"{run.id} failed: {reason}")
        else:
            self._forget(run)
            outcome.trained.append(run)
        finally:
            self.workspace.progress(run.id).unlink(missing_ok=True)

    def _forget(self, run: Run) -> None:
        """Remove what a finished run has no use for."""
        workspace = self.workspace
        for path in (workspace.checkpoint(run.id), workspace.progress(run.id), workspace.failure(run.id)):
            path.unlink(missing_ok=True)

    def _train(self, run: Run, device: str | None, tell: Tell) -> Trained:
        from collabench.training import train_run
        from collabench.training.device import choose_device

        configuration = run.configuration
        chosen = choose_device(device or self.profile.device)
        self._commit  # noqa: B018 (asked before training: the code that was loaded, not the one at the end)
        dataset = self.dataset(configuration, tell)
        return train_run(
            run,
            dataset,
            device=chosen,
            static_noise=self.static_noise(run, tell),
            teachers=[self._required(required, device, tell) for required in run.requires()],
            checkpoint_path=self.workspace.checkpoint(run.id),
            checkpoint_seconds=checkpoint_seconds(),
            report=self._progress_writer(run),
            tell=tell,
        )

    def _required(self, run: Run, device: str | None, tell: Tell) -> torch.nn.Module:
        """The deployed network of a run that another one needs, which is trained again if it is damaged or gone."""
        try:
            return self.deployed(run)
        except ResultError as error:
            tell(str(error))
        outcome = self.train([run], device=device, tell=tell)
        if outcome.failed:
            raise RunFailed(f"needs {run.id}, which failed: {outcome.failed[0][1]}")
        return self.deployed(run)

    def _progress_writer(self, run: Run) -> Callable[[Progress], None]:
        path = self.workspace.progress(run.id)

        def write(progress: Progress) -> None:
            about = {"run_id": run.id, "label": run.configuration.label, "seed": run.seed, "pid": os.getpid()}
            write_json(path, InProgress(**about, **asdict(progress)), durable=False)

        return write

    def _write(self, run: Run, trained: Trained) -> None:
        """Write a run's files; ``result.json`` last, since its existence says that the run is done."""
        from safetensors.torch import save

        folder = self._folder(run)
        files = {LOGITS: save(trained.logits)}
        if trained.weights is not None:
            files[WEIGHTS] = save(trained.weights)
        for name, content in files.items():
            write_atomically(folder / name, content)
        commit, dirty = self._commit
        write_json(
            self.workspace.measured_file(run.configuration.id, run.seed),
            trained.measured.model_copy(
                update={
                    "commit": commit,
                    "dirty": dirty,
                    "configuration": digest(run.configuration.identity()),
                    "dataset": trained.result.dataset_digest,
                }
            ),
        )
        checksums = {name: sha256_of(folder / name) for name in files}
        write_json(folder / RESULT, trained.result.model_copy(update={"files": checksums}))
        self.workspace.checkpoint(run.id).unlink(missing_ok=True)

    @cached_property
    def _commit(self) -> tuple[str | None, bool | None]:
        """The commit that the code is at, and whether code or configuration differ from it."""

        def git(*arguments: str) -> str:
            return subprocess.run(
                ["git", "-C", str(self.workspace.root), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()

        try:
            changed = git("status", "--porcelain", "--", "src", "pipeline", "papers", "params.yaml", "Snakefile")
            return git("rev-parse", "HEAD"), bool(changed)
        except (OSError, subprocess.CalledProcessError):
            return None, None

    def _link_run(self, run: Run, tell: Tell) -> bool:
        """Take the run's files from another profile that has it, checked. False if none has."""
        for sibling in self.workspace.siblings():
            source = sibling.run(run.configuration.id, run.seed)
            if not (source / RESULT).exists():
                continue
            try:
                result = load_result(source, run)
            except ResultError as error:
                tell(f"{error}; this copy, of {sibling.title}, is not used")
                continue
            measured = sibling.measured_file(run.configuration.id, run.seed)
            if measured.exists():
                target = self.workspace.measured_file(run.configuration.id, run.seed)
                _link_files(measured.parent, target.parent, [target.name])
            _link_files(source, self._folder(run), [*result.files, RESULT])
            return True
        return False

    def deployed(self, run: Run) -> torch.nn.Module:
        """The network that a finished run deployed, with its weights, in eval mode, on the CPU.

        Raises ResultError if the run isn't there or is damaged.
        """
        import torch

        from collabench.compatibility import input_shape_of
        from collabench.training.loop import make_context, make_method

        folder, configuration = self._folder(run), run.configuration
        load_result(folder, run)
        dataset = self.dataset(configuration)
        shape = input_shape_of(dataset.input_shape, configuration.recipe)
        teachers = [self.deployed(required) for required in run.requires()]
        method = make_method(
            configuration, make_context(configuration, shape, len(dataset.classes), run.seed, teachers)
        )
        network = method.deploy(method.build())
        if method.trains:
            network.load_state_dict(load_weights(folder))
        return network.to(memory_format=torch.channels_last).eval()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def checkpoint_seconds() -> float:
    """Seconds between checkpoints: $COLLABENCH_CHECKPOINT_SECONDS, or 60. Raises ConfigError unless it is a number from 0 on."""
    text = os.environ.get("COLLABENCH_CHECKPOINT_SECONDS", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"COLLABENCH_CHECKPOINT_SECONDS={text}: must be a number of seconds, 0 or more")
    return seconds


def _changes(before: dict, after: dict) -> list[str]:
    """The fields that changed; the ids of required runs, which follow from them, only where nothing else did."""
    found = list(differences(before, after))
    return [change for change in found if not change.startswith("requires")] or found


def _link_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Make ``names`` of ``source`` available in ``target``: hard links, copies where the file system has none."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            (target / name).unlink(missing_ok=True)
            os.link(source / name, target / name)
        except OSError:
            write_atomically(target / name, (source / name).read_bytes())

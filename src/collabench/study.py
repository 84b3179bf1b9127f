"""A study: one profile's plan, what of it is done, and the execution of its runs.

Everything here works without Snakemake and DVC; they call the same functions through ``pipeline/``.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from collabench.config import Params, load_params, profile_of
from collabench.errors import CollabenchError, ConfigError, ResultError, RunFailed
from collabench.papers.tables import load_papers, plan_cells
from collabench.records import read_json, write_atomically, write_json
from collabench.results import LOGITS, RESULT, WEIGHTS, Failure, Result, load_result, sha256_of
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


def load_study(root: Path, profile: str) -> Study:
    """The study of a profile below the project's root. Raises ConfigError in one line."""
    workspace = Workspace(root, profile)
    params = load_params(workspace.params)
    wanted = profile_of(params, profile, workspace.params)
    papers = load_papers(workspace.papers, params, wanted.papers) if wanted.papers else {}
    return Study(params, make_plan(params, profile, plan_cells(papers, wanted.seeds)), workspace)


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

    def drop_stale_markers(self) -> list[Path]:
        """Remove the markers of jobs whose result files are not all there, so that they are run again."""
        stale = [
            job.marker
            for job in self._jobs
            if job.marker.exists() and not all((self._folder(run) / RESULT).exists() for run in job.runs)
        ]
        for marker in stale:
            marker.unlink(missing_ok=True)
        return stale

    def finish_job(self, job: Job) -> None:
        """Write a job's marker: only its existence counts."""
        write_atomically(job.marker, ("\n".join(run.id for run in job.runs) + "\n").encode())

    # ------------------------------------------------------------------------------------------------- status

    def _folder(self, run: Run) -> Path:
        return self.workspace.run(run.configuration.id, run.seed)

    def status(self, run: Run) -> RunStatus:
        """Whether a run is done, failed, being trained, available elsewhere, or still to be trained, and why."""
        if (self._folder(run) / RESULT).exists():
            return RunStatus(run, "done")
        if self.workspace.failure(run.id).exists():
            return RunStatus(run, "failed", read_json(self.workspace.failure(run.id), Failure).reason)
        if self.workspace.progress(run.id).exists() and self._is_locked(run):
            return RunStatus(run, "running")
        for sibling in self.workspace.siblings():
            if (sibling.run(run.configuration.id, run.seed) / RESULT).exists():
                return RunStatus(run, "elsewhere", f"profile {sibling.profile} has it")
        return RunStatus(run, "todo")

    def statuses(self) -> list[RunStatus]:
        """The status of every run of the plan, in run order."""
        return [self.status(run) for run in self.plan.runs]

    def explain_missing(self, runs: Iterable[Run]) -> dict[str, str]:
        """Configuration id → why its runs are not there: the fields in which the nearest stored run differs."""
        wanted = {run.configuration.id: run.configuration for run in runs}
        stored: dict[str, dict] = {}
        for folder in sorted(self.workspace.runs.glob("*/seed-*")) if wanted else ():
            if folder.parent.name not in stored and folder.parent.name not in self.plan.configurations:
                try:
                    stored[folder.parent.name] = read_json(folder / RESULT, Result).identity
                except ResultError:
                    continue
        reasons = {}
        for identifier, configuration in wanted.items():
            candidates = [list(differences(identity, configuration.identity())) for identity in stored.values()]
            nearest = min(candidates, key=len, default=None)
            if any((self.workspace.runs / identifier).glob("seed-*")):
                reasons[identifier] = "new seeds"
            elif nearest is None or len(nearest) > 4:
                reasons[identifier] = "never run"
            else:
                reasons[identifier] = "changed: " + "; ".join(nearest)
        return reasons

    def _is_locked(self, run: Run) -> bool:
        lock = FileLock(self.workspace.lock(run.id))
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

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
        if not folder.exists():
            self._link_dataset(key, folder)
        with FileLock(self.workspace.lock(f"dataset-{key}")):
            data.prepare(
                configuration.dataset, self.workspace.downloads, folder, progress=tell, root=self.workspace.root
            )

    def _link_dataset(self, key: str, folder: Path) -> None:
        for sibling in self.workspace.siblings():
            if (sibling.datasets / key).is_dir():
                _link_files(sibling.datasets / key, folder, sorted(p.name for p in (sibling.datasets / key).iterdir()))
                return

    def noise_files(self) -> dict[str, list[Run]]:
        """Noise key → one run per seed that needs a static noise file."""
        needed: dict[str, dict[int, Run]] = {}
        for run in self.plan.runs:
            noise = run.configuration.noise
            if noise.kind != "none" and noise.when == "static":
                needed.setdefault(noise_key(run.configuration.dataset, noise), {}).setdefault(run.seed, run)
        return {key: list(runs.values()) for key, runs in needed.items()}

    def noise_file(self, run: Run) -> Path:
        """Where the run's static noisy labels lie."""
        key = noise_key(run.configuration.dataset, run.configuration.noise)
        return self.workspace.noise / key / f"seed-{run.seed}.safetensors"

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
                dataset = self.dataset(run.configuration)
                drawn = noise.draw(run.configuration.noise, dataset.train_labels, dataset.classes, run.seed)
                noise.write_static(path, drawn, run.configuration.noise, run.seed)

    def dataset(self, configuration: Configuration) -> data.Dataset:
        """The prepared data set of a configuration; the last one stays loaded."""
        from collabench import data

        key = dataset_key(configuration.dataset)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = (key, data.load(self.workspace.datasets / key))
        return self._loaded[1]

    # ----------------------------------------------------------------------------------------------- training

    def check_device(self, device: str) -> None:
        """Raise ConfigError, before anything runs, if a recipe of the plan asks for what this device should not do."""
        recipes = {c.names["recipe"]: c.recipe for c in self.plan.configurations.values()}
        unusual = {name: r for name, r in recipes.items() if r.compile or r.precision != "float32"}
        if not unusual:
            return  # without the seconds that torch's import takes
        import torch

        from collabench.training.device import check_execution

        for name, recipe in unusual.items():
            try:
                check_execution(recipe.precision, recipe.compile, torch.device(device))
            except ConfigError as error:
                raise ConfigError(f"params.yaml: recipes.{name}: {error}") from None

    def train(
        self, runs: Sequence[Run], *, device: str | None = None, retry_failed: bool = False, tell: Tell = print
    ) -> Outcome:
        """Make every one of ``runs`` available, in order, in this process: keep it, link it, resume it or train it.

        A run that fails is recorded with its reason and the others go on. A run that another living process is training
        is waited for.
        """
        outcome = Outcome()
        for run in runs:
            self.workspace.lock(run.id).parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.workspace.lock(run.id))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                tell(f"{run.id}: another process is training it; waiting")
                lock.acquire()
            try:
                self._make_available(run, outcome, device, retry_failed, tell)
            finally:
                lock.release()
        return outcome

    def _make_available(self, run: Run, outcome: Outcome, device: str | None, retry_failed: bool, tell: Tell) -> None:
        folder, failure = self._folder(run), self.workspace.failure(run.id)
        if (folder / RESULT).exists():
            try:
                load_result(folder, run)
                outcome.done.append(run)
                return
            except ResultError as error:
                tell(f"{error}; training it again")
                (folder / RESULT).unlink(missing_ok=True)
        if failure.exists() and not retry_failed:
            outcome.failed.append((run, read_json(failure, Failure).reason))
            return
        if self._link_run(run):
            outcome.linked.append(run)
            return
        try:
            self._write(run, self._train(run, device, tell))
        except KeyboardInterrupt:
            raise
        except (RunFailed, RuntimeError, ArithmeticError, ValueError, AssertionError, CollabenchError) as error:
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
            outcome.failed.append((run, reason))
            tell(f"{run.id} failed: {reason}")
        else:
            failure.unlink(missing_ok=True)
            outcome.trained.append(run)
        finally:
            self.workspace.progress(run.id).unlink(missing_ok=True)

    def _train(self, run: Run, device: str | None, tell: Tell) -> Trained:
        from collabench.data import noise
        from collabench.training import train_run
        from collabench.training.device import choose_device

        configuration = run.configuration
        chosen = choose_device(device or self.profile.device)
        static = configuration.noise.kind != "none" and configuration.noise.when == "static"
        return train_run(
            run,
            self.dataset(configuration),
            device=chosen,
            static_noise=noise.read_static(self.noise_file(run)) if static else None,
            teachers=[self.deployed(required) for required in run.requires()],
            checkpoint_path=self.workspace.checkpoint(run.id),
            checkpoint_seconds=float(os.environ.get("COLLABENCH_CHECKPOINT_SECONDS", "60")),
            report=self._progress_writer(run),
            tell=tell,
        )

    def _progress_writer(self, run: Run) -> Callable[[Progress], None]:
        path = self.workspace.progress(run.id)
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(progress: Progress) -> None:
            record = {
                "run_id": run.id,
                "label": run.configuration.label,
                "seed": run.seed,
                **asdict(progress),
                "updated": time.time(),
                "pid": os.getpid(),
            }
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(record))
            temporary.replace(path)

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
            trained.measured.model_copy(update={"commit": commit, "dirty": dirty}),
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

    def _link_run(self, run: Run) -> bool:
        """Take the run's files from another profile that has it, checked. False if none has."""
        for sibling in self.workspace.siblings():
            source = sibling.run(run.configuration.id, run.seed)
            if not (source / RESULT).exists():
                continue
            try:
                result = load_result(source, run)
            except ResultError:
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
        from safetensors.torch import load

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
            network.load_state_dict(load((folder / WEIGHTS).read_bytes()))
        return network.to(memory_format=torch.channels_last).eval()


def _link_files(source: Path, target: Path, names: Iterable[str]) -> None:
    """Make ``names`` of ``source`` available in ``target``: hard links, copies where the file system has none."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            (target / name).unlink(missing_ok=True)
            os.link(source / name, target / name)
        except OSError:
            write_atomically(target / name, (source / name).read_bytes())

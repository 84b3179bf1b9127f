"""A study: one profile's plan, its status and its inputs.

Everything here works without Snakemake and DVC, which call the same functions through ``pipeline/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.compatibility import check_files
from collabench.config.configuration import SECTIONS, Configuration, Run
from collabench.config.params import Params, load_params, profile_of
from collabench.config.plan import Growth, Plan, grow, make_plan
from collabench.core.errors import ConfigError, Log
from collabench.papers.claims import load_claims
from collabench.papers.replications import replicated_cells
from collabench.papers.tables import load_papers, plan_cells
from collabench.storage import archives
from collabench.storage.files import remove_abandoned
from collabench.storage.results import RESULT
from collabench.storage.workspace import Workspace
from collabench.study import growth as growing
from collabench.study import variants
from collabench.study.inputs import Inputs
from collabench.study.jobs import Jobs
from collabench.study.status import RunStatus, explain_missing, status_of

if TYPE_CHECKING:
    from collabench.report.looks import ClaimState


def load_study(root: Path, profile: str, *, planned: bool = False, settings: Sequence[str] = ()) -> Study:
    """Load the study of a profile below the project's root, and unpack results that arrived in archives.

    The plan has the seeds that undecided claims need (:mod:`collabench.study.growth`), or those that the process which
    scheduled this one has found. planned: the calling process has made this plan and has found that its parts fit each
    other. settings: in place of the file's values; the study is then a variant of the profile
    (:mod:`collabench.study.variants`). Raises ConfigError (one line).
    """
    variant = variants.find(root, profile, settings)
    workspace = Workspace(root, variant.name)
    params = load_params(workspace.params, variant.settings)
    wanted = profile_of(params, variant.profile, workspace.params)
    if variant.settings:
        wanted = wanted.model_copy(update={"description": f"{wanted.description} ({variant.described})"})
        params.profiles[variant.name] = wanted
    asked = f"{workspace.params}: profiles.{variant.profile}.papers"
    trained = workspace.trained()

    def known_to_fit(configuration: Configuration) -> bool:
        return (
            planned or configuration.id in trained
        )  # the id covers everything that could be incompatible, so it is not checked again

    papers = (
        load_papers(workspace.papers, params, wanted.papers, asked, known_to_fit=known_to_fit) if wanted.papers else {}
    )
    cells = list(plan_cells(papers, wanted.seed_range(), wanted.datasets))
    if wanted.replicates:
        cells += replicated_cells(load_claims(workspace.papers, params), params, variant.profile, known_to_fit)
    plan = make_plan(params, variant.name, cells, known_to_fit)
    params.refuse_unused_settings(variant.profile, _entries_of(plan))
    archives.unpack(root)
    scheduled = growing.from_environment(variant.name)
    study = Study(params, plan, workspace)
    return study.grown() if scheduled is None else study.with_growth(scheduled)


def _entries_of(plan: Plan) -> set[tuple[str, str]]:
    """Section and name of every entry of ``params.yaml`` that a plan uses."""
    every = plan.configurations.values()
    named = {(SECTIONS[part], name) for configuration in every for part, name in configuration.names.items()}
    return named | {("models", name) for configuration in every for name in configuration.peer_models}


class Study:
    """A profile with its plan, jobs and inputs.

    claims: how far each claim of a sequential design is, if this process has looked at the results.
    """

    def __init__(self, params: Params, plan: Plan, workspace: Workspace, claims: tuple[ClaimState, ...] = ()) -> None:
        self.params, self.plan, self.workspace, self.claims = params, plan, workspace, claims
        self.jobs = Jobs(plan, workspace, self.profile.seeds_per_job)
        self.inputs = Inputs(plan, workspace)

    def grown(self) -> Study:
        """This study with the seeds that its claims need by the results that are on disk now."""
        states = growing.states_of(self.params, self.plan.of_tables, self.workspace)
        study = Study(self.params, self.plan, self.workspace, states)
        return study.with_growth(growing.growth_of(states, self.plan.of_tables))

    def with_growth(self, growth: Growth | None) -> Study:
        """This study with the seeds of ``growth`` beside those of its tables."""
        plan = grow(self.plan, growth, self.profile.seeds_per_job)
        return Study(self.params, plan, self.workspace, self.claims)

    @property
    def ahead(self) -> list[Run]:
        """The runs that undecided claims wait for and that are not there."""
        ahead = (run for run in self.plan.runs if run.id in self.plan.ahead)
        return [run for run in ahead if not (self.workspace.folder(run) / RESULT).exists()]

    @property
    def expected(self) -> list[Run]:
        """The runs without which the study is not whole, and those that are there beyond them."""
        ahead = {run.id for run in self.ahead}
        return [run for run in self.plan.runs if run.id not in ahead]

    @property
    def profile(self):
        """The profile's entry in ``params.yaml``."""
        return self.params.profiles[self.workspace.profile]

    def mend(self, log: Log = print, *, results: bool = True) -> None:
        """Clean up after killed processes, and verify every file of the plan by its checksum.

        Damaged files are logged and removed, so that they are made again. Undamaged files stay unchanged.

        results: False if no result is about to be used. Only data sets and noise are then verified, which takes a
        moment.
        """
        if self.workspace.home.is_dir():
            for folder in (self.workspace.home, self.workspace.state, self.workspace.locks_of_all_profiles):
                remove_abandoned(folder)
            self.workspace.round.unlink(missing_ok=True)
            self.inputs.drop_damaged(log)
            if results:
                self.jobs.drop_stale_markers(log)

    def status(self, run: Run) -> RunStatus:
        """Whether a run is done, failed, in training, available elsewhere or to be trained, and why."""
        return status_of(self.workspace, run)

    def statuses(self) -> list[RunStatus]:
        """The status of every run of the plan, in run order."""
        return [self.status(run) for run in self.plan.runs]

    def explain_missing(self, runs: Iterable[Run]) -> dict[str, str]:
        """Configuration id → why its runs are missing: the fields in which the nearest stored run differs."""
        return explain_missing(self.plan, self.workspace, runs)

    def missing_files(self, runs: Iterable[Run]) -> list[str]:
        """One line for each configuration with unfinished runs that reads a file which is missing or has other
        content; configurations of the same noisy labels share it."""
        waiting = {run.configuration.id: run for run in runs if not (self.workspace.folder(run) / RESULT).exists()}
        lines: dict[str, None] = {}
        for run in waiting.values():
            try:
                check_files(run.configuration)
                if run.configuration.noise.path is not None:
                    from collabench.data.label_files import check_noise_file

                    check_noise_file(run.configuration)
            except ConfigError as error:
                lines[f"{self.params.place(error.key)}{error}"] = None
        return list(lines)

    def check_files(self, runs: Iterable[Run]) -> None:
        """Raise ConfigError, before anything runs, if :meth:`missing_files` finds any."""
        lines = self.missing_files(runs)
        if lines:
            raise ConfigError(lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""))

    def check_device(self, device: str) -> None:
        """Raise ConfigError, before anything runs, if a recipe of the plan does not suit this device or needs
        torchrun."""
        for run in self.plan.runs:
            if run.configuration.recipe.processes > 1 and self.status(run).state not in ("done", "elsewhere"):
                self.check_processes(run)
        recipes = {c.names["recipe"]: c.recipe for c in self.plan.configurations.values()}
        unusual = {
            name: r
            for name, r in recipes.items()
            if r.compile or r.precision != "float32" or r.arithmetic == "portable"
        }
        if not unusual:
            return  # without importing torch, which takes seconds
        import torch

        from collabench.training.device import check_execution

        for name, recipe in unusual.items():
            try:
                check_execution(recipe, torch.device(device))
            except ConfigError as error:
                raise ConfigError(f"params.yaml: recipes.{name}: {error}") from None

    def check_processes(self, run: Run) -> None:
        """Raise ConfigError unless torchrun started the number of processes that the run's recipe asks for."""
        from collabench.core import distributed

        wanted, here = run.configuration.recipe.processes, distributed.launched_world()
        if wanted != here and (here == 1 or wanted == 1):
            started = f"torchrun --nproc-per-node {wanted} -m " if wanted > 1 else ""
            raise ConfigError(
                f"params.yaml: recipes.{run.configuration.names['recipe']}.processes: {wanted} processes share a run, "
                f"here is {here}; train those runs first with `{started}collabench run -p {self.workspace.profile}`"
            )

"""Where things lie. The only place that knows the folder layout below the project's root.

::

    data/                                   downloads, shared by all profiles
    artifacts/<profile>/
      datasets/<key>/                       manifest.json, arrays.safetensors          (DVC)
      noise/<key>/seed-<n>.safetensors      static noisy labels                        (DVC)
      runs/<configuration>/seed-<n>/        result.json, logits.safetensors, weights.safetensors   (DVC: checksum only)
      runs/<configuration>/<seeds>.done     what Snakemake looks at
      measured/<configuration>/seed-<n>.json  time, memory, device, versions
      report/                               tables and figures that the results determine (DVC)
      costs/                                tables of measured.json
      latex/                                tables as LaTeX, if asked for
      packed/                               runs/<configuration>.tar, measured.tar: the same files, as they travel (DVC)
      settings.json                         of a variant (``<profile>~<digest>``): its settings of the command line
      state/                                checkpoints, failures, locks, progress, logs: never shared
        set-aside/                          what no table needs any longer, in folders as above
    reports/<profile>/                      the accepted report, in git
    reports/index.html, reports/README.md   the pages of all profiles, from the accepted reports, in git
    artifacts/index.html                    the same page with what was built here, where that differs
    records/<profile>/<configuration>.json.xz  results without logits and weights, in git
    reports/accepted-code.json              which code was accepted as computing the same, in git
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collabench.config.configuration import Run

_ASIDE = "state/set-aside"


@dataclass(frozen=True)
class Workspace:
    """Paths of one profile below ``root``.

    project: the folder of the project, if ``root`` is that of a temporary copy.
    """

    root: Path
    profile: str
    project: Path | None = None

    @property
    def base_of_data(self) -> Path:
        """The folder to which relative paths of data sets refer."""
        return self.project or self.root

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def papers(self) -> Path:
        return self.root / "papers"

    @property
    def downloads(self) -> Path:
        return self.root / "data"

    @property
    def home(self) -> Path:
        return self.root / "artifacts" / self.profile

    @property
    def datasets(self) -> Path:
        return self.home / "datasets"

    @property
    def noise(self) -> Path:
        return self.home / "noise"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def measured(self) -> Path:
        return self.home / "measured"

    @property
    def report(self) -> Path:
        return self.home / "report"

    @property
    def settings(self) -> Path:
        """The settings of a variant (:mod:`collabench.study.variants`)."""
        return self.home / "settings.json"

    @property
    def reproduce_lock(self) -> Path:
        """Held while DVC runs. DVC has one lock for all profiles of a folder and does not wait for it."""
        return self.root / "artifacts" / ".reproduce.lock"

    @property
    def costs(self) -> Path:
        return self.home / "costs"

    @property
    def packed_runs(self) -> Path:
        return self.home / "packed" / "runs"

    @property
    def packed_measured(self) -> Path:
        return self.home / "packed" / "measured.tar"

    @property
    def unpacked(self) -> Path:
        """The record of the archives that were packed or unpacked here (:mod:`collabench.storage.archives`)."""
        return self.state / "unpacked.json"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def accepted_report(self) -> Path:
        return self.root / "reports" / self.profile

    @property
    def records(self) -> Path:
        """The results without logits and weights (:mod:`collabench.sharing.records`)."""
        return self.root / "records" / self.profile

    @property
    def latex(self) -> Path:
        return self.home / "latex"

    @property
    def page(self) -> Path:
        """The page of all profiles, from the accepted reports."""
        return self.root / "reports" / "index.html"

    @property
    def built_page(self) -> Path:
        """The page of all profiles with what was built here in place of what is accepted."""
        return self.root / "artifacts" / "index.html"

    def with_accepted_report(self) -> list[str]:
        """The profiles with an accepted report, by name."""
        return sorted(path.parent.name for path in (self.root / "reports").glob("*/report.json"))

    @property
    def memo(self) -> Path:
        """What ``plan`` said about the study when it was finished (:mod:`collabench.study.memo`)."""
        return self.state / "memo.json"

    @property
    def finished(self) -> Path:
        """What ``reproduce`` said about the study when it was finished (:mod:`collabench.study.finished`)."""
        return self.state / "finished.json"

    @property
    def differences(self) -> Path:
        """All differences between the report that was built last and the accepted one."""
        return self.state / "differences.txt"

    @property
    def accepted_code(self) -> Path:
        """The code versions that were accepted as computing the same numbers, for all profiles; in git."""
        return self.root / "reports" / "accepted-code.json"

    def folder(self, run: Run) -> Path:
        return self.runs / run.configuration.id / f"seed-{run.seed}"

    def trained(self) -> set[str]:
        """Ids of the configurations with at least one finished run here."""
        return {path.parent.name for path in self.runs.glob("*/seed-*")}

    def measured_file(self, run: Run) -> Path:
        return self.measured / run.configuration.id / f"seed-{run.seed}.json"

    @property
    def curves(self) -> Path:
        """Curves for other tools (:mod:`collabench.study.curves`)."""
        return self.state / "curves"

    def estimate(self, configuration_id: str) -> Path:
        """The prediction of ``collabench estimate`` for one run, on the machine and device that it names."""
        return self.state / "estimates" / f"{configuration_id}.json"

    def checkpoint(self, run_id: str) -> Path:
        return self.state / "checkpoints" / f"{run_id}.ckpt"

    def failure(self, run_id: str) -> Path:
        return self.state / "failures" / f"{run_id}.json"

    def lock(self, name: str) -> Path:
        return self.state / "locks" / f"{name}.lock"

    @property
    def locks_of_all_profiles(self) -> Path:
        """Locks of runs. Profiles share runs, so these locks decide which profile trains a run."""
        return self.root / "artifacts" / ".locks"

    def lock_of_all_profiles(self, name: str) -> Path:
        return self.locks_of_all_profiles / f"{name}.lock"

    @property
    def round(self) -> Path:
        """The round of training that is in progress (:mod:`collabench.study.growth`)."""
        return self.state / "round.json"

    def progress(self, name: str) -> Path:
        return self.state / "progress" / f"{name}.json"

    @property
    def aside(self) -> Workspace:
        """The runs that this profile's tables no longer need (:mod:`collabench.study.cleanup`), in the same folders."""
        return Workspace(self.root, f"{self.profile}/{_ASIDE}")

    @property
    def title(self) -> str:
        """``profile digits``, or ``what profile digits set aside``."""
        name = self.profile.removesuffix(f"/{_ASIDE}")
        return f"profile {name}" if name == self.profile else f"what profile {name} set aside"

    def siblings(self) -> list[Workspace]:
        """Other places of runs: the other profiles of this root, by name, then what each profile set aside."""
        artifacts = self.root / "artifacts"
        found = [path.parent for pattern in ("*/runs", f"*/{_ASIDE}/runs") for path in sorted(artifacts.glob(pattern))]
        names = [path.relative_to(artifacts).as_posix() for path in found]
        return [Workspace(self.root, name) for name in names if name != self.profile]

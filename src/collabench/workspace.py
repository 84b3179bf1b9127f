"""Where things lie. The only place that knows the folder layout below the project's root.

::

    data/                                   downloads, shared by all profiles
    artifacts/<profile>/
      datasets/<key>/                       manifest.json, arrays.safetensors          (DVC)
      noise/<key>/seed-<n>.safetensors      static noisy labels                        (DVC)
      runs/<configuration>/seed-<n>/        result.json, logits.safetensors, weights.safetensors   (DVC)
      runs/<configuration>/<seeds>.done     what Snakemake looks at
      measured/<configuration>/seed-<n>.json  time, memory, device, versions           (DVC, own stage)
      report/                               tables and figures that the results determine (DVC)
      costs/                                tables of measured.json
      state/                                checkpoints, failures, locks, progress, logs: never shared
    reports/<profile>/                      the accepted report, in git
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """Paths of one profile below ``root``."""

    root: Path
    profile: str

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
    def costs(self) -> Path:
        return self.home / "costs"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def accepted_report(self) -> Path:
        return self.root / "reports" / self.profile

    def run(self, configuration_id: str, seed: int) -> Path:
        return self.runs / configuration_id / f"seed-{seed}"

    def measured_file(self, configuration_id: str, seed: int) -> Path:
        return self.measured / configuration_id / f"seed-{seed}.json"

    def checkpoint(self, run_id: str) -> Path:
        return self.state / "checkpoints" / f"{run_id}.ckpt"

    def failure(self, run_id: str) -> Path:
        return self.state / "failures" / f"{run_id}.json"

    def lock(self, name: str) -> Path:
        return self.state / "locks" / f"{name}.lock"

    def progress(self, name: str) -> Path:
        return self.state / "progress" / f"{name}.json"

    def siblings(self) -> list[Workspace]:
        """The other profiles of this root that have an artifacts folder, in the order of their names."""
        homes = sorted((self.root / "artifacts").glob("*/runs"))
        return [Workspace(self.root, home.parent.name) for home in homes if home.parent.name != self.profile]

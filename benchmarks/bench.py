"""What the sections of the measurements share."""

from __future__ import annotations

from functools import cached_property

from benchmarks.page import ROOT
from benchmarks.turns import Portable


class Bench:
    """What the sections share: configurations, sizes, and what one of them measured for another."""

    def __init__(self, quick: bool, cores: int) -> None:
        from benchmarks import throughput
        from collabench.config.params import load_params
        from collabench.config.plan import resolve

        self.quick, self.cores = quick, cores
        self.params = load_params(ROOT / "params.yaml")
        self.base = resolve(
            self.params,
            dataset="cifar10",
            noise="clean",
            model="resnet32",
            recipe="song2018-resnet",
            method="individual",
        )
        self.peak = throughput.convolution_peak(0.3 if quick else 2.0)
        self.depth, self.batch = (8, 16) if quick else (32, 128)
        self._rates: dict[str, float] = {}

    @cached_property
    def portable(self) -> Portable:
        """The process that trains with portable arithmetic."""
        return Portable()

    def rate_of(self, graph: str) -> float:
        """The library's images per second of a residual network's training graph, measured once."""
        from benchmarks import throughput

        if graph not in self._rates:
            steps = throughput.library_steps(self.song(graph), (3, 32, 32), 4 * self.batch)
            self._rates[graph] = throughput.rate(steps, 1)
        return self._rates[graph]

    def song(self, graph: str, model: dict | None = None, batch: int | None = None):
        from benchmarks import throughput

        method = {"method": "song2018", **throughput.GRAPHS[graph]}
        model = model or {"family": "cifar_resnet", "depth": self.depth}
        return throughput.configuration(method, model, self.base, batch or self.batch)

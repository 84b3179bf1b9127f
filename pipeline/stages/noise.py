"""Draw the static noisy labels of one data set and kind of noise, for every seed that lacks them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.stages import ROOT, log, run_stage, start


def draw(profile: str, key: str) -> None:
    from collabench.storage.files import write_atomically
    from collabench.study.study import load_study
    from pipeline.plan import noise_marker

    study = load_study(ROOT, profile, planned=True)
    study.inputs.prepare_noise(log, [key])
    write_atomically(noise_marker(study, key), b"")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 a run failed, 2 the configuration is wrong."""
    return run_stage(draw, arguments)


if __name__ == "__main__":
    start("pipeline.stages.noise")

"""Draw the static noisy labels of one data set and kind of noise, for every seed that lacks them."""

from __future__ import annotations

from collabench.storage.files import write_atomically
from collabench.study.study import load_study
from pipeline.plan import noise_marker
from pipeline.stages import ROOT, log, run_stage


def draw(profile: str, key: str) -> None:
    study = load_study(ROOT, profile, planned=True)
    study.inputs.prepare_noise(log, [key])
    write_atomically(noise_marker(study, key), b"")


if __name__ == "__main__":
    run_stage(draw)

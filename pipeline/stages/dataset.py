"""Prepare one data set: download, verify, cache."""

from __future__ import annotations

from collabench.study.study import load_study
from pipeline.stages import ROOT, run_stage, tell


def prepare(profile: str, key: str) -> None:
    load_study(ROOT, profile, planned=True).prepare_dataset(key, tell=tell)


if __name__ == "__main__":
    run_stage(prepare)

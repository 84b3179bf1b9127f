"""Prepare one data set: download, verify, cache."""

from __future__ import annotations

from collabench.study.study import load_study
from pipeline.stages import ROOT, log, run_stage


def prepare(profile: str, key: str) -> None:
    load_study(ROOT, profile, planned=True).inputs.prepare_dataset(key, log=log)


if __name__ == "__main__":
    run_stage(prepare)

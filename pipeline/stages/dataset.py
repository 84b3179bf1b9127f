"""Prepare one data set: download, verify, cache."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.stages import ROOT, log, run_stage, start


def prepare(profile: str, key: str) -> None:
    from collabench.study.study import load_study

    load_study(ROOT, profile, planned=True).inputs.prepare_dataset(key, log=log)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 a run failed, 2 the configuration is wrong."""
    return run_stage(prepare, arguments)


if __name__ == "__main__":
    start("pipeline.stages.dataset")

"""Build the profile's report from its results."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.stages import ROOT, run_stage, start


def build(profile: str) -> None:
    from collabench.report.build import build_report
    from collabench.storage.files import write_atomically
    from collabench.study.study import load_study
    from pipeline.plan import report_marker

    study = load_study(ROOT, profile, planned=True).grown()  # by the results that the scheduler had not seen
    build_report(study.params, study.plan, study.workspace)
    write_atomically(report_marker(study), b"")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 a run failed, 2 the configuration is wrong."""
    return run_stage(build, arguments)


if __name__ == "__main__":
    start("pipeline.stages.report")

"""Build the profile's report from its results."""

from __future__ import annotations

from collabench.report.build import build_report
from collabench.storage.files import write_atomically
from collabench.study.study import load_study
from pipeline.plan import report_marker
from pipeline.stages import ROOT, run_stage


def build(profile: str) -> None:
    study = load_study(ROOT, profile, planned=True)
    build_report(study.params, study.plan, study.workspace)
    write_atomically(report_marker(study), b"")


if __name__ == "__main__":
    run_stage(build)

"""Every accepted report whose records are in git follows from them: made again, it has the same bytes."""

from __future__ import annotations

import shutil

import pytest

from collabench.core.errors import DataError
from collabench.report.accepted import compare
from collabench.report.build import build_report
from collabench.sharing.records import SUFFIX, unpacked_records
from collabench.storage.workspace import Workspace
from collabench.study.study import load_study
from tests.support.project import ROOT

WITH_RECORDS = sorted({path.parent.name for path in (ROOT / "records").glob(f"*/*{SUFFIX}")})


@pytest.mark.slow
@pytest.mark.parametrize("profile", WITH_RECORDS or ["none"])
def test_an_accepted_report_follows_from_its_records(profile, tmp_path):
    if profile not in WITH_RECORDS:
        pytest.skip("no records are committed")
    if not Workspace(ROOT, profile).accepted_report.exists():
        pytest.skip("no report of the profile is accepted: its records are those of pilots, or of a study in progress")
    root = tmp_path / "project"
    root.mkdir()
    for name in ("params.yaml", "papers", "reports"):
        (root / name).symlink_to(ROOT / name)
    if (ROOT.parent / "shared").exists():  # images beside the project
        (tmp_path / "shared").symlink_to(ROOT.parent / "shared")
    with unpacked_records(ROOT / "records" / profile, profile, tmp_path / "unpacking") as copy:
        shutil.move(copy.home, Workspace(root, profile).home)
    study = load_study(root, profile)
    missing = [run for run in study.expected if study.status(run).state != "done"]
    if missing:
        pytest.skip(f"the study is in progress: {len(missing)} of its {len(study.expected)} runs have no record yet")
    try:
        study.inputs.prepare_datasets(lambda line: None)
    except DataError as error:
        pytest.skip(f"needs the images: {error}")
    build_report(study.params, study.plan, study.workspace)
    assert compare(study.workspace) == []

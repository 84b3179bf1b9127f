"""Names that a report cannot have are refused at load, long ones work to the end, a change meanwhile is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.cli import parse_config

from collabench.config.params import load_params
from collabench.core.errors import ConfigError
from collabench.core.resources import Resources
from collabench.papers.claims import check_papers
from collabench.report.build import build_report
from collabench.storage.workspace import Workspace
from collabench.study import pool
from collabench.study.study import load_study
from pipeline import plan, schedule
from tests.support.tiny import PROFILE, tiny_params, tiny_project, tiny_study, trained

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["README", "readme", "runs", "claims", "Claims"])
def test_a_table_with_the_name_of_a_reports_page_is_refused_at_load(tmp_path, name):
    path = tiny_project(tmp_path) / "params.yaml"
    path.write_text(path.read_text().replace("name: tiny", f"name: {name}"))
    with pytest.raises(ConfigError, match="every report has a page of that name"):
        load_study(tmp_path, PROFILE)


def test_a_table_with_the_name_of_a_paper_is_refused_at_load(tmp_path):
    path = tiny_project(tmp_path) / "params.yaml"
    (tmp_path / "papers").rmdir()
    shutil.copytree(ROOT / "papers" / "wang2018", tmp_path / "papers" / "wang2018")
    path.write_text(path.read_text().replace("name: tiny", "name: wang2018"))
    with pytest.raises(ConfigError, match=r"has the name of the paper 'wang2018'"):
        check_papers(tmp_path / "papers", load_study(tmp_path, PROFILE).params)


@pytest.mark.slow
def test_names_of_64_letters_work_to_the_end(tmp_path):
    text = tiny_params(noise="clean", methods="individual kd")
    for name in ("digits", "clean", "resnet8", "brief", "tiny"):
        for before, after in (
            (f"  {name}:", f"  {name:x<64}:"),
            (f"[{name}", f"[{name:x<64}"),
            (f"name: {name},", f"name: {name:x<64},"),
        ):
            text = text.replace(before, after)
    tiny_project(tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    study = trained(load_study(tmp_path, f"{'tiny':x<64}"))
    build_report(study.params, study.plan, study.workspace)
    names = [path.name for path in study.workspace.report.rglob("*") if path.is_file()]
    assert any(name.endswith(".svg") for name in names) and max(map(len, names)) < 200
    pages = "".join(path.read_text() for path in study.workspace.report.glob("*.md"))
    assert all(f"figures/{name}" in pages for name in names if name.endswith(".svg"))


def test_a_study_whose_params_change_while_children_start_says_so(tmp_path):
    study = tiny_study(tmp_path, seeds=1)
    run = study.plan.runs[0]
    tiny_project(tmp_path, seeds=1, dataset=", split_seed: 7")
    resources = pool.Resources(1, (), 1, "test")
    with pytest.raises(ConfigError, match=f"was changed while the study began, it no longer has {run.id}"):
        pool._train(tmp_path, PROFILE, resources, 0, run.id, False)
    pool._study.cache_clear()
    changed = load_study(tmp_path, PROFILE)
    for ask in (lambda: changed.inputs.prepare_dataset("gone"), lambda: changed.inputs.prepare_noise(print, ["gone"])):
        with pytest.raises(ConfigError, match="was changed while the study began"):
            ask()


@pytest.mark.parametrize("name", ["007", "1e3", "true", "No", "2024_10", "2024-10-01", "0x1f", "nan", "null"])
def test_a_profile_that_other_readers_take_for_no_text_is_refused_at_load(tmp_path, name):
    path = tiny_project(tmp_path) / "params.yaml"
    path.write_text(path.read_text().replace(f"\n  {PROFILE}:", f"\n  {name}:"))
    line = path.read_text()[: path.read_text().index(f"\n  {name}:") + 1].count("\n") + 1
    with pytest.raises(ConfigError, match=rf"params\.yaml:{line}: profiles\.{name}: .* such as study-{name}"):
        load_study(tmp_path, name)


@pytest.mark.parametrize("name", ["2024_10", "007", "1e3", "a.b", "1+2"])
def test_the_name_of_a_profile_reaches_the_snakefile_as_it_is_written(name, monkeypatch):
    """Snakemake reads the values on its command line as numbers where it can."""
    seen: list[str] = []

    def snakefile(arguments: list[str]) -> int:
        config = parse_config([arguments[arguments.index("--config") + 1]])
        seen.append(plan.profile_of(config))
        return 1

    monkeypatch.setenv(plan.PROFILE, "another")
    monkeypatch.setattr(schedule, "snakemake", snakefile)
    study = SimpleNamespace(workspace=Workspace(Path(), name))
    assert schedule._run(study, resources=Resources(1, (), 1, "test"), target="train", further=()) == 1
    assert seen == [name]


def test_names_of_classes_are_read_as_they_are_written(tmp_path):
    path = tiny_project(tmp_path) / "params.yaml"
    pairs = "{golden retriever: café, yes: null, 007: 1e3, true: 2024-10-01, ~: 0x1f, 'quoted': \"1.50\"}"
    path.write_text(
        path.read_text().replace("\nmodels:", f"\n  odd: {{kind: asymmetric, rate: 0.4, pairs: {pairs}}}\nmodels:")
    )
    assert load_params(path).noise["odd"].pairs == {
        "golden retriever": "café", "yes": "null", "007": "1e3", "true": "2024-10-01", "~": "0x1f", "quoted": "1.50",
    }  # fmt: skip

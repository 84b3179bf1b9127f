"""What joins profiles and opens reports: the lead, its plot, ``reports/README.md``, and sources as papers are cited."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from collabench.cli.app import app
from collabench.papers.citations import citation, cited, cited_claim
from collabench.papers.claim_schema import ClaimSource
from collabench.papers.schema import About
from collabench.papers.tables import read_abouts
from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.report.claim_records import PartVerdict
from collabench.report.html.data import read_everything
from collabench.report.pages.all_profiles import BEGIN, END, renew_findings, write_all_profiles
from collabench.report.pages.forest import MOST, caption, claims_forest, lines_of
from tests.support.declared_claims import claim, declare, study_in
from tests.support.standings import everywhere

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    study = study_in(folder)
    declare(
        study,
        claim(statement="Two heads <b>help</b> | always.", compare=[{"method": "simple-2", "baseline": "individual"}]),
        claim(id="two", statement="Four heads help.", compare=[{"method": "simple-4", "baseline": "individual"}]),
        claim(id="timed", quantity="train_seconds", compare=[{"method": "simple-2", "baseline": "individual"}]),
    )
    build_report(study.params, study.plan, study.workspace)
    accept(study.workspace)
    return folder


def test_a_report_opens_with_what_was_found(project):
    lines = (project / "reports/small/README.md").read_text().split("\n\n")
    assert lines[0].startswith("# Report of")
    assert lines[1] == "**2 of 2 tests of 2 claims about test error are decided: 1 for the claim, 1 against it.**"
    assert lines[2].count("\n- ") == 3 and r"Two heads \<b\>help\</b\> \| always” (" in lines[2]
    assert "](figures/claims.svg)" in lines[3]
    assert (project / "reports/small/figures/claims.svg").read_text().startswith("<?xml")


def test_every_figure_has_a_white_ground_so_that_a_dark_page_shows_it(project):
    figures = sorted((project / "reports/small").rglob("*.svg"))
    assert len(figures) > 5
    for path in figures:
        ground = re.search(r'<g id="patch_1">\s*<path d="[^"]*" style="([^"]*)"', path.read_text())
        assert ground and ground[1] == "fill: #ffffff", path.name


def test_the_job_summary_of_continuous_integration_has_the_lead_and_the_plot(project, tmp_path):
    root = Path(shutil.copytree(project, tmp_path / "copy"))
    write_all_profiles(read_everything(root), root / "reports/README.md")
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    (script,) = [one["run"] for one in steps if one.get("name") == "what was found, with its plot, as job summary"]
    summary = tmp_path / "summary.md"
    values = {"SERVER_URL": "https://example.org", "REPOSITORY": "a/b", "SHA": "0123", "STEP_SUMMARY": str(summary)}
    values = {f"GITHUB_{name}": value for name, value in values.items()}
    subprocess.run(["bash", "-euc", script], cwd=root, env=os.environ | values, check=True)
    text = summary.read_text()
    assert read_everything(root).lead[0] in text
    assert "](https://example.org/a/b/raw/0123/reports/claims.svg)" in text


def test_the_joint_page_has_claims_profiles_and_the_plot(project, tmp_path):
    root = Path(shutil.copytree(project, tmp_path / "copy"))
    path = write_all_profiles(read_everything(root), root / "reports/README.md")
    text = path.read_text()
    assert (
        "| **supported** | Two heads \\<b\\>help\\</b\\> \\| always. | Somebody | digits, 500 training images"
        in re.sub(" +", " ", text)
    )
    assert "| **refuted** | Four heads help." in re.sub(" +", " ", text)
    assert "[small](small/README.md)" in text and "](claims.svg)" in text
    assert (root / "reports/claims.svg").exists()
    before = {p: p.stat().st_mtime_ns for p in (path, root / "reports/claims.svg")}
    write_all_profiles(read_everything(root), path)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert not [p for p in (root / "reports").iterdir() if p.name.startswith(".")]


def test_without_reports_the_joint_page_says_so_and_has_no_plot(project, tmp_path):
    root = Path(shutil.copytree(project, tmp_path / "copy"))
    write_all_profiles(read_everything(root), root / "reports/README.md")
    shutil.rmtree(root / "reports/small")
    shutil.rmtree(root / "artifacts")
    text = write_all_profiles(read_everything(root), root / "reports/README.md").read_text()
    assert "No claim of a paper has been tested yet." in text and "claims.svg" not in text
    assert not (root / "reports/claims.svg").exists()


def test_the_marked_lines_of_the_readme_are_the_lead_in_three_sentences(project, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"# A\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    renew_findings(read_everything(project), page)
    text = page.read_text()
    assert text.startswith(f"# A\n\n{BEGIN}\n\n1. 2 of 2 tests of 2 claims") and text.endswith(f"\n\n{END}\n\nrest\n")
    assert "old" not in text and "\n3. No test" not in text and "\n4. " not in text
    for other in ("no marks", f"only the first {BEGIN}"):
        page.write_text(other)
        renew_findings(read_everything(project), page)
        assert page.read_text() == other
    renew_findings(read_everything(project), tmp_path / "gone.md")
    assert not (tmp_path / "gone.md").exists()


def with_parts(name, standing, *estimates, side="below"):
    found = everywhere(name, ("inconclusive", standing))
    parts = tuple(
        PartVerdict(compared=f"{e} against b", n=8, estimate=e, low=e - 1, high=e + 1, adjusted_low=e - 2,
                    adjusted_high=e + 2, verdict="inconclusive")
        for e in estimates
    )  # fmt: skip
    (test,) = found.tests
    verdict = test.verdict.model_copy(update={"parts": parts})
    changes = {"unit": "percentage points", "side": side, "tests": (type(test)("p", verdict, standing, ()),)}
    return type(found)(**(vars(found) | changes))


def test_the_plot_is_sorted_and_shows_the_comparison_furthest_from_the_claim():
    claims = [
        with_parts("A", "refuted", 3.0),
        with_parts("B", "supported", -1.0),
        with_parts("C", "supported", -3.0, -2.0, -4.0),
        with_parts("D", "supported", 5.0, 4.0, side="above"),
        with_parts("E", "open", 0.1),
    ]
    lines = lines_of(claims)
    assert [(line.statement, line.part.estimate) for line in lines] == [
        ("D.", 4.0), ("C.", -2.0), ("B.", -1.0), ("E.", 0.1), ("A.", 3.0),
    ]  # fmt: skip
    assert "Of several comparisons" in caption(claims) and claims_forest(claims) is not None
    assert claims_forest([]) is None


def test_a_plot_of_many_tests_leaves_open_ones_out_and_counts_them():
    claims = [with_parts(f"A{n}", "open", 0.1) for n in range(MOST)] + [with_parts("B", "leans for", -1.0)]
    assert [line.statement for line in lines_of(claims)] == ["B."]
    assert caption(claims).endswith(f"{MOST} open tests are not drawn.")


def about(published="NeurIPS 2018", **sources):
    return About(title="T", authors="A & B", published=published, sources=sources)


def test_sources_are_cited_as_papers():
    assert citation(about()) == "A & B 2018"
    assert citation(about("arXiv:2105.09590, 2021")) == "A & B 2021"
    assert citation(about("somewhere")) == "A & B"
    found = about(whole="full text with all tables", part="abstract", other="full text of c, which quotes this paper")
    assert cited(found, "whole", "IV.B") == "A & B 2018, IV.B"
    assert cited(found, "part", "first sentence") == "A & B 2018 (abstract), first sentence"
    assert cited(found, "other") == "A & B 2018 (full text of c, which quotes this paper)"
    source = ClaimSource(file="000_1e20208135b2abb2.txt", place="P", words="W")
    assert cited_claim({}, "p", source) == "000_1e20208135b2abb2.txt, P: “W”"
    assert cited_claim({"p": about(**{source.file: "abstract"})}, "p", source) == "A & B 2018 (abstract), P: “W”"


def test_every_paper_here_has_a_year_and_authors():
    for found in read_abouts(ROOT / "papers").values():
        assert re.fullmatch(r".+ (19|20)\d\d", citation(found))


def test_no_file_of_a_text_is_named_in_a_verdict(project):
    claims = (project / "reports/small/claims.md").read_text()
    assert "(Somebody (000_1e20208135b2abb2.txt), P: “W”)" in claims  # of this test's paper no text is listed


def test_metrics_are_the_errors_and_the_verdicts(project):
    folder = project / "reports/small/metrics"
    found = {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}
    counts = {name: found.pop(f"claims-{name}") for name in ("supported", "refuted", "open")}
    assert counts == {"supported": {"song2018": 1}, "refuted": {"song2018": 1}, "open": {"song2018": 0}}
    noisy = found["all-uniform20"]
    assert noisy == pytest.approx({"base": 12.5, "lowest": 35 / 6, "song2018": 10.5})  # its best is simple-2
    assert set(found) == {"all-clean", "all-uniform20", "all-uniform40"}


def test_metrics_show_each_papers_best_method():
    found = json.loads((ROOT / "reports/default/metrics/neighbours.json").read_text())
    report = json.loads((ROOT / "reports/default/report.json").read_text())
    (condition,) = next(table for table in report["tables"] if table["name"] == "neighbours")["conditions"]
    errors = {row["method"]: row["error"]["mean"] for row in condition["rows"]}
    own = min(errors["wang2018"], errors["wang2018-private"])
    assert found == {"base": errors["individual"], "lowest": min(errors.values()), "wang2018": own}


def test_dvc_is_told_of_every_accepted_report():
    told = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    names = sorted(path.parent.name for path in (ROOT / "reports").glob("*/report.json"))
    assert sorted(told["metrics"]) == sorted(f"reports/{name}/metrics" for name in names)
    assert sorted(told["plots"]) == sorted(f"reports/{name}/figures" for name in names)


@pytest.mark.slow
def test_dvc_shows_metrics_and_figures(project, tmp_path):
    root = Path(shutil.copytree(project / "reports", tmp_path / "copy/reports")).parent
    (root / "dvc.yaml").write_text("metrics: [reports/small/metrics]\nplots: [reports/small/figures]\n")

    def run(*command):
        done = subprocess.run(command, cwd=root, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("git", "init", "-q")
    dvc = (sys.executable, "-m", "dvc")
    run(*dvc, "init", "-q")
    run("git", "add", "-A")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
    lines = run(*dvc, "metrics", "show").splitlines()
    assert any(re.match(r"reports/small/metrics/claims-supported.json +- +- +1 *$", line) for line in lines)
    path = root / "reports/small/metrics/claims-supported.json"
    path.write_text(path.read_text().replace(": 1", ": 2"))
    _, *changed = run(*dvc, "metrics", "diff").splitlines()
    assert len(changed) == 1 and re.match(r"reports/small/metrics/claims-supported.json +song2018 +1 +2 +1", changed[0])
    run(*dvc, "plots", "show", "-o", "plots")
    assert "differences.svg" in (root / "plots/index.html").read_text()


@pytest.mark.slow
def test_dvc_shows_the_accepted_reports_in_120_columns(tmp_path):
    for path in (ROOT / "reports").glob("*/metrics"):
        shutil.copytree(path, tmp_path / path.relative_to(ROOT))
    told = yaml.safe_load((ROOT / "dvc.yaml").read_text())["metrics"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"metrics": told}))
    for command in (("git", "init", "-q"), (sys.executable, "-m", "dvc", "init", "-q")):
        subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(
        (sys.executable, "-m", "dvc", "metrics", "show"), cwd=tmp_path, text=True, capture_output=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + len(list(tmp_path.glob("reports/*/metrics/*.json")))
    assert max(map(len, lines)) <= 120


# --------------------------------------------------------------------------------------------------------- LaTeX


@pytest.mark.slow
def test_tables_as_latex(project):
    root = ("--root", str(project))
    done = CliRunner().invoke(app, ["report", "-p", "small", "--format", "latex", *root])
    assert done.exit_code == 0
    (path,) = [
        line.removeprefix("LaTeX: ") for line in done.output.splitlines() if "uniform20-resnet8-forty.tex" in line
    ]
    text = Path(path).read_text()
    assert (
        text.startswith("% digits, 500 training images") and text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    )
    assert r"simple-2 & 10.50 $\pm$ 1.05 & $-$2.00 [$-$2.94, $-$1.06] * & " in text
    assert r"Test error \%" in text and text.isascii()
    folder = project / "artifacts/small"
    pages = [*(folder / "report").glob("*.md"), *(folder / "costs").glob("*.md")]
    tables = sum(len(re.findall(r"(?m)^\|(?: *:?-+:? *\|)+$", page.read_text())) for page in pages)
    written = sorted((folder / "latex").iterdir())
    assert len(written) == tables > 20
    for file in written:
        text = file.read_text()
        body = text[text.index(r"\begin") :]
        assert body.count(r"\toprule") == body.count(r"\midrule") == body.count(r"\bottomrule") == 1, file.name
        rows = re.findall(r"(?m)^.* \\\\$", body)
        assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1 and len(rows) > 1, file.name
        assert not re.search(r"(?<!\\)[#%_]|\*\*|\|", body.replace(r"p{.4\linewidth}", "")), file.name
    claims = (folder / "latex/README-01.tex").read_text()
    assert claims.startswith("% README: Report of the profile small: What the papers claim") and "supported" in claims
    done = CliRunner().invoke(app, ["report", "-p", "small", "--format", "csv", *root])
    assert f"CSV: {project}/artifacts/small/costs/costs.csv" in done.output
    assert f"CSV: {project}/artifacts/small/report/all.csv" in done.output
    assert CliRunner().invoke(app, ["report", "--format", "word", *root]).exit_code == 2

"""The page of all profiles: its figures are those of the reports, and it is safe, small and deterministic."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markupsafe import escape
from typer.testing import CliRunner

from collabench.cli.app import app
from collabench.core.errors import ConfigError
from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.report.cells import CELLS, Cells
from collabench.report.folders import digests_of
from collabench.report.html import page as html_page
from collabench.report.html.data import as_script, read_everything
from collabench.report.html.page import COMMENTS, SCRIPTS, STYLES, TEMPLATES, render, shortened
from collabench.report.verification import VERIFIED, Repetition, Verified, save_verified
from collabench.storage.files import read_json
from tests.support.declared_claims import claim, declare, study_in

ROOT = Path(__file__).parents[2]
ASSETS = Path(html_page.__file__).parent / "assets"
HOSTILE = "</script><img src=x onerror=alert(1)> & \u202eevil <!-- “q” 'a' \\u003c"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with one accepted report and two claims, one of them supported."""
    folder = tmp_path_factory.mktemp("page")
    study = study_in(folder)
    declare(
        study,
        claim(compare=[{"method": "simple-2", "baseline": "individual"}]),
        claim(
            id="two",
            statement="Two.",
            compare=[{"method": "simple-4", "baseline": "individual"}],
            scopes=["cifar", "noisy"],
        ),
    )
    build_report(study.params, study.plan, study.workspace)
    accept(study.workspace)
    return folder


def data_of(text):
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


@pytest.fixture(scope="module")
def text(project):
    return render(read_everything(project))


@pytest.fixture(scope="module")
def data(text):
    return data_of(text)


def without_nothing(value):
    """JSON without keys whose value is null, and without the checksum of the file."""
    if isinstance(value, dict):
        return {key: without_nothing(v) for key, v in value.items() if v is not None and key != "checksum"}
    return [without_nothing(v) for v in value] if isinstance(value, list) else value


def test_every_figure_is_that_of_the_report(project, data):
    (profile,) = data["profiles"]
    written = json.loads((project / "reports/small/report.json").read_text())
    assert profile["report"] == without_nothing(written)


def test_one_report_file_has_the_verdict_of_every_test(project):
    folder = project / "reports/small"
    report, claims = (json.loads((folder / name).read_text()) for name in ("report.json", "claims.json"))
    expected = {(one["id"], scope["scope"]): scope["verdict"] for one in claims["claims"] for scope in one["scopes"]}
    assert {(one["claim"], one["scope"]): one["verdict"] for one in report["verdicts"]} == expected
    assert sorted(expected.values()) == ["refuted", "supported"]


def test_every_figure_of_a_verdict_is_that_of_the_claims_file(project, data):
    written = json.loads((project / "reports/small/claims.json").read_text())
    expected = {
        (one["id"], scope["scope"]): without_nothing(scope) for one in written["claims"] for scope in one["scopes"]
    }
    found = {}
    for one in data["claims"]:
        for test in one["tests"]:
            test = dict(test)
            assert (test.pop("profile"), test.pop("standing"), test.pop("early")) == ("small", test["verdict"], False)
            test["parts"] = [{k: v for k, v in part.items() if k != "standing"} for part in test["parts"]]
            found[one["id"], test["scope"]] = test
    assert found == expected and len(found) == 2
    assert {one["id"]: [t["verdict"] for t in one["tests"]] for one in data["claims"]} == {
        "one": ["supported"],
        "two": ["refuted"],
    }


def test_every_run_is_that_of_the_table_of_runs(project, data):
    (profile,) = data["profiles"]
    with (project / "reports/small/runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        runs = profile["runs"][row["run_id"].removesuffix(f"-s{row['seed']}")]
        place = runs["seeds"].index(int(row["seed"]))
        assert runs["error_last"][place] == float(row["error_last"])
        assert runs["heads"][place] == [float(error) for error in row["error_of_heads"].split()]
    assert sum(len(runs["seeds"]) for runs in profile["runs"].values()) == len(rows)


def test_settings_and_curves_stand_behind_each_cell(project, data):
    (profile,) = data["profiles"]
    cells = read_json(project / "reports/small" / CELLS, Cells)
    rows = [row for t in profile["report"]["tables"] for c in t["conditions"] for row in c["rows"]]
    assert {row["configuration_id"] for row in rows} == set(profile["cells"]) == set(cells.cells)
    for row in rows:
        cell = profile["cells"][row["configuration_id"]]
        assert set(cell["settings"]) >= {"dataset", "method", "model", "noise", "recipe"}
        for seed, curve in cell["curves"].items():
            assert len(curve) == 40 and int(seed) in row["seeds"]
            runs = profile["runs"][row["configuration_id"]]
            assert curve[-1] == pytest.approx(runs["error_last"][runs["seeds"].index(int(seed))], abs=5e-5)
    assert not profile["cells"][next(r["configuration_id"] for r in rows if r["method"] == "ensemble-2")]["curves"]


def test_a_record_of_another_report_is_shown_as_that(project, text, tmp_path):
    assert "No verification of this report is recorded." in text
    root = copy_of(project, tmp_path)
    folder = root / "reports/small"
    again = Repetition(label="a<b", seed=0, run_id="a-s0", compared="tolerance", why="versions: torch 1 → 2",
                       recorded=10.0, repeated=10.5, allowed=1.0, agrees=True)  # fmt: skip
    record = Verified(profile="small", digests=digests_of(folder), sample=1, draw_seed=0, hashed={"results": 18},
                      rebuilt="same", repetitions=(again,), differences=0)  # fmt: skip
    save_verified(folder, record)
    page, changed = render(read_everything(root)), "Verified before this report was changed:"
    assert "a&lt;b, seed 0: test error 10.00 % recorded, 10.50 % now, 1.00 points allowed" in page
    assert changed not in page
    runs = folder / "runs.csv"
    runs.write_text(runs.read_text() + "\n")
    page = render(read_everything(root))
    assert changed in page and "18 results" in page
    (folder / VERIFIED).write_text("{}")
    (problem,) = read_everything(root).found.problems
    assert problem.startswith(f"{folder / VERIFIED}: damaged") and "run collabench verify again" in problem


def test_the_lead_stands_in_the_page_without_javascript(project, text):
    lead = read_everything(project).lead
    for sentence in lead:
        assert f"<p>{escape(sentence)}</p>" in text
    assert "2 of 2 tests of 2 claims about test error are decided: 1 for the claim, 1 against it." in lead


def test_the_same_reports_give_the_same_bytes(project, text):
    assert render(read_everything(project)) == text


def test_the_page_needs_nothing_from_elsewhere(text):
    """No address is loaded: the policy forbids it, and no element asks for it."""
    assert "default-src 'none'" in text
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    named = re.findall(r'(?:src|href)="([^"]*)"', markup)
    assert named[:2] == ["data:,", "#main"] and len(named) > 2 and all(one.startswith("#claims") for one in named[2:])
    assert "@import" not in text and "url(" not in text


def test_names_of_users_cannot_leave_their_place(tmp_path):
    study = study_in(tmp_path)
    params = (tmp_path / "params.yaml").read_text().replace("for claims", json.dumps(HOSTILE))
    assert HOSTILE.split()[0] in params
    (tmp_path / "params.yaml").write_text(params)
    declare(study, claim(statement=HOSTILE, compare=[{"method": "simple-2", "baseline": "individual"}]))
    assert CliRunner().invoke(app, ["report", "-p", "small", "--root", str(tmp_path)]).exit_code == 0
    text = (tmp_path / "reports/index.html").read_text()
    assert text.count("</script>") == 2 and text.count("<img") == 0 and "\u202e" not in text
    data = data_of(text)
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert data["claims"][0]["statement"] == shown
    assert data["profiles"][0]["report"]["description"] == shown
    assert text.count(escape(shown)) >= 2  # the statement and the description, where no script puts them


def test_nothing_in_the_data_ends_the_script():
    text = as_script({"a": "</ScRiPt><!--\u2028&", "b": [1.5, None, "\x1b[31m"]})
    assert not re.search(r"[<>&\u2028\x1b]", text)
    assert json.loads(text) == {"a": "</ScRiPt><!--\\u2028&", "b": [1.5, None, "\\x1b[31m"]}


def test_scripts_set_text_only_as_text():
    for name in SCRIPTS:
        source = (ASSETS / name).read_text()
        for risky in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import("):
            assert risky not in source, f"{name} uses {risky}"
        assert "</script" not in source.lower()


def test_the_assets_are_all_used_and_short():
    assert {path.name for path in ASSETS.iterdir()} == {*TEMPLATES, *STYLES, *SCRIPTS}
    for path in ASSETS.iterdir():
        lines = path.read_text().splitlines()
        assert len(lines) <= 400, path.name
        assert max(map(len, lines)) <= (220 if path.suffix == ".j2" else 120), path.name


def test_the_script_that_a_page_carries_is_small_and_the_same_code(text, tmp_path):
    """Only lines of comments and indentation are left out, which is right as long as no text spans lines."""
    sources = "".join((ASSETS / name).read_text() for name in SCRIPTS)
    script = re.findall(r"<script>\n(.*?)\n</script>", text, re.DOTALL)[0]
    assert script == shortened(sources, COMMENTS) and len(script.encode()) < 47_000
    kept = [line for line in sources.splitlines() if line.strip() and not line.strip().startswith(COMMENTS)]
    assert [line.strip() for line in kept] == script.splitlines()
    if shutil.which("node"):
        for name, body in (("whole.js", sources), ("short.js", script)):
            (tmp_path / name).write_text(body)
            assert subprocess.run(["node", "--check", tmp_path / name]).returncode == 0
    assert '"' in script and "`" in script and not inside_a_template(re.sub(r"\s// .*", "", script))
    assert inside_a_template("a = `b\nc`") and not inside_a_template("a = `b${\n c}`")


def inside_a_template(script):
    """Whether a line of a script ends inside a text between backquotes, whose indentation would count."""
    stack = []
    for before, character in zip(" " + script, script, strict=False):
        top = stack[-1] if stack else "{"
        if top in ('"', "`") and character == top:
            stack.pop()
        elif (top == "{" and character in '"`{') or (top == "`" and before + character == "${"):
            stack.append(character)
        elif top == "{" and character == "}":
            stack.pop()
        elif top == "`" and character == "\n":
            return True
    assert not stack
    return False


def test_the_page_of_the_accepted_reports_is_small_and_present_in_git():
    everything = read_everything(ROOT)
    assert not everything.found.problems
    assert [report.profile for report in everything.found.reports]
    assert len(render(everything).encode()) < 2_000_000


# --------------------------------------------------------------------------------------------- what can go wrong


def invoke(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_writes_the_page_and_says_where(project):
    done = invoke("--html", "--root", project)
    assert done.exit_code == 0
    assert f"All profiles on one page: {project}/reports/index.html" in done.output


def test_a_page_with_the_same_bytes_is_left_alone(project):
    invoke("--html", "--root", project)
    path = project / "reports/index.html"
    before = path.stat().st_mtime_ns
    invoke("--html", "--root", project)
    assert path.stat().st_mtime_ns == before


def copy_of(project, folder):
    import shutil

    return Path(shutil.copytree(project, folder / "copy"))


def test_a_damaged_report_is_left_out_and_said(project, tmp_path):
    root = copy_of(project, tmp_path)
    path = root / "reports/small/report.json"
    path.write_text(path.read_text().replace('"runs": ', '"runs": 1'))
    done = invoke("--html", "--root", root)
    assert done.exit_code == 0
    assert f"left out of the page: {path}: damaged (checksum differs)" in done.output
    data = data_of((root / "reports/index.html").read_text())
    assert not data["profiles"] and f"is left out: {path}: damaged" in (root / "reports/index.html").read_text()


def test_a_damaged_table_of_runs_is_left_out_and_said(project, tmp_path):
    root = copy_of(project, tmp_path)
    path = root / "reports/small/runs.csv"
    lines = path.read_text().splitlines()
    broken = lines[2].split(",")
    broken[lines[0].split(",").index("error_last")] = "many"
    path.write_text("\n".join([*lines[:2], ",".join(broken), *lines[3:]]))
    (problem,) = read_everything(root).found.problems
    assert problem == f"{path}: line 3: error_last: a number is needed, got 'many'; build the report again"


def test_a_report_in_the_folder_of_another_profile_is_left_out_and_said(project, tmp_path):
    root = copy_of(project, tmp_path)
    (root / "reports/small").rename(root / "reports/other")
    (root / "artifacts/small/report").rename(root / "artifacts/elsewhere")
    (problem,) = read_everything(root).found.problems
    assert problem.endswith("is the report of 'small', but lies where 'other' belongs")


def test_what_was_built_here_is_shown_where_nothing_is_accepted(project, tmp_path):
    root = copy_of(project, tmp_path)
    (root / "reports/small").rename(root / "gone")
    (report,) = read_everything(root).found.reports
    assert not report.accepted and report.name == "small (built here)"


def test_a_second_page_shows_what_was_built_here_if_it_differs(project, tmp_path):
    root = copy_of(project, tmp_path)
    path = root / "artifacts/small/report/runs.csv"
    path.write_text(path.read_text().replace("simple-2", "simple-2", 1) + "\n")
    done = invoke("--html", "--root", root)
    assert f"The same page with what was built here: {root}/artifacts/index.html" in done.output
    assert data_of((root / "artifacts/index.html").read_text())["profiles"][0]["name"] == "small (built here)"
    assert data_of((root / "reports/index.html").read_text())["profiles"][0]["name"] == "small"


def test_a_project_without_papers_and_reports_has_a_page(project, tmp_path):
    (tmp_path / "params.yaml").write_text((project / "params.yaml").read_text())
    everything = read_everything(tmp_path)
    assert everything.lead == ["No claim of a paper has been tested yet."]
    assert not data_of(render(everything))["profiles"]


def test_wrong_params_are_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("profiles: [")
    with pytest.raises(ConfigError):
        read_everything(tmp_path)
    done = invoke("--html", "--root", tmp_path)
    assert isinstance(done.exception, ConfigError)


def test_other_options_do_not_go_with_the_page(project):
    done = invoke("--html", "--accept", "--root", project)
    assert "--html writes pages from reports and builds none" in str(done.exception)

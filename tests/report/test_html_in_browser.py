"""The page in a real browser, from a file: views, filters, sorting, permalinks, narrow screens, dark colours,
accessibility.

Skipped where no Chromium is installed. ``SCREENSHOTS`` in the environment names a folder that keeps pictures of the
views.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from scipy import stats

from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.report.folders import digests_of
from collabench.report.html.data import read_everything
from collabench.report.html.page import write_page
from collabench.report.verification import Repetition, Verified, save_verified
from tests.support import fabricated
from tests.support.declared_claims import claim, declare, study_in

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
if BROWSER is None:
    pytest.skip("no Chromium is installed (Debian: apt-get install chromium)", allow_module_level=True)

WIDTHS = (360, 800, 1400)
VIEWS = (
    "#claims",
    "#claims?verdict=refuted",
    "#claims/fang2021-each-beats-baseline",
    "#leaderboard",
    "#leaderboard?profile=digits&table=*",
    "#cell/default/digits-500-uniform20-resnet8-digits/hierarchical-4",
    "#cost?profile=digits",
    "#papers/fang2021",
    "#papers/song2018",
    "#compare?first=default&second=digits",
    "#reproduce",
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The page of the accepted reports of this repository."""
    return write_page(read_everything(ROOT), tmp_path_factory.mktemp("real") / "index.html")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The page of a study of six seeds whose figures are worked out by hand, with curves and two verdicts."""
    folder = tmp_path_factory.mktemp("small")
    study = study_in(folder)
    declare(
        study,
        claim(compare=[{"method": "simple-2", "baseline": "individual"}]),
        claim(id="two", statement="Two & <b>bold</b>.", compare=[{"method": "simple-4", "baseline": "individual"}]),
        claim(id="three", statement="Three.", compare=[{"method": "label-smoothing", "baseline": "individual"}]),
    )
    fabricated.write_measured(study)
    build_report(study.params, study.plan, study.workspace)
    accept(study.workspace)
    return write_page(read_everything(folder), folder / "reports/index.html")


class Opened:
    """A page in the browser. errors: what its console and its script complained about."""

    def __init__(self, browser, path, width=1400, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.path, self.errors, self.requests = path, [], []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def go(self, place=""):
        self.page.goto(self.path.as_uri() + place)
        return self.page


@pytest.fixture
def opened(browser):
    made = []

    def open_(path, **options):
        made.append(Opened(browser, path, **options))
        return made[-1]

    yield open_
    for one in made:
        one.context.close()
        assert not one.errors
        assert all(url.startswith(("file:", "data:")) for url in one.requests)


CUT = """() => {
  const cut = [];
  const width = document.documentElement.clientWidth;
  const whole = document.documentElement.scrollWidth;
  if (whole > width) cut.push(`the page is ${whole} wide`);
  for (const node of document.querySelectorAll("#view *, .top *, .foot *, dialog[open] *")) {
    if (node.closest(".scroll, .hidden, svg, option") || !node.getClientRects().length) continue;
    const box = node.getBoundingClientRect();
    const about = `${node.tagName}.${node.className}: ${node.textContent.slice(0, 40)}`;
    if (box.right > width + 1 || box.left < -1) cut.push(`outside: ${about}`);
    const overflow = getComputedStyle(node).overflowX;
    const hides = overflow !== "visible" && overflow !== "auto";
    if (hides && node.scrollWidth > node.clientWidth + 1) cut.push(`cut: ${about}`);
  }
  return cut;
}"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_cuts_text_and_none_has_a_serious_finding(opened, real, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    here = opened(real, width=width, scheme=scheme)
    folder = os.environ.get("SCREENSHOTS")
    for place in VIEWS:
        page = here.go()
        page.goto(real.as_uri() + place)
        assert page.evaluate(CUT) == [], place
        if (width, scheme) in ((360, "light"), (1400, "dark")):
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert not serious, (
                place,
                [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in serious],
            )
        if folder:
            name = "".join(letter if letter.isalnum() else "-" for letter in place.strip("#"))
            page.screenshot(path=Path(folder) / f"{name}-{width}-{scheme}.png", full_page="cell" not in place)


def test_opened_claims_are_whole_and_accessible(opened, real):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(real, width=360).go()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.locator(".claim .body .parts").nth(5).wait_for()
    assert page.evaluate(CUT) == []
    found = Axe().run(page).response["violations"]
    assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")]


def test_the_first_screen_of_a_phone_says_which_claims_hold(opened, real):
    page = opened(real, width=360).go()
    answer = page.locator(".verdicts .answer")
    assert answer.inner_text() == read_everything(ROOT).lead[0]
    assert page.locator(".verdicts li").first.bounding_box()["y"] < 500


def test_claims_show_the_figures_worked_out_by_hand(opened, small):
    page = opened(small).go()
    groups = page.locator("#view h2").all_inner_texts()
    assert [g for g in groups if "Supported" in g or "Refuted" in g or "Undecided" in g] == [
        "Supported (1)", "Refuted (1)", "Undecided (1)",
    ]  # fmt: skip
    row = page.locator("#claim-one")
    shown = row.inner_text()  # before anything is opened
    assert "“W”" in shown and "Compared: simple-2 against individual" in shown
    assert "20 % uniform noise, ResNet-8" in shown and "n 6, look 1 of 1; profile small" in shown
    assert row.locator("li svg.forest line.thin").count() == row.locator("li svg.forest line.thick").count() == 1
    page.locator("#claim-one summary").click()
    page.locator("#claim-one .body svg.forest").wait_for()  # what is folded is filled in when it is opened
    text = page.locator("#claim-one .body").inner_text()
    half = stats.t.ppf(0.975, 5) * (0.8 / 6) ** 0.5
    low, high = (f"{-2 + side * half:.2f}".replace("-", "−") for side in (-1, 1))
    assert f"−2.00 percentage points, 95 % interval [{low}, {high}]" in text
    assert "n 6" in text and "simple-2 against individual" in text
    assert page.locator("#claim-one .body svg.forest").count() == 1
    assert page.locator("#claim-two .statement").inner_text() == "Two & <b>bold</b>."


def test_filters_search_and_permalinks_of_claims(opened, small):
    here = opened(small)
    page = here.go()
    page.get_by_label("Verdict", exact=True).select_option("refuted")
    assert page.url.endswith("#claims?verdict=refuted")
    assert page.locator(".claim").count() == 1 and page.locator("#claim-two").is_visible()
    page.get_by_role("button", name="Show all").click()
    assert page.locator(".claim").count() == 3
    page.get_by_label("Search").type("three")
    assert page.locator(".claim").count() == 1
    assert page.evaluate("document.activeElement.value") == "three"
    address = page.url
    page = here.go(address[address.index("#") :])
    page.reload()
    assert page.get_by_label("Search").input_value() == "three" and page.locator("#claim-three").is_visible()
    page.get_by_label("Search").fill("nothing has these words")
    assert page.locator(".claim").count() == 0
    page = here.go("#claims/two")
    assert page.locator(".claim").count() == 1 and page.locator("#claim-two .body").inner_text()
    for mistyped in ("#no-such-view/%20", "#claims/%E0%A4%A", "#constructor"):
        page = here.go(mistyped)
        assert page.locator(".claim").count() == 3
    assert "no such claim" in here.go("#claims/gone").locator("#view").inner_text()


def test_the_filter_for_what_was_not_run_leaves_only_that(opened, real):
    page = opened(real).go("#claims?verdict=not%20run")
    assert page.locator(".claim").count() > 1
    assert {" ".join(text.split()) for text in page.locator(".claim .tests .chip").all_inner_texts()} == {"· not run"}


@pytest.mark.parametrize("label", ["Paper", "Data set", "Noise", "Backbone"])
def test_every_filter_of_claims_leaves_its_own(opened, real, label):
    page = opened(real).go()
    every = page.locator(".claim").count()
    chosen = page.get_by_label(label, exact=True)
    values = chosen.locator("option").evaluate_all("all => all.map((one) => one.value)")
    assert values[0] == "" and len(values) > 2
    counts = []
    for value in values[1:]:
        page.get_by_label(label, exact=True).select_option(value)
        counts.append(page.locator(".claim").count())
        if label == "Paper":
            cited = page.get_by_label(label, exact=True).locator(":checked").inner_text()
            assert all(text.startswith(cited) for text in page.locator(".claim cite").all_inner_texts())
    assert all(0 < count < every for count in counts)
    assert page.get_by_label("Search").is_visible() and "=" in page.url
    page.get_by_role("button", name="Show all").click()
    assert page.locator(".claim").count() == every


def test_the_leaderboard_sorts_and_computes_other_baselines(opened, small):
    page = opened(small).go("#leaderboard?profile=small")
    methods = lambda: page.locator(".heat tbody th").all_inner_texts()  # noqa: E731
    before = methods()
    page.get_by_role("button", name="20 % uniform noise", exact=True).click()
    assert methods()[0] == "ensemble-2" and sorted(methods()) == sorted(before)
    assert page.locator(".heat th[aria-sort=ascending]").count() == 1
    cell = page.locator(".heat tbody tr", has=page.get_by_text("simple-2", exact=True)).locator("td button").nth(1)
    assert cell.inner_text().split()[0] == "−2.00" and "✱" in cell.inner_text()
    page.get_by_label("Baseline", exact=True).select_option("simple-4")
    assert cell.inner_text().split()[0] == "−4.00" and "✱" not in cell.inner_text()
    page.get_by_label("Metric", exact=True).select_option("negative_log_likelihood")
    assert cell.inner_text().split()[0] == "−0.120"  # three times the error
    assert "metric=negative_log_likelihood" in page.url and "baseline=simple-4" in page.url


def test_a_cell_opens_with_what_is_behind_it_and_closes_with_the_keyboard(opened, small):
    page = opened(small).go("#leaderboard?profile=small")
    cell = page.locator(".heat tbody tr", has=page.get_by_text("simple-2", exact=True)).locator("td button").nth(1)
    cell.focus()
    page.keyboard.press("Enter")
    panel = page.locator("#panel")
    panel.wait_for()
    text = panel.inner_text()
    assert "10.50 %" in text and "−2.00 points" in text and "6 pairs" in text
    assert panel.locator("svg path.curve").count() == 7  # six seeds and their mean
    assert panel.locator("svg").first.locator("circle").count() == 12
    commands = panel.locator(".command pre").all_inner_texts()
    assert commands[0].startswith("collabench explain -p small all digits-500 uniform20 resnet8 forty simple-2")
    assert commands[1].startswith("collabench run -p small --configuration digits-cifarresnet8-song2018-")
    panel.get_by_role("button", name="Copy").first.click()
    panel.get_by_role("button", name="Copied").wait_for()
    page.keyboard.press("Escape")
    panel.wait_for(state="hidden")
    assert "#leaderboard" in page.url
    page.go_forward()
    panel.wait_for()


def test_the_cost_view_says_what_is_on_the_pareto_line(opened, small):
    page = opened(small).go("#cost?profile=small")
    shown = page.locator("table tbody tr").count()
    assert page.locator("svg.plot circle").count() == shown > 1
    assert "On the Pareto line: " in page.locator("svg.plot").get_attribute("aria-label")
    assert page.locator("table tbody td:last-child", has_text="yes").count() >= 1


def test_the_pareto_line_and_the_quantiles_are_right(opened, small):
    page = opened(small).go()
    points = [(1, 5), (2, 6), (2, 4), (3, 4), (4, 1), (1, 7)]
    found = page.evaluate("(points) => pareto(points).map((p) => [p.cost, p.error])",
                          [{"cost": c, "error": e} for c, e in points])  # fmt: skip
    assert found == [[1, 5], [2, 4], [4, 1]]
    for n in (2, 3, 6):
        values = [1.5, 2.0, 4.0, 3.0, 2.5, 9.0][:n]
        found = page.evaluate("summarise", values)
        low, high = stats.t.interval(0.95, n - 1, loc=sum(values) / n, scale=stats.sem(values))
        assert (found["n"], found["low"], found["high"]) == (n, pytest.approx(low), pytest.approx(high))


def test_two_files_are_compared_with_the_changed_verdicts_first(opened, small, tmp_path):
    report = json.loads((small.parent / "small/report.json").read_text())
    report["verdicts"][0]["verdict"] = "inconclusive"
    report["tables"][0]["conditions"][0]["rows"][0]["error"]["mean"] += 0.5
    chosen = tmp_path / "report.json"
    chosen.write_text(json.dumps(report))
    page = opened(small, width=360).go("#compare?first=small")
    choose = page.locator("input[type=file]").nth(1)
    choose.set_input_files(chosen)
    page.get_by_text("1 of 3 verdicts changed.").wait_for()
    assert page.locator("#view h2").first.inner_text() == "Verdicts on claims"
    (changed,) = page.locator("#view h2 + p + ul").first.locator("li").all_inner_texts()
    assert re.search(r"supported.*→.*inconclusive", changed, re.DOTALL)
    assert "+0.50" in page.locator("table").inner_text()
    assert page.evaluate(CUT) == []


def test_a_report_without_verdicts_is_compared_and_said(opened, small, tmp_path):
    report = json.loads((small.parent / "small/report.json").read_text())
    del report["verdicts"]
    (tmp_path / "old.json").write_text(json.dumps(report))
    page = opened(small, width=360).go("#compare?first=small")
    page.locator("input[type=file]").nth(1).set_input_files(tmp_path / "old.json")
    page.get_by_text("small (old.json): made before report.json kept the verdicts").wait_for()
    assert "are equal to the last digit kept" in page.locator("#view").inner_text()
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "broken.json: is no JSON; choose a report.json"),
        ("null", "broken.json: is no report.json of schema version 1"),
        ('{"schema_version": 1, "claims": []}', "broken.json: is no report.json of schema version 1"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_words(opened, small, tmp_path, content, said):
    (tmp_path / "broken.json").write_text(content)
    page = opened(small).go("#compare?first=small")
    page.locator("input[type=file]").nth(1).set_input_files(tmp_path / "broken.json")
    page.get_by_text(said).wait_for()


def test_the_last_view_says_whether_the_report_was_verified(opened, small, tmp_path):
    page = opened(small).go("#reproduce")
    assert "No verification of this report is recorded." in page.locator("#view").inner_text()
    root = Path(shutil.copytree(small.parents[1], tmp_path / "copy"))
    folder = root / "reports/small"
    equal = Repetition(label="digits · simple-2", seed=3, run_id="a-s3", compared="bytes", why="",
                       recorded=10.0, repeated=10.0, allowed=None, agrees=True)  # fmt: skip
    other = equal.model_copy(update={"compared": "tolerance", "why": "versions: <b>torch</b>", "repeated": 12.0,
                                     "allowed": 1.5, "agrees": False})  # fmt: skip
    for differences, found in ((0, (equal,)), (1, (equal, other))):
        record = Verified(profile="small", digests=digests_of(folder), sample=2, draw_seed=7, hashed={"results": 1234},
                          rebuilt="same", repetitions=found, differences=differences)  # fmt: skip
        save_verified(folder, record)
        here = opened(write_page(read_everything(root), tmp_path / f"page-{differences}.html"), width=360)
        page = here.go("#reproduce")
        text = page.locator("#view").inner_text()
        assert ("Verified: no file is damaged" in text) == (differences == 0) and "1,234 results" in text
        assert ("1 difference found" in text) == (differences == 1)
        assert "digits · simple-2, seed 3: the same bytes" in text
        assert page.evaluate(CUT) == []
    assert "Differs: digits · simple-2, seed 3: test error 10.00 % recorded, 12.00 % now, 1.50 points allowed" in text
    assert "collabench verify -p small" in page.locator(".command pre").all_inner_texts()


def test_colours_follow_the_system_and_the_button(opened, small):
    page = opened(small, scheme="dark").go()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Change to light colours").click()
    light = page.evaluate(ground)
    assert sum(map(int, light[4:-1].split(","))) > 600 > 150 > sum(map(int, dark[4:-1].split(",")))
    page.reload()
    assert page.evaluate(ground) == light


def test_every_view_is_reached_by_the_keyboard(opened, small):
    page = opened(small).go()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    for name in ("Claims", "Leaderboard", "Cost", "Papers", "Compare", "Reproduce"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
        page.keyboard.press("Enter")
        here = page.locator("#tabs a[aria-current=page]", has_text=name)
        here.wait_for()
        here.focus()


def test_a_printed_page_has_no_controls(opened, small):
    page = opened(small).go()
    page.emulate_media(media="print")
    assert not page.locator(".controls").first.is_visible() and not page.locator(".top").is_visible()
    assert page.locator(".claim").first.is_visible()

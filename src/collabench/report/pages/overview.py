"""The files of a report: markdown, CSV, JSON and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from collabench.config.configuration import READINGS
from collabench.core.text import counted, counted_of, markdown_text
from collabench.report import titles
from collabench.report.collect import Collected
from collabench.report.content import Condition, Ranks, Report, Table
from collabench.report.folders import CONTENT, OVERVIEW
from collabench.report.formatting import markdown, write_csv
from collabench.report.pages import figures, tables
from collabench.storage.files import write_json

HOW_TO_READ = """\
How to read the tables. **Test error** is the deployed head's on the test split, in percent: mean ± sample standard
deviation over n training runs (one per seed). Intervals are 95 % t intervals over training randomness with a fixed test
set; they say nothing about other test images, unless the title says that the split is drawn per seed. \
**Difference**: method minus baseline in percentage points, paired by
seed (same split, noise, data order and augmentation; of an ensemble's members the first has that order, and all have \
that
noise); negative is lower error. Its interval is unadjusted: it is not widened for the number of
comparisons. **p**: paired t test, two-sided, the primary test. **Sign-flip p**: exact test without an assumption of
normality, a sensitivity check, shown where n can reach 0.05 (six pairs or more). **Holm p**: p adjusted over the
declared family of comparisons. How often such intervals and tests err, and for which differences more
than 5 % of the time (skewed ones, ties with few seeds): `docs/statistics-simulation.md`. “–”: not defined or not \
recorded.
"""

#: Heading of a condition's table of three columns.
SHORT = "Test error after the last epoch"

_SELECTED = (
    " Selected on validation: test error of the epoch with the lowest error on the held-out training images, so that "
    "no test image chooses it."
)


def write_report(
    folder: Path,
    report: Report,
    collected: Collected,
    papers: Sequence[str] = (),
    claims: Sequence[str] = (),
    lead: Sequence[str] = (),
) -> None:
    """Write the report's files into a folder.

    papers: one line of the overview for the page of each paper. claims: the overview's section on claims. lead: what
    the overview begins with.
    """
    (folder / "figures").mkdir(exist_ok=True)
    for table in report.tables:
        drawn = figures.draw_table(folder / "figures", table, collected)
        (folder / f"{table.name}.md").write_bytes(_table_page(report, table, drawn).encode())
        write_csv(folder / f"{table.name}.csv", tables.numbers(table))
    write_csv(folder / "runs.csv", collected.frame)
    (folder / OVERVIEW).write_bytes(_overview(report, collected, papers, claims, lead).encode())
    write_json(folder / CONTENT, report)


# ------------------------------------------------------------------------------------------------- the overview


def _grown(report: Report) -> list[str]:
    """What claims have needed beyond the tables, and what they still need."""
    lines = []
    if report.further_runs:
        further = counted(report.further_runs, "further run")
        lines.append(f"{further}, with seeds that no table shows, decide claims.")
    if report.open_tests:
        lines.append(
            f"The study was stopped before the next look of {counted(report.open_tests, 'test')} on claims: "
            f"`collabench reproduce -p {report.profile}` continues it."
        )
    return [" ".join(lines)] if lines else []


def _overview(
    report: Report, collected: Collected, papers: Sequence[str], claims: Sequence[str], lead: Sequence[str]
) -> str:
    configurations = {cell.configuration.id for cell in collected.plan.cells}
    seeds = sorted({len(cell.seeds) for cell in collected.plan.cells})
    each = counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    lines = [
        f"# Report of the profile `{report.profile}`" + (" (partial)" if report.partial else ""),
        *_missing(report),
        *lead,
        f"{report.description[0].upper()}{report.description[1:].rstrip('.')}.",
        f"{counted(report.runs, 'training run')}: {counted(len(configurations), 'configuration')} with {each} each. "
        "Errors are test "
        "errors after the last epoch in percent, means over seeds; in brackets the difference to the baseline in "
        "percentage points, paired by seed (negative is lower error).",
        *_grown(report),
        *claims,
    ]
    for table in report.tables:
        scope = tables.common_scope(table)
        lines += [
            f"## {markdown_text(table.title)}",
            *([f"{scope}."] if scope else []),
            *_overview_table(table),
        ]
        lines += reading_note(table)
        short = tables.short_titles(table)
        told = [
            f"- {short[condition.key] + ': ' if len(table.conditions) > 1 else ''}{text}"
            for condition in table.conditions
            if (text := tables.findings(condition))
        ]
        if told:
            baseline = table.conditions[0].baseline
            lines += [f"Against {baseline}, paired t test, Holm-adjusted within the family, at 5 %:", "\n".join(told)]
        lines.append(
            f"Intervals, tests, best epoch and heads: [{table.name}.md]({table.name}.md). "
            f"Numbers: [{table.name}.csv]({table.name}.csv)."
        )
    if papers:
        lines += ["## Papers", "\n".join(papers)]
    lines += [
        "## Files",
        "\n".join(
            [
                *(f"- [{table.name}.md]({table.name}.md), [{table.name}.csv]({table.name}.csv): "
                  f"{markdown_text(table.title)}"
                  for table in report.tables),
                *(["- [claims.md](claims.md), [claims.csv](claims.csv), [claims.json](claims.json): the papers' claims"]
                  if claims else []),
                "- [runs.csv](runs.csv): every run, one per line",
                f"- [{CONTENT}]({CONTENT}): everything above, machine-readable",
                "- [costs/README.md](costs/README.md): time, memory and devices, as measured where the runs were made",
            ]
        ),
        HOW_TO_READ.strip(),
        *_missing_runs(report),
    ]  # fmt: skip
    return "\n\n".join(lines) + "\n"


def _missing(report: Report) -> list[str]:
    if not report.partial:
        return []
    where = " Which: at the end." if report.missing else ""
    return [
        f"**Partial: {counted_of(len(report.missing), report.runs, 'run', 'missing')}**; every row shows its n.{where}"
    ]


def _missing_runs(report: Report) -> list[str]:
    """The missing runs: one line for those of a configuration with the same reason."""
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for one in report.missing:
        configuration = one.run_id.removesuffix(f"-s{one.seed}")
        seeds.setdefault((one.label, configuration, one.reason), []).append(one.seed)
    lines = [
        f"- {label} (`{configuration}`), seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: {reason}"
        for (label, configuration, reason), numbers in seeds.items()
    ]
    return ["## Missing runs", "\n".join(lines)] if lines else []


def _overview_table(table: Table) -> list[str]:
    """Of one condition the short table; of several, methods and conditions crossed, and the short tables folded."""
    short = [markdown(tables.short_table(condition), unbroken=True) for condition in table.conditions]
    if len(short) == 1:
        return short
    titles = tables.short_titles(table)
    each = zip(table.conditions, short, strict=True)
    return [
        markdown(tables.overview_table(table)),
        f"Test error %, in brackets the difference to the baseline. {tables.MARK} survives Holm's correction at 5 %. "
        "The methods are sorted by their mean difference over the conditions.",
        "<details><summary>Each condition: error, difference with interval, Holm p</summary>",
        *(text for condition, one in each for text in (f"**{markdown_text(titles[condition.key])}**", one)),
        "</details>",
    ]


# -------------------------------------------------------------------------------------------------- table pages


def _table_page(report: Report, table: Table, drawn: dict[str, dict[str, str]]) -> str:
    """A table's page. drawn: condition key (``""`` for the whole table) → caption → file name of a figure."""
    lines = [
        f"# {markdown_text(table.title)}",
        f"[Overview](README.md) · numbers: [{table.name}.csv]({table.name}.csv)",
    ]
    if report.partial:
        lines.append("**Partial report: some runs are missing; n says how many there are.**")
    lines += reading_note(table)
    lines += [_figure(caption, name) for caption, name in drawn.get("", {}).items()]
    for condition in table.conditions:
        lines += _condition(condition, drawn.get(condition.key, {}))
    for ranks in table.ranks:
        lines += _ranks(ranks, len(table.ranks) > 1)
    lines += ["---", HOW_TO_READ.strip()]
    return "\n\n".join(lines) + "\n"


def reading_note(table: Table) -> list[str]:
    """The statements that must accompany results of a method whose paper is not available, and of settings that read
    what a paper's text leaves open."""
    notes = []
    rows = [row for condition in table.conditions for row in condition.rows]
    for method, reading in READINGS.items():
        shown = sorted({row.method for row in rows if f"-{method}-" in row.configuration_id})
        notes += [f"{', '.join(shown)}: {reading}."] if shown else []
    return notes + tables.told_readings((row.method, row.readings) for row in rows)


def _figure(caption: str, name: str) -> str:
    caption = markdown_text(caption)
    return f"![{caption}](figures/{name})\n\n*{caption}*"


def _condition(condition: Condition, drawn: dict[str, str]) -> list[str]:
    names = " · ".join(condition.names.values())
    facts = [f"In `params.yaml`: `{names}`"]
    if condition.train_images is not None:
        facts.append(f"{condition.train_images:,} training images")
        drawn_anew = condition.split == "per_seed"
        facts.append(
            f"{'a' if drawn_anew else 'fixed'} test set of {condition.test_images:,} images"
            + (" for each seed, disjoint from the seed's training images" if drawn_anew else "")
        )
    lines = [f"## {markdown_text(condition.title)}", "; ".join(facts) + ".", _noise(condition)]
    lines += [
        f"### {SHORT}",
        markdown(tables.short_table(condition), unbroken=True),
        _tests(condition),
    ]
    first = {caption: name for caption, name in drawn.items() if "differences" in name}
    lines += [_figure(caption, name) for caption, name in first.items()]
    lines += ["<details><summary>All columns, best epoch, heads, probabilities, curves</summary>"]
    sections = (
        (
            tables.main_table,
            "All columns, after the last epoch",
            "The table above with every column, in the order of `params.yaml`.",
        ),
        (
            tables.best_epoch_table,
            "Best epoch against last epoch",
            "Rule: the best epoch is chosen on test data, hence optimistic. Optimism: last minus best epoch, in "
            "percentage points, with its 95 % t interval over seeds."
            + (_SELECTED if any(row.selected for row in condition.rows) else ""),
        ),
        (
            tables.across_images_table,
            "Other seeds and other test images, after the last epoch",
            "95 % intervals. Over seeds: Student's t over training randomness, fixed test set, as above. Over seeds "
            "and "
            "images: two-way bootstrap (2,000 resamples, percentiles) of the saved logits, which also says what other "
            "test images would change. Unadjusted; it replaces no test.",
        ),
        (
            tables.heads_table,
            "Heads after the last epoch",
            "The deployed head is the first, chosen before training. Spread: sample standard deviation over the heads "
            "of a run, mean over runs. Averaged heads: error of the heads' averaged logits (needs all heads at test "
            "time); its difference to the deployed head is in percentage points, paired by run, unadjusted.",
        ),
        (
            tables.probabilities_table,
            "Probabilities and size, after the last epoch",
            "Mean ± sample standard deviation over n runs. Negative log-likelihood in nats per image; "
            "calibration error: expected calibration error over 15 bins of equal width.",
        ),
        (
            tables.resolution_table,
            "What the number of seeds can show",
            "Rule: last epoch. Effect size: mean over standard deviation of the paired differences, with Hedges' "
            "correction. Detectable difference: the smallest true difference (points) that so many pairs of this "
            "spread show at 5 %, unadjusted, with 80 % power.",
        ),
    )
    for make, title, note in sections:
        frame = make(condition)
        if frame is not None:
            lines += [f"### {title}", markdown(frame), note]
    others = {caption: name for caption, name in drawn.items() if caption not in first}
    if others:
        lines += ["### Figures", *(_figure(caption, name) for caption, name in others.items())]
    return [*lines, "</details>"]


def _noise(condition: Condition) -> str:
    noise = condition.noise
    warning = f"\n\n**{titles.NOISY_TEST}**" if noise.test_labels == "noisy" else ""
    if noise.kind == "none":
        known = {"clean": "clean", "given": "as given; nobody has checked them", "noisy": "as given; some are wrong"}
        return f"Training labels: {known[noise.labels]}.{warning}"
    wrong = "wrong" if noise.labels == "clean" else "others than the labels as given"
    realised = "no run yet"
    if noise.corruption is not None:
        realised = (
            f"{noise.corruption:.2f} % of the training labels are {wrong} "
            f"(mean over runs; {noise.corruption_low:.2f} to {noise.corruption_high:.2f} %)"
        )
    asked = markdown_text(titles.asked(noise.kind, noise.rate, noise.flips, noise.classes))
    line = f"Label noise: {noise.kind}, {noise.drawn}; {asked}; realised: {realised}."
    parts = [line]
    if noise.asked is not None:
        parts += ["Asked for, in % of the images of each class (rows) with each label (columns):", _matrix(noise.asked)]
    if noise.realised is not None:
        what = (
            "likewise"
            if noise.asked is not None
            else "in % of the images of each class (rows) with each label (columns)"
        )
        parts += [f"Realised, {what}, mean over runs:", _matrix(noise.realised)]
    return "\n\n".join(parts) + warning


def _matrix(rows: tuple[tuple[float, ...], ...]) -> str:
    header = ("class", *map(str, range(len(rows))))
    lines = [header, ("---",) * len(header)]
    lines += [(str(number), *(f"{100 * share:.1f}" for share in row)) for number, row in enumerate(rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _tests(condition: Condition) -> str:
    over = "over training randomness, fixed test set"
    if condition.split == "per_seed":
        over = "over splits of the pool and training randomness"
    text = (
        f"Sorted by difference; {tables.MARK} survives Holm's correction at 5 %. "
        f"Rule: last epoch, nothing is selected. Intervals: 95 %, {over}, unadjusted."
    )
    if condition.family_size:
        plural = "comparison" if condition.family_size == 1 else "comparisons"
        text += f" Holm p: within the family `{condition.family}` ({condition.family_size} {plural})."
    short = [row.difference for row in condition.rows if row.difference and row.difference.sign_flip_p is None]
    if short:
        pairs = min(difference.n for difference in short)
        smallest = max(difference.sign_flip_minimum for difference in short)
        text += f" The exact sign-flip test is left out: with {pairs} pairs it cannot fall below {smallest:.4g}."
    return text


def _ranks(ranks: Ranks, several: bool) -> list[str]:
    test = ranks.friedman
    title = "## Average ranks over data sets" + (f", recipe `{ranks.recipe}`" if several else "")
    if test.reason is not None:
        reason = test.reason.removeprefix("not computed: ")
        return [
            title,
            f"Friedman's test, average ranks and critical difference: not computed ({reason}). A block is a data set. "
            "Noise, backbones and seeds on the same images are no further blocks: they share data and split, and would "
            "count one piece of evidence several times.",
        ]
    return [
        title,
        markdown(tables.ranks_table(ranks)),
        f"Ranks of the mean test errors after the last epoch within {test.blocks} blocks (data sets, never noise, "
        "backbones or seeds on the same images); 1 is the lowest error. Friedman's test: p "
        f"{_equals(test.p)}. Nemenyi's critical difference at 5 %: {tables.number(test.critical_difference)} ranks; "
        "methods that lie closer are not "
        "told apart.",
    ]


def _equals(p: float | None) -> str:
    text = tables.p_value(p)
    return text if text.startswith("<") else f"= {text}"

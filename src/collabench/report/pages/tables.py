"""The tables of a report: formatted for reading, and as numbers for further analysis.

Formatted numbers are percent or percentage points with two decimals. Each function returns a frame of text, or None if
no row has a value to show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from collabench.report.content import Condition, Ranks, Row, Table
from collabench.report.formatting import NOTHING, Frame, count, interval, mean_sd, number, p_value
from collabench.stats import Summary, told_apart

# ------------------------------------------------------------------------------------- tables of one condition


#: Marks a difference that Holm's correction leaves at 5 %.
MARK = "✱"


def short_table(condition: Condition) -> Frame:
    """What a reader asks first: error, difference with interval, adjusted p. The lowest error relative to the baseline
    comes first."""

    def cells(row: Row) -> dict[str, str]:
        difference = row.difference
        count = f", n {len(row.seeds)} of {len(row.seeds) + row.missing}" if row.missing else ""
        survives = told_apart(row.holm_p)
        shown = NOTHING
        if difference:
            shown = number(difference.difference, signed=True)
            shown += "" if difference.low is None else f" {interval(difference, signed=True)}"
        p = p_value(row.holm_p)
        return {
            "Method": name_of(row, condition),
            "Test error %": (mean_sd(row.error) if row.error else "no run") + count,
            "Difference [95 % interval]": f"**{shown}** {MARK}" if survives else shown,
            "Holm p": f"**{p}**" if survives else p,
        }

    def place(row: Row) -> float:
        if row.difference:
            return row.difference.difference
        return 0.0 if row.method == condition.baseline else math.inf

    return Frame([cells(row) for row in sorted(condition.rows, key=place)])


def main_table(condition: Condition) -> Frame:
    """Test error after the last epoch, and the paired comparison with the baseline."""

    def cells(row: Row) -> dict[str, str]:
        n = len(row.seeds)
        difference = row.difference
        return {
            "Method": name_of(row, condition),
            "Test error %": mean_sd(row.error),
            "95 % interval": interval(row.error),
            "n": f"{n} of {n + row.missing}" if row.missing else str(n),
            "Difference": number(difference.difference, signed=True) if difference else NOTHING,
            "95 % interval, unadjusted": interval(difference, signed=True),
            "Pairs": str(difference.n) if difference else NOTHING,
            "p": p_value(difference.p if difference else None),
            "Sign-flip p": p_value(difference.sign_flip_p if difference else None),
            "Holm p": p_value(row.holm_p),
            "Parameters": count(row.parameters),
            "Published %": "; ".join(_published(row)) or NOTHING,
        }

    frame = Frame([cells(row) for row in condition.rows])
    unused = [] if any(row.published for row in condition.rows) else ["Published %"]
    if not any(row.missing for row in condition.rows):
        unused.append("Pairs")
    if all(row.difference is None or row.difference.sign_flip_p is None for row in condition.rows):
        unused.append("Sign-flip p")
    return frame.drop(columns=unused)


def _published(row: Row) -> Iterable[str]:
    for published in row.published:
        if published.value is None:
            yield f"not in our sources ({published.source})"
            continue
        rule = "" if published.protocol == "last" else ", best epoch"
        verdict = published.comparison.verdict if published.comparison else "not compared"
        yield f"{number(published.value)} ({published.source}{rule}): {verdict}"


def best_epoch_table(condition: Condition) -> Frame | None:
    """The best epoch, chosen on test data, beside the last one and the validation-selected one, if there is one."""

    def cells(row: Row) -> dict[str, str]:
        best, selected = row.best, row.selected
        return {
            "Method": name_of(row, condition),
            "Last epoch %": mean_sd(row.error),
            "Best epoch % (optimistic)": mean_sd(best.error if best else None),
            "Optimism": number(best.optimism.mean) if best else NOTHING,
            "95 % interval": interval(best.optimism) if best else NOTHING,
            "Mean best epoch": number(best.epoch, 1) if best else NOTHING,
            "Selected on validation %": mean_sd(selected.error if selected else None),
            "Mean selected epoch": number(selected.epoch, 1) if selected else NOTHING,
            "n": str(len(row.seeds)),
        }

    rows = [row for row in condition.rows if row.best or row.selected]
    if not rows:
        return None
    frame = Frame([cells(row) for row in rows])
    if not any(row.selected for row in rows):
        frame = frame.drop(columns=["Selected on validation %", "Mean selected epoch"])
    return frame


def heads_table(condition: Condition) -> Frame | None:
    """Deployed head, mean and spread over heads, and the error of the heads' averaged logits."""
    return _frame(
        condition,
        lambda row: row.heads is not None,
        lambda row: {
            "Heads": str(row.heads.count),
            "Deployed head %": mean_sd(row.error),
            "Mean over heads %": mean_sd(row.heads.mean),
            "Spread over heads": number(row.heads.spread),
            "Averaged heads %": mean_sd(row.heads.averaged),
            "Averaged − deployed": number(row.heads.gain.difference, signed=True),
            "95 % interval": interval(row.heads.gain, signed=True),
            "n": str(len(row.seeds)),
        },
    )


def probabilities_table(condition: Condition) -> Frame | None:
    """Negative log-likelihood, calibration error, top-5 error (with more than five classes), and size."""
    frame = _frame(
        condition,
        lambda row: row.error is not None,
        lambda row: {
            "Negative log-likelihood": mean_sd(row.negative_log_likelihood, 3),
            "Calibration error %": mean_sd(row.calibration_error),
            "Top-5 error %": mean_sd(row.top5_error),
            "Parameters deployed": count(row.parameters),
            "Parameters in training": count(row.training_parameters) if row.training_parameters else NOTHING,
            "n": str(len(row.seeds)),
        },
    )
    if frame is not None and all(row.top5_error is None for row in condition.rows):
        frame = frame.drop(columns="Top-5 error %")
    return frame


def across_images_table(condition: Condition) -> Frame | None:
    """The t interval over seeds beside the bootstrap's over seeds and test images."""

    def cells(row: Row) -> dict[str, str]:
        found = row.across_images
        assert found is not None, "rows without are left out"
        return {
            "Test error %": number(row.error.mean if row.error else None),
            "over seeds": interval(row.error),
            "over seeds and images": _range(found.error_low, found.error_high),
            "Difference": number(row.difference.difference, signed=True) if row.difference else NOTHING,
            "over seeds ": interval(row.difference, signed=True),
            "over seeds and images ": _range(found.difference_low, found.difference_high, signed=True),
            "Seeds": str(found.seeds),
            "Images": count(found.images),
        }

    return _frame(condition, lambda row: row.across_images is not None, cells)


def _range(low: float | None, high: float | None, *, signed: bool = False) -> str:
    return NOTHING if low is None else f"[{number(low, signed=signed)}, {number(high, signed=signed)}]"


def resolution_table(condition: Condition) -> Frame | None:
    """Effect size, and the smallest difference that this number of pairs can detect."""
    return _frame(
        condition,
        lambda row: row.difference is not None,
        lambda row: {
            "Difference": number(row.difference.difference, signed=True),
            "sd of differences": number(row.difference.sd),
            "Effect size (Hedges)": number(row.difference.effect_size, signed=True),
            "Detectable difference": number(row.difference.detectable),
            "Pairs": str(row.difference.n),
        },
    )


def _frame(condition: Condition, shown: Callable[[Row], bool], cells: Callable[[Any], dict[str, str]]) -> Frame | None:
    rows = [{"Method": name_of(row, condition), **cells(row)} for row in condition.rows if shown(row)]
    return Frame(rows) if rows else None


def name_of(row: Row, condition: Condition) -> str:
    return f"{row.method} (baseline)" if row.method == condition.baseline else row.method


def ranks_table(ranks: Ranks) -> Frame:
    order = sorted(zip(ranks.friedman.average_ranks, ranks.methods, strict=True))
    return Frame([{"Method": method, "Average rank": number(rank)} for rank, method in order])


# ------------------------------------------------------------------------------------------------- the overview


def overview_table(table: Table) -> Frame:
    """Methods and conditions of a table: mean error, in brackets the difference from the baseline, and a mark where
    it survives Holm's correction. The lowest mean difference over the conditions comes first."""
    heading = short_titles(table)
    methods = [row.method for row in table.conditions[0].rows]
    methods.sort(key=lambda method: _mean_difference(table, method))
    by_condition = {
        heading[condition.key]: {row.method: _overview_cell(row) for row in condition.rows}
        for condition in table.conditions
    }
    frame = Frame(by_condition).reindex(methods).fillna(NOTHING)
    frame.index = [f"{method} (baseline)" if method == table.conditions[0].baseline else method for method in methods]
    if len(table.conditions) > len(methods):
        return frame.T.rename_axis("Condition").reset_index()
    return frame.rename_axis("Method").reset_index()


def _overview_cell(row: Row) -> str:
    if row.error is None:
        return NOTHING
    text = number(row.error.mean)
    if row.difference:
        text += f"\u00a0({number(row.difference.difference, signed=True)})"
    return f"**{text}**\u00a0{MARK}" if told_apart(row.holm_p) else text


def _mean_difference(table: Table, method: str) -> float:
    """0 for the baseline; above all others for a method without a difference."""
    rows = [row for condition in table.conditions for row in condition.rows if row.method == method]
    found = [row.difference.difference for row in rows if row.difference]
    if found:
        return sum(found) / len(found)
    return 0.0 if method == table.conditions[0].baseline else math.inf


def common_scope(table: Table) -> str:
    """The parts of the scope that all of a table's conditions share."""
    parts = zip(*(condition.scope for condition in table.conditions), strict=True)
    return ", ".join(values[0] for values in parts if len(set(values)) == 1)


def short_titles(table: Table) -> dict[str, str]:
    """Condition key → the parts of its scope that differ within the table."""
    if len(table.conditions) == 1:
        return {table.conditions[0].key: "Test error %"}
    varying = [len(set(values)) > 1 for values in zip(*(c.scope for c in table.conditions), strict=True)]
    short = {
        condition.key: ", ".join(part for part, varies in zip(condition.scope, varying, strict=True) if varies)
        for condition in table.conditions
    }
    if len(set(short.values())) < len(short):  # they differ in a setting that no title names
        return {c.key: " · ".join(c.names.values()) for c in table.conditions}
    return short


def findings(condition: Condition) -> str:
    """One line: which methods differ from the baseline after Holm's correction at 5 %."""
    compared = [row for row in condition.rows if row.difference is not None]
    told = [row for row in compared if told_apart(row.holm_p)]
    groups = (
        ("lower error", [row.method for row in told if row.difference and row.difference.difference < 0]),
        ("higher error", [row.method for row in told if row.difference and row.difference.difference > 0]),
        ("not told apart", [row.method for row in compared if row not in told]),
    )
    return "; ".join(f"{title}: {', '.join(methods)}" for title, methods in groups if methods)


def told_readings(shown: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """One sentence for each reading, after the names of the methods that it is about.

    shown: name of a method, and the readings of its settings (:meth:`collabench.methods.MethodSettings.readings`).
    """
    methods: dict[str, dict[str, None]] = {}
    for name, readings in shown:
        for reading in readings:
            methods.setdefault(reading, {})[name] = None
    return [f"{', '.join(names)}: {reading}." for reading, names in methods.items()]


# ---------------------------------------------------------------------------------------------------- numbers


def numbers(table: Table) -> Frame:
    """All numbers of a table, unformatted, one row per condition and method."""
    return Frame([_numbers(condition, row) for condition in table.conditions for row in condition.rows])


def _numbers(condition: Condition, row: Row) -> dict[str, object]:
    difference, best, selected, heads = row.difference, row.best, row.selected, row.heads
    across = row.across_images
    return {
        **condition.names,
        "method": row.method,
        "baseline": condition.baseline,
        "configuration_id": row.configuration_id,
        "n": len(row.seeds),
        "n_asked": len(row.seeds) + row.missing,
        **summary_columns("error_last", row.error),
        "difference": difference and difference.difference,
        "difference_sd": difference and difference.sd,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "pairs": difference and difference.n,
        "t": difference and difference.t,
        "p": difference and difference.p,
        "sign_flip_p": difference and difference.sign_flip_p,
        "holm_p": row.holm_p,
        "holm_family": condition.family,
        "holm_family_size": condition.family_size,
        "effect_size": difference and difference.effect_size,
        "detectable_difference": difference and difference.detectable,
        **summary_columns("error_best_epoch", best.error if best else None),
        **summary_columns("optimism", best.optimism if best else None),
        **summary_columns("error_validation_selected", selected.error if selected else None),
        "heads": heads.count if heads else None,
        **summary_columns("error_mean_over_heads", heads.mean if heads else None),
        "spread_over_heads": heads and heads.spread,
        **summary_columns("error_averaged_heads", heads.averaged if heads else None),
        **summary_columns("top5_error", row.top5_error),
        **summary_columns("negative_log_likelihood", row.negative_log_likelihood),
        **summary_columns("calibration_error", row.calibration_error),
        "error_low_over_seeds_and_images": across and across.error_low,
        "error_high_over_seeds_and_images": across and across.error_high,
        "difference_low_over_seeds_and_images": across and across.difference_low,
        "difference_high_over_seeds_and_images": across and across.difference_high,
        "parameters": row.parameters,
        "training_parameters": row.training_parameters,
        "noise_rate": condition.noise.rate,
        "corruption": condition.noise.corruption,
    }


def summary_columns(name: str, value: Summary | None) -> dict[str, float | None]:
    """A summary as four columns of a CSV file."""
    return {
        f"{name}_mean": value.mean if value else None,
        f"{name}_sd": value.sd if value else None,
        f"{name}_low": value.low if value else None,
        f"{name}_high": value.high if value else None,
    }

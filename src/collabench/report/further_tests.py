"""Errors on further test sets as a table: markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from collabench.core.text import markdown_text
from collabench.stats import summary
from collabench.storage.files import write_atomically

TABLE, DATA = "further-tests.md", "further-tests.csv"

#: Name, severity, number of images, SHA-256 of the file, seed → share of wrong predictions.
Row = tuple[str, int | None, int, str, Mapping[int, float]]


def write_further_tests(folder: Path, *, title: str, own: Mapping[int, float], rows: Sequence[Row]) -> list[Path]:
    """Write :data:`TABLE` and :data:`DATA` to ``folder``; returns what was written.

    own: seed → share of wrong predictions on the run's own test split. The CSV file has one line for each test set and
    seed.
    """
    lines = [("test set", "severity", "images", "test error %"), ("---", "---:", "---:", "---:")]
    lines.append(("own test split", "", "", _mean(own)))
    lines += [(markdown_text(name), "" if severity is None else str(severity), f"{images:,}", _mean(errors))
              for name, severity, images, _, errors in rows]  # fmt: skip
    if len({(name, severity) for name, severity, *_ in rows}) > 1:
        means = {seed: sum(errors[seed] for *_, errors in rows) / len(rows) for seed in own}
        lines.append(("mean over the lines below the first", "", "", _mean(means)))
    checksums = {name: checksum for name, _, _, checksum, _ in rows}
    parts = [
        f"# {markdown_text(title)}: further test sets",
        f"Deployed heads after the last epoch, seeds {', '.join(map(str, own))}. Mean ± sample standard deviation over "
        "seeds. Nothing was trained or chosen on these images. A mean over corruptions is not divided by another "
        "network's errors.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        "Files: " + "; ".join(f"{markdown_text(name)}, SHA-256 `{checksum}`" for name, checksum in checksums.items()),
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("test set", "severity", "images", "seed", "error"))
    for name, severity, images, _, errors in [("own test split", None, "", "", own), *rows]:
        writer.writerows((name, severity, images, seed, repr(error)) for seed, error in errors.items())
    write_atomically(folder / TABLE, ("\n\n".join(parts) + "\n").encode())
    write_atomically(folder / DATA, text.getvalue().encode())
    return [folder / TABLE, folder / DATA]


def _mean(errors: Mapping[int, float]) -> str:
    found = summary([100 * error for error in errors.values()])
    return f"{found.mean:.2f}" + ("" if found.sd is None else f" ± {found.sd:.2f}")

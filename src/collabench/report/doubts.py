"""Doubted labels as a table (markdown and CSV) and as a contact sheet of the images (PNG)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from collabench.core.text import counted_of, markdown_text
from collabench.storage.files import write_atomically

TABLE, DATA, SHEET = "doubts.md", "doubts.csv", "contact-sheet.png"
#: Images in a row of the contact sheet, and the side of one in pixels.
COLUMNS, SIDE = 8, 128
#: Height of the two lines of text below an image, and their letters.
_CAPTION, _LETTERS = 34, 12


def write_doubts(
    folder: Path,
    *,
    title: str,
    source: str,
    classes: tuple[str, ...],
    names: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    doubted: np.ndarray,
    thumbnails: Sequence[Image.Image],
) -> list[Path]:
    """Write :data:`TABLE`, :data:`DATA` and, unless nothing is doubted, :data:`SHEET` to ``folder``; returns what was
    written.

    labels: (N,). probabilities: (N, m). doubted: positions, the most doubted first. thumbnails: images of the first of
    them, which the table and the sheet show. The CSV file has all doubted labels.
    """
    better = probabilities.argmax(axis=1)
    header = ("rank", "image", "label", "probability of the label", "heads say", "probability")
    rows = [
        (str(rank), names[at], classes[labels[at]], f"{probabilities[at, labels[at]]:.4f}", classes[better[at]],
         f"{probabilities[at, better[at]]:.4f}")
        for rank, at in enumerate(doubted, 1)
    ]  # fmt: skip
    shown = rows[: len(thumbnails)]
    lines = [
        f"# {markdown_text(title)}: labels that the heads doubt",
        f"{counted_of(len(doubted), len(labels), 'label', 'doubted')}, by confident learning (cleanlab). "
        f"Probabilities: {markdown_text(source)}. A doubted label may be right: look at the image before you change "
        "it.",
    ]
    if shown:
        table = [header, ("---",) * len(header), *(tuple(map(markdown_text, row)) for row in shown)]
        lines += [f"![contact sheet]({SHEET})", "\n".join(f"| {' | '.join(row)} |" for row in table)]
    if len(shown) < len(rows):
        lines.append(f"The first {len(shown):,} are shown; [{DATA}]({DATA}) has all.")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(folder / TABLE, ("\n\n".join(lines) + "\n").encode())
    write_atomically(folder / DATA, text.getvalue().encode())
    if not shown:
        (folder / SHEET).unlink(missing_ok=True)
        return [folder / TABLE, folder / DATA]
    captions = [(f"{row[0]}. {row[2]}", f"→ {row[4]} {float(row[5]):.2f}") for row in shown]
    write_atomically(folder / SHEET, contact_sheet(thumbnails, captions))
    return [folder / TABLE, folder / DATA, folder / SHEET]


def letters_of_captions() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own letters have no arrow and few alphabets."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), _LETTERS)


def contact_sheet(thumbnails: Sequence[Image.Image], captions: Sequence[tuple[str, str]]) -> bytes:
    """A PNG file of images in rows of :data:`COLUMNS`, each with two lines of text below it."""
    columns = min(COLUMNS, len(thumbnails))
    size = (columns * (SIDE + 8) + 8, math.ceil(len(thumbnails) / columns) * (SIDE + _CAPTION + 8) + 8)
    sheet = Image.new("RGB", size, "white")
    pen, letters = ImageDraw.Draw(sheet), letters_of_captions()
    for number, (image, lines) in enumerate(zip(thumbnails, captions, strict=True)):
        left, top = 8 + number % columns * (SIDE + 8), 8 + number // columns * (SIDE + _CAPTION + 8)
        scale = SIDE / max(image.size)
        small = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
        wide, high = (max(1, round(length * scale)) for length in image.size)
        fitted = image.convert("RGB").resize((wide, high), small)
        sheet.paste(fitted, (left + (SIDE - fitted.width) // 2, top + (SIDE - fitted.height) // 2))
        for line, text in enumerate(lines):
            while text and pen.textlength(text, letters) > SIDE:
                text = text[:-2] + "…" if len(text) > 2 else ""
            pen.text((left, top + SIDE + 2 + line * (_CAPTION // 2)), text, "black", letters)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    return content.getvalue()

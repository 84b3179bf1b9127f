"""How long does each backbone have to train? From pilot runs of the baseline: ``docs/recipes.md`` and its figure for
digits, ``docs/recipes-cifar10.md`` for CIFAR-10.

``collabench run -p digits-pilot`` trains the pilots, ``python -m benchmarks.pilots --write`` writes the page. Both give
the same bytes on every x86-64 machine. The rule stands in :func:`choose` and was fixed before the studies that use the
recipes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabench.core.errors import CollabenchError
from collabench.report import titles
from collabench.storage.results import load_result
from collabench.study.study import Study, load_study

#: Profile of pilots → its page, without the ending; the figure lies beside it.
PAGES = {"digits-pilot": "docs/recipes", "cifar10-pilot": "docs/recipes-cifar10"}

#: A difference of this share of an error is too small to matter: the smallest effect of interest.
SMALL = 0.05

TEXT = """\
# How long a network trains{where}

A comparison of methods is worth little while the baseline is still learning, and while it memorises noisy labels. So
the number of epochs of each recipe was chosen before the studies that use it, on pilot runs: the network alone, on
seeds that no table of another profile uses. Written by a script; don't edit. To make it again:

```
collabench run -p {profile}
python -m benchmarks.pilots{option} --write
```

The rule has two steps.

1. A recipe is **long enough** when the baseline's curve, the mean over the pilot seeds, is flat over its last quarter:
   the means of the quarter's two halves differ by at most {small:g} % of the error.
2. Of the recipes that are long enough, the **shortest** with an error within {small:g} % of the lowest is chosen.

{data}

The **smallest effect of interest** of a scope in `papers/claims.yaml` is {small:g} % of the chosen recipe's error.
"""

DATA = {
    "digits-pilot": f"""\
Curves and errors are of test images: a fixed sample of 256 images after each epoch, all images at the end. The split is
drawn per seed, so test images of the pilots are training images of other seeds. One table repeats the choice on
held-out training images with noisy labels, where the share of wrong labels is part of the error. ResNet-8 alone
has such a table, and its recipe under noise has to pass both: it is the shortest that is long
enough, and within {100 * SMALL:g} % of the lowest error, on the test images and on the held-out images. That condition
was added when the pilots were known, and before any run of the studies: on the held-out images 14 and 28 epochs cannot
be told apart, and on the test images the error after 14 epochs still falls at 20 % noise.""",
    "cifar10-pilot": """\
Curves and errors are of test images: a fixed sample of 1,000 images after every second epoch (every fourth of 160
epochs, every eighth of 320), all 10,000 at the end. Every seed draws its own 5,000 or 1,000 of the 50,000 training
images. The images come from the archive of JPEG files.

The number of training images is a choice, too, where a study of all methods has to end in some hours on two cores. With
5,000 images the error still falls from the second longest to the longest recipe, so more epochs would lower it further:
a study of 5,000 images would compare networks that still learn. With 1,000 images ResNet-8 is trained to its end by the
shortest recipe of the table. The small VGG is not: its error falls up to the longest recipe that was tried.

So `cifar10-cpu` and `cifar10-jpeg` draw 1,000 images for each seed. ResNet-8 trains for 80 epochs,
the small VGG for 320.""",
}


@dataclass(frozen=True)
class Pilot:
    """A recipe's pilots, in percent. errors: of each seed after the last epoch. curve: mean over seeds after each
    epoch. held_out: both on held-out training images, with their noisy labels."""

    recipe: str
    epochs: int
    errors: tuple[float, ...]
    curve: tuple[float, ...]
    held_out: bool = False

    @property
    def error(self) -> float:
        return statistics.mean(self.errors)

    @property
    def change(self) -> float:
        """Mean of the curve's last eighth minus that of the eighth before, in percentage points."""
        eighth = max(1, len(self.curve) // 8)
        return statistics.mean(self.curve[-eighth:]) - statistics.mean(self.curve[-2 * eighth : -eighth])

    @property
    def is_flat(self) -> bool:
        return abs(self.change) <= SMALL * self.error


def passing(pilots: Sequence[Pilot]) -> list[Pilot]:
    """Those that are long enough whose error is within 5 % of the lowest of them, shortest first."""
    flat = [pilot for pilot in pilots if pilot.is_flat]
    limit = (1 + SMALL) * min((pilot.error for pilot in flat), default=0.0)
    return sorted((pilot for pilot in flat if pilot.error <= limit), key=lambda pilot: pilot.epochs)


def choose(pilots: Sequence[Pilot], *held_out: Pilot) -> Pilot | None:
    """The shortest of those that pass, also on held-out images if there are pilots of these; None if none does."""
    lengths = {pilot.epochs for pilot in passing(held_out)}
    return next((pilot for pilot in passing(pilots) if not held_out or pilot.epochs in lengths), None)


def conditions(study: Study) -> dict[tuple[str, str, str], list[Pilot]]:
    """(table, backbone, noise) → its recipes, shortest first."""
    found: dict[tuple[str, str, str], list[Pilot]] = {}
    name_of = {table.name: table.title or table.name for table in study.profile.tables}
    for cell in study.plan.cells:
        configuration = cell.configuration
        results = [
            load_result(study.workspace.folder(run), run)
            for run in study.plan.runs
            if run.configuration.id == configuration.id and run.seed in cell.seeds
        ]
        held_out = configuration.recipe.validation_fraction > 0
        curves = [result.curves.validation_error if held_out else result.curves.test_error for result in results]
        curve = [100 * statistics.mean(values) for values in zip(*map(_known, curves), strict=True)]
        errors = [
            100 * _last(one) if held_out else 100 * result.last.error
            for one, result in zip(curves, results, strict=True)
        ]
        key = (
            name_of[cell.table],
            configuration.names["model"],
            titles.noise(configuration.noise, configuration.dataset),
        )
        pilot = Pilot(configuration.names["recipe"], configuration.recipe.epochs, tuple(errors), tuple(curve), held_out)
        found.setdefault(key, []).append(pilot)
    return {key: sorted(pilots, key=lambda pilot: pilot.epochs) for key, pilots in found.items()}


def _is_held_out(pilots: Sequence[Pilot]) -> bool:
    return any(pilot.held_out for pilot in pilots)


def _held_out(
    found: Mapping[tuple[str, str, str], Sequence[Pilot]], table: str, model: str, noise: str
) -> Sequence[Pilot]:
    """The pilots of the same backbone and noise on held-out images, for those on test images."""
    return next(
        (p for key, p in found.items() if key[0] != table and key[1:] == (model, noise) and _is_held_out(p)), ()
    )


def _known(curve: Sequence[float | None] | None) -> list[float]:
    return [value for value in curve or () if value is not None]


def _last(curve: Sequence[float | None] | None) -> float:
    return _known(curve)[-1]


def render(found: Mapping[tuple[str, str, str], Sequence[Pilot]], profile: str) -> str:
    is_first = profile == next(iter(PAGES))
    text = TEXT.format(
        profile=profile,
        where="" if is_first else ": CIFAR-10 on a CPU",
        option="" if is_first else f" --profile {profile}",
        small=100 * SMALL,
        data=DATA[profile],
    )
    figure = f"{Path(PAGES[profile]).name}.svg"
    lines = [text, f"![The baseline's error over epochs, for each backbone, noise and recipe]({figure})", ""]
    for table in dict.fromkeys(table for table, _, _ in found):
        lines += [
            f"## {table}",
            "",
            "| noise | recipe | epochs | seeds | error, % | sd | change, last quarter, points | flat | rule |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
        ]
        for (of_table, model, noise), pilots in found.items():
            if of_table != table:
                continue
            chosen = choose(pilots, *_held_out(found, of_table, model, noise))
            passes = passing(pilots)
            for pilot in pilots:
                mark = (
                    "**chosen**"
                    if pilot is chosen and not _is_held_out(pilots)
                    else "passes"
                    if pilot in passes
                    else ""
                )
                lines.append(
                    f"| {noise} | `{pilot.recipe}` | {pilot.epochs} | {len(pilot.errors)} | {pilot.error:.2f} | "
                    f"{statistics.stdev(pilot.errors):.2f} | {pilot.change:+.2f} | "
                    f"{'yes' if pilot.is_flat else 'no'} | {mark} |"
                )
            if chosen is None:
                lines.append(f"| {noise} | none is long enough |" + " |" * 7)
        lines.append("")
    return "\n".join(lines)


def draw(found: Mapping[tuple[str, str, str], Sequence[Pilot]], path: Path) -> None:
    """A panel for each condition, a curve for each recipe, the chosen one thick."""
    import matplotlib
    from matplotlib.figure import Figure

    from collabench.report.pages.drawing import COLOURS, STYLE

    tables = list(dict.fromkeys(table for table, _, _ in found))
    noises = list(dict.fromkeys(noise for _, _, noise in found))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(noises), 2.0 * len(tables)), layout="constrained")
        axes: Any = figure.subplots(len(tables), len(noises), squeeze=False)
        for axis in axes.flat:
            axis.set_visible(False)
        for (table, model, noise), pilots in found.items():
            axis = axes[tables.index(table)][noises.index(noise)]
            axis.set_visible(True)
            chosen = choose(pilots, *_held_out(found, table, model, noise)) if not _is_held_out(pilots) else None
            for pilot, colour in zip(pilots, COLOURS, strict=False):
                every = pilot.epochs / len(pilot.curve)
                axis.plot(
                    [every * (index + 1) for index in range(len(pilot.curve))], pilot.curve, color=colour,
                    linewidth=2.2 if pilot is chosen else 0.9,
                    label=f"{pilot.epochs} epochs{', chosen' if pilot is chosen else ''}",
                )  # fmt: skip
            axis.set(title=f"{table[:34]},\n{noise}", xlabel="epoch (logarithmic)", ylabel="error, %", xscale="log")
            axis.set_ylim(0, 80 if "images" in table else 60)
            longest = max(pilot.epochs for pilot in pilots)
            axis.set_xticks([n for n in (1, 2, 5, 10, 20, 50, 100, 200, 400) if n <= longest])
            axis.set_xticks([], minor=True)
            axis.xaxis.set_major_formatter("{x:.0f}")
            axis.legend()
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", default=next(iter(PAGES)), choices=PAGES)
    parser.add_argument("--write", action="store_true", help="write the page and its figure; else print the page")
    options = parser.parse_args()
    try:
        found = conditions(load_study(Path.cwd(), options.profile))
    except CollabenchError as error:
        print(f"{error}; first: collabench run -p {options.profile}", file=sys.stderr)
        return 2
    page = render(found, options.profile)
    if options.write:
        Path(f"{PAGES[options.profile]}.md").write_text(page, encoding="utf-8")
        draw(found, Path(f"{PAGES[options.profile]}.svg"))
    else:
        print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

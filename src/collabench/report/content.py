"""The content of a report as data: the schema of ``report.json``.

Errors are in percent, differences in percentage points (method minus baseline: negative is better). Every error is that
of the deployed head on the test split after the last epoch, unless the field's name says otherwise. Summaries and
paired comparisons are those of :mod:`collabench.stats`: one value per seed, 95 % t intervals, not adjusted.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from collabench.config.configuration import CONDITION
from collabench.config.data_sections import Labels
from collabench.core.record import Record
from collabench.stats import Friedman, Paired, Summary, Verdict
from collabench.stats.agreement import Comparison
from collabench.storage.results import Matrix

LEVEL = 0.95

DIGITS = 10


def rounded(value: Any) -> Any:
    """Plain data in which every float is rounded to the digits that are kept."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(child) for key, child in value.items()}
    return [rounded(child) for child in value] if isinstance(value, list) else value


SCHEMA: Final = 1


class BestEpoch(Record):
    """The lowest test error over all epochs. It is chosen on test data and therefore optimistic.

    optimism: last epoch minus best epoch, per seed. epoch: mean number of the best epoch, counted from 1.
    """

    error: Summary
    optimism: Summary
    epoch: float


class Selected(Record):
    """Test error of the epoch with the lowest validation error. epoch: its mean number, counted from 1."""

    error: Summary
    epoch: float


class Heads(Record):
    """A method with several heads.

    mean: over the heads of a run, then over seeds. spread: sample standard deviation over a run's heads, mean over
    seeds. averaged: error of the heads' averaged logits. gain: averaged minus deployed.
    """

    count: int
    mean: Summary
    spread: float
    averaged: Summary
    gain: Paired


class AcrossImages(Record):
    """Two-way bootstrap over seeds and test images from the stored logits.

    Percentile intervals in percent and percentage points. difference_low, difference_high: None without a baseline.
    """

    seeds: int
    images: int
    resamples: int
    error_low: float
    error_high: float
    difference_low: float | None = None
    difference_high: float | None = None


class Published(Record):
    """A published value (percent) and its comparison with the runs of the published configuration.

    protocol: the epoch that the paper reports. comparison: None if ``value`` is unknown, or if the runs do not record
    what the protocol needs.
    """

    source: str
    protocol: Literal["last", "best"]
    value: float | None
    comparison: Comparison | None


class Row(Record):
    """A method in one condition.

    seeds: of the existing runs. readings: how the method's settings read what its paper leaves open.
    difference: over the seeds that the baseline also has; None for the baseline and without common seeds.
    holm_p: adjusted within the condition's family.
    """

    method: str
    configuration_id: str
    seeds: tuple[int, ...]
    missing: int
    readings: tuple[str, ...] = ()
    error: Summary | None = None
    difference: Paired | None = None
    holm_p: float | None = None
    best: BestEpoch | None = None
    selected: Selected | None = None
    heads: Heads | None = None
    across_images: AcrossImages | None = None
    top5_error: Summary | None = None
    negative_log_likelihood: Summary | None = None
    calibration_error: Summary | None = None
    parameters: int | None = None
    training_parameters: int | None = None
    published: tuple[Published, ...] = ()


class Noise(Record):
    """corruption: share of wrong training labels (percent) that was realised: mean, lowest and highest over runs.

    drawn: when, in words; empty in reports that were built before they said it. flips, classes, asked, realised
    (mean over runs): as in :class:`collabench.storage.results.NoiseRealised`. labels, test_labels: what is known of the
    data set's own labels.
    """

    kind: str
    when: str
    drawn: str = ""
    rate: float | None
    flips: dict[str, str] | None = None
    classes: int | None = None
    asked: Matrix | None = Field(default=None, exclude_if=lambda value: value is None)
    realised: Matrix | None = Field(default=None, exclude_if=lambda value: value is None)
    corruption: float | None = None
    corruption_low: float | None = None
    corruption_high: float | None = None
    labels: Annotated[Labels, Field(exclude_if=lambda value: value == "clean")] = "clean"
    test_labels: Annotated[Labels, Field(exclude_if=lambda value: value == "clean")] = "clean"


class Condition(Record):
    """Methods on one data set, noise, backbone and recipe. title names that scope; names are those of params.yaml.

    split: of the data set. family, family_size: the declared family of comparisons over which Holm's correction runs.
    """

    title: str
    scope: tuple[str, str, str, str]
    names: dict[str, str]
    baseline: str | None
    family: str
    family_size: int
    train_images: int | None
    test_images: int | None
    split: Literal["fixed", "per_seed"] = "fixed"
    noise: Noise
    rows: tuple[Row, ...]

    @property
    def key(self) -> str:
        """Part of file names: ``digits-500-uniform20-resnet8-fast``."""
        return "-".join(self.names[part] for part in CONDITION)


class Ranks(Record):
    """Friedman's test over a table's data sets with one recipe. Blocks are data sets, never seeds."""

    recipe: str
    methods: tuple[str, ...]
    friedman: Friedman


class Table(Record):
    name: str
    title: str
    conditions: tuple[Condition, ...]
    ranks: tuple[Ranks, ...] = ()


class MissingRun(Record):
    run_id: str
    label: str
    seed: int
    reason: str


class Reached(Record):
    """Where one test of a claim ended: what two reports are compared by. ``claims.json`` has the figures behind it.

    claim: id. scope: name in ``claims.yaml``. where: data set, noise, backbone and recipe in words. compared: the
    comparison, where each comparison of the claim is a test of its own.
    """

    claim: str
    statement: str
    scope: str
    where: tuple[str, str, str, str]
    compared: str | None = None
    verdict: Verdict


class Report(Record):
    """All tables of a profile. level: of every interval. runs: number of distinct runs that the tables need.

    further_runs: number of the runs with seeds that no table shows, which claims have used. open_tests: number of tests
    whose next look needs seeds that are not there; the study was stopped before them. verdicts: on the claims that rest
    on results (not on costs, which are measured anew); None in reports that were built before they kept them.
    """

    schema_version: Literal[1] = SCHEMA
    profile: str
    description: str
    partial: bool
    level: float
    runs: int
    further_runs: int = 0
    open_tests: int = 0
    missing: tuple[MissingRun, ...]
    tables: tuple[Table, ...]
    verdicts: tuple[Reached, ...] | None = None

"""Statistics: functions from arrays to frozen dataclasses. They read no files and know no methods, runs or papers."""

from collabench.stats.agreement import (
    Agreement,
    Comparison,
    agrees_with_spread,
    agrees_with_value,
    prediction_interval,
)
from collabench.stats.bootstrap import TwoWay, two_way_bootstrap, two_way_bootstraps
from collabench.stats.families import conjunction_p, holm, simultaneous_interval, simultaneous_level
from collabench.stats.hypotheses import Hypothesis, equality, told_apart
from collabench.stats.power import SeedsNeeded, detectable_difference, seeds_needed
from collabench.stats.ranks import Friedman, critical_difference, friedman
from collabench.stats.samples import Paired, Summary, one_sample, paired, slopes, summary
from collabench.stats.sequential import (
    Design,
    Outcome,
    Part,
    PartOutcome,
    chance_of_decision,
    evaluate_looks,
    is_futile,
    single_look,
)
from collabench.stats.verdicts import Side, Verdict, all_parts, decide, no_worse

__all__ = [
    "Agreement",
    "Comparison",
    "Design",
    "Friedman",
    "Hypothesis",
    "Outcome",
    "Paired",
    "Part",
    "PartOutcome",
    "SeedsNeeded",
    "Side",
    "Summary",
    "TwoWay",
    "Verdict",
    "agrees_with_spread",
    "agrees_with_value",
    "all_parts",
    "chance_of_decision",
    "conjunction_p",
    "critical_difference",
    "decide",
    "detectable_difference",
    "equality",
    "evaluate_looks",
    "friedman",
    "holm",
    "is_futile",
    "no_worse",
    "one_sample",
    "paired",
    "prediction_interval",
    "seeds_needed",
    "simultaneous_interval",
    "simultaneous_level",
    "single_look",
    "slopes",
    "summary",
    "told_apart",
    "two_way_bootstrap",
    "two_way_bootstraps",
]

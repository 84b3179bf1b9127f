"""The lead of a report: what was found, in plain sentences that are made from the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from collabench.core.text import counted
from collabench.report.across_profiles import ClaimEverywhere, ScopeTest, count, without_replications
from collabench.report.standing import DECIDED, Standing

#: Number of statements that a sentence quotes, in the lead and in the summary; it counts the others.
_QUOTED, _IN_SHORT = 3, 2


def findings(claims: Sequence[ClaimEverywhere], names: dict[str, str]) -> list[str]:
    """Five sentences: how much is decided, what is supported, what is refuted, where the open tests point, and on what.
    After the first one a further one, if decided tests were made again: how many reach the same verdict.

    names: paper → how it is cited. One sentence if no claim is declared or run.
    """
    again = _made_again(claims)
    claims = without_replications(claims)
    statistical = [claim for claim in claims if claim.kind == "statistical"]
    counts = count(statistical)
    counts.pop("not run", None)
    tested = sum(counts.values())
    if not tested:
        return ["No claim of a paper has been tested yet."]
    decided = sum(counts[name] for name in DECIDED)
    with_tests = sum(any(test.standing != "not run" for test in claim.tests) for claim in statistical)
    return [
        f"{_share(decided, tested, 'test')} of {counted(with_tests, 'claim')} about test error "
        f"{'is' if decided == 1 else 'are'} decided: {counts['supported']} for the claim, {counts['refuted']} against "
        "it.",
        *again,
        _told(statistical, names, "supported", "Supported"),
        _told(statistical, names, "refuted", "Refuted"),
        _undecided(counts, tested - decided),
        _where(claims),
    ]


def summary(claims: Sequence[ClaimEverywhere], names: dict[str, str]) -> list[str]:
    """The lead in three sentences: how much is decided, which claims hold and which do not, and what is not known.

    names: paper → how it is cited. One sentence if no claim is declared or run.
    """
    first, *others = findings(claims, names)
    if not others:
        return [first]
    again = [f"; {sentence[0].lower()}{sentence[1:]}" for sentence in _made_again(claims)]
    claims = without_replications(claims)
    statistical = [claim for claim in claims if claim.kind == "statistical"]
    counts = count(statistical)
    undecided = sum(counts.values()) - sum(counts[name] for name in ("not run", *DECIDED) if name in counts)
    stopped = counts.get("stopped", 0)
    where = _where(claims)
    return [
        first.removesuffix(".") + "".join(again or ["."]),
        f"{_sentence(_in_short(statistical, names, 'supported'))}; {_in_short(statistical, names, 'refuted')}.",
        f"{counted(undecided, 'test')} {'is' if undecided == 1 else 'are'} undecided"
        + (f", {stopped} of which {'was' if stopped == 1 else 'were'} stopped because more seeds would not decide"
           if stopped else "")
        + f"; {where[0].lower()}{where[1:]}",
    ]  # fmt: skip


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _in_short(claims: Sequence[ClaimEverywhere], names: dict[str, str], wanted: Standing) -> str:
    """``6 claims are supported in at least one setting, such as “A” (…) and “B” (…)``."""
    told = _quoted(claims, names, wanted)
    if not told:
        return f"no claim is {wanted}"
    such = " and ".join(told[:_IN_SHORT])
    some = f", such as {such}" if len(told) > _IN_SHORT else f": {such}"
    return f"{counted(len(told), 'claim')} {'is' if len(told) == 1 else 'are'} {wanted} in at least one setting{some}"


def _made_again(claims: Sequence[ClaimEverywhere]) -> list[str]:
    """``Made again on fresh seeds, 9 of 11 decided tests reach the same verdict.``; nothing without the first tests."""
    tests = [((claim.id, test.verdict.scope, test.verdict.compared), test) for claim in claims for test in claim.tests]
    first = {key: test.standing for key, test in tests if not test.again and test.standing in DECIDED}
    again = [test.standing == first[key] for key, test in tests if test.again and key in first]
    if not again:
        return []
    reach = "reaches" if len(again) == 1 else "reach"
    return [f"Made again on fresh seeds, {_share(sum(again), len(again), 'decided test')} {reach} the same verdict."]


def _share(part: int, whole: int, noun: str) -> str:
    return f"{part} of {counted(whole, noun)}"


def _told(claims: Sequence[ClaimEverywhere], names: dict[str, str], wanted: Standing, word: str) -> str:
    """``Supported: “An ensemble … one of them” (Song & Chai 2018; digits, clean labels).``"""
    told = _quoted(claims, names, wanted)
    if not told:
        return f"{word}: none of the claims about test error."
    left = len(told) - _QUOTED
    return f"{word}: {'; '.join(told[:_QUOTED])}" + (f"; and {counted(left, 'other claim')}." if left > 0 else ".")


def _quoted(claims: Sequence[ClaimEverywhere], names: dict[str, str], wanted: Standing) -> list[str]:
    """Each claim with such a test: its statement, the paper, where, and the number of other such tests."""
    told = []
    for claim in claims:
        places = [f"{_short(test)}, {test.verdict.where[1]}" for test in claim.tests if test.standing == wanted]
        if places:
            more = f" and {counted(len(places) - 1, 'other test')}" if len(places) > 1 else ""
            statement = claim.statement.removesuffix(".")
            told.append(f"“{statement}” ({names.get(claim.paper, claim.paper)}; {places[0]}{more})")
    return told


def _short(test: ScopeTest) -> str:
    """The data set of a test without its size and split, which the tables name."""
    return test.verdict.where[0].partition(", ")[0]


def _undecided(counts: dict[Standing, int], undecided: int) -> str:
    if not undecided:
        return "No test is undecided."
    towards, against, stopped = (counts.get(name, 0) for name in ("leans for", "leans against", "stopped"))
    text = (
        f"Of the {counted(undecided, 'undecided test')}, {_leaning(towards)} towards the claim and "
        f"{_leaning(against)} against it, by the interval that is not widened for the number of tests"
    )
    was = "was" if stopped == 1 else "were"
    return text + (f"; {stopped} {was} stopped, because more seeds would not decide." if stopped else ".")


def _leaning(count: int) -> str:
    return f"{count or 'none'} lean{'s' if count < 2 else ''}"


def _where(claims: Sequence[ClaimEverywhere]) -> str:
    """On which data sets the tests ran, and how many of the papers' own settings are among them."""
    ran = [test for claim in claims for test in claim.tests if test.standing != "not run"]
    data = list(dict.fromkeys(map(_short, ran)))
    own = sum(test.verdict.published for test in ran)
    left = sum(scope.published for claim in claims for scope in claim.not_run)
    left += sum(test.verdict.published for claim in claims for test in claim.tests if test.standing == "not run")
    return (
        f"The tests ran on {' and '.join(data)}; of the {own + left} tests on a paper's own data set and backbone "
        f"{own or 'none'} {'has' if own < 2 else 'have'} been run."
    )

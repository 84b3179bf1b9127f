"""Claims as typed data: ``papers/claims.yaml``, whose header explains its fields.

A claim is a hypothesis about methods and baselines of ``params.yaml`` in named scopes. A test is a claim in one scope.
The tests of one paper that a profile's scopes declare are one family, whether their runs exist or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from collabench.config.params import Params, check_name
from collabench.config.sections import PAGES, Line, Name
from collabench.config.validation import validate
from collabench.config.yaml_file import Document, KeyPath, read_yaml
from collabench.core.errors import ConfigError
from collabench.core.record import NO_REPEATS, Record
from collabench.papers.tables import PAPER, load_papers, paper_names, papers_not_run

#: Name of the claims' file in the folder of papers.
CLAIMS = "claims.yaml"

Quantity = Literal["error", "error_growth", "epochs_to_level", "train_seconds", "peak_memory", "network"]
Hypothesis = Literal["lower", "higher", "no_worse", "same"]

#: Quantities that were measured during training. They are not determined by configuration and seed.
COSTS: tuple[Quantity, ...] = ("train_seconds", "peak_memory")

Positive = Annotated[float, Field(gt=0)]


class ClaimScope(Record):
    """Data set, noise, backbone and recipe, by names of ``params.yaml``; see the header of ``papers/claims.yaml``.

    declared_after_runs: the runs existed when the hypotheses were written.
    """

    profile: Name | None = None
    published: bool = False
    declared_after_runs: bool = False
    dataset: Name
    noise: Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS] = ("clean",)
    model: Name
    recipe: Name
    wide_model: Name | None = None
    wide_recipe: Name | None = None
    metric: Literal["error", "top5_error"] = "error"


class Compared(Record):
    """A method, or one of its heads (0 is the deployed one), and the baseline that it is compared with.

    wide_baseline: the baseline is the network with twice the filters.
    """

    method: Name
    baseline: Name
    head: int = Field(default=0, ge=0)
    wide_baseline: bool = False

    def __str__(self) -> str:
        head = f", head {self.head + 1}" if self.head else ""
        return f"{self.method}{head} against {self.baseline}{' with twice the filters' if self.wide_baseline else ''}"


class ClaimSource(Record):
    """file: one of the source texts. place: section and sentence. words: some words of the sentence, verbatim."""

    file: Annotated[str, StringConstraints(pattern=r"^[0-9]{3}_[0-9a-f]+\.txt$")]
    place: Line
    words: Line

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: “{self.words}”"


class Claim(Record):
    """One claim of a paper; see the header of ``papers/claims.yaml``."""

    id: Name
    paper: Name
    statement: Line
    source: ClaimSource
    reading: Line | None = None
    quantity: Quantity
    hypothesis: Hypothesis
    combine: Literal["all", "mean"] = "all"
    smallest_effect: Positive | None = None
    margin: Positive | None = None
    compare: Annotated[tuple[Compared, ...], Field(min_length=1), NO_REPEATS]
    levels: dict[Name, Annotated[float, Field(gt=0, lt=100)]] = Field(default_factory=dict)
    published_effects: dict[Name, tuple[float, ...]] = Field(default_factory=dict)
    scopes: Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        directed = self.hypothesis in ("lower", "higher")
        if (self.quantity == "network") != (self.hypothesis == "same"):
            raise ValueError("hypothesis: same goes with quantity: network, and no other hypothesis does")
        if directed != (self.smallest_effect is not None):
            raise ValueError("smallest_effect belongs to the hypotheses lower and higher, which need it")
        if (self.hypothesis == "no_worse") != (self.margin is not None):
            raise ValueError("margin belongs to the hypothesis no_worse, which needs it")
        if (self.quantity == "epochs_to_level") != bool(self.levels):
            raise ValueError("levels belong to quantity: epochs_to_level, which needs them")
        if self.quantity == "epochs_to_level" and set(self.levels) != set(self.scopes):
            raise ValueError("levels are needed for every scope and for no other")
        if any(c.head for c in self.compare) and self.quantity not in ("error", "error_growth"):
            raise ValueError("head belongs to the quantities error and error_growth")
        if self.combine == "mean" and (len(self.compare) < 2 or self.quantity != "error"):
            raise ValueError("combine: mean is for quantity: error with two comparisons or more")
        for scope, effects in self.published_effects.items():
            if scope not in self.scopes:
                raise ValueError(f"published_effects: {scope!r} is not one of the claim's scopes")
            if len(effects) != len(self.compare):
                raise ValueError(f"published_effects of {scope!r}: {len(self.compare)} numbers are needed, one a part")
        return self

    @property
    def is_cost(self) -> bool:
        return self.quantity in COSTS

    @property
    def is_tested(self) -> bool:
        """Whether a statistical test decides the claim. Equality of networks is decided without a test."""
        return self.quantity != "network"


class Untested(Record):
    """A statement of a text that no comparison of runs decides, with the reason."""

    paper: Name
    statement: Line
    source: ClaimSource
    reason: Line


class Claims(Record):
    """The whole of ``papers/claims.yaml``."""

    scopes: dict[Name, ClaimScope]
    claims: tuple[Claim, ...]
    untested: Annotated[tuple[Untested, ...], NO_REPEATS] = ()

    def family_size(self, paper: str, profile: str) -> int:
        """How many tests (claim and scope) of a paper are declared for a profile."""
        return sum(
            self.scopes[scope].profile == profile
            for claim in self.claims
            if claim.paper == paper and claim.is_tested
            for scope in claim.scopes
        )


def check_papers(folder: Path, params: Params) -> None:
    """Raise ConfigError (one line), before training, for anything in the folder of papers that a report would
    reject."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder of papers")
    if folder.is_dir():
        _check_page_names(folder, params)
        load_papers(folder, params, resolved=False)
        load_claims(folder, params)


def _check_page_names(folder: Path, params: Params) -> None:
    """Raise ConfigError where two pages of a report would have one name."""
    papers = {name.lower(): name for name in paper_names(folder)}
    if taken := papers.keys() & set(PAGES):
        name = papers[min(taken)]
        raise ConfigError(f"{folder / name}: every report has a page {name!r}; give the paper's folder another name")
    for profile, settings in params.profiles.items():
        for table in settings.tables:
            if table.name.lower() in papers:
                raise ConfigError(
                    f"params.yaml: profiles.{profile}.tables: the table {table.name!r} has the name of the paper "
                    f"{papers[table.name.lower()]!r}, whose page a report has, too; rename the table"
                )


def load_claims(folder: Path, params: Params) -> Claims:
    """The claims in a folder of papers, without those of papers that this project cannot run; none without such a file.

    Raises ConfigError (one line) for an unknown key, a wrong value, or a name that ``params.yaml`` does not define.
    """
    path = folder / CLAIMS
    if not path.exists():
        return Claims(scopes={}, claims=())
    document = read_yaml(path)
    claims: Claims = validate(document, Claims, document.value)
    _check_paper_names(document, claims, paper_names(folder))
    waiting = papers_not_run(folder)
    run = [claim for claim in claims.claims if claim.paper not in waiting]
    tested = {name for claim in run for name in claim.scopes}
    _check_scopes(document, claims, params, tested)
    seen: set[str] = set()
    used = {name for claim in claims.claims if claim.paper in waiting for name in claim.scopes}
    for index, claim in enumerate(claims.claims):
        if claim.paper in waiting:
            continue
        here: KeyPath = ("claims", index)
        if claim.id in seen:
            raise document.error((*here, "id"), f"{claim.id!r} stands there twice")
        seen.add(claim.id)
        for position, compared in enumerate(claim.compare):
            for field in ("method", "baseline"):
                check_name(document, (*here, "compare", position, field), params, "methods", getattr(compared, field))
        for position, name in enumerate(claim.scopes):
            key = (*here, "scopes", position)
            if name not in claims.scopes:
                raise document.error(key, f"{name!r} is not defined under scopes; defined: {', '.join(claims.scopes)}")
            used.add(name)
            scope = claims.scopes[name]
            if (len(scope.noise) > 1) != (claim.quantity == "error_growth"):
                raise document.error(key, "error_growth needs scopes with several noise entries, all others one")
            if scope.wide_model is None and any(c.wide_baseline for c in claim.compare):
                raise document.error(key, f"the scope {name!r} needs wide_model: the claim's baseline is the wide one")
            if scope.metric != "error" and claim.quantity not in ("error", "error_growth", "network"):
                raise document.error(key, f"{claim.quantity} is not defined for metric: {scope.metric}")
    for name in claims.scopes:
        if name not in used:
            raise document.error(("scopes", name), "no claim names this scope; remove it or name it")
    return Claims(
        scopes={name: claims.scopes[name] for name in claims.scopes if name in tested},
        claims=tuple(run),
        untested=tuple(one for one in claims.untested if one.paper not in waiting),
    )


def _check_paper_names(document: Document, claims: Claims, there: Sequence[str]) -> None:
    named = {("claims", index): claim.paper for index, claim in enumerate(claims.claims)}
    named |= {("untested", index): one.paper for index, one in enumerate(claims.untested)}
    for key, paper in named.items():
        if paper not in there:
            raise document.error(
                (*key, "paper"),
                f"there is no paper {paper!r} (a folder with {PAPER} beside this file); papers: {', '.join(there)}",
            )


def _check_scopes(document: Document, claims: Claims, params: Params, tested: set[str]) -> None:
    sections = {
        "profile": "profiles", "dataset": "datasets", "model": "models", "recipe": "recipes",
        "wide_model": "models", "wide_recipe": "recipes",
    }  # fmt: skip
    for name, scope in claims.scopes.items():
        if name not in tested:
            continue
        for field, section in sections.items():
            value = getattr(scope, field)
            if value is not None:
                check_name(document, ("scopes", name, field), params, section, value)
        for position, noise in enumerate(scope.noise):
            check_name(document, ("scopes", name, "noise", position), params, "noise", noise)

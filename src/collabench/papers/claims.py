"""Reading of ``papers/claims.yaml``, and checks of the names by which it refers to ``params.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from collabench.config.configuration import SECTIONS
from collabench.config.params import Params, check_name, refuse_two_precisions
from collabench.config.sections import PAGES
from collabench.config.validation import validate
from collabench.config.yaml_file import Document, KeyPath, read_yaml
from collabench.core.errors import ConfigError
from collabench.papers.claim_schema import Claims
from collabench.papers.replications import with_replications
from collabench.papers.tables import PAPER, load_papers, paper_names, papers_not_run

#: Name of the claims' file in the folder of papers.
CLAIMS = "claims.yaml"


def check_papers(folder: Path, params: Params) -> None:
    """Raise ConfigError (one line), before training, for anything in the folder of papers that a report would
    reject."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder of papers")
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
    _check_designs(document, claims, params)
    seen: set[str] = set()
    used = {name for claim in claims.claims if claim.paper in waiting for name in claim.scopes}
    for index, claim in enumerate(claims.claims):
        if claim.paper in waiting:
            continue
        here: KeyPath = ("claims", index)
        if claim.id in seen:
            raise document.error((*here, "id"), f"{claim.id!r} is listed twice")
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
            directed = claim.hypothesis in ("lower", "higher")
            if directed and claim.smallest_effect is None and scope.smallest_effect is None:
                raise document.error(key, f"neither the claim nor the scope {name!r} states a smallest_effect")
    for name in claims.scopes:
        if name not in used:
            raise document.error(("scopes", name), "no claim names this scope; remove it or name it")
    tested_claims = Claims(
        designs=claims.designs,
        scopes={name: claims.scopes[name] for name in claims.scopes if name in tested},
        claims=tuple(run),
        untested=tuple(one for one in claims.untested if one.paper not in waiting),
    )
    return with_replications(folder, tested_claims, params)


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
    sections = {"profile": "profiles"}
    sections |= {name: SECTIONS[name.removeprefix("wide_")]
                 for name in ("dataset", "model", "recipe", "wide_model", "wide_recipe")}  # fmt: skip
    for name, scope in claims.scopes.items():
        if name not in tested:
            continue
        for field, section in sections.items():
            value = getattr(scope, field)
            if value is not None:
                check_name(document, ("scopes", name, field), params, section, value)
        if scope.wide_recipe is not None:
            key: KeyPath = ("scopes", name, "wide_recipe")
            refuse_two_precisions(document, key, params, (scope.recipe, scope.wide_recipe), "a scope")
        for position, noise in enumerate(scope.noise):
            key = ("scopes", name, "noise", position)
            check_name(document, key, params, "noise", noise)
            if len(scope.noise) > 1 and params.noise[noise].asked_rate is None:
                raise document.error(key, f"error_growth is a slope over the rate of the noise, and {noise!r} has none")


def _check_designs(document: Document, claims: Claims, params: Params) -> None:
    def seeds(profile: str) -> set[int]:
        return claims.seeds(profile, params.profiles[profile])

    used = {scope.profile for scope in claims.scopes.values()}
    for name, design in claims.designs.items():
        here: KeyPath = ("designs", name)
        check_name(document, here, params, "profiles", name)
        profile = params.profiles[name]
        if name not in used:
            raise document.error(here, "no scope names this profile; remove the design or name it")
        if design.looks[0] != profile.seeds:
            raise document.error(
                (*here, "looks", 0),
                f"the first look is at {design.looks[0]} seeds, the tables of the profile have {profile.seeds} "
                f"(params.yaml: profiles.{name}.seeds); make them equal",
            )
        if profile.first_seed + design.looks[-1] > 1000:
            raise document.error(
                (*here, "looks", len(design.looks) - 1),
                f"seeds go up to 999: {design.looks[-1]} seeds from first_seed {profile.first_seed} on do not fit",
            )
        for position, other in enumerate(design.fresh_from):
            key = (*here, "fresh_from", position)
            check_name(document, key, params, "profiles", other)
            if common := seeds(name) & seeds(other):
                raise document.error(
                    key,
                    f"{name} and {other} share the seeds {min(common)} to {max(common)}; choose another first_seed in "
                    "params.yaml"
                    if name != other
                    else "a profile cannot be fresh from itself; remove it",
                )

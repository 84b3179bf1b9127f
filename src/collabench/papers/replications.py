"""Reading of ``papers/replications.yaml``: tests that one study has decided and that another makes again.

The file is written before the replication runs (``python -m benchmarks.replication --write``), from the accepted
reports of the first studies, and is not changed by what the replication finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collabench.config.params import Params, check_name
from collabench.config.plan import Cell, KnownToFit, nothing_is_known, resolve
from collabench.config.validation import validate
from collabench.config.yaml_file import Document, KeyPath, read_yaml
from collabench.core.errors import ConfigError
from collabench.papers.claim_schema import Claims, Replicated, Replications

REPLICATIONS = "replications.yaml"
HOW = "python -m benchmarks.replication --write"


def with_replications(folder: Path, claims: Claims, params: Params) -> Claims:
    """The claims with the tests that ``papers/replications.yaml`` makes again; as they are without such a file.

    Raises ConfigError (one line) for a name that is not defined, a test that is not declared, a profile that does not
    replicate the first one, and seeds that the first one has used.
    """
    path = folder / REPLICATIONS
    if not path.exists():
        return claims
    document = read_yaml(path)
    found: Replications = validate(document, Replications, document.value)
    for profile, tests in found.replications.items():
        here: KeyPath = ("replications", profile)
        check_name(document, here, params, "profiles", profile)
        if not params.profiles[profile].replicates:
            raise document.error(here, f"the profile says not whom it replicates (params.yaml: profiles.{profile})")
        for index, test in enumerate(tests):
            _check(document, (*here, index), test, profile, claims, params)
    return claims.with_replications(found.replications)


def _check(document: Document, here: KeyPath, test: Replicated, profile: str, claims: Claims, params: Params) -> None:
    replicates = params.profiles[profile].replicates
    if test.profile not in replicates:
        raise document.error((*here, "profile"), f"{profile} replicates {', '.join(replicates)}, not {test.profile}")
    claim = next((claim for claim in claims.claims if claim.id == test.claim), None)
    if claim is None:
        raise document.error((*here, "claim"), f"{test.claim!r} is not declared in claims.yaml; write it anew: {HOW}")
    declared = claims.tests(claim, test.profile)
    if (test.scope, test.compared) not in {(one.scope_name, one.compared) for one in declared}:
        place = test.scope + (f", {test.compared}" if test.compared else "")
        raise document.error(here, f"{test.profile} has no test of {test.claim} in {place}; write it anew: {HOW}")
    settings = params.profiles[profile]
    if settings.first_seed + test.seeds > 1000:
        raise document.error(
            (*here, "seeds"), f"seeds go up to 999: {test.seeds} seeds from {settings.first_seed} on do not fit"
        )
    if common := set(settings.seed_range(test.seeds)) & claims.seeds(test.profile, params.profiles[test.profile]):
        raise document.error(
            (*here, "profile"),
            f"{profile} and {test.profile} share the seeds {min(common)} to {max(common)}; choose another first_seed "
            f"in params.yaml: profiles.{profile}",
        )


def replicated_cells(
    claims: Claims, params: Params, profile: str, known_to_fit: KnownToFit = nothing_is_known
) -> Iterator[Cell]:
    """The runs that a replication's tables show: a table for each scope, with the seeds of the profile.

    Raises ConfigError (one line) if no test is written down for the profile, or a test has fewer seeds.
    """
    settings = params.profiles[profile]
    if profile not in claims.replicated:
        raise ConfigError(
            f"papers/{REPLICATIONS}: names no test that the profile {profile!r} makes again; write it: {HOW}"
        )
    seen: set[tuple[str, str]] = set()
    for claim in claims.claims:
        for test in claims.tests(claim, profile):
            if test.seeds is not None and test.seeds < settings.seeds:
                raise ConfigError(
                    f"params.yaml: profiles.{profile}.seeds: the tables have {settings.seeds} seeds, {claim.id} was "
                    f"decided with {test.seeds}; tables need at most as many"
                )
            for names in test.names():
                configuration = resolve(params, **names, known_to_fit=known_to_fit)
                if (test.scope_name, configuration.id) not in seen:
                    seen.add((test.scope_name, configuration.id))
                    yield Cell(test.scope_name, configuration, settings.seed_range())

"""A study of six seeds with results whose differences are worked out by hand, and claims on it."""

from __future__ import annotations

import json

import yaml

from collabench.papers.claims import CLAIMS
from collabench.papers.tables import PAPER
from collabench.storage.results import RESULT
from tests.support import fabricated

PROFILE = """\
  small:
    description: for claims
    seeds: 6
    tables:
      - {name: all, datasets: [digits-500], noise: [clean, uniform20, uniform40], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing, simple-2, simple-4, hierarchical-4, ensemble-2]}
"""


SCOPES = """\
scopes:
  noisy: {profile: small, dataset: digits-500, noise: [uniform20], model: resnet8, recipe: forty}
  noise: {profile: small, dataset: digits-500, noise: [clean, uniform20, uniform40], model: resnet8, recipe: forty}
  clean: {profile: small, dataset: digits-500, model: resnet8, recipe: forty}
  late: {profile: small, declared_after_runs: true, dataset: digits-500, noise: [uniform20], model: resnet8, \
recipe: forty}
  cifar: {published: true, dataset: cifar100, model: resnet32, recipe: song2018-resnet}
"""


#: Test error in percent at 20 % noise by seed, of six seeds. Differences to individual: simple-2 −2 (sd √0.8),
#: simple-4 +2 (sd √0.8), hierarchical-4 alternating ±0.01, label-smoothing +1/3 (sd 1.03).
PERCENT = {
    "individual": (10, 12, 14, 11, 13, 15),
    "simple-2": (9, 10, 11, 10, 11, 12),
    "simple-4": (11, 14, 17, 12, 15, 18),
    "hierarchical-4": (10.01, 11.99, 14.01, 10.99, 13.01, 14.99),
    "label-smoothing": (11, 11, 15, 10, 14, 16),
    "ensemble-2": (5, 6, 7, 6, 5, 6),
}


ABOUT = "{title: A paper, authors: Somebody, published: somewhere, sources: {}}\n"


def by_hand(run):
    """A method's gain over individual is the same at 20 % noise, none with clean labels, twice at 40 %."""
    method, seed = run.configuration.names["method"], run.data_seed
    base = PERCENT["individual"][seed]
    return (base + (PERCENT[method][seed] - base) * run.configuration.noise.rate / 0.2) / 100


def claim(**changes):
    """One claim as YAML: hierarchical-4 has lower error than individual, changed as asked."""
    fields = {
        "id": "one", "paper": "song2018", "statement": "S.", "quantity": "error", "hypothesis": "lower",
        "source": {"file": "000_1e20208135b2abb2.txt", "place": "P", "words": "W"}, "smallest_effect": 0.1,
        "compare": [{"method": "hierarchical-4", "baseline": "individual"}], "scopes": ["noisy"], **changes,
    }  # fmt: skip
    return "  - " + json.dumps({key: value for key, value in fields.items() if value is not None}) + "\n"


#: Run id → the bytes of its result, which are made once.
_RESULTS: dict[str, bytes] = {}


def study_in(folder):
    """The study, with every result."""
    made = fabricated.make_study(folder, PROFILE)
    runs = fabricated.cell_runs(made)
    fabricated.write_results(made, [run for run in runs if run.id not in _RESULTS], by_hand)
    for run in runs:
        path = made.workspace.folder(run) / RESULT
        if run.id in _RESULTS:
            path.parent.mkdir(parents=True)
            path.write_bytes(_RESULTS[run.id])
        else:
            _RESULTS[run.id] = path.read_bytes()
    return made


def declare(study, *claims):
    """Write the claims, with the scopes that they name (and one where they name none)."""
    used = "".join(claims)
    named = [line for line in SCOPES.splitlines()[1:] if f'"{line.split(":")[0].strip()}"' in used]
    study.workspace.papers.mkdir(exist_ok=True)
    scopes = "\n".join(named or SCOPES.splitlines()[1:2])
    for paper in {claim["paper"] for claim in yaml.safe_load(f"claims:\n{used}")["claims"]}:
        (study.workspace.papers / paper).mkdir(exist_ok=True)
        (study.workspace.papers / paper / PAPER).write_text(ABOUT)
    (study.workspace.papers / CLAIMS).write_text(f"scopes:\n{scopes}\nclaims:\n{used}")


def seeds_wanted(states):
    """Configuration id → number of seeds that the claims want of it, of one or several claims' states."""
    wanted = {}
    for state in states:
        for configuration in state.configurations:
            wanted[configuration] = max(wanted.get(configuration, 0), state.wanted)
    return wanted

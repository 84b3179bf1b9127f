"""A study of seconds whose claims ask for further seeds: looks at three and five.

One claim is decided at its first look, whatever the runs give: no error is lower by 95 points. The others are about
effects that so few seeds rarely show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from collabench.papers.claims import CLAIMS
from collabench.papers.tables import PAPER
from tests.support.declared_claims import ABOUT
from tests.support.params import params_yaml, profile, table
from tests.support.running import PROFILE, with_workflow

FIRST_SEED = 10
LOOKS = (3, 5)
#: A study that grows twice.
THREE_LOOKS = (3, 4, 5)
#: Claim → method, baseline and smallest effect in points.
CLAIMED = {
    "no-gain-of-95": ("mild", "individual", 95.0),
    "kd-lower": ("kd", "individual", 0.01),
    "kd-lower-than-smoothed": ("kd", "smoothed", 0.01),
}


def growing_project(
    folder: Path,
    *,
    workflow: bool = False,
    epochs: int = 2,
    looks: tuple[int, ...] = LOOKS,
    seeds_per_job: int = 2,
    claims: Sequence[str] = tuple(CLAIMED),
) -> Path:
    """A project with the study as :data:`~tests.support.running.PROFILE`. workflow: what ``reproduce`` needs, too.

    claims: which of :data:`CLAIMED`; only their methods are trained.
    """
    folder.mkdir(parents=True)
    compared = {name for claim in claims for name in CLAIMED[claim][:2]}
    methods = " ".join(name for name in ("individual", "mild", "smoothed", "kd") if name in compared)
    text = params_yaml(
        {
            PROFILE: profile(
                table(methods, name="small", datasets="digits-tiny", noise="uniform20", models="resnet8",
                    recipes="short"),
                description="a study that grows", seeds=LOOKS[0], first_seed=FIRST_SEED,
                seeds_per_job=seeds_per_job, device="cpu",
            )
        },
        datasets={"digits-tiny": "{source: digits, train_images: 80, test_images: 60}"},
        noise="clean uniform20",
        models={"resnet8": "{family: cifar_resnet, depth: 8, width: 4}"},
        recipes={"short": f"{{epochs: {epochs}, batch_size: 20, learning_rate: 0.1}}"},
        methods={
            "individual": "",
            "kd": "",
            "mild": "{method: individual, label_smoothing: 0.4}",
            "smoothed": "{method: individual, label_smoothing: 0.1}",
        },
    )  # fmt: skip
    (folder / "params.yaml").write_text(text)
    if workflow:
        with_workflow(folder)
    declare(folder, looks, claims)
    return folder


def declare(folder: Path, looks: tuple[int, ...] = LOOKS, claimed: Sequence[str] = tuple(CLAIMED)) -> None:
    """Write the claims and their design."""
    (folder / "papers" / "song2018").mkdir(parents=True, exist_ok=True)
    (folder / "papers" / "song2018" / PAPER).write_text(ABOUT)
    claims = [
        {
            "id": name, "paper": "song2018", "statement": "S.", "quantity": "error", "hypothesis": "lower",
            "source": {"file": "000_1e20208135b2abb2.txt", "place": "P", "words": "W"}, "smallest_effect": effect,
            "compare": [{"method": method, "baseline": baseline}], "scopes": ["noisy"],
        }
        for name in claimed
        for method, baseline, effect in [CLAIMED[name]]
    ]  # fmt: skip
    scope = {
        "profile": PROFILE, "dataset": "digits-tiny", "noise": ["uniform20"], "model": "resnet8", "recipe": "short",
    }  # fmt: skip
    content = {
        "designs": {PROFILE: {"looks": list(looks), "spend": [0.9 / len(looks)] * len(looks), "error": 0.05}},
        "scopes": {"noisy": scope},
        "claims": claims,
    }
    (folder / "papers" / CLAIMS).write_text(yaml.safe_dump(content, sort_keys=False))

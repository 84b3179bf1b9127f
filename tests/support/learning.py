"""That every method learns: ``docs/methods-learn.md``, from three seeds of each on clean digits in full.

``python -m tests.support.learning --write`` trains what is not yet in the folder ``--work`` and writes the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from collabench.config.configuration import Configuration, Run
from collabench.config.params import Params, load_params
from collabench.config.plan import resolve
from collabench.data import Dataset, load, prepare
from collabench.methods import METHODS
from collabench.training import make_context, train_run
from collabench.training.context import make_method
from tests.support.project import ROOT

PAGE = ROOT / "docs" / "methods-learn.md"
RECIPE, DATASET, SEEDS = "digits", "digits", (0, 1, 2)
#: A method that is so many percentage points worse than individual learning does not learn.
LIMIT = 3.0

#: Model → methods of params.yaml that are trained on it; individual, the first, is what the others are compared with.
ROWS = {
    "resnet8": (
        "individual", "label-smoothing", "ensemble-2", "multi-instance-2", "simple-2", "hierarchical-4",
        "hierarchical-4-loss-scaling", "hierarchical-4-no-scaling", "hierarchical-4-alternating", "kd", "dml",
        "dml-as-published", "dml-4-as-published", "auxiliary", "one-4", "one-as-published", "okddip-4",
        "okddip-as-published", "wang2018", "wang2018-private", "wang2018-consensus",
    ),
    "vgg16-small": (
        "individual", "fang2021-out", "fang2021-mid", "fang2021-pull-push", "fang2021-kernel",
        "fang2021-out-mid-pull-push",
        "fang2021-out-mid-pull-push-kernel",
    ),
    "resnet18-small": (
        "individual", "fang2021-out", "fang2021-mid", "fang2021-pull-push", "fang2021-kernel",
        "fang2021-mid-pull-push-kernel", "fang2021-out-mid-pull-push-kernel",
    ),
}  # fmt: skip


def configurations(params: Params) -> Iterator[Configuration]:
    """What the page shows, in its order."""
    for model, methods in ROWS.items():
        for method in methods:
            names = {"dataset": DATASET, "noise": "clean", "model": model, "recipe": RECIPE, "method": method}
            yield resolve(params, **names, known_to_fit=lambda _: True)  # that they fit is for the plans' tests


def error_of(run: Run, dataset: Dataset, work: Path) -> float:
    """Test error of a run in percent, after its last epoch; trained unless ``work`` has it."""
    found, weights = work / f"{run.id}.json", work / f"{run.id}.safetensors"
    if not found.exists():
        trained = train_run(
            run, dataset, device=torch.device("cpu"), teachers=[deployed(r, dataset, work) for r in run.requires()]
        )
        if trained.weights is not None:
            safetensors.torch.save_file(trained.weights, weights)
        found.write_text(json.dumps(100 * trained.result.last.error))
    return json.loads(found.read_text())


def deployed(run: Run, dataset: Dataset, work: Path) -> nn.Module:
    """The network that a run of a method that trains leaves."""
    error_of(run, dataset, work)
    context = make_context(run.configuration, dataset.form.shape, len(dataset.classes), run.seed)
    method = make_method(run.configuration, context)
    network = method.deploy(method.build())
    network.load_state_dict(safetensors.torch.load_file(work / f"{run.id}.safetensors"))
    return network


def write(work: Path, page: Path = PAGE) -> None:
    """Train what is missing, and write the page."""
    params = load_params(ROOT / "params.yaml")
    prepare(params.datasets[DATASET], work, work / "data")
    dataset = load(work / "data")
    rows = []
    for configuration in configurations(params):
        errors = [error_of(Run(configuration, seed), dataset, work) for seed in SEEDS]
        print(configuration.label, *(f"{error:.2f}" for error in errors), flush=True)
        rows.append((configuration, errors))
    page.write_text(render(rows), encoding="utf-8")


def render(rows: list[tuple[Configuration, list[float]]]) -> str:
    """The page. A difference is the mean over seeds, paired, from individual learning with the same model."""
    lines = [
        "# Every method learns",
        "",
        "Written by a script; don't edit. To write it again (a second call trains nothing that `--work` already has):",
        "",
        "```",
        "python -m tests.support.learning --write",
        "```",
        "",
        f"Clean digits in full (1,437 training and 360 test images), recipe `{RECIPE}`, seeds {SEEDS[0]} to "
        f"{SEEDS[-1]}, CPU. "
        "One test image is",
        f"0.28 points. A method learns if its mean test error is at most {LIMIT:g} points above that of individual "
        "learning with",
        "the same model. This is a check that nothing is broken, no comparison: at this size the methods can hardly be "
        "told "
        "apart.",
        "",
        "wang2018 is this project's reading of an abstract, all that is at hand.",
        "",
        "| model | method | test errors, % | mean | from individual | configuration |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    individual: dict[str, float] = {}
    worst = 0.0
    for configuration, errors in rows:
        model, mean = configuration.names["model"], statistics.mean(errors)
        difference = mean - individual.setdefault(model, mean)
        worst = max(worst, difference)
        shown = "–" if configuration.names["method"] == "individual" else f"{difference:+.2f}".replace("-", "−")
        lines.append(
            f"| {model} | {configuration.names['method']} | {' '.join(f'{error:.2f}' for error in errors)} | "
            f"{mean:.2f} | "
            f"{shown} | {configuration.id} |"
        )
    verdict = "Every method learns" if worst <= LIMIT else "NOT every method learns"
    methods = len({configuration.method.method for configuration, _ in rows})
    lines += ["", f"{verdict}: the largest difference is {worst:+.2f} points, over {len(rows)} configurations of "
                  f"{methods} of {len(METHODS)} methods."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True, help="train and write the page")
    parser.add_argument(
        "--work", type=Path, help="keeps what is trained, so that a second call goes on (default: none)"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    if arguments.work is None:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), arguments.page)
    else:
        arguments.work.mkdir(parents=True, exist_ok=True)
        write(arguments.work, arguments.page)


if __name__ == "__main__":
    main()

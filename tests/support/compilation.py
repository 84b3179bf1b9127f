"""Every method family whose training is compiled, and how many graphs it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from collabench.config.configuration import Run
from tests.support.defaults import configuration
from tests.support.synthetic import SMALL_MODELS, configuration_of, model_of, settings_of


class Counted:
    """A backend of torch.compile that counts graphs and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[object]) -> Callable[..., object]:
        self.graphs += 1
        assert not any(isinstance(one, torch.SymInt) for one in inputs), "shapes are fixed"
        return graph.forward


VGG = SMALL_MODELS[1]

#: Method, its settings, the model → graphs of a training pass, places where a pass breaks. Networks of one model share
#: a graph. A pass that leaves running statistics alone has its own. Layers with local losses need two gradients and run
#: uncompiled: the pass breaks there.
FAMILIES: dict[str, tuple[str, dict, dict, int, int]] = {
    "individual": ("individual", {}, SMALL_MODELS[0], 1, 0),
    "dropout": ("individual", {}, VGG, 1, 0),
    "label smoothing": ("individual", {"label_smoothing": 0.1}, SMALL_MODELS[2], 1, 0),
    "auxiliary": ("auxiliary", {}, SMALL_MODELS[0], 1, 0),
    "kd": ("kd", {}, SMALL_MODELS[0], 1, 0),
    "dml": ("dml", {"networks": 3}, VGG, 1, 0),
    "dml in turn": ("dml", {"optimisation": "in_turn"}, VGG, 2, 0),
    "one": ("one", {}, VGG, 1, 0),
    "okddip": ("okddip", {}, VGG, 1, 0),
    "song2018": ("song2018", {}, VGG, 1, 0),
    "song2018 alternating": ("song2018", {"optimisation": "alternating"}, VGG, 2, 0),
    "wang2018": ("wang2018", {}, VGG, 1, 0),
    "fang2021 out": ("fang2021", {"losses": ("out",), "out_added": True}, VGG, 1, 0),
    "fang2021 kernel": ("fang2021", {"losses": ("kernel",)}, VGG, 1, 0),
    "fang2021 mid": ("fang2021", {"losses": ("mid",)}, VGG, 4, 2),
    "fang2021 pull-push": ("fang2021", {"losses": ("pull_push",)}, VGG, 7, 2),
}


def run_of(family: str, **recipe: object) -> Run:
    method, settings, model, *_ = FAMILIES[family]
    requires = configuration(method, **recipe).requires if method == "kd" else ()
    return Run(configuration_of(settings_of(method, **settings), model_of(model), requires=requires, **recipe), 0)

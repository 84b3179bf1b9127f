"""This project's own ``params.yaml`` and studies, read once for all modules of a process. Nobody may change them."""

from __future__ import annotations

from functools import cache

from collabench.config.params import Params, load_params
from collabench.study.study import Study, load_study
from tests.support.project import ROOT


@cache
def real_params() -> Params:
    return load_params(ROOT / "params.yaml")


@cache
def real_study(profile: str) -> Study:
    return load_study(ROOT, profile)

"""Training methods, one per file: ``Settings`` (its entry in ``params.yaml``) and ``Method``.

A method turns backbones into a training network, computes the named loss terms of a batch and chooses what is deployed.
The trainer does everything else and knows no method by name. See :mod:`collabench.methods.contract`.
"""

from __future__ import annotations

from collabench.core.registry import Registry
from collabench.methods.contract import Batch, Context, Method, MethodSettings, Requirement, Update

#: A package of the user's own with further methods, one per file: in the project's folder, or on PYTHONPATH.
OWN = "collabench_methods"

METHODS = Registry(__name__, "method", own=OWN)

__all__ = ["METHODS", "Batch", "Context", "Method", "MethodSettings", "Requirement", "Update"]

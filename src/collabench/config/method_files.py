"""What the file of a method must hold. Those of the library do; a user's own may not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import ModuleType
from typing import Any

import torch

from collabench.core.errors import ConfigError
from collabench.methods import OWN, Method, MethodSettings


def check_methods(modules: Mapping[str, ModuleType]) -> None:
    """Raise ConfigError (one line) if the file of a method lacks what every method has. modules: by the methods'
    names."""
    for module in modules.values():
        for name, base in (("Settings", MethodSettings), ("Method", Method)):
            found = getattr(module, name, None)
            if not (isinstance(found, type) and issubclass(found, base)):
                raise ConfigError(f"{module.__file__}: must have a class {name} that inherits from "
                                  f"collabench.methods.{base.__name__}")  # fmt: skip
        revision = module.Method.revision
        if not isinstance(revision, int) or revision < 1:
            raise ConfigError(f"{module.__file__}: Method.revision must be a whole number from 1 (it is {revision!r})")
        if module.__name__.startswith(f"{OWN}."):
            module.Method.losses = _checked(module.Method.losses, str(module.__file__))


def _checked(losses: Callable[..., Any], file: str) -> Callable[..., Any]:
    """``losses`` of a user's own method, with what it returns checked: else torch's words would say what is wrong."""
    if hasattr(losses, "of_own_file"):
        return losses

    @wraps(losses)
    def checked(*given: Any, **named: Any) -> Any:
        terms = losses(*given, **named)
        if wrong := _wrong_in(terms):
            raise ConfigError(f"{file}: losses must return the terms of the loss, {{name: scalar}}; {wrong}")
        return terms

    checked.of_own_file = file  # type: ignore[attr-defined]
    return checked


def _wrong_in(terms: object) -> str:
    """What is wrong with the terms of a loss; empty if nothing is."""
    if not isinstance(terms, dict):
        return f"it returned {type(terms).__name__}"
    if not terms:
        return "it returned none"
    for name, term in terms.items():
        if not isinstance(name, str):
            return f"the name {name!r} is no text"
        if not isinstance(term, torch.Tensor):
            return f"{name!r} is no tensor but {type(term).__name__}"
        if term.numel() != 1:
            return f"{name!r} has the shape {tuple(term.shape)} and must be one number, a mean over the batch"
    if torch.is_grad_enabled() and not any(term.requires_grad for term in terms.values()):
        return "none of its terms has a gradient"
    return ""

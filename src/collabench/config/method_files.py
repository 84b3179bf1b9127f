"""What the file of a method must hold. Those of the library do; a user's own may not."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from collabench.core.errors import ConfigError
from collabench.methods import Method, MethodSettings


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

"""Discovery of a package's plug-ins: every module of the package that has a class ``Settings`` is one entry.

A new method or model family is one new file. It is listed nowhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Union, get_args

from collabench.core.record import Record


class Registry(Mapping[str, ModuleType]):
    """The modules of ``package`` by name, except those whose name starts with an underscore.

    Each module has a class ``Settings`` with a field named by ``discriminator``, a ``Literal`` of the module's name.
    This field selects the entry in ``params.yaml``. Raises TypeError if the two names differ.
    """

    def __init__(self, package: str, discriminator: str) -> None:
        self._discriminator = discriminator
        path = importlib.import_module(package).__path__
        names = [info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_")]
        modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
        self._modules = {name: module for name, module in modules.items() if hasattr(module, "Settings")}
        for name, module in self._modules.items():
            settings: type[Record] = module.Settings
            if get_args(settings.model_fields[discriminator].annotation) != (name,):
                raise TypeError(f"{package}.{name}.Settings.{discriminator} must be Literal[{name!r}]")

    def settings_union(self) -> Any:
        """The union of all entries' settings, for a discriminated field of pydantic."""
        return Union[tuple(module.Settings for module in self._modules.values())]

    def __getitem__(self, name: str) -> ModuleType:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

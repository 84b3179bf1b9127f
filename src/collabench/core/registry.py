"""Discovery of a package's plug-ins: every module of the package that has a class ``Settings`` is one entry.

A new method or model family is one new file. It is listed nowhere else. The file can also lie in a package of the
user's own, outside of the library.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Union, get_args

from collabench.core.errors import ConfigError
from collabench.core.record import Record


class Registry(Mapping[str, ModuleType]):
    """The modules of ``package`` by name, except those whose name starts with an underscore.

    own: a package of the user's own, on Python's path, whose modules are entries, too; it need not exist.

    Each module has a class ``Settings`` with a field named by ``discriminator``, a ``Literal`` of the module's name.
    This field selects the entry in ``params.yaml``. Raises TypeError if the two names differ, and ConfigError (one
    line) if a module of the user's own cannot be imported, has another name in its field, or has a name that the
    library has.
    """

    def __init__(self, package: str, discriminator: str, own: str | None = None) -> None:
        self._discriminator = discriminator
        path = importlib.import_module(package).__path__
        names = [info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_")]
        modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
        self._modules = {name: module for name, module in modules.items() if hasattr(module, "Settings")}
        for name, module in self._modules.items():
            settings: type[Record] = module.Settings
            if get_args(settings.model_fields[discriminator].annotation) != (name,):
                raise TypeError(f"{package}.{name}.Settings.{discriminator} must be Literal[{name!r}]")
        if own is not None:
            self._modules |= self._of_the_user(own)

    def _of_the_user(self, package: str) -> dict[str, ModuleType]:
        """The modules of the user's package that have a class ``Settings``."""
        spec = importlib.util.find_spec(package)
        found: dict[str, ModuleType] = {}
        for info in pkgutil.iter_modules(spec.submodule_search_locations or () if spec else ()):
            if info.name.startswith("_"):
                continue
            try:
                module = importlib.import_module(f"{package}.{info.name}")
            except Exception as error:  # a user's module can raise anything
                raise ConfigError(
                    f"{package}.{info.name}: cannot be imported ({type(error).__name__}: {error})"
                ) from error
            settings = getattr(module, "Settings", None)
            if settings is None:
                continue
            if info.name in self._modules:
                raise ConfigError(
                    f"{module.__file__}: the library has a {self._discriminator} {info.name!r}; rename the file"
                )
            field = getattr(settings, "model_fields", {}).get(self._discriminator)
            if field is None or get_args(field.annotation) != (info.name,):
                raise ConfigError(
                    f"{module.__file__}: Settings must have the field {self._discriminator}: Literal[{info.name!r}], "
                    "the name of the file"
                )
            found[info.name] = module
        return found

    def settings_union(self) -> Any:
        """The union of all entries' settings, for a discriminated field of pydantic."""
        return Union[tuple(module.Settings for module in self._modules.values())]

    def __getitem__(self, name: str) -> ModuleType:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

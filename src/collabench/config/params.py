"""Reading of ``params.yaml`` as a whole, and checks of the names by which its sections refer to each other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field, PrivateAttr, ValidationError

from collabench.config import settings
from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.config.fields import Name
from collabench.config.remotes import RemoteConfig
from collabench.config.sections import MethodConfig, ModelConfig, ProfileConfig, RecipeConfig, united
from collabench.config.validation import validate
from collabench.config.yaml_file import Document, KeyPath, is_text_everywhere, read_yaml
from collabench.core import arithmetic
from collabench.core.errors import ConfigError
from collabench.core.record import Record


class Params(Record):
    """The whole of ``params.yaml``."""

    datasets: dict[Name, DatasetConfig]
    noise: dict[Name, NoiseConfig]
    models: dict[Name, ModelConfig]
    recipes: dict[Name, RecipeConfig]
    methods: dict[Name, MethodConfig]
    profiles: dict[Name, ProfileConfig]
    remotes: dict[Name, RemoteConfig] = Field(default_factory=dict)
    _document: Document | None = PrivateAttr(default=None)

    def place(self, key: KeyPath) -> str:
        """``params.yaml:12: `` for an entry, as the beginning of a message; empty if no file was read."""
        return "" if self._document is None else f"{self._document.place(key)}: "

    def refuse_unused_settings(self, profile: str, used: Iterable[tuple[str, str]]) -> None:
        """Raise ConfigError if a setting of the command line changes an entry that the profile does not use.

        used: (section, name) of every entry that it uses.
        """
        if self._document is not None:
            settings.refuse_unused(self._document, profile, used)


_SECTION_OF = {
    "datasets": "datasets", "noise": "noise", "models": "models", "recipes": "recipes", "methods": "methods",
    "baseline": "methods",
}  # fmt: skip

#: Names of classes, which are those of the user's folders.
_TEXTS: tuple[KeyPath, ...] = (("noise", "*", "pairs", "*"),)


def load_params(path: Path, changes: Sequence[str] = ()) -> Params:
    """Read and check ``params.yaml``. Raises ConfigError (one line).

    changes: settings in place of the file's values (:func:`collabench.config.settings.apply`).
    """
    if not path.exists() and path.parent.is_dir():
        raise ConfigError(f"{path}: does not exist; call collabench in the project's folder, or name it with --root")
    document = settings.apply(read_yaml(path, texts=_TEXTS), changes, _TEXTS)
    params: Params = validate(document, Params, document.value)
    params._document = document
    for profile_name, profile in params.profiles.items():
        if not is_text_everywhere(profile_name):
            raise document.error(
                ("profiles", profile_name),
                "DVC and other readers of YAML or of a command line would take this name for a number, a date or a "
                f"truth value; give the profile another one, such as study-{profile_name}",
            )
        for field in ("replicates", "union_of"):
            for position, other in enumerate(getattr(profile, field)):
                check_name(document, ("profiles", profile_name, field, position), params, "profiles", other)
        for position, dataset in enumerate(profile.datasets):
            check_name(document, ("profiles", profile_name, "datasets", position), params, "datasets", dataset)
        for index, table in enumerate(profile.tables):
            for field, section in _SECTION_OF.items():
                names = getattr(table, field)
                for position, name in enumerate(names if isinstance(names, tuple) else (names,)):
                    key: KeyPath = ("profiles", profile_name, "tables", index, field)
                    key = (*key, position) if isinstance(names, tuple) else key
                    check_name(document, key, params, section, name)
            recipes: KeyPath = ("profiles", profile_name, "tables", index, "recipes")
            refuse_two_precisions(document, recipes, params, table.recipes, "a table")
    _unite(document, params)
    for name, method in params.methods.items():
        for field, section, other in method.references():
            check_name(document, ("methods", name, field), params, section, other)
        params.methods[name] = method.with_absolute_paths(path.absolute().parent)
    for name, model in params.models.items():
        params.models[name] = model.with_absolute_paths(path.absolute().parent)
    for name, noise in params.noise.items():
        params.noise[name] = noise.with_absolute_paths(path.absolute().parent)
    _refuse_teacher_cycles(document, params)
    if arithmetic.chosen() == "native":  # asked for in place of what the recipes say
        for name, recipe in params.recipes.items():
            params.recipes[name] = recipe.model_copy(update={"arithmetic": "native"})
    return params


def _unite(document: Document, params: Params) -> None:
    """Give every profile with ``union_of`` the tables and papers of its parts."""
    written = dict(params.profiles)
    for name, profile in written.items():
        if profile.union_of:
            try:
                params.profiles[name] = united(profile, {other: written[other] for other in profile.union_of})
            except ValueError as error:
                raise document.error(("profiles", name, "union_of"), _reason(error)) from None


def _reason(error: ValueError) -> str:
    """What a validator said, without pydantic's frame around it."""
    errors = error.errors() if isinstance(error, ValidationError) else []
    return str(errors[0]["msg"]).removeprefix("Value error, ") if errors else str(error)


def refuse_two_precisions(document: Document, key: KeyPath, params: Params, recipes: Iterable[str], what: str) -> None:
    """Raise ConfigError if recipes have different precisions, because their errors would be read together.

    what: that which has the recipes: ``a table``, ``a scope``.
    """
    found = {params.recipes[name].precision: name for name in recipes}
    if len(found) > 1:
        said = " and ".join(f"{name} has {precision}" for precision, name in found.items())
        raise document.error(key, f"{said}: {what} has one precision; write {what} for each")


def check_name(document: Document, key: KeyPath, params: Params, section: str, name: str) -> None:
    """Raise ConfigError if ``name`` is not defined in ``section``."""
    known = getattr(params, section)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise document.error(key, f"{name!r} is not defined under {section}{hint}; defined there: {', '.join(known)}")


def _refuse_teacher_cycles(document: Document, params: Params) -> None:
    for start in params.methods:
        path = [start]
        while True:
            following = [n for _, section, n in params.methods[path[-1]].references() if section == "methods"]
            if not following:
                break
            if following[0] in path:
                raise document.error(("methods", start), f"depends on itself: {' → '.join([*path, following[0]])}")
            path.append(following[0])


def profile_of(params: Params, name: str, path: Path) -> ProfileConfig:
    """The named profile. Raises ConfigError that lists the profiles that exist."""
    if name not in params.profiles:
        raise ConfigError(f"{path}: there is no profile {name!r}; profiles: {', '.join(params.profiles)}")
    return params.profiles[name]

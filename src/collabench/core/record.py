"""The base class of all typed records.

Unknown keys are errors, types are not converted, numbers are finite, and records are immutable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("Input should be a valid integer")
    return value


#: For a ``Literal`` that contains 0 or 1: Python considers these equal to False and True.
NO_BOOL = BeforeValidator(_no_bool)


def _no_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(
                f"{value if isinstance(value, BaseModel) else repr(value)} is listed twice; keep one of them"
            )
    return values


#: For a list without duplicates.
NO_REPEATS = AfterValidator(_no_repeats)


class _Later:
    """The type of :data:`LATER`."""


#: Marks a field that was added after results had been published: ``name: Annotated[bool, LATER] = False``. At its
#: default it is left out of identities, so that the ids of configurations that do not set it stay what they were.
LATER = _Later()


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def identity_fields(self, exclude: Iterable[str] = ()) -> dict[str, Any]:
        """The fields as plain data for an identity: all but ``exclude``, and but those marked :data:`LATER` that have
        their default."""
        fields = type(self).model_fields.items()
        unset = {name for name, field in fields if LATER in field.metadata and getattr(self, name) == field.default}
        return self.model_dump(exclude=unset | set(exclude))

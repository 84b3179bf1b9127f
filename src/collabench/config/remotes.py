"""The section ``remotes`` of ``params.yaml``: where finished runs can be fetched from."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, model_validator

from collabench.core.record import Record

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


class RemoteConfig(Record):
    """A DVC remote that others have pushed to.

    ``url``: its address (``https://``, ``s3://``, ``ssh://`` …), or a folder relative to that of ``params.yaml``.
    ``lock``: the ``dvc.lock`` that says which content is meant: an address (``https://``), or a path relative to the
    folder of ``params.yaml``. Default: this project's ``dvc.lock``.
    """

    url: str = Field(min_length=1, max_length=2000)
    lock: str | None = Field(default=None, min_length=1, max_length=2000)

    @model_validator(mode="after")
    def _are_addresses(self) -> Self:
        for name, value in (("url", self.url), ("lock", self.lock or "")):
            if "://" in value and not _ADDRESS.fullmatch(value):
                raise ValueError(f"{name}: {value!r} is no address")
        if self.lock is not None and "://" in self.lock and not re.match(r"https?://", self.lock):
            raise ValueError(f"lock: {self.lock!r} must begin with https:// or http://, or be a path")
        return self

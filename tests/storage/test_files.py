"""Files that take the place of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collabench.storage.files import replacing, write_atomically


def test_a_file_is_written_through_before_it_takes_its_place_and_its_folder_afterwards(tmp_path, monkeypatch):
    """Else a power failure leaves an empty file in the place of the old one, or forgets the new one."""
    order: list[str] = []
    replace = os.replace

    def replaced(source: Path, place: Path) -> None:
        order.append("replaced")
        replace(source, place)

    monkeypatch.setattr(os, "fsync", lambda handle: order.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name))
    monkeypatch.setattr(os, "replace", replaced)
    write_atomically(tmp_path / "one.json", b"{}")
    assert order == ["one.json", "replaced", tmp_path.name]
    order.clear()
    with pytest.raises(KeyError), replacing(tmp_path / "one.json") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert order == [] and (tmp_path / "one.json").read_text() != "half"

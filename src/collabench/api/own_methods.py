"""A project's own methods, which Python finds when ``collabench`` is first used, before any project is named."""

from __future__ import annotations

from pathlib import Path

from collabench.config.yaml_file import read_yaml
from collabench.core.errors import ConfigError
from collabench.methods import METHODS, OWN


def check_own_methods(root: Path) -> None:
    """Raise ConfigError (one line) if an entry of ``params.yaml`` means a method of the project's own that is not the
    one which this process has found."""
    value = read_yaml(root / "params.yaml").value
    entries = value.get("methods") if isinstance(value, dict) else None
    entries = entries.values() if isinstance(entries, dict) else ()  # what it must be, load_params says
    used = [entry.get("method") for entry in entries if isinstance(entry, dict)]
    for file in sorted((root / OWN).glob("*.py")):
        if file.stem not in used or file.stem.startswith("_"):
            continue
        found = METHODS[file.stem].__file__ if file.stem in METHODS else None
        if found is None or Path(found).resolve() != file.resolve():
            instead = f"is not found: {found} has its name" if found else "is not found"
            raise ConfigError(
                f"{file}: {instead}, since Python looks for methods once, when collabench is first used; put {root} on "
                "PYTHONPATH before Python begins"
            )

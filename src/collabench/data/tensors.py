"""Safetensors files with a checksum over their content: prepared data sets and static noise.

The file's metadata has one entry, canonical JSON, so that the bytes depend on the content only. The entry contains a
SHA-256 over all other metadata values and over name, type, shape and bytes of each tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from collabench.core.errors import DataError, StorageError
from collabench.core.regular import open_file
from collabench.storage.files import replacing

_ENTRY = "collabench"


def digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """SHA-256 over metadata (plain JSON data) and the tensors' names, types, shapes and bytes."""
    parts: list[Any] = [dict(metadata)]
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        # Memory-mapped tensors are hashed without copying them.
        content = hashlib.sha256(tensor.numpy().data.cast("B") if tensor.numel() else b"").hexdigest()
        parts.append([name, str(tensor.dtype), list(tensor.shape), content])
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Write tensors and metadata (plain JSON data) atomically. Returns the digest of the content."""
    digest = digest_of(tensors, metadata)
    entry = json.dumps({**metadata, "sha256": digest}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(contiguous, temporary, {_ENTRY: entry})
        # safetensors reports a full disk like this, with the system's error number in the text
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise StorageError(f"{path}: cannot be written ({error})") from None
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
    return digest


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors (memory-mapped), metadata and digest of a file written by :func:`write_tensors`.

    Raises DataError naming the file if it is missing, truncated, or differs in any bit of its content.
    """
    try:
        open_file(path).close()  # safetensors reports every file that it cannot open as missing
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[_ENTRY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        expected = metadata.pop("sha256")
    except FileNotFoundError:
        raise DataError(f"{path}: is missing") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError, RuntimeError):
        raise DataError(f"{path}: damaged (truncated, or not a file of this project)") from None
    if digest_of(tensors, metadata) != expected:
        raise DataError(f"{path}: damaged (checksum differs)")
    return tensors, metadata, expected

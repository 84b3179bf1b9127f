"""Checkpoints: everything that a run needs to go on as if it had never stopped.

File format: the SHA-256 of the rest in hexadecimal, a newline, then torch's own format, which is read with
``weights_only``: no code in a checkpoint is ever executed.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from collabench.errors import ResultError
from collabench.records import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    write_atomically(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint. Raises ResultError naming the file if it is damaged."""
    data = path.read_bytes()
    head, _, body = data.partition(b"\n")
    if head.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        raise ResultError(f"{path}: damaged checkpoint (checksum differs)")
    return torch.load(io.BytesIO(body), map_location=device, weights_only=True)

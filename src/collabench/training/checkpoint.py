"""Checkpoints: everything that a run needs to go on as if it had never stopped.

File format: the SHA-256 of the rest in hexadecimal, a newline, then torch's own format, which is read with
``weights_only``: no code in a checkpoint is ever executed.
"""

from __future__ import annotations

import hashlib
import io
import pickle
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
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path}: the checkpoint cannot be read ({error.strerror})") from None
    head, _, body = data.partition(b"\n")
    if head.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        raise ResultError(f"{path}: damaged checkpoint (checksum differs)")
    try:
        return torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise ResultError(f"{path}: not a checkpoint that this version reads ({line})") from None

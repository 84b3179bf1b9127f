"""Checkpoints: everything that a run needs to go on as if it had never stopped.

File format: the SHA-256 of the rest in hexadecimal, a newline, then torch's own format, which is read with
``weights_only``: no code in a checkpoint is ever executed. It holds the state and the number of its form.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from collabench.core.errors import ResultError
from collabench.storage.files import write_atomically

#: Raise when what a state holds changes: a checkpoint of another form is refused, and its run starts from its
#: beginning.
FORM = 2


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    buffer = io.BytesIO()
    torch.save({"form": FORM, "state": state}, buffer)
    body = buffer.getvalue()
    write_atomically(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint. Raises ResultError naming the file if it is damaged or of another form."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path}: the checkpoint cannot be read ({error.strerror})") from None
    head, _, body = data.partition(b"\n")
    if head.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        raise ResultError(f"{path}: damaged checkpoint (checksum differs)")
    try:
        content = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise ResultError(f"{path}: not a checkpoint that this version reads ({line})") from None
    form = content.get("form") if isinstance(content, dict) else None
    if form != FORM:
        raise ResultError(f"{path}: not a checkpoint that this version reads (form {form or 'unknown'}, not {FORM})")
    return content["state"]

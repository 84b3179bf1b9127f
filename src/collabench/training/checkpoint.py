"""Checkpoints: the complete state from which a run resumes with byte-identical results.

File format: the SHA-256 of the rest in hexadecimal digits, a newline, then torch's own format. It is read with
``weights_only``, so that code in a checkpoint is never executed. It contains the state and the version of its form.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from collabench.core.errors import ResultError
from collabench.core.regular import read_file
from collabench.storage.files import write_atomically

#: Raise this when the content of a state changes. A checkpoint of another version is rejected, and its run starts from
#: the beginning.
FORM = 2


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    buffer = io.BytesIO()
    torch.save({"form": FORM, "state": state}, buffer)
    body = buffer.getvalue()
    write_atomically(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint. Raises ResultError, naming the file, if it is damaged or of another version."""
    try:
        data = read_file(path)
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

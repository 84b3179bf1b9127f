"""Checkpoints: the complete state from which a run resumes with byte-identical results.

File format: the SHA-256 of the rest in hexadecimal digits, a newline, then torch's own format. It is read with
``weights_only``, so that code in a checkpoint is never executed. It contains the state and the version of its form.

Writing takes seconds for large networks, so training continues meanwhile: a :class:`Writer` copies the state and leaves
the rest to a thread. On a GPU training's own stream only clones the state, which takes a millisecond; the slow way to
the host is taken on a stream beside it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from collabench.core.errors import ResultError
from collabench.core.regular import read_file
from collabench.storage.files import replacing

#: Raise this when the content of a state changes. A checkpoint of another version is rejected, and its run starts from
#: the beginning.
FORM = 2


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    buffer = io.BytesIO()
    torch.save({"form": FORM, "state": state}, buffer)
    body = buffer.getbuffer()
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n")
        file.write(body)


class Writer:
    """Writes a run's checkpoints one after the other, each in a thread.

    As a context it waits at its end for the last one. An error of the thread is raised where the next checkpoint is to
    be written, or at the end of the context.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None
        self._beside: dict[torch.device, _Beside] = {}
        #: Seconds that the slowest checkpoint took, from its copy until it was on the disk.
        self.slowest = 0.0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self._wait()

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._last is not None and not self._last.done()

    def write(self, state: dict[str, Any]) -> None:
        """Copy a state and begin to write it; wait for the checkpoint before.

        What is written is the state at this call, whatever training changes afterwards. On a GPU the host does not wait
        for the copy, and neither do the steps that follow. Raises StorageError if the checkpoint before could not be
        written.
        """
        self._wait()
        begin = time.monotonic()
        copied = self._copied(state)
        arrived = [beside.end() for beside in self._beside.values()]
        self._last = self._thread.submit(self._write, copied, arrived, begin)

    def _copied(self, value: Any) -> Any:
        """A state on the host that later training does not change. From a GPU it arrives later."""
        if isinstance(value, Tensor):
            value = value.detach()
            if value.device.type == "cpu":
                return value.clone()
            if value.device not in self._beside:
                self._beside[value.device] = _Beside(value.device)
            return self._beside[value.device].copy(value)
        if isinstance(value, dict):
            return {key: self._copied(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._copied, value))
        return value

    def _write(self, state: dict[str, Any], arrived: list[torch.Event], begin: float) -> None:
        for event in arrived:
            event.synchronize()
        save(self._path, state)
        self.slowest = max(self.slowest, time.monotonic() - begin)

    def _wait(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            last.result()


class _Beside:
    """A stream of a device beside training's, on which tensors go to the host."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.Stream(device)
        self._is_short = False

    def copy(self, value: Tensor) -> Tensor:
        """The tensor as the steps that are queued so far leave it, in pinned memory, where it is after :meth:`end`.

        One clone at a time counts as allocated, so that a run's peak of memory does not grow by its state. Without room
        for a clone the tensor itself is copied on training's stream, whose later steps then come after the copy.
        """
        # pinned, because any other copy would make the host wait for the device
        there = torch.empty_like(value, device="cpu", pin_memory=True)
        if not self._is_short:
            try:
                clone = value.clone()
            except torch.OutOfMemoryError:
                self._is_short = True
        if self._is_short:
            return there.copy_(value, non_blocking=True)
        self._stream.wait_stream(torch.accelerator.current_stream(self._device))
        with self._stream:
            there.copy_(clone, non_blocking=True)
        # The clone is dropped here. Its memory must not be given to a step before this stream has read it.
        clone.record_stream(self._stream)
        return there

    def end(self) -> torch.Event:
        """What to wait for until all copies have arrived."""
        self._is_short = False
        self._stream.wait_stream(torch.accelerator.current_stream(self._device))
        event = torch.Event(self._device)
        event.record(self._stream)
        return event


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

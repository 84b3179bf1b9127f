"""The errors that a user can correct. Each has a message of one line and ends the command with exit code 2."""

from __future__ import annotations

from collections.abc import Callable

from collabench.core.text import printable

Log = Callable[[str], None]

#: Maximum length of a message, in characters. Of a longer one the beginning and the end are kept.
LONGEST = 2000


def one_line(message: str) -> str:
    """A message on one line of bounded length, without control characters, whatever it quotes."""
    line = " ".join(part.strip() for part in message.splitlines())
    text = printable(line)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 600]} … {text[-500:]}"


class CollabenchError(Exception):
    """A problem with a remedy. The message is one line: what is wrong, where, and what would be right.

    The message stays one line of bounded length even if it quotes a user's text or another library's error.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ConfigError(CollabenchError):
    """``params.yaml`` or a file under ``papers/`` asks for something that cannot be run.

    key: the path of the entry in ``params.yaml``, if its line number is not yet part of the message.
    """

    def __init__(self, message: str, key: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.key = key


class DataError(CollabenchError):
    """A data set, noise file or download is missing, is damaged or has other content than its name says."""


class ResultError(CollabenchError):
    """A stored result is missing, damaged or belongs to another run."""


class RunFailed(CollabenchError):
    """One training run could not be finished. Other runs are not affected."""


class DeviceError(CollabenchError):
    """The machine or a GPU could not continue a run, which is not to blame. The process that raises it must end.

    shortage: whether memory ran out. gpu: the GPU's name as in CUDA_VISIBLE_DEVICES; None on a CPU.
    """

    def __init__(self, message: str, *, shortage: bool = False, gpu: str | None = None) -> None:
        super().__init__(message)
        self.shortage, self.gpu = shortage, gpu


class UnusableGpu(CollabenchError):
    """Torch cannot compute on a GPU that it counts: the driver is too old for its build, or the GPU serves another
    process alone."""


class StorageError(CollabenchError):
    """A file cannot be written or locked: the disk is full, or the folder is read-only or not permitted."""

"""The errors that a user can mend: each is one line and ends the command with exit code 2."""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]

#: Characters of a message; of a longer one the beginning and the end are kept.
LONGEST = 2000


def one_line(message: str) -> str:
    """A message on one line of bounded length, whatever is quoted in it: also nothing that a terminal would obey."""
    line = " ".join(part.strip() for part in message.splitlines())
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 600]} … {text[-500:]}"


class CollabenchError(Exception):
    """A problem with a remedy. The message is one line: what is wrong, where, what would be right.

    Whatever is quoted in it (a user's text, another library's error), it stays one line of bounded length.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ConfigError(CollabenchError):
    """``params.yaml`` or a file under ``papers/`` says something that cannot be run.

    key: the entry of ``params.yaml`` that it is about, where whoever knows the file's lines has yet to name its place.
    """

    def __init__(self, message: str, key: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.key = key


class DataError(CollabenchError):
    """A data set, noise file or downloaded file is missing, damaged or not what its name says."""


class ResultError(CollabenchError):
    """A stored result is missing, damaged or belongs to another run."""


class RunFailed(CollabenchError):
    """One training run could not be finished; its siblings are unaffected."""


class StorageError(CollabenchError):
    """A file cannot be written or locked: the disk is full, the folder read-only or not permitted. No run's fault."""

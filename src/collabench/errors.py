"""The errors that a user can mend: each is one line and ends the command with exit code 2."""


class CollabenchError(Exception):
    """A problem with a remedy. The message is one line: what is wrong, where, what would be right."""


class ConfigError(CollabenchError):
    """``params.yaml`` or a file under ``papers/`` says something that cannot be run."""


class DataError(CollabenchError):
    """A data set, noise file or downloaded file is missing, damaged or not what its name says."""


class ResultError(CollabenchError):
    """A stored result is missing, damaged or belongs to another run."""


class RunFailed(CollabenchError):
    """One training run could not be finished; its siblings are unaffected."""

"""CollaBench from Python: results as data frames, one run, and a method in a training loop of one's own.

These names are the stable interface, by semantic versioning (docs/reference/python.md). Everything else in the library
can change in any release.
"""

from collabench.api.learner import Learner
from collabench.api.running import Finished, configuration, run
from collabench.api.tables import load_curves, load_runs, load_verdicts
from collabench.config.configuration import Configuration
from collabench.core.errors import CollabenchError

__all__ = [
    "CollabenchError",
    "Configuration",
    "Finished",
    "Learner",
    "configuration",
    "load_curves",
    "load_runs",
    "load_verdicts",
    "run",
]

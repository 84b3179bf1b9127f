"""CollaBench: reproduction of three papers on collaborative learning of neural networks.

Reading order, from the ground up: ``core``, ``stats``, ``models``, ``methods``, ``config``, ``papers``, ``storage``,
``data``, ``training``, ``report``, ``study``, ``sharing``, ``api``, ``cli``. A package imports packages that stand
before it.

The names of :mod:`collabench.api` are here, too: ``collabench.load_runs``. They are imported when they are first used,
so that ``import collabench`` takes a moment and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from collabench.core import arithmetic  # first of all: it prepares the environment in which torch is imported
from collabench.core.version import VERSION as __version__

if TYPE_CHECKING:
    from collabench.api import (
        CollabenchError,
        Configuration,
        Finished,
        Learner,
        configuration,
        load_curves,
        load_runs,
        load_verdicts,
        run,
    )

__all__ = [
    "CollabenchError",
    "Configuration",
    "Finished",
    "Learner",
    "__version__",
    "arithmetic",
    "configuration",
    "load_curves",
    "load_runs",
    "load_verdicts",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("collabench.api"), name)
    raise AttributeError(f"module 'collabench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

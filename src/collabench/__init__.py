"""CollaBench: reproduction of three papers on collaborative learning of neural networks.

Reading order, from the ground up: ``core``, ``stats``, ``models``, ``methods``, ``config``, ``papers``, ``storage``,
``data``, ``training``, ``report``, ``study``, ``sharing``, ``cli``. A package imports packages that stand before it.
"""

from collabench.core import arithmetic  # first of all: it prepares the environment in which torch is imported

__all__ = ["__version__", "arithmetic"]
__version__ = "0.1.0"

"""Measurements. The library is imported before torch, whose arithmetic it holds to one set of instructions."""

import collabench  # noqa: F401 (before torch, whose arithmetic it holds to one set of instructions)

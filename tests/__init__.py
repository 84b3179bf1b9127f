"""Tests. The library is imported first of all, so that torch is held to portable arithmetic in every test process."""

import collabench  # noqa: F401

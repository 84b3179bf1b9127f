"""The version of the library, by semantic versioning of :mod:`collabench.api` and of the commands."""

VERSION = "0.1.0"

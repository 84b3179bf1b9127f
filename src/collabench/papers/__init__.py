"""The papers as data: what they publish, where it stands, and what of it the sources at hand do not hold."""

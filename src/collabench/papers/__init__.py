"""The papers as data: published values, their places in the sources, and what the available sources do not tell."""

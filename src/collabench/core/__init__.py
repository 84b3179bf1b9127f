"""Errors, seeds, processes and what the machine offers: every package uses it, and it imports none of them."""

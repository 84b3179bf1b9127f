"""Errors, seeds, process groups and the machine's resources. Every package uses this one, and it imports no other."""

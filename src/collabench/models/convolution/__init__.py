"""Convolutions on a CPU, each in the form that suits its shape."""

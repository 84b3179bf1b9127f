"""Convolutions on a CPU. The algorithm of each is chosen by its shape."""

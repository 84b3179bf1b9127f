"""``python -m collabench``, and ``torchrun -m collabench``: the command."""

from collabench.cli.app import main

main()

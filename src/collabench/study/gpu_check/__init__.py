"""The self-test of a GPU, ``collabench doctor --gpu``: does this card compute what the CPU computes, and how fast?

Each part is a function that yields :class:`~collabench.study.gpu_check.record.Check` records. A part runs in a process
of its own with a lease of a whole GPU, so that an error of CUDA in one part spoils no other.
"""

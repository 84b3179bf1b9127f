"""One target of one profile through Snakemake: what each stage of ``dvc.yaml`` runs.

``python -m pipeline.snakemake <profile> <target> [further arguments for snakemake]``

With ``COLLABENCH_SCHEDULER=slurm`` in the environment the jobs go to a Slurm cluster (``profiles/slurm``); any other
executor plugin of Snakemake's can stand in its place (``profiles/<name>``).
"""

from __future__ import annotations

from pipeline.stages import start

if __name__ == "__main__":
    start("pipeline.schedule")

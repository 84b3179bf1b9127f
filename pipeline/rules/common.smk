"""The study, what its jobs may use, and paths as Snakemake wants them: relative to the project's root."""

import os
import sys
from functools import cache
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from collabench.study.allocation import allocation
from collabench.study.allocation import cores_of_job
from collabench.study.allocation import needs_of_run
from collabench.core.errors import CollabenchError
from collabench.core.processes import ANCESTOR
from collabench.core.processes import this_process
from collabench.core.resources import on_cluster
from collabench.config.configuration import dataset_key
from collabench.config.configuration import noise_key
from pipeline import plan
from snakemake.exceptions import WorkflowError

os.environ.pop("PYTHONSAFEPATH", None)  # what jobs run lies in the project's folder, not among the packages
if not on_cluster():  # a job of Snakemake alone ends with it, too; a cluster's job is on another host
    os.environ.setdefault(ANCESTOR, this_process())

try:
    STUDY, RESOURCES = plan.load(ROOT, plan.profile_of(config))
    TO_SHOW = plan.files_to_show(STUDY, sys.argv)
except CollabenchError as error:
    raise WorkflowError(str(error)) from None

PROFILE = STUDY.workspace.profile
HOME = f"artifacts/{PROFILE}"
# exec: the stage's parent is then Snakemake, with which it ends. Snakemake fills in the interpreter's path, quoted.
STAGES = "exec {sys.executable:q} -m pipeline.stages"
# The image in which jobs train, if there is one; it has an interpreter of its own.
IMAGE = os.environ.get(plan.CONTAINER) or None
IN_IMAGE = "exec python -m pipeline.stages"
# What the profile of the cluster's executor has those jobs ask for of which nothing is known.
DEFAULTS = workflow.resource_settings.default_resources or {}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))

"""Training: a job is one configuration and one block of its seeds, and trains those that are missing."""

JOBS = {relative(job.marker): job for job in STUDY.jobs()}
MARKER_OF = {job.id: marker for marker, job in JOBS.items()}


def job_of(wildcards):
    return JOBS[f"{HOME}/runs/{wildcards.configuration}/{wildcards.block}.done"]


def needed_by(wildcards):
    """A job's data set, its noise and the jobs that train its teachers or members."""
    job = job_of(wildcards)
    dataset, noise = job.configuration.dataset, job.configuration.noise
    files = [f"{HOME}/datasets/{dataset_key(dataset)}/manifest.json", *map(MARKER_OF.get, job.requires)]
    if noise.kind != "none" and noise.when == "static":
        files.append(f"{HOME}/noise/{noise_key(dataset, noise)}/{plan.NOISE_MARKER}")
    # ancient: order only. What a run's inputs hold is part of its id, so a newer file is never a reason to train again.
    return [ancient(file) for file in files]


rule train_job:
    input:
        needed_by,
    output:
        f"{HOME}/runs/{{configuration}}/{{block}}.done",
    params:
        id=lambda wildcards: job_of(wildcards).id,
    priority: lambda wildcards: job_of(wildcards).priority  # earlier seed blocks first
    resources:
        gpu=1 if RESOURCES.gpus else 0,
    shell:
        f"{STAGES}.train {PROFILE} {{params.id:q}}"

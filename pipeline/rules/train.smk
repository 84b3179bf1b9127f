"""Training: a job is one configuration and one block of its seeds, and trains those that are missing."""

JOBS = {relative(job.marker): job for job in STUDY.jobs}
PART = [relative(job.marker) for job in plan.jobs_of_part(STUDY)]  # of a host, if a study is split over several
MARKER_OF = {job.id: marker for marker, job in JOBS.items()}


def job_of(wildcards):
    return JOBS[f"{HOME}/runs/{wildcards.configuration}/{wildcards.block}.done"]


def needed_by(wildcards):
    """A job's data set, its noise and the jobs that train its teachers or members."""
    job = job_of(wildcards)
    dataset, noise = job.configuration.dataset, job.configuration.noise
    files = [f"{HOME}/datasets/{dataset_key(dataset)}/manifest.json", *map(MARKER_OF.get, job.requires)]
    if noise.is_static:
        files.append(f"{HOME}/noise/{noise_key(dataset, noise)}/{plan.NOISE_MARKER}")
    # ancient: order only. What a run's inputs hold is part of its id, so a newer file is never a reason to train again.
    return [ancient(file) for file in files]


@cache  # several jobs of one configuration, and two resources of each
def needs_of(configuration):
    return needs_of_run(STUDY, STUDY.plan.configurations[configuration], RESOURCES.device)


def cores_of(wildcards):
    """Cores of a job on a cluster: more than one beside a GPU."""
    return cores_of_job(STUDY.plan.configurations[wildcards.configuration], bool(RESOURCES.gpus))


def asked(what, resource):
    """Minutes or megabytes of a job on a cluster: as its runs measured or were estimated, else the profile's default. More at
    every retry, since a job may have ended for want of them. Minutes are at most the partition's, where the profile has them."""

    def of(wildcards, attempt):
        needs = needs_of(wildcards.configuration)
        wanted = needs and getattr(allocation(needs, len(job_of(wildcards).seeds)), what)
        if wanted is None and resource in DEFAULTS:
            wanted = DEFAULTS[resource].value
        wanted = wanted and attempt * wanted
        if resource == "runtime" and "longest_minutes" in DEFAULTS:
            wanted = min(wanted, DEFAULTS["longest_minutes"].value)
        return wanted

    return of


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
        **(
            {
                "runtime": asked("minutes", "runtime"),
                "mem_mb": asked("megabytes", "mem_mb"),
                "cpus_per_task": cores_of,
            }
            if on_cluster()
            else {}
        ),
    container:
        IMAGE
    shell:
        f"{IN_IMAGE if IMAGE else STAGES}.train {PROFILE} {{params.id:q}}"

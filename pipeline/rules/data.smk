"""Data sets and their static noisy labels."""

DATASETS = [f"{HOME}/datasets/{key}/manifest.json" for key in STUDY.inputs.dataset_keys()]
NOISE = [relative(plan.noise_marker(STUDY, key)) for key in STUDY.inputs.noise_files()]
DATASET_OF_NOISE = {
    noise_key(run.configuration.dataset, run.configuration.noise): dataset_key(run.configuration.dataset)
    for runs in STUDY.inputs.noise_files().values()
    for run in runs
}


rule prepare_dataset:
    output:
        f"{HOME}/datasets/{{key}}/manifest.json",
    shell:
        f"{STAGES}.dataset {PROFILE} {{wildcards.key:q}}"


rule draw_noise:
    input:
        # ancient: after a pull every file is new; content that changed is another key
        lambda wildcards: ancient(f"{HOME}/datasets/{DATASET_OF_NOISE[wildcards.key]}/manifest.json"),
    output:
        f"{HOME}/noise/{{key}}/{plan.NOISE_MARKER}",
    shell:
        f"{STAGES}.noise {PROFILE} {{wildcards.key:q}}"

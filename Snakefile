"""Everything that is scheduled: `snakemake --config profile=<profile> [datasets|noise|train|report]`.

A job trains the seeds of one configuration that are missing, and declares one small marker. Run files are never declared
outputs: Snakemake deletes those of a job that fails or starts again, and with them finished siblings.
"""

from snakemake.utils import min_version

min_version("9.27")


workdir: workflow.basedir


include: "pipeline/rules/common.smk"
include: "pipeline/rules/data.smk"
include: "pipeline/rules/train.smk"
include: "pipeline/rules/report.smk"


# On a cluster only training is sent to nodes, which may have no network for downloads; the rest is short.
localrules: report, train, noise, datasets, prepare_dataset, draw_noise, build_report


onsuccess:
    if not workflow.dag_settings.until and not workflow.dag_settings.omit_from:  # asked for a part of the targets only
        plan.require_complete(STUDY, [rule.name for rule in workflow.dag.targetrules])
        plan.tell_what_waits(STUDY)


rule report:
    default_target: True
    input: rules.build_report.output, SHOWN


rule train:
    input: PART


rule noise:
    input: NOISE


rule datasets:
    input: DATASETS

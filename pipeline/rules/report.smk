"""The report: built again whenever a job's marker is newer."""

# The built report's files are no declared outputs. They are inputs of the rule `report` where `snakemake --report` shows
# them, and nowhere else.
SHOWN = [report(relative(one.path), category=one.category, labels=one.labels) for one in TO_SHOW]


rule build_report:
    input:
        list(JOBS),
    output:
        relative(plan.report_marker(STUDY)),
    shell:
        f"{STAGES}.report {PROFILE}"

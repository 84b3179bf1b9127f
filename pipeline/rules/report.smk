"""The report: built again whenever a job's marker is newer."""


rule build_report:
    input:
        list(JOBS),
    output:
        relative(plan.report_marker(STUDY)),
    shell:
        f"{STAGES}.report {PROFILE}"

"""What `collabench reproduce` says while it waits and when a program fails: its own words, never those of DVC or
Snakemake, which stay in the log."""

from __future__ import annotations

from collabench.cli.reproduce import doing, reasons

CHATTER = """\
Using profiles /p/profiles/default for setting default command line arguments.
Building DAG of jobs...
Using shell: /usr/bin/bash
Select jobs to execute...
Execute 1 jobs...
"""


def test_a_person_who_waits_reads_what_is_done_and_no_chatter(tmp_path):
    log = tmp_path / "log"
    assert doing(log) == ""
    steps = [
        ("Stage 'datasets@smoke' didn't change, skipping\n", ""),
        (
            "Running stage 'datasets@smoke':\n> exec python -m pipeline.snakemake smoke datasets\n",
            "preparing data sets",
        ),
        (CHATTER, "preparing data sets"),
        ("collabench: cifar-10: 20 of 163 MB\n", "cifar-10: 20 of 163 MB"),
        (CHATTER + "Updating lock file 'dvc.lock'\n", "cifar-10: 20 of 163 MB"),
        ("Running stage 'noise@smoke':\n" + CHATTER, "drawing noisy labels"),
        ("Running stage 'train@smoke':\n" + CHATTER, "looking for runs to train"),
        ("Running stage 'report@smoke':\n" + CHATTER, "building tables and figures"),
    ]
    for text, expected in steps:
        with log.open("a") as file:
            file.write(text)
        assert doing(log) == expected


def test_a_failure_is_told_in_collabenchs_words_else_in_those_of_the_program():
    dvc = "ERROR: failed to reproduce 'train@smoke': exited with 2"
    own = "collabench: error: params.yaml:3: no such profile"
    assert reasons([*CHATTER.splitlines(), own, own, dvc]) == [own]
    assert reasons([*CHATTER.splitlines(), dvc]) == [dvc]
    workflow = ["WorkflowError:", "no space"]
    assert reasons([*CHATTER.splitlines(), *workflow, dvc]) == [*workflow, dvc]
    assert reasons(CHATTER.splitlines()) == CHATTER.splitlines()
    assert len(reasons(["KeyError: 'a'", *map(str, range(100))])) == 15

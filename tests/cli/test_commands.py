"""The commands, as people and scripts call them: what they print, what they refuse, what they leave alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collabench.storage.files import write_json
from collabench.storage.results import Failure
from collabench.study.runner import Runner
from collabench.study.study import load_study
from tests.support.fabricated import write_measured, write_results
from tests.support.studies import CLEAN_TABLE, study_in, write_params

COMMANDS = (
    "plan", "run", "estimate", "report", "reproduce", "memory", "share", "import", "doctor", "gc", "export", "record",
    "verify",
    "explain", "data list",
    "data prepare", "data digest", "schema", "init", "fetch", "doubts", "evaluate",
)  # fmt: skip


@pytest.fixture
def fresh(tmp_path) -> Path:
    """The folder of a study that was never run."""
    return study_in(tmp_path / "project").workspace.root


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------------------- help


def test_the_list_of_commands_says_each_in_a_whole_sentence(collabench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = collabench("--help").out
    listed = re.findall(r"^  (\w+)  +(\S.*)$", out[out.index("Commands:") :], re.M)
    names = {name for name, _ in listed}
    assert {command.split()[0] for command in COMMANDS} <= names
    assert all(text.endswith(".") and not text.endswith("...") for _, text in listed), listed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_and_what_each_option_is_for(collabench, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    called = collabench(*command.split(), "--help")
    usage, _, rest = called.out.partition("\n")
    assert called.code == 0 and usage.startswith(f"Usage: collabench {command} [OPTIONS]")
    assert re.match(r"\n  [A-Z].*\.", rest), "it begins with a sentence"
    options = rest[rest.index("Options:") :]
    for line in re.findall(r"^  (-.*(?:\n {6,}\S.*)*)", options, re.M):
        assert re.search(r">?\s{2,}\S|\n\s+\S", line), f"{command}: an option without an explanation: {line}"
    assert max(map(len, called.out.splitlines())) <= 80


def test_every_command_has_a_test_of_its_help():
    from typer.main import get_command

    from collabench.cli.app import app

    group = get_command(app)
    names = {
        f"{name} {inner}".strip()
        for name, command in group.commands.items()
        for inner in getattr(command, "commands", {"": None})
    }
    assert names == set(COMMANDS)


def test_help_needs_no_torch():
    code = (
        "import sys; from collabench.cli import main; sys.argv = ['collabench', '--help']\ntry: main()\nexcept "
        "SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_package_that_is_missing_is_named(fresh):
    code = "import sys; from collabench.cli import main; sys.modules['torch'] = None; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", "-p", "small"], cwd=fresh, text=True, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "collabench: error: the package torch is missing; collabench doctor says more\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "-p", "smal"], "there is no profile 'smal'; profiles: small"),
        (["run", "-p", "small", "--method", "none"],
         "no run of profile small fits --method none; `collabench plan -p small` lists them"),
        (["run", "-p", "small", "--cores", "0"], "CORES=0: must be a whole number, at least 1"),
        (["estimate", "-p", "small", "--budget", "0"], "--budget 0: a budget is a positive number of hours"),
        (["export", "-p", "small", "--out", "x", "--configuration", "none"],
         "profile small has no configuration 'none'"),
        (["explain", "-p", "small", "nothing"], "nothing"),
        (["data", "digest", "none"], "'none' is not a data set of params.yaml; there are few, fewer"),
        (["report", "-p", "small"], "lacks 8 of 8 runs"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_in_one_line_with_exit_code_2(collabench, fresh, arguments, message):
    before = files(fresh)
    called = collabench(*arguments, "--root", fresh)
    assert called.code == 2
    assert called.err.startswith("collabench: error: ") and message in called.err
    assert files(fresh) == before, "nothing was begun"


def test_an_unknown_option_or_command_has_exit_code_2(collabench):
    assert collabench("plan", "--profil", "x").code == 2
    called = collabench("plam")
    assert called.code == 2 and "no such command 'plam'" in called.err


# ------------------------------------------------------------------------------------------------------------- plan


def test_plan_says_what_would_run_and_writes_nothing(collabench, fresh):
    before = files(fresh)
    called = collabench("plan", "-p", "small", "--root", fresh)
    *lines, last, then = called.out.splitlines()
    assert called.code == 0 and files(fresh) == before
    assert last == "10 runs in 4 configurations: 10 todo"
    assert then == "Next: collabench reproduce -p small, or collabench run -p small without Snakemake and DVC"
    assert len(lines) == 4 and all("todo (never run)  [digits-" in line for line in lines)
    # The ensemble's second members are runs of individual: they count there.
    assert lines[0].startswith("few · noisy · small · short · individual: 4 todo")


def test_plan_of_a_finished_study_says_done(collabench, finished):
    out = collabench("plan", "-p", "small", "--root", finished).out
    assert out.splitlines()[-1] == "10 runs in 4 configurations: 10 done"
    assert "todo" not in out and "(" not in out


def test_plan_names_a_recipe_with_a_tiny_last_batch(collabench, fresh):
    assert "note:" not in collabench("plan", "-p", "small", "--root", fresh).out
    write_params(fresh, ("batch_size: 20", "batch_size: 28"))  # of 60 images
    note = "recipe short on few: every epoch ends with a step on 4 images, as large as one on 28; last_batch: spread or"
    out = collabench("plan", "-p", "small", "--root", fresh).out
    assert f"note: {note} drop avoids it" in out.splitlines()
    assert json.loads(collabench("plan", "-p", "small", "--root", fresh, "--json").out)["notes"][0].startswith(note)
    write_params(fresh, ("batch_size: 20", "batch_size: 28, last_batch: spread"))
    assert "note:" not in collabench("plan", "-p", "small", "--root", fresh).out


def test_a_data_set_that_another_version_prepared_does_not_stop_plan(collabench, finished):
    """It is prepared again before anything is trained."""
    for manifest in finished.glob("artifacts/small/datasets/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace("{", '{"of_an_older_version": 1, ', 1))
    called = collabench("plan", "-p", "small", "--root", finished)
    assert called.code == 0 and called.out.splitlines()[-1] == "10 runs in 4 configurations: 10 done"


def test_plan_as_json_is_for_scripts(collabench, finished):
    write_params(finished, ("seeds: 2\n    seeds_per_job", "seeds: 3\n    seeds_per_job"))
    called = collabench("plan", "-p", "small", "--root", finished, "--json")
    content = json.loads(called.out)
    assert content["profile"] == "small" and content["runs"] == 15 and content["states"] == {"done": 10, "todo": 5}
    rows = {row["label"]: row for row in content["configurations"]}
    row = rows["few · noisy · small · short · smoothed"]
    assert row["seeds"] == {"done": [0, 1], "todo": [2]} and row["why"] == "new seeds"
    assert row["configuration"] in load_study(finished, "small").plan.configurations
    assert content["missing_data"] == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("epochs: 2, batch_size: 20", "epochs: 3, batch_size: 20"), "changed: recipe.epochs: 2 → 3"),
        (("label_smoothing: 0.1", "label_smoothing: 0.3"), "changed: method.label_smoothing: 0.1 → 0.3"),
        (("rate: 0.2", "rate: 0.25"), "changed: noise.rate: 0.2 → 0.25"),
        (("members: 2", "members: 3"), "changed: method.members: 2 → 3"),
        (("depth: 8, width: 4", "depth: 8, width: 5"), "changed: model.width: 4 → 5"),
        (("train_images: 60", "train_images: 70"), "changed: dataset.train_images: 60 → 70"),
    ],
)
def test_plan_says_which_field_makes_a_run_necessary_again(collabench, finished, change, why):
    write_params(finished, change)
    out = collabench("plan", "-p", "small", "--root", finished).out
    todo = [line for line in out.splitlines() if " todo" in line and "[" in line]
    assert todo and all(f"({why})" in line or "(new seeds)" in line for line in todo), out


def test_plan_says_what_the_engines_revision_makes_necessary(collabench, finished, monkeypatch):
    from collabench.config import configuration as ids

    monkeypatch.setattr(ids, "ENGINE_REVISION", ids.ENGINE_REVISION + 1)
    out = collabench("plan", "-p", "small", "--root", finished).out
    assert f"(changed: engine: {ids.ENGINE_REVISION - 1} → {ids.ENGINE_REVISION})" in out


def test_a_title_or_another_name_makes_nothing_necessary(collabench, finished):
    text = (finished / "params.yaml").read_text()
    text = text.replace("  small:\n    description", "  other-name:\n    description").replace(
        "smoothed", "smooth-labels"
    )
    text = text.replace("few: {source", "few: {title: Few digits, source").replace("name: noisy", "name: other")
    (finished / "params.yaml").write_text(text)
    (finished / "artifacts" / "small").rename(finished / "artifacts" / "other-name")
    called = collabench("plan", "-p", "other-name", "--root", finished)
    assert (
        called.out.splitlines()[-1] == "10 runs in 4 configurations: 10 done" and "smooth-labels: 2 done" in called.out
    )


def test_plan_says_what_failed_and_why(collabench, fresh):
    study = load_study(fresh, "small")
    run = study.plan.runs[0]
    failure = Failure(run_id=run.id, label=run.configuration.label, reason="epoch 3: the loss is not finite", when="x")
    write_json(study.workspace.failure(run.id), failure)
    out = collabench("plan", "-p", "small", "--root", fresh).out
    assert "individual: 1 failed, 3 todo (epoch 3: the loss is not finite)  [" in out
    assert out.splitlines()[-2] == "10 runs in 4 configurations: 1 failed, 9 todo"


def test_plan_says_what_another_profile_already_has(collabench, finished):
    with (finished / "params.yaml").open("a") as file:
        file.write("  again:\n    description: the same\n    seeds: 1\n    tables:\n" + CLEAN_TABLE)
    out = collabench("plan", "-p", "again", "--root", finished).out
    assert "1 elsewhere (profile small has it)" in out


def test_plan_says_which_data_are_missing(collabench, tmp_path):
    write_params(
        tmp_path,
        ("  few: {source: digits, train_images: 60, test_images: 40}", "  few: {source: imagenet32, path: data/x}"),
    )
    called = collabench("plan", "-p", "small", "--root", tmp_path)
    (line,) = [line for line in called.out.splitlines() if line.startswith("missing: ")]
    assert line.startswith("missing: data set few: ") and called.code == 0


def test_what_reads_the_output_may_stop_reading():
    command = f"{sys.executable} -c 'from collabench.cli import main; main()' --help | true"
    done = subprocess.run(command, shell=True, text=True, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.slow
def test_plan_can_say_the_cost(collabench, tmp_path):
    write_params(tmp_path, ("[individual, smoothed, ensemble-2]", "[individual]"), (CLEAN_TABLE, ""))
    called = collabench("estimate", "-p", "small", "--root", tmp_path, "--budget", "1", "--cores", "1")
    assert called.code == 0
    assert "process hours" in called.out and "peak memory, MB" in called.out and "disk, MB" in called.out
    assert "What 1 hour on 1 process can train, by table:" in called.out and "noisy: 2 of 2 seeds" in called.out


# -------------------------------------------------------------------------------------- report, explain, export, data


@pytest.fixture
def reported(fresh) -> Path:
    study = load_study(fresh, "small")
    write_results(study, study.plan.runs)
    write_measured(study)
    return fresh


def test_report_prints_the_tables_and_where_they_lie(collabench, reported):
    called = collabench("report", "-p", "small", "--root", reported)
    assert called.code == 0
    for text in ("individual (baseline)", "smoothed", "ensemble-2", "test error %", "difference", "p (Holm)"):
        assert text in called.out
    assert called.out.splitlines()[-3:] == [
        f"Tables and figures: {reported / 'reports' / 'small' / 'README.md'}",
        f"All profiles on one page: {reported / 'reports' / 'index.html'}",
        "Next: open the page in a browser; `collabench verify -p small` checks what it rests on.",
    ]
    assert (reported / "reports" / "small" / "README.md").is_file()


def test_a_report_that_lacks_a_run_says_which_and_a_partial_one_lies_elsewhere(collabench, reported):
    study = load_study(reported, "small")
    run = study.plan.runs[0]
    shutil.rmtree(study.workspace.folder(run))
    called = collabench("report", "-p", "small", "--root", reported)
    assert called.code == 2 and run.id in called.err and "lacks 1 of" in called.err and "partial" in called.err
    partial = collabench("report", "-p", "small", "--root", reported, "--partial")
    assert partial.code == 0 and "(partial)" in partial.out and "1 of 8 runs is missing" in partial.out
    assert not (reported / "reports").exists() and not study.workspace.report.exists()


def test_a_report_that_differs_is_adopted_only_when_told(collabench, reported):
    collabench("report", "-p", "small", "--root", reported)
    accepted = files(reported / "reports" / "small")
    study = load_study(reported, "small")
    write_results(study, study.plan.runs, errors=lambda run: 0.25 + run.seed / 100)
    called = collabench("report", "-p", "small", "--root", reported)
    assert called.code == 0 and "Largest change of a mean" in called.out
    assert called.out.endswith("Next: `collabench report -p small --accept` adopts the new tables.\n")
    assert files(reported / "reports" / "small") == accepted
    assert "Tables and figures" in collabench("report", "-p", "small", "--root", reported, "--accept").out
    assert files(reported / "reports" / "small") != accepted


def test_explain_leads_from_a_cell_to_its_runs(collabench, reported):
    called = collabench("explain", "noisy", "smoothed", "--runs", "-p", "small", "--root", reported)
    study = load_study(reported, "small")
    runs = [run for run in study.plan.runs if run.configuration.names["method"] == "smoothed"]
    assert called.code == 0 and runs[0].configuration.id in called.out
    for text in ("seed 0", "seed 1", "2.13.0", "a processor", "0123456789"):  # version, device, commit
        assert text in called.out


def test_export_writes_weights_that_the_plain_backbone_loads(collabench, finished, tmp_path):
    import torch
    from safetensors.torch import load_file

    from collabench.models import build_backbone

    study = load_study(finished, "small")
    run = next(run for run in study.plan.runs if run.configuration.names["method"] == "smoothed")
    out = tmp_path / "head"
    chosen = ("--configuration", run.configuration.id, "--seed", run.seed)
    called = collabench("export", "-p", "small", "--root", finished, "--out", out, *chosen)
    assert called.code == 0 and re.match(
        rf"{re.escape(str(out / 'model.safetensors'))}: test error \d+\.\d\d %", called.out
    )
    network = build_backbone(run.configuration.model, (1, 8, 8), 10, weights_seed=1)
    network.load_state_dict(load_file(out / "model.safetensors"))
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = network.to(memory_format=torch.channels_last).eval()
    assert torch.equal(network(images), Runner(study).deployed(run)(images))


def test_export_takes_the_profiles_first_seed_where_none_is_named(collabench, finished, tmp_path):
    write_params(finished, ("seeds: 2\n    seeds_per_job", "seeds: 1\n    first_seed: 1\n    seeds_per_job"))
    run = next(run for run in load_study(finished, "small").plan.runs if run.seed == 1)
    options = ("-p", "small", "--root", finished, "--configuration", run.configuration.id)
    assert collabench("export", *options, "--out", tmp_path / "first").code == 0
    assert collabench("export", *options, "--out", tmp_path / "named", "--seed", 1).code == 0
    assert files(tmp_path / "first") == files(tmp_path / "named")


def test_export_of_what_has_no_weights_says_so(collabench, finished, tmp_path):
    study = load_study(finished, "small")
    names = {c.names["method"]: c.id for c in study.plan.configurations.values()}
    call = ("export", "-p", "small", "--root", finished, "--out", tmp_path / "x", "--configuration")
    called = collabench(*call, names["ensemble-2"])
    assert called.code == 2 and "no weights of its own" in called.err and called.err.count("\n") == 1
    called = collabench(*call, names["smoothed"], "--seed", "7")
    assert called.code == 2 and called.err.count("\n") == 1 and not (tmp_path / "x").exists()


def test_data_lists_and_prepares(collabench, fresh):
    assert collabench("data", "list", "--root", fresh).out.splitlines() == ["few: digits", "fewer: digits"]
    assert collabench("data", "prepare", "-p", "small", "--root", fresh).code == 0
    study = load_study(fresh, "small")
    assert all((study.workspace.datasets / key / "manifest.json").is_file() for key in study.inputs.dataset_keys())
    assert all(study.inputs.noise_file(run).is_file() for runs in study.inputs.noise_files().values() for run in runs)
    before = files(fresh)
    collabench("data", "prepare", "-p", "small", "--root", fresh)
    assert files(fresh) == before


def test_memory_counts_without_training(collabench, fresh):
    called = collabench("memory", "few/small/individual", "few/small/smoothed", "--recipe", "short", "--root", fresh)
    assert called.code == 0 and "few/small/individual" in called.out and "1.00" in called.out


# -------------------------------------------------------------------------------------------------------------- run


@pytest.mark.slow
def test_run_of_one_configuration_trains_it_and_says_so(tmp_path):
    root = tmp_path / "project"
    study = study_in(root)
    wanted = next(run for run in study.plan.runs if run.configuration.names["method"] == "smoothed")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COLLABENCH_")}

    def call() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from collabench.cli import main; main()", "run", "-p", "small", "--configuration",
             wanted.configuration.id, "--cores", "1"],
            cwd=root, env=environment, text=True, capture_output=True, check=False, timeout=500,
        )  # fmt: skip

    done = call()
    assert done.returncode == 0, done.stderr
    first, *_, trained, last = done.stdout.splitlines()
    assert first.startswith("1 training process: 1 core, no GPU; cores as asked for")
    assert trained == "2 trained, 0 linked, 0 already there, 0 failed"
    assert last == "Next: collabench plan -p small, to see the missing 8 runs"
    assert (
        "[2/2] few · noisy · small · short · smoothed, seed 1: trained · 2 of 2 runs done, all trained" in done.stdout
    )
    states = {status.run.id: status.state for status in study.statuses()}
    assert {run_id for run_id, state in states.items() if state == "done"} == {
        f"{wanted.configuration.id}-s0", f"{wanted.configuration.id}-s1",
    }  # fmt: skip
    assert call().stdout.splitlines()[-2] == "0 trained, 0 linked, 2 already there, 0 failed"

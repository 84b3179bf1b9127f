"""``--set``: a variant of a profile has ids, a folder and a report of its own, and the profile never sees its runs."""

from __future__ import annotations

import json

import pytest

from collabench.core.errors import ConfigError
from collabench.study.study import load_study
from collabench.study.variants import Variant
from tests.support.studies import study_in

EPOCHS = "recipes.short.epochs=1"


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_with_other_settings_is_trained_under_ids_of_its_own(finished, collabench):
    profile = load_study(finished, "small")
    plain = collabench("plan", "-p", "small", "--root", finished)
    before = files(finished)
    called = collabench("run", "-p", "small", "--set", EPOCHS, "--method", "individual", "--seed", "0", "--cores", "1",
                        "--root", finished)  # fmt: skip
    assert called.code == 0, called.err
    name = Variant("small", (EPOCHS,)).name
    assert f"with {EPOCHS}, as -p {name}" in called.out and "2 trained, 0 linked" in called.out
    after = files(finished)
    assert {k: v for k, v in after.items() if not k.startswith(f"artifacts/{name}/") and ".locks" not in k} == {
        k: v for k, v in before.items() if ".locks" not in k
    }, "nothing of the profile changes, nor does any file of the project"
    variant = load_study(finished, name)
    assert not {run.id for run in variant.plan.runs} & {run.id for run in profile.plan.runs}
    assert all(run.configuration.recipe.epochs == 1 for run in variant.plan.runs)
    assert collabench("plan", "-p", "small", "--root", finished).out == plain.out
    said = collabench("plan", "-p", "small", "--set", EPOCHS, "--root", finished).out
    assert said.endswith("Next: collabench run with the same profile and settings\n")
    states = json.loads(collabench("plan", "-p", "small", "--set", EPOCHS, "--json", "--root", finished).out)
    assert (states["profile"], states["states"]) == (name, {"done": 2, "todo": 8})
    explained = collabench("explain", "-p", name, "individual", "noisy", "--root", finished)
    assert explained.code == 0, explained.err
    (one,) = {run.configuration.id for run in variant.plan.runs if run.configuration.names["noise"] == "noisy"
              and run.configuration.names["method"] == "individual"}  # fmt: skip
    written = collabench("export", "-p", name, "--configuration", one, "--out", finished / "head", "--root", finished)
    assert written.code == 0, written.err
    assert collabench("gc", "-p", "small", "--dry-run", "--root", finished).out.startswith("0 entries")


@pytest.mark.slow
def test_the_report_of_a_variant_says_what_was_set_and_is_never_accepted(finished, collabench):
    given = ("-p", "small", "--set", EPOCHS, "--root", finished)
    assert collabench("run", *given, "--cores", "1").code == 0
    called = collabench("report", *given)
    name = Variant("small", (EPOCHS,)).name
    assert called.code == 0, called.err
    assert f"(with {EPOCHS})" in (finished / "artifacts" / name / "report" / "README.md").read_text()
    assert not (finished / "reports").exists()
    for refused in (("report", *given, "--accept"), ("share", "-p", name, "--root", finished),
                    ("reproduce", "-p", name, "--root", finished)):  # fmt: skip
        called = collabench(*refused)
        assert called.code == 2 and f"{name} has settings of the command line" in called.err


@pytest.mark.slow
def test_settings_that_change_nothing_share_the_profiles_runs(finished, collabench):
    called = collabench("run", "-p", "small", "--set", "recipes.short.epochs=2", "--cores", "1", "--root", finished)
    assert "0 trained, 10 linked" in called.out


def test_the_order_of_settings_does_not_matter(tmp_path):
    study_in(tmp_path)
    one, other = "recipes.short.batch_size=10", EPOCHS
    names = [load_study(tmp_path, "small", settings=s).workspace.profile for s in ([one, other], [other, one])]
    assert names[0] == names[1] != load_study(tmp_path, "small", settings=[one]).workspace.profile


@pytest.mark.parametrize(
    ("profile", "settings", "message"),
    [
        ("small", ["recipes.broken.epochs=3"],
         "--set recipes.broken.epochs=3: changes nothing, since profile small does not use recipes.broken"),
        ("small", ["models.small.depth=9"], "--set models.small.depth=9: models.small"),
        ("small~0123abcd", [], "--profile small~0123abcd: nothing was run under this name here"),
        ("small~0123abcd", [EPOCHS], "has settings of its own; use --profile small with all of them"),
        ("../x~0123abcd", [], "there is no profile '../x~0123abcd'"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_in_one_line(tmp_path, profile, settings, message):
    study_in(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_study(tmp_path, profile, settings=settings)
    assert message in str(error.value)

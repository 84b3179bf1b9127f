"""Every method's numbers are those of its committed fingerprint, and the fingerprint sees what it must."""

from __future__ import annotations

import importlib
from contextlib import nullcontext

import pytest

from collabench.methods import METHODS
from tests.support import fingerprints
from tests.support.fingerprints import CASES, differences, fingerprint, load, method_of, updated, verdict
from tests.support.synthetic import configuration_of, settings_of

RECORDED = load()


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_the_committed_fingerprint(case):
    assert (problem := verdict(case, RECORDED.get(case), fingerprint(case))) is None, problem


def test_every_method_has_a_fingerprint_and_nothing_else_has():
    assert {method_of(case) for case in CASES} == set(METHODS)
    assert list(RECORDED) == list(CASES)


@pytest.mark.parametrize("method", METHODS)
def test_the_revision_enters_a_runs_identity(method, monkeypatch):
    before = configuration_of(settings_of(method))
    assert before.identity()["method_revision"] == METHODS[method].Method.revision
    identifier = before.id
    monkeypatch.setattr(METHODS[method].Method, "revision", METHODS[method].Method.revision + 1)
    assert configuration_of(settings_of(method)).id != identifier


#: Numbers of a method's code, where they are no settings: (case, module, name, how it changes).
CONSTANTS = [
    ("fang2021, out", "collabench.models.classifier", "PROBABILITY", lambda p: p + 0.01),
    ("fang2021", "collabench.methods.fang2021", "kernel_terms", lambda f: lambda weights: 1.001 * f(weights)),
    ("fang2021", "collabench.methods.fang2021", "deviations", lambda f: lambda maps: f(maps) + 1e-2 * f(maps) ** 2),
    ("fang2021, mid", "collabench.methods._local_layers", "ceil", lambda f: lambda x: f(x) + 1),
    ("kd, ensemble", "collabench.methods.kd", "teacher_log_probabilities", lambda f: lambda *a: 1.01 * f(*a)),
    ("okddip", "collabench.methods.okddip", "kullback_leibler", lambda f: lambda *a: 1.01 * f(*a)),
    ("one", "collabench.methods.one", "kullback_leibler", lambda f: lambda *a: 1.01 * f(*a)),
    ("dml", "collabench.methods.dml", "kullback_leibler", lambda f: lambda *a: 1.01 * f(*a)),
    ("wang2018, private", "collabench.methods.wang2018", "kullback_leibler", lambda f: lambda *a: 1.01 * f(*a)),
    ("song2018", "collabench.methods.song2018", "consensus", lambda f: lambda z, t: f(z, 1.01 * t)),
    ("song2018", "collabench.models.tree", "divide_gradient", lambda f: lambda x, n: f(x, n + 1)),
    ("auxiliary", "collabench.methods.auxiliary", "pooled", lambda f: lambda x: 1.01 * f(x)),
    ("wang2018, resnet", "collabench.training.context", "number_copy", lambda f: lambda backbone, copy: f(backbone, 0)),
    ("dml, in turn, vgg", "collabench.methods.dml", "SameMasks", lambda f: lambda network: nullcontext()),
    *(
        (name, f"collabench.methods.{name}", "hard_cross_entropy", lambda f: lambda *a, **k: 1.001 * f(*a, **k))
        for name, module in METHODS.items()
        if hasattr(module, "hard_cross_entropy") and name != "fang2021"
    ),
]


@pytest.mark.parametrize("case,module,name,change", CONSTANTS, ids=[f"{c}-{n}" for c, _, n, _ in CONSTANTS])
def test_a_changed_constant_is_caught(case, module, name, change, monkeypatch):
    monkeypatch.setattr(f"{module}.{name}", change(getattr(importlib.import_module(module), name)))
    problem = verdict(case, RECORDED[case], fingerprint(case))
    assert problem is not None and "numbers changed" in problem and "\n" not in problem


def numeric_settings() -> list[tuple[str, str]]:
    """(case, setting): every setting that is a number, in a case where it counts."""
    found = []
    for method in METHODS:
        for name, field in METHODS[method].Settings.model_fields.items():
            if isinstance(field.default, float) and name != "label_smoothing":
                case = "wang2018, private" if method == "wang2018" else method
                found.append((case, name))
    return found


@pytest.mark.parametrize("case,setting", numeric_settings())
def test_a_default_that_is_changed_by_two_percent_is_caught(case, setting):
    default = CASES[case][0].get(setting, METHODS[method_of(case)].Settings.model_fields[setting].default)
    step = 0.98 if setting in ("push_last", "pull_first", "beta") else 1.02
    changed = fingerprint(case, **{setting: min(default * step, 0.98) if default == 0.9 else default * step})
    assert differences(RECORDED[case], changed), setting


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in METHODS else pytest.mark.slow) for case in CASES]
)
def test_another_processors_rounding_is_not_caught(case):
    assert not differences(RECORDED[case], fingerprint(case, rounding=2e-7))


def changed(case: dict, revision: int) -> dict:
    (name, values), *_ = case["losses"].items()
    return case | {"losses": case["losses"] | {name: [1.01 * v for v in values]}, "revision": revision}


def test_numbers_are_written_over_only_under_a_higher_revision():
    old = {"kd": RECORDED["kd"], "dml": RECORDED["dml"]}
    revision = old["kd"]["revision"]
    content, refusals = updated(old, old | {"kd": changed(old["kd"], revision)})
    assert len(refusals) == 1 and "raise the revision of kd" in refusals[0] and "dml" not in refusals[0]
    content, refusals = updated(old, old | {"kd": changed(old["kd"], revision + 1)})
    assert not refusals and content["kd"]["revision"] == revision + 1 and content["dml"] is old["dml"]
    _, refusals = updated(old, old | {"kd": changed(old["kd"], revision - 1)})
    assert len(refusals) == 1 and "fell from" in refusals[0]
    content, refusals = updated({"dml": old["dml"]}, old)
    assert not refusals and content == old  # a new case is added


def test_the_command_refuses_and_leaves_the_file(monkeypatch, tmp_path, capsys):
    file = tmp_path / "fingerprints.json"
    monkeypatch.setattr(fingerprints, "FILE", file)
    monkeypatch.setattr(fingerprints, "CASES", {"kd": CASES["kd"]})
    assert fingerprints.write() == 0
    before = file.read_bytes()
    assert fingerprints.write() == 0 and file.read_bytes() == before
    monkeypatch.setattr(fingerprints, "TOLERANCE", 0.0)
    kd = importlib.import_module("collabench.methods.kd")
    monkeypatch.setattr(kd, "hard_cross_entropy", lambda *a, **k: 0.0 * kd.kullback_leibler(a[0], a[0], 1.0))
    assert fingerprints.write() == 1 and file.read_bytes() == before
    assert "not written" in capsys.readouterr().err
    monkeypatch.setattr(kd.Method, "revision", kd.Method.revision + 1)
    assert fingerprints.write() == 0 and file.read_bytes() != before

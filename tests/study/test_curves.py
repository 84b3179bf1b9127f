"""Curves for the tools that people have open: the numbers of the result, and never a reason for a run to fail."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from types import ModuleType, SimpleNamespace

import pytest

from collabench.core.errors import ConfigError
from collabench.storage.results import load_result
from collabench.study import curves
from collabench.study.runner import Runner
from collabench.training import checkpoint
from tests.support.studies import study_in


def trained(root, monkeypatch, tools: str | None, log=lambda line: None):
    """The study's first run that trains, with these tools; its folder and result."""
    monkeypatch.setenv(curves.CHOICE, tools) if tools is not None else monkeypatch.delenv(curves.CHOICE, False)
    study = study_in(root)
    run = study.plan.runs[0]
    study.inputs.prepare_for([run], lambda line: None)
    outcome = Runner(study).train([run], device="cpu", log=log)
    assert outcome.trained == [run], outcome
    folder = study.workspace.folder(run)
    return study, run, folder, load_result(folder, run)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected(result) -> dict[str, list[float]]:
    found = {f"loss/{name}": list(values) for name, values in result.curves.losses.items()}
    found["learning_rate"] = list(result.curves.learning_rate)
    found["test_error"] = [100 * error for error in result.curves.test_error]
    return found


def events(study, run) -> dict[str, list[tuple[int, float]]]:
    """Name → (epoch, value), by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = study.workspace.curves / "tensorboard" / run.configuration.id / f"seed-{run.seed}"
    reader = EventAccumulator(str(place))
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_tensorboard_reads_the_curves_of_the_result(tmp_path, monkeypatch):
    study, run, folder, result = trained(tmp_path / "with", monkeypatch, "tensorboard")
    found = events(study, run)
    assert found.keys() == expected(result).keys()
    for name, values in expected(result).items():
        assert [epoch for epoch, _ in found[name]] == [1, 2]
        assert [value for _, value in found[name]] == pytest.approx(values, rel=1e-6)
    _, same, plain, _ = trained(tmp_path / "without", monkeypatch, None)
    assert same.id == run.id and files(plain) == files(folder), "no id and no byte depends on the tool"


def test_a_resumed_run_goes_on_in_the_same_curves(tmp_path, monkeypatch):
    class Stop(BaseException):
        pass

    def save_and_stop(path, state, save=checkpoint.save):
        save(path, state)
        if state["history"]["epoch"] == 1:
            raise Stop

    monkeypatch.setenv("COLLABENCH_CHECKPOINT_SECONDS", "0")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(checkpoint, "save", save_and_stop)
        trained(tmp_path, monkeypatch, "tensorboard")
    study, run, _, result = trained(tmp_path, monkeypatch, "tensorboard")
    assert [epoch for epoch, _ in events(study, run)["test_error"]] == [1, 2]
    assert [value for _, value in events(study, run)["test_error"]] == pytest.approx(expected(result)["test_error"])


class Double:
    """Stands for a tool's package: notes what is logged, as epoch → name → value."""

    def __init__(self, monkeypatch, name: str) -> None:
        self.logged: dict[int, dict[str, float]] = {}
        self.ended = 0
        self.begun: list[dict] = []
        module = ModuleType(name)
        for key, value in getattr(self, name)().items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)

    def note(self, epoch: int, values: dict[str, float]) -> None:
        self.logged.setdefault(epoch, {}).update(values)

    def end(self, *_: object) -> None:
        self.ended += 1

    def mlflow(self) -> dict:
        def client(uri):
            assert uri.startswith("sqlite:///")
            return SimpleNamespace(
                get_experiment_by_name=lambda name: None,
                create_experiment=lambda name: name,
                create_run=lambda experiment, run_name, tags: (
                    self.begun.append({"experiment": experiment, "name": run_name, **tags})
                    or SimpleNamespace(info=SimpleNamespace(run_id="1"))
                ),
                log_metric=lambda run, name, value, step: self.note(step, {name: value}),
                set_terminated=self.end,
            )

        return {"MlflowClient": client}

    def trackio(self) -> dict:
        return {
            "init": lambda **given: self.begun.append(given),
            "log": lambda values, step: self.note(step, values),
            "finish": self.end,
        }

    def dvclive(self) -> dict:
        double = self

        class Live:
            step = 0

            def __init__(self, folder, **options):
                double.begun.append({"folder": folder, **options})

            def log_metric(self, name, value):
                double.note(self.step, {name: value})

            def make_summary(self): ...

            end = double.end

        return {"Live": Live}


@pytest.mark.parametrize("tool", ["mlflow", "trackio", "dvclive"])
def test_every_tool_gets_every_epoch_once(tmp_path, monkeypatch, tool):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    double = Double(monkeypatch, tool)
    told = []
    _, run, _, result = trained(tmp_path, monkeypatch, tool, told.append)
    curve = {name: dict(enumerate(values, 1)) for name, values in expected(result).items()}
    assert double.logged == {epoch: {name: curve[name][epoch] for name in curve} for epoch in (1, 2)}
    assert double.ended == 1 and len(double.begun) == 1 and run.id.split("-s")[0] in str(double.begun)
    assert not [line for line in told if "warning" in line]


@pytest.mark.parametrize("tool", ["mlflow", "trackio", "dvclive"])
def test_the_real_tool_takes_a_run(tmp_path, monkeypatch, tool):
    for name in ("TRACKIO_DIR", "HF_HOME"):  # trackio reads them when it is imported
        monkeypatch.setenv(name, str(tmp_path / "home"))
    pytest.importorskip(tool)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    told = []
    study, run, _, result = trained(tmp_path / "project", monkeypatch, tool, told.append)
    assert not [line for line in told if "warning" in line], told
    if tool == "dvclive":
        place = study.workspace.curves / "dvclive" / run.configuration.id / f"seed-{run.seed}"
        lines = (place / "plots" / "metrics" / "test_error.tsv").read_text().splitlines()[1:]
        assert [float(line.split()[-1]) for line in lines] == pytest.approx(expected(result)["test_error"])
    if tool == "trackio":
        (database,) = (tmp_path / "home").rglob("*.db")
        with closing(sqlite3.connect(database)) as opened:
            rows = opened.execute("select step, metrics from metrics order by step").fetchall()
        logged = {step: json.loads(metrics) for step, metrics in rows}
        for name, values in expected(result).items():
            assert [logged[epoch][name] for epoch in (1, 2)] == pytest.approx(values)
    if tool == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{study.workspace.curves / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("small").experiment_id
        (found,) = client.search_runs([experiment])
        history = client.get_metric_history(found.info.run_id, "test_error")
        assert [metric.value for metric in history] == pytest.approx(expected(result)["test_error"])


@pytest.mark.parametrize("moment", ["begin", "write", "close"])
def test_a_tool_that_fails_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch, moment):
    class Failing:
        def __init__(self, *_: object) -> None:
            self.fail("begin")

        def fail(self, now: str) -> None:
            if now == moment:
                raise OSError("the tool\nis away")

        def write(self, *_: object) -> None:
            self.fail("write")

        def close(self) -> None:
            self.fail("close")

    monkeypatch.setattr(curves, "TOOLS", {**curves.TOOLS, "trackio": Failing})
    told = []
    study, run, folder, _ = trained(tmp_path / "with", monkeypatch, "trackio,tensorboard", told.append)
    warnings = [line for line in told if line.startswith("warning: ")]
    assert warnings == [f"warning: COLLABENCH_LOG=trackio: OSError: the tool is away; {run.id} continues without it"]
    assert len(events(study, run)["test_error"]) == 2, "the other tool goes on"
    _, _, plain, _ = trained(tmp_path / "without", monkeypatch, None)
    assert files(plain) == files(folder)


@pytest.mark.parametrize("own", [None, "6"])
def test_a_server_of_mlflow_that_does_not_answer_is_asked_twice_unless_the_user_says_otherwise(
    tmp_path, monkeypatch, own
):
    asked = []

    class Client:
        def __init__(self, _: str) -> None:
            asked.append(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
            raise OSError("nobody answers")

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # what the tool sets is undone with these
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", own or "")
    if own is None:
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    told = []
    trained(tmp_path, monkeypatch, "mlflow", told.append)
    assert "nobody answers" in next(line for line in told if line.startswith("warning: "))
    assert asked == [own or "1"]


def test_a_package_that_is_missing_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    told = []
    trained(tmp_path, monkeypatch, "mlflow", told.append)
    (warning,) = (line for line in told if "warning" in line)
    assert "the package mlflow is missing: pip install 'collabench[mlflow]'" in warning


def test_a_tool_that_is_none_is_refused_before_anything_runs(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="COLLABENCH_LOG=tensorbord: there are tensorboard, mlflow, trackio, dvclive"):
        trained(tmp_path, monkeypatch, "tensorbord")
    assert not list(tmp_path.glob("artifacts/small/runs/*")) and not list(tmp_path.rglob("failures/*"))


def test_every_tool_is_an_optional_extra():
    import tomllib

    from tests.support.project import ROOT

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(curves.TOOLS) <= set(extras)

"""`collabench run` under torchrun: the whole command, two processes on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest

from collabench.core import resources
from collabench.core.errors import CollabenchError, DataError, RunFailed
from collabench.core.gpu_probe import Probe
from collabench.core.resources import Resources
from collabench.study import torchrun
from collabench.study.runner import Outcome, Runner
from collabench.study.study import load_study
from tests.support.params import params_yaml, profile, table

_PARTS = {"datasets": "tiny", "noise": "uniform20"}
PARAMS = params_yaml(
    {
        "shared": profile(table("individual kd", recipes="shared", **_PARTS), device="cpu"),
        "alone": profile(table("individual", recipes="alone", **_PARTS), device="cpu"),
    },
    datasets={"tiny": "{source: digits, train_images: 120, test_images: 60}"},
    noise="uniform20",
    recipes={
        "shared": "{epochs: 2, batch_size: 32, learning_rate: 0.1, augmentation: {shift: 1}, processes: 2}",
        "alone": "{epochs: 1, batch_size: 32, learning_rate: 0.1}",
    },
    methods="individual kd",
)


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def run(root: Path, processes: int, profile: str = "shared", *options: str) -> subprocess.CompletedProcess:
    """`collabench run`, under torchrun if there is more than one process."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "collabench"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    return subprocess.run(
        [*command, "run", "-p", profile, "--root", str(root), *options],
        capture_output=True, text=True, timeout=500, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_share_the_runs_and_one_writes_them(root):
    refused = run(root, 1)
    assert refused.returncode == 2, refused.stderr
    assert "recipes.shared.processes: 2 processes share a run, here is 1" in refused.stderr
    assert "`torchrun --nproc-per-node 2 -m collabench run -p shared`" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1

    first = run(root, 2)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("trained ·") == 2 and "2 processes share every run" in first.stdout
    assert "2 trained, 0 linked, 0 already there, 0 failed" in first.stdout

    study = load_study(root, "shared")
    files = sorted(study.workspace.runs.rglob("*.*"))
    assert {path.name for path in files} == {"result.json", "logits.safetensors", "weights.safetensors"}
    assert all(status.state == "done" for status in study.statuses())
    before = {path: path.read_bytes() for path in files}

    again = run(root, 2)
    assert "0 trained, 0 linked, 2 already there, 0 failed" in again.stdout, again.stderr
    alone = run(root, 1)
    assert alone.returncode == 0 and "2 already there" in alone.stdout, alone.stderr
    assert {path: path.read_bytes() for path in files} == before


def test_a_run_is_blamed_for_what_every_process_sees_and_not_for_a_lost_process(root, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    study = load_study(root, "shared")
    study.inputs.prepare_for(study.plan.runs, lambda line: None)
    leader = Runner(study, torchrun._train_together)
    failing = next(one for one in study.plan.runs if not one.requires())
    for error, raised, state in (
        (RuntimeError("Connection reset by peer"), torchrun._Parted, "todo"),
        (DataError("an image that one process could not read"), torchrun._Parted, "todo"),
        (MemoryError(), torchrun._Parted, "todo"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), torchrun._Parted, "todo"),
        (RunFailed("the loss is not finite"), None, "failed"),
    ):
        monkeypatch.setattr("collabench.training.train_run", Mock(side_effect=error))
        monkeypatch.setattr("collabench.core.distributed.from_first", lambda make: make())
        with pytest.raises(raised) if raised else nullcontext():
            leader.train([failing], log=lambda line: None)
        assert study.status(failing).state == state


@pytest.mark.slow
def test_torchrun_with_another_number_of_processes_says_what_the_recipes_ask_for(root):
    refused = run(root, 2, "alone")
    assert refused.returncode != 0
    assert (
        "torchrun started 2 processes, and no run asks for so many (their recipes say processes: 1)" in refused.stderr
    )
    assert not list(load_study(root, "alone").workspace.runs.rglob("result.json"))


@pytest.mark.parametrize("own", [0, 1])
def test_every_process_computes_on_its_own_gpu_only_before_it_leases_it(root, collabench, monkeypatch, own):
    """All of them do so at once, and in exclusive compute mode a GPU serves one."""
    (root / "params.yaml").write_text(PARAMS.replace("device: cpu", "device: auto"))
    asked, chosen = [], []
    monkeypatch.setattr(resources, "probe", lambda gpus: asked.append(tuple(gpus)) or Probe(None, (80,) * len(gpus)))
    monkeypatch.setattr(resources, "visible_gpus", lambda: ("5", "7"))
    monkeypatch.setattr("collabench.core.processes.end_with_parent", lambda *parent: None)
    monkeypatch.setattr(torchrun, "follow", lambda study, found: chosen.append(found))
    monkeypatch.setattr(torchrun, "train", lambda study, runs, found, **named: chosen.append(found) or Outcome())
    for name, value in {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": 2, "RANK": own, "LOCAL_RANK": own}.items():
        monkeypatch.setenv(name, str(value))
    called = collabench("run", "-p", "shared", "--root", root)
    assert called.code == 0, called.err
    assert asked == [(("5", "7")[own],)]
    assert [one.gpus for one in chosen] == [("5", "7")]


def test_more_processes_than_gpus_are_refused_before_any_waits_for_another(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torchrun.distributed, "join", lambda: pytest.fail("it waits for processes that end"))
    with ExitStack() as held, pytest.raises(CollabenchError, match=r"^torchrun started 3 processes here for 2 GPUs$"):
        torchrun._join(Resources(4, ("0", "1"), 1, "test"), held)


@pytest.mark.parametrize("gpus", [(), ("0",)])
def test_every_process_trains_where_the_study_was_said_to_train(root, monkeypatch, gpus):
    """On the CPU too, where torch sees a GPU that was not chosen."""
    told = []
    monkeypatch.setattr(torchrun, "_join", lambda resources, held: None)
    monkeypatch.setattr(torchrun.distributed, "launched_world", lambda: 2)
    study = load_study(root, "shared")
    run = next(one for one in study.plan.runs if not one.requires())
    monkeypatch.setattr(Runner, "train", lambda self, runs, *, device, **options: told.append(device) or Outcome())
    torchrun.train(study, [run], Resources(2, gpus, 1, "test"))
    names = iter([run.id, None])
    monkeypatch.setattr(torchrun.distributed, "from_first", lambda make: next(names))
    monkeypatch.setattr(type(study.inputs), "dataset", lambda *given: None)
    monkeypatch.setattr(type(study.inputs), "static_noise", lambda *given: None)
    monkeypatch.setattr("collabench.training.device.choose_device", lambda wanted: wanted)
    monkeypatch.setattr("collabench.training.train_run", lambda *given, device, **named: told.append(device))
    torchrun.follow(study, Resources(2, gpus, 1, "test"))
    assert told == [("cuda" if gpus else "cpu")] * 2


@pytest.mark.parametrize("own", [0, 1])
def test_every_process_leases_a_gpu_of_its_own_before_tensors_are_exchanged_on_it(own, monkeypatch, tmp_path):
    """NCCL before the lease would put all processes on GPU 0."""
    told = []
    monkeypatch.setenv("LOCAL_RANK", str(own))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("COLLABENCH_GPU_LEASES", str(tmp_path))
    monkeypatch.setattr(torchrun.distributed, "join", lambda: told.append("gloo"))
    monkeypatch.setattr(torchrun.distributed, "wait_for_all", lambda: None)
    monkeypatch.setattr(
        torchrun.distributed, "use_gpus", lambda gpu: told.append((str(gpu), os.environ["CUDA_VISIBLE_DEVICES"]))
    )
    with ExitStack() as held:
        torchrun._join(Resources(4, ("5", "7"), 1, "test"), held)
    assert told == ["gloo", ("cuda:0", ("5", "7")[own])]
    told.clear()
    with ExitStack() as held:
        torchrun._join(Resources(4, (), 1, "test"), held)
    assert told == ["gloo"]

"""What a study may use: cores by affinity and cgroup, GPUs by name, and slots that never have two holders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collabench.core import resources
from collabench.core.errors import CollabenchError, UnusableGpu
from collabench.core.gpu_probe import Probe
from collabench.core.resources import Resources, available_cores, cgroup_quota, choose, visible_gpus

NAMES = (
    resources.CORES, resources.GPUS, resources.SLOTS, resources.MEMORY, resources.SCHEDULER, "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sees(monkeypatch):
    """Make torch see so many GPUs; none with a CPU build."""

    def see(count: int, build: str | None = "13.0", problem: str | None = None, memory: int | None = None) -> None:
        import torch

        sizes = (memory,) * count if memory else ()
        monkeypatch.setattr(resources, "probe", lambda gpus: Probe(problem, sizes[: len(gpus)]))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.version, "cuda", build)

    return see


def files(folder: Path, **contents: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture
def machine(tmp_path):
    """(proc, cgroups) of a process in the cgroup that a line of /proc/self/cgroup names."""

    def make(line: str) -> tuple[Path, Path]:
        files(tmp_path / "proc" / "self", cgroup=line)
        return tmp_path / "proc", tmp_path / "cgroups"

    return make


# ------------------------------------------------------------------------------------------------------------ cores


def test_without_a_limit_the_affinity_decides(monkeypatch, machine):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5})
    assert available_cores(*machine("0::/")) == (3, "CPU affinity")


@pytest.mark.parametrize(
    ("quota", "cores", "reason"),
    [
        ("150000 100000", 1, "cgroup allows 1.5 of 4 cores"),
        ("50000 100000", 1, "cgroup allows 0.5 of 4 cores"),
        ("300000 100000", 3, "cgroup allows 3 of 4 cores"),
        ("800000 100000", 4, "CPU affinity"),
        ("max 100000", 4, "CPU affinity"),
        ("nonsense", 4, "CPU affinity"),
    ],
)
def test_a_quota_of_cgroup_v2_limits_the_cores(monkeypatch, machine, quota, cores, reason):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    proc, cgroups = machine("0::/user/app")
    files(cgroups / "user" / "app", cpu__max=quota)
    assert available_cores(proc, cgroups) == (cores, reason)


def test_the_smallest_quota_of_a_cgroup_and_those_above_it_counts(machine):
    proc, cgroups = machine("0::/user/app/job")
    files(cgroups / "user" / "app" / "job", cpu__max="400000 100000")
    files(cgroups / "user", cpu__max="200000 100000")
    assert cgroup_quota(proc, cgroups) == 2
    files(cgroups / "elsewhere", cpu__max="100000 100000")
    assert cgroup_quota(proc, cgroups) == 2


def test_a_container_that_shows_the_hosts_path_has_its_limit_at_the_root(machine):
    proc, cgroups = machine("0::/system.slice/docker-0123.scope")
    files(cgroups, cpu__max="250000 100000")
    assert cgroup_quota(proc, cgroups) == 2.5


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3.0), ("-1", None)])
def test_a_quota_of_cgroup_v1_limits_the_cores(machine, quota, expected):
    proc, cgroups = machine("4:cpu,cpuacct:/job\n3:memory:/job")
    files(cgroups / "cpu,cpuacct" / "job", **{"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000"})
    assert cgroup_quota(proc, cgroups) == expected


def test_without_proc_there_is_no_quota(tmp_path):
    assert cgroup_quota(tmp_path / "none", tmp_path) is None


def test_the_cores_asked_for_are_taken_and_the_line_says_so():
    chosen = choose("cpu", cores="2")
    assert (chosen.cores, chosen.workers, chosen.gpus) == (2, 2, ())
    line = chosen.describe()
    assert line.startswith("2 training processes: 2 cores, no GPU; cores as asked for (") and "torch" in line
    assert "\n" not in line


@pytest.mark.parametrize("cores", ["0", "-1", "two", "1.5", " "])
def test_a_number_of_cores_that_is_none_is_refused_in_one_line(cores):
    with pytest.raises(CollabenchError, match=rf"^CORES={cores}: must be a whole number, at least 1$"):
        choose("cpu", cores=cores)


def test_a_child_process_chooses_what_its_parent_chose(monkeypatch, sees):
    sees(4)
    monkeypatch.setenv(resources.SLOTS, "2")
    chosen = choose("auto", cores="3", gpus="0,2")
    for name, value in chosen.environment().items():
        monkeypatch.setenv(name, value)
    again = Resources.from_environment()
    assert (again.cores, again.gpus, again.slots_per_gpu) == (3, ("0", "2"), 2) == (
        choose().cores, choose().gpus, choose().slots_per_gpu,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- GPUs


def test_all_visible_gpus_are_used_by_default(sees):
    sees(3)
    chosen = choose("auto")
    assert (chosen.gpus, chosen.device, chosen.workers) == (("0", "1", "2"), "cuda", 3)
    assert "GPU 0, 1, 2 (1 a GPU)" in chosen.describe()


def test_a_gpu_on_which_torch_cannot_compute_is_refused_before_anything_runs(sees):
    sees(1, problem="torch cannot compute on GPU 0: the driver is too old")
    with pytest.raises(UnusableGpu, match="the driver is too old"):
        choose("auto")
    assert choose("auto", gpus="none").gpus == () == choose("cpu").gpus


def test_a_process_beside_others_of_its_host_computes_on_its_own_gpu_only(monkeypatch, sees):
    """In exclusive compute mode a GPU serves one process."""
    sees(3, memory=80)
    asked = []
    monkeypatch.setattr(resources, "probe", lambda gpus: asked.append(tuple(gpus)) or Probe(None, (80,) * len(gpus)))
    for own in range(3):
        chosen = choose("auto", own=own)
        assert (chosen.gpus, chosen.gpu_memory) == (("0", "1", "2"), (80, 80, 80))
    assert asked == [("0",), ("1",), ("2",)]
    assert choose("auto", own=3).gpus == ("0", "1", "2") and len(asked) == 3, "one more than there are GPUs"
    assert choose("auto", gpus="2,0", own=1).gpus == ("2", "0") and asked[3:] == [("0",)]


def test_visible_devices_keep_their_names(monkeypatch, sees):
    sees(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f1c")
    assert visible_gpus() == ("3", "GPU-8f1c") == choose("auto").gpus
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sees(0)
    assert visible_gpus() == () == choose("auto").gpus


def test_gpus_can_be_named_and_slots_multiply_the_processes(monkeypatch, sees):
    sees(4)
    monkeypatch.setenv(resources.SLOTS, "3")
    chosen = choose("auto", gpus="0,1")
    assert (chosen.gpus, chosen.slots_per_gpu, chosen.workers) == (("0", "1"), 3, 6)
    assert choose("auto", gpus="1, 1,").gpus == ("1",)
    assert choose("auto", gpus="none").gpus == () == choose("cpu", gpus="0").gpus


def test_a_gpu_in_exclusive_compute_mode_gets_one_process(monkeypatch, sees):
    sees(2, memory=80)
    monkeypatch.setattr(resources, "available_cores", lambda: (16, "CPU affinity"))
    monkeypatch.setattr(resources, "probe", lambda gpus: Probe(None, (80,) * len(gpus), exclusive=True))
    chosen = choose("auto")
    assert (chosen.slots_per_gpu, chosen.workers) == (1, 2)
    assert "GPU 0, 1 (1 a GPU, in exclusive compute mode)" in chosen.describe()
    monkeypatch.setenv(resources.SLOTS, "1")
    assert choose("auto").workers == 2
    monkeypatch.setenv(resources.SLOTS, "4")
    with pytest.raises(CollabenchError, match="exclusive compute mode serves one process") as refused:
        choose("auto")
    assert "\n" not in str(refused.value) and "nvidia-smi -c 0" in str(refused.value)


def test_memory_and_cores_say_how_many_processes_share_a_gpu(monkeypatch, sees, tmp_path):
    sees(2, memory=80)
    monkeypatch.setattr(resources, "available_cores", lambda: (6, "CPU affinity"))
    chosen = choose("auto")
    assert (chosen.slots_per_gpu, chosen.workers, chosen.gpu_memory) == (3, 6, (80, 80))
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert "(up to 3 a GPU, as its memory allows, in turns, as MPS is not running)" in chosen.describe()
    (tmp_path / "control").touch()
    assert "(up to 3 a GPU, as its memory allows, at once by MPS)" in chosen.describe()
    assert [chosen.side_by_side(need) for need in (0, 10, 30, 50, 100)] == [6, 6, 4, 2, 2]
    assert choose("auto", cores="64").slots_per_gpu == resources.MOST_SLOTS
    assert choose("auto", cores="1").slots_per_gpu == 1
    for name, value in chosen.environment().items():
        monkeypatch.setenv(name, value)
    assert Resources.from_environment().gpu_memory == (80, 80)


def test_a_gpu_that_failed_is_chosen_after_the_others():
    three = Resources(4, ("0", "1", "2"), 1, "for a test", (10, 20, 30))
    assert (three.with_last("0").gpus, three.with_last("0").gpu_memory) == (("1", "2", "0"), (20, 30, 10))
    assert three.with_last(None) == three == three.with_last("7")


def test_gpus_that_torch_cannot_use_are_refused_with_its_build(sees):
    sees(0, None)
    with pytest.raises(CollabenchError, match=r"^GPUS=0,1: torch .* \(CPU build\) sees no GPU; leave GPUS out"):
        choose("auto", gpus="0,1")
    with pytest.raises(CollabenchError, match=r"device: cuda, but torch .* sees no GPU; write device: auto$"):
        choose("cuda")
    assert choose("auto").device == "cpu"


def test_a_rocm_build_names_its_gpus_as_cuda_does(monkeypatch, sees):
    sees(2, None)
    assert visible_gpus() == ()
    monkeypatch.setattr("torch.version.hip", "7.1")
    assert visible_gpus() == ("0", "1") == choose("cuda").gpus
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "3,4")
    assert visible_gpus() == ("3", "4")
    assert "(ROCm 7.1)" in choose("auto").describe()


def test_apples_gpu_is_refused_by_name(monkeypatch, sees):
    sees(0, None)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    with pytest.raises(CollabenchError, match=r"^the profile says device: cuda, but Apple's GPU is not supported"):
        choose("cuda")
    assert "Apple's GPU is not supported" in choose("auto").describe()


@pytest.mark.parametrize("gpus", ["0,7", "all", ",", "-1"])
def test_a_gpu_that_is_not_visible_is_refused_before_anything_runs(sees, gpus):
    sees(2)
    with pytest.raises(CollabenchError, match=rf"^GPUS={gpus}: must name GPUs that are visible \(0, 1\), or say none$"):
        choose("auto", gpus=gpus)


def test_a_gpu_can_be_named_by_its_identifier(sees):
    sees(2)
    assert choose("auto", gpus="GPU-8f1c").gpus == ("GPU-8f1c",)


@pytest.mark.parametrize("slots", ["0", "many"])
def test_a_number_of_slots_that_is_none_is_refused(monkeypatch, slots):
    monkeypatch.setenv(resources.SLOTS, slots)
    with pytest.raises(CollabenchError, match=f"{resources.SLOTS}={slots}: must be a whole number"):
        choose("cpu")


def test_an_unknown_scheduler_is_refused(monkeypatch):
    monkeypatch.setenv(resources.SCHEDULER, "PBS")
    with pytest.raises(CollabenchError, match="PBS: must be the name"):
        resources.on_cluster()

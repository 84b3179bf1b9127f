"""Two processes on CPUs (gloo) that share a run, against the same run in one."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from collabench.config.configuration import Configuration, Run
from collabench.config.sections import Augmentation, RandAugment
from collabench.core import distributed
from collabench.core.distributed import Part
from collabench.core.errors import ConfigError, DataError
from collabench.data.batches import TrainingBatches
from collabench.methods import METHODS, Batch
from collabench.models.dropout import SeededDropout
from collabench.training import train_run
from collabench.training.loop import _Trainer
from tests.support.defaults import configuration, teachers
from tests.support.synthetic import blobs, configuration_of, model_of, settings_of

WORLD = 2
CPU = torch.device("cpu")
#: 41 training images in batches of 15: an odd batch is shared unevenly, and the last has 11.
IMAGES, BATCH = 41, 15

VGG = {"family": "vgg", "blocks": (1, 1), "width": 4, "poolings": 1, "hidden": 8}
RESNET = {"family": "resnet", "blocks": (1, 1), "width": 4, "hidden": 8}

#: Those of :data:`CASES` that are trained to the end.
TRAINED = (
    "individual", "song2018", "dml in turn", "fang2021 on a residual network", "wang2018 with dropout",
    "another recipe",
)  # fmt: skip
#: Those of them that are also interrupted.
INTERRUPTED = ("individual", "wang2018 with dropout", "another recipe")


def of(method: str, model: dict | None = None, **settings: object) -> Configuration:
    if not settings and model is None:
        return configuration(method, batch_size=BATCH)
    return configuration_of(settings_of(method, **settings), model and model_of(model), batch_size=BATCH)


#: Every method with its defaults, and what computes its gradient in another way.
CASES: dict[str, Configuration] = {
    **{method: of(method) for method in METHODS if METHODS[method].Method.trains},
    "song2018 rescaled at a split": of("song2018", heads=2, split_after=("stage1",)),
    "song2018 alternating": of("song2018", graph="simple_ilr", heads=2, optimisation="alternating"),
    "dml in turn": of("dml", optimisation="in_turn"),
    "dml in turn with dropout": of("dml", VGG, optimisation="in_turn"),
    "wang2018 with dropout": of("wang2018", VGG),
    "one as published": of("one", heads=3, gate="normalised", ramp_epochs=2),
    "okddip as published": of(
        "okddip", target_average="logits", attention_divisor=8, ramp_epochs=2, gradient_through_target=True
    ),
    "fang2021 on a residual network": of("fang2021", RESNET),
    "fang2021 pixels": of("fang2021", RESNET, losses=("pull_push",), input_descriptor="pixels"),
    "fang2021 added": of("fang2021", VGG, losses=("out", "mid"), out_added=True),
    "another recipe": configuration(
        "individual", batch_size=BATCH, optimizer="adamw", nesterov=False, learning_rate=0.01, schedule="cosine",
        clip_gradient_norm=0.5, ema_decay=0.5,
        augmentation=Augmentation(shift=1, cutout=3, randaugment=RandAugment(operations=1)),
    ),
}  # fmt: skip


def gradients(configuration: Configuration) -> list[dict[str, torch.Tensor]]:
    """Gradients of every parameter at each update of two steps, in double precision."""
    run = Run(configuration, 3)
    given = [teacher.double() for teacher in teachers(run)]
    trainer = _Trainer(run, blobs(train=IMAGES), CPU, None, given)
    trainer.network.double()
    found: list[dict[str, torch.Tensor]] = []
    step = trainer.optimizer.step

    def note() -> None:
        found.append({n: p.grad.clone() for n, p in trainer.network.named_parameters() if p.grad is not None})
        step()

    trainer.optimizer.step = note
    trainer.network.train()
    for number, generator in trainer.generators.items():
        generator.manual_seed(1 + number)
    labels = trainer.dataset.train_labels
    sizes = trainer.batches.sizes
    for number, (images, targets) in enumerate(trainer.batches.epoch(0, labels)):
        if number in (0, len(sizes) - 1):
            with distributed.batch_of(sizes[number]):
                trainer.method.step(
                    trainer.network, Batch(images.double(), targets, trainer.generators[0]), trainer._update
                )
    found.append({n: b.clone().double() for n, b in trainer.network.named_buffers()})
    return found


def in_processes(configuration: Configuration) -> Configuration:
    recipe = configuration.recipe.model_copy(update={"processes": WORLD})
    return configuration.model_copy(update={"recipe": recipe})


def trained(configuration: Configuration, **options: object) -> dict:
    run = Run(configuration, 3)
    result = train_run(run, blobs(train=IMAGES, test=25), device=CPU, teachers=teachers(run), **options)
    content = {"json": result.result.model_dump_json(), "logits": result.logits, "weights": result.weights}
    return content | {"resumed": result.measured.resumed}


class Stop(Exception):
    """Ends a run in the middle, in every process."""


def interrupted(configuration: Configuration, path: Path) -> None:
    """Train until the second step of the second epoch, with a checkpoint after every step."""
    steps = []

    def stop(module: nn.Module, arguments: tuple) -> None:
        steps.append(module.training)
        if sum(steps) > 4:
            raise Stop

    build = METHODS[configuration.method.method].Method.build

    def built(method: object) -> nn.Module:
        network = build(method)
        network.register_forward_pre_hook(stop)
        return network

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(METHODS[configuration.method.method].Method, "build", built)
        trained(configuration, checkpoint_path=path, checkpoint_seconds=0.0)


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)  # as training does
    distributed.join(init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    found = {}
    for name, case in CASES.items():
        found[name] = {"gradients": gradients(case)}
        if name in TRAINED:
            found[name]["trained"] = trained(in_processes(case))
    for name in INTERRUPTED:
        shared, path = in_processes(CASES[name]), folder / f"{name}.ckpt"
        interrupted(shared, path)
        found[name]["resumed"] = trained(shared, checkpoint_path=path if rank == 0 else None)
    torch.save(found, folder / f"{rank}.pt")
    distributed.leave()


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, (folder,), WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gradients_and_batch_statistics_are_those_of_one_process(case, processes):
    expected = gradients(CASES[case])
    for of_process in processes:
        actual = of_process[case]["gradients"]
        assert len(actual) == len(expected) >= 3
        for ours, alone in zip(actual, expected, strict=True):
            assert ours.keys() == alone.keys() != set()
            for name in alone:
                torch.testing.assert_close(
                    ours[name], alone[name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
                )


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINED)
def test_every_process_ends_with_the_same_bytes(case, processes):
    first, second = (of_process[case]["trained"] for of_process in processes)
    assert first["json"] == second["json"]
    for part in ("weights", "logits"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert value.numpy().tobytes() == second[part][name].numpy().tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINED)
def test_a_shared_run_learns_what_one_process_learns(case, processes):
    alone = trained(CASES[case])
    shared = processes[0][case]["trained"]
    for name, value in alone["weights"].items():
        torch.testing.assert_close(
            shared["weights"][name], value, rtol=2e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("case", INTERRUPTED)
def test_an_interrupted_shared_run_ends_with_the_same_bytes(case, processes):
    for of_process in processes:
        whole, resumed = of_process[case]["trained"], of_process[case]["resumed"]
        assert resumed["resumed"] == 1
        assert resumed["json"] == whole["json"]
        for name, value in whole["weights"].items():
            assert value.numpy().tobytes() == resumed["weights"][name].numpy().tobytes()


# ------------------------------------------------------------------------------------------------- in one process


@pytest.mark.parametrize("total", [1, 2, 7, 64])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_parts_are_consecutive_and_of_like_size(total, world):
    parts = [Part(rank, world).rows(total) for rank in range(world)]
    assert [row for part in parts for row in range(total)[part]] == list(range(total))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("crop", [None, 8])
def test_parts_of_a_batch_are_rows_of_the_whole_batch(crop):
    from collabench.config.sections import Augmentation

    dataset = blobs(train=IMAGES)
    augmentation = Augmentation(flip=True, random_resized_crop=crop) if crop else Augmentation(shift=2, flip=True)

    def epoch(part: Part) -> list:
        batches = TrainingBatches(dataset.train_images, dataset.mean, dataset.std, augmentation, BATCH, 1, part)
        return list(batches.epoch(2, dataset.train_labels))

    whole = epoch(distributed.WHOLE)
    parts = [epoch(Part(rank, 3)) for rank in range(3)]
    assert len(whole) == 3
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)


def test_a_batch_with_fewer_images_than_processes_is_refused():
    dataset = blobs(train=33)
    arguments = (
        dataset.train_images,
        dataset.mean,
        dataset.std,
        configuration("individual").recipe.augmentation,
        15,
        1,
    )
    TrainingBatches(*arguments, Part(0, 3))
    with pytest.raises(DataError, match=r"smallest batch has 3, fewer than the 4 processes.*choose another batch_size"):
        TrainingBatches(*arguments, Part(0, 4))


def test_a_recipe_for_several_processes_is_refused_in_one():
    shared = in_processes(configuration("individual"))
    with pytest.raises(ConfigError, match="asks for 2 processes; there are 1"):
        train_run(Run(shared, 0), blobs(), device=CPU)


def test_one_process_is_no_part_of_a_runs_identity_and_two_are():
    one = configuration("individual")
    assert "processes" not in one.identity()["recipe"]
    assert in_processes(one).identity()["recipe"]["processes"] == 2
    assert in_processes(one).id != one.id


def test_processes_meet_over_gloo_and_tensors_of_gpus_go_over_nccl_on_the_gpu_of_each(monkeypatch, tmp_path):
    """Whatever torch was built for: a build for CUDA on a machine without a GPU has no NCCL that works."""
    monkeypatch.setattr("torch.version.cuda", "13.0")
    distributed.join(init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        assert {torch.distributed.get_backend(group) for group in (None, *distributed._control)} == {"gloo"}
        here, there = torch.zeros(1), SimpleNamespace(is_cuda=True)
        assert distributed._group_of(here) is None is distributed._group_of(there)
        asked = []
        monkeypatch.setattr(torch.distributed, "new_group", lambda **options: asked.append(options) or "nccl's")
        distributed.use_gpus(torch.device("cuda", 0))
        assert asked == [{"backend": "nccl", "device_id": torch.device("cuda", 0)}]
        assert distributed._group_of(here) is None and distributed._group_of(there) == "nccl's"
    finally:
        distributed.leave()
    assert not distributed._gpus and not distributed._control


def test_in_one_process_nothing_changes():
    x = torch.randn(4, 3, requires_grad=True)
    assert distributed.whole_batch(x) is x and distributed.summed(x) is x and distributed.share() == 1.0
    network = nn.Sequential(nn.BatchNorm2d(3))
    before = copy.deepcopy(network)
    distributed.share_batch_statistics(network)
    assert type(network[0]) is type(before[0])
    generator = torch.Generator().manual_seed(5)
    dropout = SeededDropout(0.5).train()
    dropout.generator = generator
    kept = torch.rand(4, 3, generator=torch.Generator().manual_seed(5)) >= 0.5
    assert torch.equal(dropout(x.detach()), x.detach() * kept / 0.5)

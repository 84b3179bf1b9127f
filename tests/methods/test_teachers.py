"""kd's teachers: which runs are required, what a file must be, what enters the identity."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from collabench.config.configuration import Run
from collabench.core.errors import CollabenchError, ConfigError
from collabench.methods import Requirement
from collabench.methods.ensemble import Members
from collabench.methods.kd import teacher_log_probabilities
from collabench.methods.wang2018 import AssistedBackbone
from collabench.models import Backbone, build_backbone
from collabench.study.runner import Runner
from collabench.training import train_run
from collabench.training.context import make_context, make_method
from tests.support.studies import CLEAN_TABLE, study_in, train_all
from tests.support.synthetic import CLASSES, blobs, configuration_of, model_of, settings_of
from tests.support.training_cases import OTHER, SHAPE, batch, same, weights


def write_teacher(folder: Path, classes: int = CLASSES, **changed: torch.Tensor) -> tuple[str, str]:
    """Path and SHA-256 of a teacher's weights."""
    network = build_backbone(model_of(OTHER), SHAPE, classes, 1)
    content = save({**network.state_dict(), **changed})
    path = folder / "teacher.safetensors"
    path.write_bytes(content)
    return str(path), hashlib.sha256(content).hexdigest()


def student(path: str, sha256: str, weight: float = 0.9) -> Run:
    settings = settings_of("kd", teacher_file=path, teacher_sha256=sha256, teacher_model="other", weight=weight)
    return Run(configuration_of(settings, peer_models={"other": model_of(OTHER)}), 3)


def test_the_required_runs():
    settings = settings_of("kd", teacher="one-4", teacher_model="big", teacher_recipe="long", teacher_members=3)
    assert settings.requires() == tuple(Requirement("one-4", "big", "long", member) for member in (1, 2, 3))
    assert settings_of("kd").requires() == (Requirement("individual", member=1),)
    assert settings_of("kd", same_initialisation=True).requires() == (Requirement("individual", member=0),)
    assert set(settings.references()) == {
        ("teacher", "methods", "one-4"),
        ("teacher_model", "models", "big"),
        ("teacher_recipe", "recipes", "long"),
    }


def test_a_file_is_a_teacher_and_no_run_is_required(tmp_path):
    path, sha256 = write_teacher(tmp_path)
    run = student(path, sha256)
    assert run.requires() == ()
    by_file = train_run(run, blobs(), device=torch.device("cpu")).weights
    # The same network, handed in as the finished run of another one, gives the same student.
    instance = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, 3))
    (teacher,) = instance.teachers
    expected = build_backbone(model_of(OTHER), SHAPE, CLASSES, 1).state_dict()
    assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in expected.items())
    plain = configuration_of(settings_of("kd"))
    by_run = train_run(Run(plain, 3), blobs(), device=torch.device("cpu"), teachers=[teacher]).weights
    assert same(by_file, by_run)
    assert not same(by_file, weights("individual"))


def test_the_identity_holds_the_file_and_not_its_path(tmp_path):
    path, sha256 = write_teacher(tmp_path)
    first = student(path, sha256).configuration
    moved = student(f"{path}.moved", sha256).configuration
    other = student(path, "0" * 64).configuration
    assert first.id == moved.id != other.id
    assert path not in str(first.identity()) and sha256 in str(first.identity())


def test_the_identity_changes_with_what_changes_numbers():
    plain = configuration_of(settings_of("kd"))
    for values in ({"weight": 0.5}, {"temperature": 2.0}, {"teacher_members": 2}):
        assert configuration_of(settings_of("kd", **values)).id != plain.id
    assert configuration_of(settings_of("kd", teacher="renamed")).id == plain.id  # the required run's own id counts


def test_a_finished_student_needs_no_file_to_be_deployed():
    run = student("nowhere.safetensors", "0" * 64)
    instance = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, 3))
    assert instance.deploy(instance.build())(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)


def refusal(run: Run) -> str:
    with pytest.raises(ConfigError) as error:
        train_run(run, blobs(), device=torch.device("cpu"))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_file():
    assert refusal(student("nowhere.safetensors", "0" * 64)) == (
        "teacher_file: nowhere.safetensors: cannot be read (No such file or directory)"
    )


def test_another_file(tmp_path):
    path, sha256 = write_teacher(tmp_path)
    message = refusal(student(path, "0" * 64))
    assert sha256 in message and "0" * 64 in message and path in message


@pytest.mark.parametrize("content", [b"", b"no tensors here", b"\xff" * 64])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(content)
    message = refusal(student(str(path), hashlib.sha256(content).hexdigest()))
    assert f"teacher_file: {path}: not a safetensors file" in message


def test_the_teacher_of_another_data_set(tmp_path):
    message = refusal(student(*write_teacher(tmp_path, classes=7)))
    assert "classifier.weight is (7, 24) and should be (4, 24) (and 1 more)" in message


def test_a_teacher_of_another_model(tmp_path):
    path, _ = write_teacher(tmp_path)
    network = build_backbone(model_of(OTHER | {"depth": 14}), SHAPE, CLASSES, 1)
    Path(path).write_bytes(save(network.state_dict()))
    message = refusal(student(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()))
    assert "is not of this model" in message
    path, _ = write_teacher(tmp_path)
    network = build_backbone(model_of(OTHER), SHAPE, CLASSES, 1)
    some = dict(list(network.state_dict().items())[1:])
    Path(path).write_bytes(save(some))
    message = refusal(student(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()))
    assert "stem.0.weight is missing" in message


def test_a_handed_in_teacher_with_other_classes_is_refused():
    configuration = configuration_of(settings_of("kd"))
    teacher = build_backbone(model_of(OTHER), SHAPE, CLASSES + 1, 1).double().eval()
    instance = make_method(configuration, make_context(configuration, SHAPE, CLASSES, 0, [teacher]))
    with pytest.raises(CollabenchError, match="the teacher has 5 classes and the data set 4: a teacher must be"):
        instance.losses(instance.build().double(), batch())


@pytest.mark.parametrize("members", [2, 3])
def test_an_ensemble_teaches_its_mean_prediction(members):
    """The mean of softened probabilities at T = 1 is what an ``ensemble`` run of the same members predicts."""
    networks = [build_backbone(model_of(OTHER), SHAPE, CLASSES, seed).eval() for seed in range(members)]
    with torch.no_grad():
        images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
        given = torch.stack([network(images) for network in networks])
        expected = torch.softmax(Members(networks)(images), dim=-1)
    assert torch.allclose(teacher_log_probabilities(given, 1.0, "probabilities").exp(), expected, atol=1e-6)
    assert not torch.allclose(teacher_log_probabilities(given, 1.0, "logits").exp(), expected, atol=1e-6)


TEACHERS = """\
  wang: {method: wang2018, n_slots: 8, width: 4}
  tree: {method: song2018, graph: simple_ilr, heads: 2}
  of-ensemble: {method: kd, teacher: ensemble-2}
  of-wang: {method: kd, teacher: wang}
  of-tree: {method: kd, teacher: tree, teacher_members: 2}
  of-student: {method: kd, teacher: of-wang}
profiles:
"""


def test_a_study_trains_first_whatever_a_teacher_is(tmp_path):
    """An ensemble, a network with its frozen memory, two trees' deployed heads, another student."""
    study = study_in(
        tmp_path,
        ("profiles:\n", TEACHERS),
        ("methods: [individual, smoothed, ensemble-2]", "methods: [individual, of-ensemble, of-tree, of-student]"),
        ("    seeds: 2\n", "    seeds: 1\n"),
        (CLEAN_TABLE, ""),
    )
    train_all(study)
    students = {
        run.configuration.names["method"]: run for run in study.plan.runs if run.configuration.method.method == "kd"
    }
    assert set(students) == {"of-ensemble", "of-wang", "of-tree", "of-student"}
    images = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))

    def probabilities(run: Run) -> torch.Tensor:
        with torch.no_grad():
            return torch.softmax(Runner(study).deployed(run)(images), dim=-1)

    (ensemble,) = students["of-ensemble"].requires()
    members = torch.stack([probabilities(member) for member in ensemble.requires()])
    assert len(members) == 2 and not torch.equal(members[0], members[1])
    assert torch.allclose(probabilities(ensemble), members.mean(dim=0), atol=1e-6)
    assert isinstance(Runner(study).deployed(students["of-wang"].requires()[0]), AssistedBackbone)
    assert [type(Runner(study).deployed(tree)) for tree in students["of-tree"].requires()] == [Backbone, Backbone]
    assert students["of-student"].requires() == (students["of-wang"],)

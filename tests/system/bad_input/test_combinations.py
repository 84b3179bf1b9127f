"""Parts of a configuration that are each right and do not go together: one line, before anything runs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save

from collabench.config.configuration import Run
from collabench.config.params import load_params
from collabench.core.errors import ConfigError
from collabench.models import build_backbone
from collabench.study.study import load_study
from tests.support.good_params import base_with, outcome
from tests.support.mutations import render

SONG = {"method": "song2018"}
FANG = {"method": "fang2021"}
PLAIN = {"method": "individual", "label_smoothing": 0.1}
VGG = {"family": "vgg", "blocks": [1, 1], "width": 4, "poolings": 1, "hidden": 8}
PHOTOS = {"source": "cifar10"}
RESIDUAL = {"stem": ["conv1", "bn1", "relu"], "body": ["layer1", "layer2", "layer3", "layer4", "avgpool", "flatten"],
            "classifier": ["fc"]}  # fmt: skip


def torchvision(name: str, **stages: list[str]) -> dict[str, Any]:
    return {"family": "torchvision_model", "name": name} | ({"stages": stages} if stages else {})


def custom(place: str, **stages: list[str]) -> dict[str, Any]:
    return {"family": "custom", "import": place, "stages": stages or {"body": ["conv"], "classifier": ["fc"]}}


#: What is changed: section → the entry ``tried``, or fields of it; and what the message says.
REFUSED: list[tuple[dict[str, Any], str]] = [
    # Split points that the backbone does not have
    ({"methods": SONG | {"split_after": ["nope", "stage2"]}},
     "methods.tried: the backbone has no split point 'nope'; split"),
    ({"methods": SONG | {"split_after": ["stage1", "classifier"]}}, "no split point 'classifier'"),
    ({"methods": SONG | {"split_after": ["stage2", "stage1"]}}, "the splits stage2, stage1 must follow the order"),
    ({"methods": SONG | {"split_after": ["stage1", "stage1"]}}, "the splits stage1, stage1 must follow the order"),
    ({"methods": SONG | {"splits": [{"after": "nope", "branches": 2}]}}, "the backbone has no split point 'nope'"),
    ({"methods": SONG, "models": VGG | {"blocks": [1]}},
     "no default split points for 2 splits: name them in split_after"),
    ({"methods": {"method": "one"}, "models": VGG | {"blocks": [1]}},
     "no default split point for this backbone: name one"),
    ({"methods": {"method": "okddip", "split_after": "nope"}}, "the backbone has no split point 'nope'"),
    # Heads that the tree cannot give
    ({"methods": SONG | {"heads": 3}}, "a binary tree has 1, 2, 4, 8, … heads, not 3"),
    ({"methods": SONG | {"heads": 0}}, "methods.tried.heads: must be at least 1"),
    ({"methods": SONG | {"heads": 8}}, "no default split points for 3 splits"),
    ({"methods": SONG | {"graph": "simple_ilr", "split_after": ["stage1", "stage2"]}},
     "simple_ilr with 4 heads has 1 split"),
    ({"methods": SONG | {"graph": "multi_instance", "split_after": ["stage1"]}},
     "multi_instance with 4 heads has 0 split"),
    ({"methods": SONG | {"splits": [{"after": "stage1", "branches": 2}], "heads": 2}},
     "splits describes the whole tree"),
    ({"methods": SONG | {"splits": [{"after": s, "branches": 9} for s in ("stage1", "stage2")]}},
     "81 heads; at most 64"),
    ({"methods": {"method": "okddip", "heads": 2}}, "methods.tried.heads: must be at least 3"),
    # K and T out of range
    ({"methods": FANG | {"out_branches": 0}}, "methods.tried.out_branches: must be at least 1"),
    ({"methods": FANG | {"out_branches": 9}}, "methods.tried.out_branches: must be at most 8"),
    *(
        ({"methods": {"method": name, field: bad}}, f"methods.tried.{field}: must be {what}")
        for name, field in (("song2018", "temperature"), ("kd", "temperature"), ("dml", "temperature"),
                            ("one", "temperature"), ("okddip", "temperature"), ("wang2018", "temperature"),
                            ("fang2021", "out_temperature"), ("fang2021", "mid_temperature"))
        for bad, what in ((0, "at least 0.01"), (-2.0, "at least"), (1e9, "at most 1000"))
    ),
    # Models that the images do not fit
    ({"models": {"family": "vgg", "depth": 16}, "methods": PLAIN},
     "models.tried: a vgg with 5 poolings needs images of at "
     "least 32x32 pixels, these have 8x8"),
    ({"models": {"family": "resnet", "blocks": [1] * 5, "width": 4}, "methods": PLAIN},
     "models.tried: a resnet of 5 stages"),
    ({"models": torchvision("resnet50"), "methods": PLAIN},
     "models.tried: resnet50 takes images of 3 channels, these have 1"),
    ({"models": torchvision("resnet50"), "datasets": {"source": "imagenet32", "path": "x", "sha256": "a" * 64},
      "recipes": {"augmentation": {"random_resized_crop": 16}}, "methods": PLAIN},
          "resnet50 needs images of at least 32x32"),
    ({"models": torchvision("resnet18"), "datasets": {"source": "imagenet", "path": "x"}, "methods": PLAIN},
     "recipes.tried: imagenet has images of many sizes: the recipe needs augmentation.random_resized_crop"),
    # Models that somebody else wrote
    ({"models": torchvision("resnet51"), "datasets": PHOTOS, "methods": PLAIN}, "did you mean resnet50 or"),
    ({"models": torchvision("vgg11"), "datasets": PHOTOS, "methods": PLAIN}, "vgg11 needs stages: name its modules"),
    ({"models": torchvision("resnet18", **RESIDUAL), "datasets": PHOTOS, "methods": PLAIN},
     "chaining the stages does not reproduce the model's own output"),
    ({"models": torchvision("resnet18", stem=["conv1"], classifier=["fc"]), "datasets": PHOTOS, "methods": PLAIN},
     "no stage has bn1; the stages must name every module that has weights"),
    ({"models": torchvision("resnet18", **{**RESIDUAL, "stem": ["conv1", "bn1", "relu", "nope"]}), "datasets": PHOTOS,
      "methods": PLAIN}, "stage stem names 'nope', which the model does not have"),
    ({"models": torchvision("resnet18", **{**RESIDUAL, "body": [*RESIDUAL["body"], "bn1"]}), "datasets": PHOTOS,
      "methods": PLAIN}, "stage body uses 'bn1', which an earlier place already uses"),
    ({"models": custom("tests.support.networks:make"), "methods": PLAIN},
     "the chain of its stages does not take images"),
    ({"models": custom("tests.support.networks:make", body=["conv", "flatten"], classifier=["fc"]), "methods": PLAIN},
     "the chain of its stages does not take images of 8x8"),
    ({"models": custom("nowhere.at_all:make"), "methods": PLAIN}, "there is no module 'nowhere'; install its package"),
    ({"models": custom("os:nope"), "methods": PLAIN}, "'os' has no 'nope'"),
    ({"models": custom("os:sep"), "methods": PLAIN}, "'sep' is a str, not something to call"),
    ({"models": custom("json:dumps"), "methods": PLAIN}, "json:dumps cannot make a model for 10 classes"),
    ({"models": custom("tests.support.networks:no_network"), "methods": PLAIN}, "it must return a torch.nn.Module"),
    ({"models": custom("tests.support.networks:raises"), "methods": PLAIN}, "(ZeroDivisionError: division by zero)"),
    # fang2021's losses
    ({"methods": FANG | {"losses": ["outer"]}}, "methods.tried.losses.0: must be 'out', 'mid', 'pull_push' or"),
    ({"methods": FANG | {"losses": []}}, "methods.tried.losses: "),
    ({"methods": FANG | {"losses": ["out", "out"]}}, "losses names a loss twice"),
    ({"methods": FANG | {"losses": ["out"], "mid_alpha": 0.1}},
     "mid_alpha belongs to the loss mid, which losses does not"),
    ({"methods": FANG | {"losses": ["mid"], "out_branches": 3}}, "out_branches belongs to the loss out"),
    ({"methods": FANG | {"losses": ["mid"], "projection_kernel": 1}},
     "projection_kernel belongs to the loss pull_push"),
    ({"methods": FANG | {"losses": ["out"], "kernel_shortcuts": True}}, "kernel_shortcuts belongs to the loss kernel"),
    ({"methods": FANG | {"losses": ["mid"], "mid_divisor": "printed"}}, "mid_divisor belongs to mid_include_own: true"),
    ({"methods": FANG | {"kernel_groups": 9}, "models": VGG},
     "kernel_groups: the backbone has 2 groups of convolutions"),
    ({"methods": FANG | {"losses": ["out"]}, "models": {"family": "cifar_resnet", "depth": 8}},
     "the loss out needs a backbone"),
    *(
        ({"methods": FANG | {"losses": [loss]}, "models": {"family": "cifar_resnet", "depth": 8}},
         f"methods.tried: the loss {loss} needs a backbone that offers its intermediate layers")
        for loss in ("mid", "pull_push", "kernel")
    ),
    ({"methods": FANG, "models": VGG | {"blocks": [1, 1, 1, 1], "poolings": 3}},
     "of 1x1 that the layer block4.0 puts out"),
    ({"methods": FANG | {"losses": ["pull_push"]}, "models": {"family": "resnet", "blocks": [1] * 4, "width": 4}},
     "of 1x1 that the layer stage4.0.layer1 puts out; it needs at least 2x2"),
    # What has no meaning, or no data
    ({"methods": {"method": "ensemble", "label_smoothing": 0.1}},
     "label_smoothing belongs to the method that it is of"),
    ({"noise": {"kind": "none", "when": "per_epoch"}}, "kind: none changes no label; remove when, count and hit"),
    ({"noise": {"kind": "asymmetric", "rate": 0.1, "pairs": {"cat": "dog"}}},
     "noise.tried: pairs: 'cat' is not a class of digits"),
    ({"noise": {"kind": "asymmetric", "rate": 0.1, "pairs": {"1": "1"}}}, "pairs: '1' is paired with itself"),
    ({"recipes": {"augmentation": {"shift": 2, "random_resized_crop": 16}}},
     "shift and random_resized_crop exclude each"),
    ({"recipes": {"validation_fraction": 0.001}},
     "recipes.tried: validation_fraction 0.001 of 100 training images is 0"),
    ({"datasets": {"source": "digits", "train_images": 5000}},
     "datasets.tried: train_images: 5000 are asked for, digits has"),
    ({"datasets": {"source": "cifar10", "test_images": 10_001}}, "test_images: 10001 are asked for, cifar10 has 10000"),
    ({"datasets": {"source": "digits", "train_images": 1797, "test_on_rest": True}},
     "ask for 1798 images, digits has 1797"),
    # Teachers and members
    ({"methods": {"method": "kd", "teacher": "nope"}}, "methods.tried.teacher: 'nope' is not defined under methods"),
    ({"methods": {"method": "kd", "teacher": "individuel"}}, "(did you mean individual?)"),
    ({"methods": {"method": "kd", "teacher": "tried"}}, "methods.tried: depends on itself: tried → tried"),
    ({"methods": {"method": "ensemble", "of": "tried"}}, "methods.tried: depends on itself: tried → tried"),
    ({"methods": {"method": "kd", "teacher_recipe": "nope"}},
     "methods.tried.teacher_recipe: 'nope' is not defined under"),
    ({"methods": {"method": "dml", "peers": ["nope"]}}, "methods.tried.peers: 'nope' is not defined under models"),
]  # fmt: skip


def changed(sections: dict[str, Any]) -> dict[str, Any]:
    base = base_with("methods", sections.get("methods", {"method": "song2018"}))
    for section, entry in sections.items():
        base[section]["tried"] = base[section]["tried"] | entry if section == "recipes" else entry
    return base


@pytest.mark.parametrize("sections,expected", REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refused_in_one_line_before_anything_runs(tmp_path, sections, expected):
    message, _ = outcome(tmp_path, changed(sections))
    assert message is not None and expected in message, message
    assert message.startswith(f"{tmp_path / 'params.yaml'}:") and message.isprintable()
    assert not (tmp_path / "artifacts").exists()


def test_a_longer_circle_of_teachers(tmp_path):
    base = changed({"methods": {"method": "kd", "teacher": "a"}})
    base["methods"] |= {"a": {"method": "kd", "teacher": "b"}, "b": {"method": "ensemble", "of": "tried"}}
    assert "depends on itself: tried → a → b → tried" in outcome(tmp_path, base)[0]


def test_a_teacher_that_the_images_do_not_fit(tmp_path):
    base = changed({"methods": {"method": "kd", "teacher_model": "large"}})
    base["models"]["large"] = {"family": "vgg", "depth": 16}
    assert "models.large: a vgg with 5 poolings needs images of at least 32x32" in outcome(tmp_path, base)[0]


# ------------------------------------------------------------------------------------------- a teacher from a file


def write_teacher(path: Path, classes: int = 10) -> str:
    """Weights of the model ``tried`` on digits; their SHA-256."""
    settings = load_params_with(path.parent, {"method": "individual"}).models["tried"]
    path.write_bytes(save(build_backbone(settings, (1, 8, 8), classes, weights_seed=0).state_dict()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_params_with(folder: Path, method: dict[str, Any]):
    (folder / "params.yaml").write_text(render(changed({"methods": method}))[0])
    return load_params(folder / "params.yaml")


def study_with(folder: Path, sha256: str, file: str = "teacher.safetensors"):
    outcome(folder, changed({"methods": {"method": "kd", "teacher_file": file, "teacher_sha256": sha256}}))
    return load_study(folder, "tiny")


def refusal(study) -> str:
    with pytest.raises(ConfigError) as error:
        study.check_files(study.plan.runs)
    message = str(error.value)
    lines = study.workspace.params.read_text().splitlines()
    line = lines.index('  "tried":', lines.index('"methods":')) + 1
    assert message.startswith(f"{study.workspace.params}:{line}: tried · tried · tried · tried · tried: "), message
    assert message.isprintable()
    assert "· tried: methods.tried: teacher_file: " in message
    return message


def test_a_relative_path_begins_at_the_folder_of_params_yaml(tmp_path, monkeypatch):
    study = study_with(tmp_path, write_teacher(tmp_path / "teacher.safetensors"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    study.check_files(study.plan.runs)
    monkeypatch.chdir(tmp_path)
    here = load_study(Path("."), "tiny")  # a folder that is given relative to another one, which may change later
    monkeypatch.chdir(elsewhere)
    here.check_files(here.plan.runs)


def test_the_path_is_no_part_of_the_identity_and_the_digest_is(tmp_path):
    def student(study) -> Run:
        return next(run for run in study.plan.runs if run.configuration.method.method == "kd")

    first = student(study_with(tmp_path, "a" * 64))
    assert student(study_with(tmp_path, "a" * 64, "/another/place")).id == first.id
    assert student(study_with(tmp_path, "b" * 64)).id != first.id
    (tmp_path / "other").mkdir()
    assert student(study_with(tmp_path / "other", "a" * 64)).id == first.id
    assert str(tmp_path) not in str(first.configuration.identity())


def test_a_missing_teacher_file(tmp_path):
    assert f"{tmp_path / 'teacher.safetensors'}: cannot be read (No such file or" in refusal(
        study_with(tmp_path, "a" * 64)
    )


def test_another_teacher_file(tmp_path):
    sha256 = write_teacher(tmp_path / "teacher.safetensors")
    assert f"its SHA-256 is {sha256}, teacher_sha256 says {'a' * 64}" in refusal(study_with(tmp_path, "a" * 64))


def test_a_folder_in_place_of_the_teacher_file(tmp_path):
    (tmp_path / "teacher.safetensors").mkdir()
    assert "cannot be read (Is a directory)" in refusal(study_with(tmp_path, "a" * 64))


def test_a_teacher_file_of_another_data_set(tmp_path):
    study = study_with(tmp_path, write_teacher(tmp_path / "teacher.safetensors", classes=7))
    assert "classifier.weight is (7, 16) and should be (10, 16) (and 1 more)" in refusal(study)


def test_a_finished_student_needs_its_teacher_file_no_more(tmp_path):
    study = study_with(tmp_path, "a" * 64)
    for run in study.plan.runs:
        folder = study.workspace.folder(run)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
    study.check_files(study.plan.runs)

"""What cannot be run is refused in one line, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from collabench.config import compatibility
from collabench.config.params import load_params
from collabench.config.plan import make_plan
from collabench.core.errors import ConfigError
from collabench.methods import METHODS
from collabench.models import Backbone
from tests.support.params import params_yaml, profile, table
from tests.support.synthetic import SMALL_MODELS, configuration_of, model_of, settings_of


def params_of(entry: str, more: str = "") -> str:
    """A study whose method ``tried`` is ``entry``. more: lines with further methods."""
    text = params_yaml(
        {"tiny": profile(table("individual tried"), seeds=2)},
        models={"small": "{family: cifar_resnet, depth: 8}", "large": "{family: cifar_resnet, depth: 14}"},
        methods={"individual": "", "tried": entry},
    )
    return text.replace("profiles:", f"{more}profiles:", 1)


def plan_of(folder: Path, entry: str, more: str = ""):
    path = folder / "params.yaml"
    path.write_text(params_of(entry, more))
    return make_plan(load_params(path), "tiny")


@pytest.mark.parametrize(
    "entry,message",
    [
        ("{method: kd, teacher: nobody}", "methods.tried.teacher: 'nobody' is not defined under methods"),
        (
            "{method: kd, teacher_model: huge}",
            "tried.teacher_model: 'huge' is not defined under models; defined there: s",
        ),
        ("{method: kd, teacher_recipe: slow}", "tried.teacher_recipe: 'slow' is not defined under recipes"),
        ("{method: kd, teacher: tried}", "depends on itself: tried → tried"),
        ("{method: kd, weight: 1.5}", "methods.tried.weight: must be at most 1"),
        ("{method: kd, temperature: 0}", "methods.tried.temperature: must be at least 0.01"),
        ("{method: kd, temperature: 1e9}", "methods.tried.temperature: must be at most 1000"),
        ("{method: kd, teacher_members: 0}", "tried.teacher_members: must be at least 1"),
        ("{method: kd, teacher_average: logits}", "teacher_average belongs to teacher_members above 1"),
        ("{method: kd, teacher_file: a.safetensors}", "teacher_file and teacher_sha256 go together"),
        ("{method: kd, teacher_file: a, teacher_sha256: abc}", "methods.tried.teacher_sha256: must be a SHA-256"),
        (
            "{method: kd, teacher_file: a, teacher_sha256: " + "a" * 64 + ", teacher_members: 2}",
            "teacher_file is the whole teacher: remove teacher_members",
        ),
        ("{method: dml, networks: 1}", "methods.tried.networks: must be at least 2"),
        ("{method: dml, peers: [huge]}", "methods.tried.peers: 'huge' is not defined under models"),
        ("{method: dml, peers: [large], networks: 4}", "1 peers make 2 networks: remove networks"),
        ("{method: dml, refresh_targets: false}", "refresh_targets belongs to optimisation: in_turn"),
        (
            "{method: dml, optimisation: in_turn, gradient_through_target: true}",
            "gradient_through_target needs optimisation: simultaneous",
        ),
        ("{method: dml, temperature: -1}", "methods.tried.temperature: must be at least 0.01"),
        ("{method: auxiliary, after: [stage9]}", "no auxiliary classifier fits after 'stage9'; stages: stem, stage1"),
        ("{method: auxiliary, after: [classifier]}", "no auxiliary classifier fits after 'classifier'"),
        ("{method: auxiliary, after: [stem, stem]}", "after names a stage twice"),
        ("{method: auxiliary, after: []}", "methods.tried.after: "),
        ("{method: one, split_after: stage9}", "no split point 'stage9'; split points: input, stem, stage1"),
        ("{method: one, heads: 1}", "methods.tried.heads: must be at least 2"),
        ("{method: one, temperature: 0}", "methods.tried.temperature: must be at least 0.01"),
        ("{method: okddip, split_after: classifier}", "no split point 'classifier'"),
        ("{method: okddip, heads: 2}", "methods.tried.heads: must be at least 3"),
        ("{method: wang2018, n_slots: 0}", "methods.tried.n_slots: must be at least 1"),
        ("{method: wang2018, memory: none}", "methods.tried.memory: must be 'shared' or 'private'"),
        ("{method: wang2018, peers: [huge]}", "methods.tried.peers: 'huge' is not defined under models"),
        ("{method: wang2018, temperature: 3.0}", "temperature belongs to consensus_weight above 0"),
        ("{method: song2018, graph: individual, heads: 2}", "the graph individual has one head, not 2: remove heads"),
        (
            "{method: song2018, optimisation: alternating, scaling: loss_scaling}",
            "scaling belongs to optimisation: simultaneous",
        ),
        (
            "{method: song2018, optimisation: alternating, refresh_targets: false, gradient_through_target: true}",
            "gradient_through_target needs refresh_targets: true",
        ),
        *(
            (f"{{method: fang2021, losses: [out], out_branches: 1, {setting}}}", "belongs to out_branches above 1")
            for setting in (
                "out_alpha: 0.3",
                "out_temperature: 3.0",
                "out_temperature_squared: true",
                "out_shared_masks: true",
            )
        ),
    ],
)
def test_refused_in_one_line(tmp_path, entry, message):
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, entry)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert "tried" in str(error.value)


def test_a_backbone_whose_names_the_deployed_memory_needs_is_refused():
    backbone = Backbone({"memory": torch.nn.Flatten(), "classifier": torch.nn.Linear(64, 4)})
    with pytest.raises(ValueError, match="module 'memory' has a name that the deployed memory needs"):
        METHODS["wang2018"].Settings(method="wang2018").check_fits(backbone, "float32", (1, 8, 8))


@pytest.mark.parametrize("entry", ["{method: ensemble, of: pair}", "{method: kd, teacher: pair, teacher_members: 2}"])
def test_an_average_over_ensembles_which_share_members_is_refused(tmp_path, entry):
    pair = "  pair: {method: ensemble, members: 2}\n"
    with pytest.raises(ConfigError, match=r"methods\.tried: pair is an ensemble, and several of them share") as error:
        plan_of(tmp_path, entry, pair)
    assert "\n" not in str(error.value)
    (tmp_path / "params.yaml").unlink()
    runs = plan_of(tmp_path, "{method: kd, teacher: pair}", pair).runs  # one ensemble is a teacher like another
    students = [run for run in runs if run.configuration.method.method == "kd"]
    assert students and all([r.configuration.method.method for r in s.requires()] == ["ensemble"] for s in students)


@pytest.mark.parametrize("values", [{"projection_channels": 1}, {}], ids=str)
def test_centring_what_is_one_number_is_refused(values):
    """With a batch's centre it is a number like another."""
    model = model_of(SMALL_MODELS[1] | ({} if values else {"width": 1}))
    settings = settings_of("fang2021", losses=("pull_push",), centre="sample", **values)
    with pytest.raises(
        ConfigError, match="centre: sample leaves nothing of the one deviation that describes the layer"
    ) as e:
        compatibility.check(configuration_of(settings, model))
    assert "\n" not in str(e.value)
    compatibility.check(configuration_of(settings_of("fang2021", losses=("pull_push",), **values), model))


MAPS = {
    "family": "custom",
    "import": "tests.support.networks:make",
    "stages": {"body": ("conv",), "pool": ("pool",), "classifier": ("flatten", "fc")},
}


@pytest.mark.parametrize("method,values", [("wang2018", {}), ("okddip", {"split_after": "body"})])
def test_features_that_are_maps_are_refused_by_methods_that_add_layers_to_them(method, values):
    maps, fitting = model_of(MAPS), model_of(SMALL_MODELS[0])
    tried = [configuration_of(settings_of(method, **values), maps)]
    if method == "wang2018":
        tried.append(configuration_of(settings_of(method, peers=("p",)), fitting, peer_models={"p": maps}))
        compatibility.check(configuration_of(settings_of(method, peers=("p",)), fitting, peer_models={"p": fitting}))
    for configuration in tried:
        with pytest.raises(
            ConfigError, match="the stage pool, before the classifier, puts out 4x1x1: let pooling"
        ) as error:
            compatibility.check(configuration)
        assert "\n" not in str(error.value)
    for other in ("individual", "kd", "dml"):  # which ask for no features
        compatibility.check(configuration_of(settings_of(other), maps))


def test_a_circle_of_teachers_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="depends on itself: tried → back → tried"):
        plan_of(tmp_path, "{method: kd, teacher: back}", "  back: {method: kd, teacher: tried}\n")


def test_a_peer_that_the_images_do_not_fit_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(params_of("{method: dml, peers: [large]}"))
    params = load_params(path)
    assert make_plan(params, "tiny").runs
    build = compatibility.backbone_on_meta

    def too_small(model, *arguments, **options):
        if model.depth == 14:
            raise ConfigError("this model needs larger images")
        return build(model, *arguments, **options)

    compatibility._backbone.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compatibility, "backbone_on_meta", too_small)
        with pytest.raises(ConfigError, match=r"tried: models\.large: this model needs larger images"):
            make_plan(params, "tiny")


def test_the_runs_of_a_plan(tmp_path):
    """Teachers come first and have seeds of their own. With the student's initial weights, the first one is the
    table's own row."""
    for same in (False, True):
        plan = plan_of(tmp_path, f"{{method: kd, teacher_members: 2, same_initialisation: {str(same).lower()}}}")
        ids = [run.id for run in plan.runs]
        students = [run for run in plan.runs if run.configuration.method.method == "kd"]
        assert len(students) == 2 and len(ids) == 2 + 2 + (2 if same else 4)
        for run in students:
            assert all(ids.index(required.id) < ids.index(run.id) for required in run.requires())
            first, second = run.requires()
            assert (first.seed == run.seed) is same and second.seed >= 100_000 and (first.seed >= 100_000) is not same


def test_peers_enter_the_identity_by_what_they_are(tmp_path):
    def identifier(entry: str) -> str:
        return next(run.configuration.id for run in plan_of(tmp_path, entry).runs if run.configuration.peer_models)

    both = identifier("{method: dml, peers: [large]}")
    assert both == identifier("{method: dml, peers: [large], networks: 2}")
    assert len({both, identifier("{method: dml, peers: [large, large]}"), identifier("{method: dml, peers: [small]}"),
                identifier("{method: dml, peers: [large, small]}"),
                identifier("{method: dml, peers: [large, small, large]}"),
                identifier("{method: dml, peers: [large, large, small]}")}) == 6  # fmt: skip


@pytest.mark.parametrize("name", ["kd", "dml", "auxiliary", "one", "okddip", "wang2018"])
def test_every_setting_is_documented(name):
    inherited = ("method", "label_smoothing")
    for field in METHODS[name].Settings.model_fields:
        assert field in inherited or f"``{field}``" in METHODS[name].__doc__, field


def test_the_reading_of_an_abstract_is_named_so():
    assert "THIS PROJECT'S READING OF AN ABSTRACT" in METHODS["wang2018"].__doc__

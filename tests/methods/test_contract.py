"""What every method must do, on a small model. A new method is tested here without an edit."""

from __future__ import annotations

import copy
import hashlib
import io
import math
from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from collabench.config.configuration import Run
from collabench.methods import METHODS
from collabench.models import Backbone, build_backbone
from collabench.training import checkpoint, train_run
from collabench.training.context import make_context, make_method
from tests.support.defaults import CPU, SHAPE, configuration, content, teachers, train
from tests.support.synthetic import CLASSES, blobs, settings_of
from tests.support.training_cases import resumed

ALL = pytest.mark.parametrize("method", METHODS)
TRAINED = pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])


@cache
def whole(method: str, seed: int) -> tuple:
    """What a run that nothing disturbed ends with, in a process whose global generator stands at 123."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        before = torch.random.get_rng_state()
        found = content(train(Run(configuration(method), seed)))
        assert torch.equal(before, torch.random.get_rng_state()), "a run leaves the global generator alone"
    return found


@ALL
def test_the_same_seed_gives_the_same_bytes_wherever_the_global_generator_stands_and_another_seed_others(method):
    torch.manual_seed(789)
    again = content(train(Run(configuration(method), 3)))
    assert again == whole(method, 3)
    assert again[2] != whole(method, 1)[2]


@TRAINED
@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_interrupted_run_ends_with_the_same_bytes(method, stop_after, tmp_path):
    run = Run(configuration(method), 1)
    assert content(resumed(partial(train, run), stop_after, tmp_path / "run.ckpt")) == whole(method, 1)


@pytest.mark.parametrize(
    "held", [{"form": checkpoint.FORM + 1, "state": {}}, {"run_id": "", "generator": torch.empty(0)}, [1]], ids=str
)
def test_a_checkpoint_of_another_form_is_named_and_the_run_starts_from_its_beginning(held, tmp_path):
    """Whole files that other versions wrote: a later one, the first one, and no version at all."""
    run, path, told = Run(configuration("individual"), 1), tmp_path / "run.ckpt", []
    buffer = io.BytesIO()
    torch.save(held, buffer)
    path.write_bytes(hashlib.sha256(buffer.getvalue()).hexdigest().encode() + b"\n" + buffer.getvalue())
    again = train(run, checkpoint_path=path, log=told.append)
    assert again.measured.resumed == 0 and content(again) == whole("individual", 1)
    (line,) = told
    assert str(path) in line and "not a checkpoint that this version reads" in line and "from its beginning" in line


@ALL
def test_deployment_gives_a_plain_network_with_equal_outputs(method):
    run = Run(configuration(method), 2)
    context = make_context(run.configuration, SHAPE, CLASSES, run.seed, teachers(run))
    instance = make_method(run.configuration, context)
    network = instance.build().eval()
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    deployed = instance.deploy(network).eval()
    with torch.no_grad():
        logits = instance.predict(network, images)
        assert logits.ndim == 3 and logits.shape[1:] == (5, CLASSES)
        assert torch.equal(deployed(images), logits[0])
    plain = build_backbone(run.configuration.model, SHAPE, CLASSES, 99).eval()
    if isinstance(deployed, Backbone):
        assert list(deployed.state_dict()) == list(plain.state_dict())
        plain.load_state_dict(deployed.state_dict())
        with torch.no_grad():
            assert torch.equal(plain(images), deployed(images))
        assert sum(p.numel() for p in deployed.parameters()) == sum(p.numel() for p in plain.parameters())


@TRAINED
def test_named_loss_terms_fall_in_training(method):
    curves = train(Run(configuration(method, epochs=12), 0)).result.curves
    assert curves.losses and all(len(values) == 12 for values in curves.losses.values())
    assert sum(values[-1] for values in curves.losses.values()) < sum(values[0] for values in curves.losses.values())
    assert curves.test_error[-1] <= curves.test_error[0]


@TRAINED
def test_every_parameter_is_trained(method):
    run = Run(configuration(method, weight_decay=0.0), 0)
    instance = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, 0, teachers(run)))
    before = {key: value.clone() for key, value in instance.build().named_parameters()}
    after = {}

    from collabench.training import loop

    build = loop.make_method

    def remember(*arguments: object):
        made = build(*arguments)
        inner = made.build

        def keep():
            after["network"] = inner()
            return after["network"]

        made.build = keep
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_method", remember)
        train(run)
    unmoved = [key for key, value in after["network"].named_parameters() if torch.equal(value, before[key])]
    assert not unmoved


@ALL
def test_settings_are_plain_and_have_defaults(method):
    settings = settings_of(method)
    assert settings == type(settings).model_validate_json(settings.model_dump_json())
    assert METHODS[method].Method.revision >= 1
    assert METHODS[method].__doc__ and len(METHODS[method].__doc__) > 80
    assert copy.deepcopy(settings) == settings


DEGENERATE = {
    "two classes": (blobs(9, 6, classes=2), 2),
    "images that are all constant": (
        replace(
            blobs(9, 6),
            train_images=torch.full_like(blobs(9, 6).train_images, 100),
            test_images=torch.full_like(blobs(9, 6).test_images, 100),
        ),
        CLASSES,
    ),
    "one class alone": (replace(blobs(9, 6), train_labels=torch.zeros_like(blobs(9, 6).train_labels)), CLASSES),
}


@TRAINED
@pytest.mark.parametrize("what", DEGENERATE)
def test_degenerate_data_stay_finite(method, what):
    """In batches of two, and a last one of one image."""
    dataset, classes = DEGENERATE[what]
    run = Run(configuration(method, batch_size=2), 3)
    trained = train_run(run, dataset, device=CPU, teachers=teachers(run, classes))
    assert all(math.isfinite(value) for values in trained.result.curves.losses.values() for value in values)
    assert all(torch.isfinite(value).all() for value in trained.weights.values() if value.is_floating_point())

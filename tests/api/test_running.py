"""One run from Python gives the files and numbers of the same run in a study."""

from __future__ import annotations

import numpy
import pytest
import torch

import collabench
from collabench.core.errors import ConfigError, RunFailed
from collabench.study.study import load_study
from tests.support.studies import write_params

NAMES = {"dataset": "few", "noise": "noisy", "model": "small", "recipe": "short"}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_is_the_studys_run_to_the_byte(finished, tmp_path):
    write_params(tmp_path / "alone")
    configuration = collabench.configuration(tmp_path / "alone", **NAMES, method="smoothed")
    study = load_study(finished, "small")
    (same,) = (run for run in study.plan.runs if run.configuration.id == configuration.id and run.seed == 1)
    told = []
    done = collabench.run(configuration, 1, tmp_path / "alone", device="cpu", log=told.append)
    assert files(done.folder) == files(study.workspace.folder(same))
    assert done.logits.shape == (done.result.test_images, 10) and done.logits.dtype == numpy.float16
    assert not done.network.training and isinstance(done.network, torch.nn.Module)


def test_a_run_that_is_there_is_not_trained_again(finished, monkeypatch):
    configuration = collabench.configuration(finished, **NAMES, method="ensemble-2")
    monkeypatch.setattr("collabench.training.train_run", lambda *a, **k: pytest.fail("trained again"))
    done = collabench.run(configuration, 0, finished, device="cpu")  # linked from the study, with its members
    assert done.result.averaged_heads is None or 0 <= done.result.averaged_heads.error <= 1
    assert collabench.run(configuration, 0, finished, device="cpu").result == done.result


def test_settings_give_another_configuration(tmp_path):
    write_params(tmp_path)
    plain = collabench.configuration(tmp_path, **NAMES, method="individual")
    other = collabench.configuration(tmp_path, **NAMES, method="individual", settings=["recipes.short.epochs=1"])
    assert plain.id != other.id and other.recipe.epochs == 1
    assert len(collabench.run(other, 0, tmp_path, device="cpu").result.curves.test_error) == 1


def test_a_run_that_fails_says_why(tmp_path):
    write_params(tmp_path)
    broken = collabench.configuration(tmp_path, **(NAMES | {"recipe": "broken"}), method="individual")
    with pytest.raises(RunFailed, match=r"few · noisy · small · broken · individual, seed 0: .*not finite"):
        collabench.run(broken, 0, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"model": "smal"}, "model='smal': .*params.yaml has no such entry under models .did you mean small"),
        ({"method": "none"}, "method='none': .* it has individual, smoothed, ensemble-2"),
    ],
)
def test_a_name_that_is_none_is_one_line(tmp_path, names, message):
    write_params(tmp_path)
    with pytest.raises(ConfigError, match=message):
        collabench.configuration(tmp_path, **({**NAMES, "method": "individual"} | names))


def test_a_seed_and_a_device_that_are_none(tmp_path):
    write_params(tmp_path)
    configuration = collabench.configuration(tmp_path, **NAMES, method="individual")
    for seed in ("0", 1.5, True, None):
        with pytest.raises(ConfigError, match=f"seed {seed!r}: must be a whole number from 0 to 999"):
            collabench.run(configuration, seed=seed, root=tmp_path)
    with pytest.raises(ConfigError, match=r"configuration 'individual': must be what collabench\.configuration"):
        collabench.run("individual", seed=0, root=tmp_path)
    with pytest.raises(ConfigError, match=r"settings='recipes\.x=3': must be a list of texts"):
        collabench.configuration(tmp_path, **NAMES, method="individual", settings="recipes.x=3")
    with pytest.raises(ConfigError, match="seed 1000: must be a whole number from 0 to 999"):
        collabench.run(configuration, 1000, tmp_path)
    with pytest.raises(ConfigError, match="device 'gpu': there are auto, cpu and cuda"):
        collabench.run(configuration, 0, tmp_path, device="gpu")

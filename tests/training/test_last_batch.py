"""What happens to a tiny last batch: the same for every method, and the recorded loss counts what was trained on."""

from __future__ import annotations

from functools import partial

import pytest

from collabench.config.configuration import Run
from collabench.methods import METHODS
from collabench.training import train_run
from tests.support.defaults import CPU, configuration, content, teachers
from tests.support.synthetic import blobs
from tests.support.training_cases import resumed

TRAINED = [name for name in METHODS if METHODS[name].Method.trains]
#: Of 38 images in batches of 16: 6 remain, fewer than 8.
IMAGES = 38
SIZES = {"keep": [16, 16, 6], "drop": [16, 16], "spread": [19, 19]}


def train(run: Run, images: int = IMAGES, **options: object):
    return train_run(run, blobs(train=images), device=CPU, teachers=teachers(run), **options)


def seen_by(monkeypatch, method: str) -> list[tuple[int, dict[str, float]]]:
    """Filled while the method trains: number of images and loss terms of every batch."""
    seen: list[tuple[int, dict[str, float]]] = []
    kind = METHODS[method].Method
    original = kind.step

    def step(self, network, batch, update):
        terms = original(self, network, batch, update)
        seen.append((len(batch.labels), {name: term.item() for name, term in terms.items()}))
        return terms

    monkeypatch.setattr(kind, "step", step)
    return seen


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("last_batch", SIZES)
def test_every_method_sees_the_same_batches_and_records_the_mean_over_them(method, last_batch, monkeypatch):
    seen = seen_by(monkeypatch, method)
    result = train(Run(configuration(method, epochs=2, last_batch=last_batch), 0)).result
    sizes = [size for size, _ in seen]
    assert sizes == 2 * SIZES[last_batch] and result.train_images == IMAGES
    for name, curve in result.curves.losses.items():
        for epoch, recorded in enumerate(curve):
            steps = seen[epoch * len(SIZES[last_batch]) :][: len(SIZES[last_batch])]
            summed = sum(size * terms[name] for size, terms in steps)
            assert recorded == pytest.approx(summed / sum(SIZES[last_batch]), rel=1e-6)


def test_a_single_image_that_is_left_out_does_not_count_in_the_loss(monkeypatch):
    seen = seen_by(monkeypatch, "individual")
    result = train(Run(configuration("individual", epochs=1), 0), images=33).result
    assert [size for size, _ in seen] == [16, 16]
    assert result.curves.losses["hard"] == pytest.approx([sum(terms["hard"] for _, terms in seen) / 2], rel=1e-6)


@pytest.mark.parametrize("last_batch", ["drop", "spread"])
@pytest.mark.parametrize("method", ["individual", "wang2018"])
def test_an_interrupted_run_ends_with_the_same_bytes(method, last_batch, tmp_path):
    run = Run(configuration(method, last_batch=last_batch), 1)
    for stop_after in (1, 3):  # within an epoch, and in the second one
        again = resumed(partial(train, run), stop_after, tmp_path / f"{stop_after}.ckpt")
        assert content(again) == content(train(run))


def test_ids_change_only_where_it_is_set():
    plain, kept, spread = (
        configuration("individual", **values) for values in ({}, {"last_batch": "keep"}, {"last_batch": "spread"})
    )
    assert plain.id == kept.id != spread.id

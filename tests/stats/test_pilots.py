"""The rule by which pilot runs choose the length of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.pilots import PAGES, Pilot, choose, render
from tests.support.project import ROOT


def pilot(epochs: int, error: float, *, rises: float = 0.0) -> Pilot:
    """Sixteen epochs are recorded, the last two of which are higher by ``rises`` than those before."""
    curve = [50.0] * 12 + [error - rises] * 2 + [error] * 2
    return Pilot(f"digits-{epochs}", epochs, (error - 1, error + 1), tuple(curve))


def test_the_change_is_that_between_the_halves_of_the_last_quarter():
    assert pilot(28, 10, rises=0.4).change == pytest.approx(0.4)
    assert pilot(28, 10, rises=-0.5).is_flat and not pilot(28, 10, rises=-0.51).is_flat


def test_the_shortest_within_five_percent_of_the_lowest_is_chosen():
    assert choose([pilot(28, 10.4), pilot(56, 10), pilot(112, 12)]).epochs == 28
    assert choose([pilot(28, 10.6), pilot(56, 10), pilot(112, 9.9)]).epochs == 56


def test_a_recipe_whose_curve_still_falls_is_too_short_whatever_its_error():
    assert choose([pilot(28, 9, rises=-3), pilot(56, 10)]).epochs == 56
    assert choose([pilot(28, 9, rises=-3)]) is None
    page = render({("Small VGG", "vgg16-small", "20 % uniform noise"): [pilot(28, 9, rises=-3)]}, "digits-pilot")
    assert "| 20 % uniform noise | none is long enough |" in page


def held_out(epochs: int, error: float, **changes: float) -> Pilot:
    return replace(pilot(epochs, error, **changes), held_out=True)


def test_where_there_are_pilots_on_held_out_images_a_recipe_has_to_pass_there_too():
    on_test = [pilot(14, 10), pilot(28, 10.1), pilot(56, 10.2)]
    assert choose(on_test, held_out(14, 30, rises=-2), held_out(28, 33), held_out(56, 30)).epochs == 56
    assert choose(on_test, held_out(14, 40), held_out(28, 30)).epochs == 28
    assert choose(on_test, held_out(14, 40), held_out(112, 30)) is None


def test_the_page_chooses_on_test_images_with_the_held_out_ones_of_the_same_backbone_and_noise():
    found = {
        ("ResNet-8", "resnet8", "noise"): [pilot(14, 10), pilot(28, 10.1)],
        ("ResNet-8 held out", "resnet8", "noise"): [held_out(14, 40), held_out(28, 30)],
        ("ResNet-8 held out", "resnet8", "clean"): [held_out(14, 30)],
    }
    page = render(found, "digits-pilot")
    assert "| noise | `digits-14` | 14 | 2 | 10.00 | 1.41 | +0.00 | yes | passes |" in page
    assert "| noise | `digits-28` | 28 | 2 | 10.10 | 1.41 | +0.00 | yes | **chosen** |" in page
    assert "| noise | `digits-28` | 28 | 2 | 30.00 | 1.41 | +0.00 | yes | passes |" in page
    assert page.count("**chosen**") == 1


def test_the_page_marks_the_choice():
    page = render({("Small VGG", "vgg16-small", "clean"): [pilot(28, 10.6), pilot(56, 10)]}, "digits-pilot")
    assert "| clean | `digits-28` | 28 | 2 | 10.60 | 1.41 | +0.00 | yes |  |" in page
    assert "| clean | `digits-56` | 56 | 2 | 10.00 | 1.41 | +0.00 | yes | **chosen** |" in page


def test_each_page_says_how_it_is_made():
    found = {("Small VGG", "vgg16-small", "clean"): [pilot(28, 10)]}
    for profile, name in PAGES.items():
        page = render(found, profile)
        assert f"collabench run -p {profile}\n" in page and f"({Path(name).name}.svg)" in page
        first = page.split("![")[0]
        if (ROOT / f"{name}.md").exists():
            assert (ROOT / f"{name}.md").read_text().split("![")[0] == first

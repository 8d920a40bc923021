"""What the policies choose, how often, and what their options change."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
from scipy import stats

import edgecls
from edgecls.augment import policy, transforms
from edgecls.errors import UsageError
from edgecls.recipe import load_recipe

RNG = np.random.default_rng(1)
PHOTO = cv2.resize(RNG.integers(0, 256, (5, 5, 3), dtype=np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
IMAGES = np.repeat(PHOTO[None], 64, 0)
COUNT = 3000


def apply(settings, images=IMAGES, **moment):
    pixels, _ = edgecls.augment.apply(images, np.zeros(len(images), int), settings, 2, **moment)
    return pixels


@pytest.fixture
def chosen(monkeypatch):
    """(name, amount) of every transform that is applied from here on."""
    calls = []

    def recorded(name):
        def record(image, amount, fill):
            calls.append((name, amount))
            return image

        return record

    monkeypatch.setattr(transforms, "TRANSFORMS", {name: recorded(name) for name in transforms.TRANSFORMS})
    return calls


def tiny(count):
    return np.zeros((count, 2, 2, 3), np.uint8)


def test_autoaugment_follows_its_policy(chosen):
    apply({"autoaugment": {}}, tiny(COUNT))
    steps = [step for pair in policy.IMAGENET_POLICY for step in pair]
    assert len(policy.IMAGENET_POLICY) == 25
    expected = Counter()
    for name, probability, _ in steps:
        expected[name] += probability * COUNT / 25
    counts = Counter(name for name, _ in chosen)
    assert counts.keys() == expected.keys()
    for name, count in counts.items():
        assert abs(count - expected[name]) < 5 * np.sqrt(expected[name]), name
    turns = [amount for name, amount in chosen if name == "rotate"]
    assert {round(abs(turn), 3) for turn in turns} == {10.0, 26.667, 30.0}
    assert 0.4 < np.mean(np.array(turns) > 0) < 0.6
    assert {amount for name, amount in chosen if name in ("equalize", "autocontrast")} == {1.0}


@pytest.mark.parametrize(("key", "layers"), [("randaugment", 2), ("trivialaugment", 1)])
def test_all_fourteen_are_chosen_equally_often(key, layers, chosen):
    apply({key: {}}, tiny(COUNT))
    counts = Counter(name for name, _ in chosen)
    assert len(chosen) == layers * COUNT and len(counts) == 14
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_trivialaugment_draws_31_levels_and_both_signs(chosen):
    apply({"trivialaugment": {}}, tiny(COUNT * 4))
    amounts = np.array([amount for name, amount in chosen if name == "rotate"])
    levels = np.rint(abs(amounts) / 135 * 30).astype(int)
    np.testing.assert_allclose(abs(amounts), levels * 4.5)
    assert stats.chisquare(np.bincount(levels, minlength=31)).pvalue > 1e-3
    assert stats.binomtest((amounts > 0).sum(), (amounts != 0).sum()).pvalue > 1e-3


def test_randaugment_options(chosen):
    apply({"randaugment": {"num_layers": 3, "magnitude": 10}}, tiny(COUNT))
    assert len(chosen) == 3 * COUNT
    assert {abs(amount) for name, amount in chosen if name == "rotate"} == {30.0}


def test_paddle_keeps_the_originals_ranges(chosen):
    apply({"randaugment": {"flavor": "paddle"}}, tiny(COUNT))
    drawn = {}
    for name, amount in chosen:
        drawn.setdefault(name, set()).add(round(amount, 4))
    level = 0.5  # magnitude 5 of 10
    assert drawn["rotate"] == {30 * level} and drawn["posterize"] == {4 * level}
    assert drawn["solarize"] == {256 * level} and drawn["color"] == {0.45, -0.45}
    assert len(drawn) == 14 and "invert" in drawn and "identity" not in drawn
    chosen.clear()
    apply({"autoaugment": {"flavor": "paddle"}}, tiny(COUNT))
    assert {round(amount, 3) for name, amount in chosen if name == "rotate"} == {10.0, 26.667, 30.0}


def test_black_images_at_low_magnitude_are_paddles_alone():
    def darkest(flavor, magnitude):
        settings = {"randaugment": {"flavor": flavor, "magnitude": magnitude, "num_layers": 1}}
        return apply(settings, np.repeat(PHOTO[None], 200, 0)).mean((1, 2, 3)).min()

    assert darkest("paddle", 2) == 0
    assert min(darkest("standard", m) for m in (0.5, 1, 2, 3)) > 0.6 * PHOTO.mean()


@pytest.mark.parametrize(
    "settings",
    [
        {"randaugment": {"magnitude": 0, "num_layers": 5}},
        {"color_jitter": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}},
    ],
)
def test_strength_zero_is_the_identity(settings):
    noise = np.random.default_rng(0).integers(0, 256, (64, 24, 24, 3), dtype=np.uint8)
    assert np.array_equal(apply(settings, noise), noise)


def test_mean_changes_grow_with_the_magnitude():
    changes = [
        np.abs(apply({"randaugment": {"magnitude": m}}, np.repeat(PHOTO[None], 300, 0)) - PHOTO).mean()
        for m in (0, 2, 4, 6, 8, 10)
    ]
    assert changes[0] == 0 and (np.diff(changes) > 1).all()


@pytest.mark.parametrize(("flavor", "fill"), [("standard", (124, 116, 104)), ("paddle", (128, 128, 128))])
def test_the_fill_is_the_mean_color(flavor, fill):
    white = np.full((400, 32, 32, 3), 255, np.uint8)
    pixels = apply({"randaugment": {"num_layers": 1, "magnitude": 10, "flavor": flavor}}, white)
    corners = {tuple(map(int, pixel)) for pixel in pixels[:, 0, 0]}
    assert fill in corners


def test_three_augment_is_one_of_three():
    pixels = apply({"three_augment": {}}, np.repeat(PHOTO[None], 600, 0))
    gray, solarized = transforms.gray(PHOTO), transforms.solarize(PHOTO, 128, (0, 0, 0))
    grays = (pixels == gray).all((1, 2, 3)).sum()
    inverted = (pixels == solarized).all((1, 2, 3)).sum()
    assert stats.chisquare([grays, inverted, 600 - grays - inverted]).pvalue > 1e-3
    none = apply({"three_augment": {"solarize_threshold": 256, "blur_sigma": [0.1, 0.1]}})
    assert (none == PHOTO).all((1, 2, 3)).any()


def test_color_jitter_draws_factors_evenly():
    gray = np.full((800, 2, 2, 3), 100, np.uint8)
    off = {"contrast": 0.0, "saturation": 0.0}
    factors = apply({"color_jitter": {"brightness": 0.5, **off}}, gray)[:, 0, 0, 0] / 100
    assert stats.kstest(factors, stats.uniform(0.49, 1.01).cdf).pvalue > 1e-3
    colors = apply({"color_jitter": {"brightness": 0.0, **off, "hue": 0.5}})
    assert len({image.tobytes() for image in colors}) > 40
    # Not always in the same order: contrast after brightness differs from brightness after contrast.
    both = apply({"color_jitter": {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}})
    assert both.min() >= 0 and both.max() <= 255


def test_a_recipe_error_has_file_and_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("base: mv3_ssld\nname: r\naugment:\n  randaugment:\n    magnitude: 11\n")
    with pytest.raises(
        UsageError, match=r"augment\.randaugment\.magnitude: expected .* 10, got .* 11 \(.*r\.yaml:5\)"
    ):
        load_recipe(path)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"randaugment": {"magnitude": 11}}, "randaugment.magnitude: expected less than or equal to 10"),
        ({"randaugment": {"num_layers": 0}}, "randaugment.num_layers"),
        ({"randaugment": {"flavor": "pytorch"}}, "randaugment.flavor: expected 'standard' or 'paddle'"),
        ({"autoaugment": {"magnitude": 3}}, "unknown key 'autoaugment.magnitude'"),
        ({"color_jitter": {"hue": 0.6}}, "color_jitter.hue"),
        ({"three_augment": {"blur_sigma": [2.0, 1.0]}}, "blur_sigma must be"),
        ({"three_augment": {"blur_sigma": [0.0, 1.0]}}, "three_augment: blur_sigma must be"),
    ],
)
def test_options_out_of_range_are_refused(settings, line):
    with pytest.raises(UsageError, match=line):
        apply(settings)

"""Erasing: hidden areas, places, shapes and probabilities against their definitions, over thousands of draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from edgecls.augment import erase
from edgecls.augment.registry import Moment

FILL = (124, 116, 104)
LAST = Moment(epoch=9, epochs=10, fill=FILL)
DEFAULTS = {
    erase.cutout: erase.Cutout(),
    erase.random_erasing: erase.RandomErasing(probability=1.0),
    erase.hide_and_seek: erase.HideAndSeek(),
    erase.gridmask: erase.GridMask(),
}


def hidden(operation, options, count: int, size: int = 56, moment: Moment = LAST) -> np.ndarray:
    """Where an operation hides pixels of an image: bool [count, size, size]."""
    stack = np.zeros((count, size, size, 3), np.uint8)
    for i, image in enumerate(stack):
        stack[i] = operation(image, options, np.random.default_rng([5, i]), moment)
    changed = (stack == FILL).all(-1)
    assert np.array_equal(stack != 0, np.broadcast_to(changed[..., None], stack.shape))
    return changed


def interval(values: np.ndarray) -> float:
    """Four standard errors of a mean."""
    return 4 * values.std() / math.sqrt(len(values))


def sides(mask: np.ndarray) -> tuple[int, int]:
    rows, columns = mask.any(1), mask.any(0)
    assert mask.sum() == rows.sum() * columns.sum(), "not one rectangle"
    return int(rows.sum()), int(columns.sum())


@pytest.mark.parametrize("operation", DEFAULTS)
def test_keeps_form_and_follows_its_generator(operation) -> None:
    first, again, other = (
        operation(np.full((64, 64, 3), 9, np.uint8), DEFAULTS[operation], np.random.default_rng(seed), LAST)
        for seed in (3, 3, 4)
    )  # fmt: skip
    assert first.dtype == np.uint8 and first.shape == (64, 64, 3)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(("size", "length"), [(56, 112), (112, 112), (56, 56)])
def test_cutout_hides_a_square_with_its_center_anywhere(size: int, length: float) -> None:
    masks = hidden(erase.cutout, erase.Cutout(length=length), 1500, size)
    heights, widths = np.transpose([sides(mask) for mask in masks])
    side = length / 224  # of the image's
    assert abs(heights.max() - side * size) <= 1 and abs(widths.max() - side * size) <= 1
    shares = masks.mean((1, 2))
    expected = (side - side**2 / 4) ** 2  # a center nearer than half a side to a border loses what is outside
    assert abs(shares.mean() - expected) < interval(shares) + 0.005
    corner, middle = masks[:, 0, 0].mean(), masks[:, size // 2, size // 2].mean()
    assert abs(corner - side**2 / 4) < 0.05 and abs(middle - side**2) < 0.05


def test_cutout_hides_several() -> None:
    one, three = (hidden(erase.cutout, erase.Cutout(n_holes=n, length=28), 400).mean() for n in (1, 3))
    assert 2.5 < three / one < 3.0


@pytest.mark.parametrize("spacing", ["log", "linear"])
def test_random_erasing_draws_area_and_aspect(spacing: str) -> None:
    """Against draws of the definition: a rectangle that does not fit is drawn anew, so neither is quite uniform."""
    options = erase.RandomErasing(probability=1.0, spacing=spacing)
    size = 112
    heights, widths = np.transpose([sides(m) for m in hidden(erase.random_erasing, options, 1200, size)])
    rng = np.random.default_rng(0)
    area = rng.uniform(0.02, 0.4, 40_000)
    log = np.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3), 40_000))
    aspect = log if spacing == "log" else rng.uniform(0.3, 1 / 0.3, 40_000)
    fits = np.maximum(area * aspect, area / aspect) <= 1
    assert stats.ks_2samp(heights * widths / size**2, area[fits]).pvalue > 1e-3
    assert stats.ks_2samp(heights / widths, aspect[fits]).pvalue > 1e-3
    high = (heights > widths).mean()
    assert abs(high - 0.5) < 0.05 if spacing == "log" else high > 0.65


def test_random_erasing_hides_everywhere_and_as_often_as_asked() -> None:
    masks = hidden(erase.random_erasing, erase.RandomErasing(probability=0.25, area=[0.1, 0.1]), 3000)
    assert abs(masks.any((1, 2)).mean() - 0.25) < 0.03
    across, down = (
        masks.mean((0, 1)),
        masks.mean((0, 2)),
    )  # fewer at the borders, as many on one side as on the other
    assert abs(across - across[::-1]).max() < 0.01 and abs(down - down[::-1]).max() < 0.01
    assert across.min() > 0 and down.min() > 0


@pytest.mark.parametrize("size", [112, 32])
def test_hide_and_seek_hides_half_of_the_cells_of_four_grids_of_five(size: int) -> None:
    masks = hidden(erase.hide_and_seek, erase.HideAndSeek(), 1500, size)
    shares = masks.mean((1, 2))
    assert abs(shares.mean() - 0.4) < interval(shares)
    assert abs((shares == 0).mean() - 0.2) < 0.04
    assert np.abs(masks.mean(0) - 0.4).max() < 0.06, "some places are hidden more often than others"


@pytest.mark.parametrize("side", [16, 44, 56])
def test_hide_and_seek_hides_whole_cells(side: int) -> None:
    mask = hidden(erase.hide_and_seek, erase.HideAndSeek(grids=[side]), 1, 224)[0]
    edges = np.flatnonzero((mask[1:] != mask[:-1]).any(1)) + 1
    assert len(edges) and not (edges % side).any()
    assert not hidden(erase.hide_and_seek, erase.HideAndSeek(grids=[0]), 3).any()


@pytest.mark.parametrize(
    ("options", "share"),
    [({}, 0.25), ({"mode": 0}, 0.75), ({"ratio": 0.6}, 0.16), ({"rotate": 360, "d1": 24, "d2": 60}, 0.25)],
)
def test_gridmask_hides_the_squares_between_bars(options: dict, share: float) -> None:
    masks = hidden(erase.gridmask, erase.GridMask(**options), 1000)
    shares = masks.mean((1, 2))
    assert abs(shares.mean() - share) < interval(shares) + 0.002
    assert np.abs(masks.mean(0) - share).max() < 0.08


def test_gridmask_has_its_period_and_turns() -> None:
    options = {"d1": 32, "d2": 32, "ratio": 0.5}
    mask = hidden(erase.gridmask, erase.GridMask(**options), 1, 224)[0]
    assert np.array_equal(mask[32:], mask[:-32]) and np.array_equal(mask[:, 32:], mask[:, :-32])
    row = mask[mask.any(1)][0]
    assert set(np.diff(np.flatnonzero(np.diff(row)))) == {16}
    turned = hidden(erase.gridmask, erase.GridMask(**options, rotate=360), 1, 224)[0]
    assert not np.array_equal(turned[32:], turned[:-32])


def test_gridmask_grows_over_the_epochs() -> None:
    epochs, options = 10, erase.GridMask(prob=0.9)
    often = [
        hidden(erase.gridmask, options, 1500, 16, Moment(epoch, epochs, FILL)).any((1, 2)).mean()
        for epoch in range(epochs)
    ]
    all_of_it = hidden(erase.gridmask, erase.GridMask(prob=1.0), 1500, 16).any((1, 2)).mean()
    expected = [0.9 * all_of_it * min(1, (epoch + 1) / 8) for epoch in range(epochs)]
    assert np.abs(np.subtract(often, expected)).max() < 0.05
    at_once = hidden(erase.gridmask, erase.GridMask(growth=0), 200, 16, Moment(0, 1000, FILL))
    assert at_once.any((1, 2)).mean() > 0.9


@pytest.mark.parametrize("operation", DEFAULTS)
def test_hides_the_same_share_at_any_size(operation) -> None:
    small, large = (hidden(operation, DEFAULTS[operation], 600, size) for size in (32, 96))
    assert abs(small.mean() - large.mean()) < 0.04


@pytest.mark.parametrize(
    ("section", "options"),
    [
        (erase.Cutout, {"n_holes": 0}),
        (erase.Cutout, {"length": 0}),
        (erase.RandomErasing, {"probability": 1.1}),
        (erase.RandomErasing, {"area": [0.4, 0.02]}),
        (erase.RandomErasing, {"area": [0.0, 0.3]}),
        (erase.RandomErasing, {"area": [0.9, 1.0], "aspect": [3.0, 3.3]}),
        (erase.HideAndSeek, {"grids": []}),
        (erase.GridMask, {"d1": 200, "d2": 100}),
        (erase.GridMask, {"mode": 2}),
        (erase.GridMask, {"ratio": 1.0}),
    ],
)
def test_options_out_of_range_are_refused(section, options: dict) -> None:
    with pytest.raises(ValidationError):
        section(**options)

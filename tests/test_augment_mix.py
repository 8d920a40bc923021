"""Mixing: the share is Beta, targets tell what the pixels hold, each image is mixed on its own."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

import edgecls
from edgecls.augment import OPERATIONS, Augment, Mixer
from edgecls.augment import mix as mixing
from edgecls.augment.mix import CutMix, Mixup
from edgecls.augment.registry import Moment


def draws(seed: int):
    return lambda name, i: np.random.default_rng([seed, i, *name.encode()])


def mix(pixels: np.ndarray, targets: np.ndarray, operations: dict, draws) -> tuple[np.ndarray, np.ndarray]:
    active = [(OPERATIONS[name], options) for name, options in operations.items()]
    return mixing.mix(pixels, targets, active, draws)


def batch(count: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images of one level each, and their labels: image i is all i, so that a mean tells a blend."""
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 3))
    return pixels.copy(), np.eye(count, dtype=np.float32)


def shares(operations: dict, count: int = 250, rounds: int = 16, size: int = 32) -> np.ndarray:
    """The share of its own label that each image keeps."""
    pixels, targets = batch(count, size)
    return np.concatenate([np.diag(mix(pixels, targets, operations, draws(r))[1]) for r in range(rounds)])


@pytest.mark.parametrize("operations", [{"mixup": Mixup(alpha=1.0)}, {"cutmix": CutMix()}])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_targets_are_what_the_pixels_hold(operations: dict, dtype) -> None:
    pixels, targets = batch(200)
    mixed, soft = mix(pixels.astype(dtype), targets, operations, draws(1))
    assert mixed.dtype == soft.dtype == np.float32
    assert np.allclose(soft.sum(1), 1) and ((soft > 0).sum(1) <= 2).all()
    assert np.allclose(mixed.mean((1, 2, 3)), soft @ np.arange(200), atol=1e-3)
    assert np.array_equal(pixels, batch(200)[0]), "the input was changed"
    again = mix(pixels.astype(dtype), targets, operations, draws(1))
    assert np.array_equal(again[0], mixed) and np.array_equal(again[1], soft)
    assert len(np.unique(np.diag(soft))) > 50, "one share for the whole batch"


def test_cutmix_targets_are_exactly_the_pasted_area() -> None:
    pixels, targets = batch(250, 24)
    mixed, soft = mix(pixels, targets, {"cutmix": CutMix()}, draws(2))
    pasted = mixed != pixels
    for image, own in zip(pasted[..., 0], np.diag(soft), strict=True):
        assert image.sum() == image.any(1).sum() * image.any(0).sum(), "not one rectangle"
        assert own == pytest.approx(1 - image.mean(), abs=1e-6)
    assert pasted.any((0, 3)).all(), "a place that is never pasted"


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_share_is_beta(alpha: float) -> None:
    assert stats.kstest(shares({"mixup": Mixup(alpha=alpha)}), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_cutmix_share_is_that_of_a_clipped_box(alpha: float) -> None:
    """Against the paper's algorithm, in whole pixels."""
    rng, count, size = np.random.default_rng(0), 40_000, 64
    side = size * np.sqrt(1 - rng.beta(alpha, alpha, count))
    center = size * rng.random((2, count))
    low, high = (np.clip(np.rint(center + sign * side / 2), 0, size) for sign in (-1, 1))
    expected = 1 - np.prod(high - low, axis=0) / size**2
    found = shares({"cutmix": CutMix(alpha=alpha)}, 200, 20, size)
    assert stats.ks_2samp(found, expected.astype(np.float32)).pvalue > 1e-3


def kinds(operations: dict) -> dict[str, float]:
    """Which share of the images is left, blended, pasted into."""
    count, rng = {"none": 0, "mixup": 0, "cutmix": 0}, np.random.default_rng(0)
    pixels, targets = rng.integers(0, 256, (250, 16, 16, 3), np.uint8), np.eye(250, dtype=np.float32)
    for seed in range(8):
        mixed, soft = mix(pixels, targets, operations, draws(seed))
        for image, before, own in zip(mixed, pixels, np.diag(soft), strict=True):
            same = (image == before).mean()
            count["none" if own == 1 else "cutmix" if same > own - 0.01 else "mixup"] += 1
    return {name: n / 2000 for name, n in count.items()}


@pytest.mark.parametrize(
    ("mixup", "cutmix", "expected"),
    [
        (1.0, 1.0, (0.5, 0.5)),
        (0.2, 0.8, (0.2, 0.8)),
        (0.3, 0.3, (0.3, 0.3)),
        (1.0, 0.25, (0.8, 0.2)),
        (0, 0, (0, 0)),
    ],
)
def test_each_image_is_switched_on_its_own(mixup: float, cutmix: float, expected: tuple) -> None:
    # alpha is high: a share of nearly 0 or 1 would not tell which operation it was
    found = kinds(
        {"mixup": Mixup(alpha=8.0, probability=mixup), "cutmix": CutMix(alpha=50.0, probability=cutmix)}
    )
    assert abs(found["mixup"] - expected[0]) < 0.04 and abs(found["cutmix"] - expected[1]) < 0.04


def test_switching_one_on_leaves_the_others_draws() -> None:
    pixels, targets = batch(100)
    alone, _ = mix(pixels, targets, {"mixup": Mixup()}, draws(3))
    both, _ = mix(pixels, targets, {"mixup": Mixup(), "cutmix": CutMix()}, draws(3))
    assert 30 < (alone == both).all((1, 2, 3)).sum() < 70


def test_nothing_is_mixed_in_the_last_epochs() -> None:
    settings = Augment.model_validate({"mixup": {}, "off_epochs": 3})
    on = [bool(Mixer(settings, 0, Moment(epoch, 10))) for epoch in range(10)]
    assert on == [True] * 7 + [False] * 3
    pixels, targets = batch(4)
    last, soft = edgecls.augment.apply(
        pixels, np.arange(4), {"mixup": {"alpha": 8.0}, "off_epochs": 1}, 4, epoch=1, epochs=2
    )
    assert np.array_equal(last, pixels) and np.array_equal(soft, targets)


def test_nobody_is_his_own_partner() -> None:
    for count in (2, 3, 7):
        for seed in range(20):
            _, soft = mix(*batch(count), {"mixup": Mixup(alpha=8.0)}, draws(seed))
            assert (np.diag(soft) < 1).all() and ((soft > 0).sum(0) == 2).all()


def test_one_image_and_unlabeled_images_are_mixed_too() -> None:
    pixels, targets = batch(1)
    mixed, soft = mix(pixels, targets, {"cutmix": CutMix()}, draws(0))
    assert np.array_equal(mixed, pixels) and soft.tolist() == [[1.0]]
    _, soft = mix(batch(4)[0], np.zeros((4, 3), np.float32), {"mixup": Mixup()}, draws(0))
    assert not soft.any()


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": -1.0}, {"probability": 1.5}, {"lam": 1}])
@pytest.mark.parametrize("section", [Mixup, CutMix])
def test_options_out_of_range_are_refused(section, options: dict) -> None:
    with pytest.raises(ValidationError):
        section(**options)


def test_a_batch_is_mixed_in_groups_that_are_spread_over_it() -> None:
    """Partners of a large batch are eight images each, far from each other; every image is mixed."""
    mixer = Mixer(Augment.model_validate({"mixup": {"alpha": 8.0}}))
    _, soft = mixer(*batch(32), index=5)
    partners = soft - np.diag(np.diag(soft))
    assert ((partners > 0).sum(1) == 1).all() and ((partners > 0).sum(0) == 1).all()
    assert (np.arange(32) % 4 == partners.argmax(1) % 4).all()
    other, _ = mixer(batch(32)[0], batch(32)[1], index=6)
    assert len(np.unique(partners.argmax(1) - np.arange(32))) > 8, "every group is mixed alike"
    assert not np.array_equal(other, mixer(*batch(32), index=5)[0])

"""Fixed views of images in the pipeline, and the teacher's answers to them on disk."""

from __future__ import annotations

import numpy as np
import pytest
from photos import split_of

from edgecls.augment.mix import CutMix
from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.recipe import Augment

RNG = np.random.default_rng(11)
SIZE, IMAGES, CLASSES, VIEWS = 16, 12, 3, 2
PREPROCESS = Preprocess(SIZE)
SPLIT = split_of(RNG.integers(0, 256, (IMAGES, 20, 24, 3), dtype=np.uint8), np.arange(IMAGES) % CLASSES)
AUGMENT = Augment(crop_scale=[0.3, 1.0], flip="both")


def places(used: np.ndarray) -> np.ndarray:
    """Answers that tell which image and which view they are of."""
    return np.stack([used[:, 0], used[:, 1], np.zeros(len(used))], 1).astype(np.float32)


def feed(augment: Augment = AUGMENT, **options) -> Batches:
    known = {"training": True, "classes": CLASSES, "seed": 5, "views": VIEWS, "answers": places, "epochs": 9}
    return Batches(SPLIT, PREPROCESS, 4, augment=augment, **known | options)


def epoch(number: int, **options) -> dict[tuple[int, int], np.ndarray]:
    """The pixels of an epoch by image and view."""
    found = {}
    for pixels, targets, used in feed(**options).epoch(number):
        for image, target, (index, view, _) in zip(
            pixels.numpy(), targets.numpy(), used.numpy(), strict=True
        ):
            assert target.argmax() == SPLIT.labels[int(index)]
            found[int(index), int(view)] = image
    return found


def test_a_view_has_the_same_pixels_in_every_epoch_that_uses_it() -> None:
    first, second, third = epoch(0), epoch(1), epoch(2, epochs=100)
    assert set(first) == {(i, 0) for i in range(IMAGES)} and set(second) == {(i, 1) for i in range(IMAGES)}
    assert all(np.array_equal(first[place], third[place]) for place in first)
    assert not any(np.array_equal(first[i, 0], second[i, 1]) for i in range(IMAGES))


def test_an_image_that_comes_again_in_an_epoch_shows_its_next_view() -> None:
    repeated = epoch(0, augment=AUGMENT.model_copy(update={"repeats": 2}))
    assert set(repeated) == {(i, k) for i in {i for i, _ in repeated} for k in range(VIEWS)}
    first, second = epoch(0), epoch(1)
    assert all(np.array_equal(image, (first | second)[place]) for place, image in repeated.items())


def test_answers_are_mixed_as_the_targets_are() -> None:
    truth = np.eye(CLASSES, dtype=np.float32)[SPLIT.labels]

    def answers(used: np.ndarray) -> np.ndarray:
        return np.log(0.9 * truth[used[:, 0]] + 0.1 / CLASSES)

    mixed = 0
    for _, targets, logs in feed(AUGMENT.model_copy(update={"cutmix": CutMix()}), answers=answers).epoch(0):
        np.testing.assert_allclose(np.exp(logs), 0.9 * targets + 0.1 / CLASSES, rtol=1e-5)
        mixed += int((np.max(targets, 1) < 0.99).sum())
    assert mixed


def test_without_views_every_epoch_draws_anew() -> None:
    first, later = epoch(0, views=None), epoch(VIEWS, views=None)
    assert not any(np.array_equal(first[i, 0], later[i, 0]) for i in range(IMAGES))


@pytest.mark.parametrize("start", [1, 2])
def test_an_epoch_of_views_goes_on_from_a_step(start: int) -> None:
    whole = [pixels.numpy() for pixels, *_ in feed().epoch(3)]
    rest = [pixels.numpy() for pixels, *_ in feed().epoch(3, start)]
    assert len(rest) == len(whole) - start
    assert all(np.array_equal(a, b) for a, b in zip(whole[start:], rest, strict=True))

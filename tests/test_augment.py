"""Random changes: their definition, their distribution, and that a seed fixes them."""

import numpy as np
import pytest
import tensorflow as tf

from edgecls import augment
from edgecls.recipe import Augment

IMAGE = tf.constant(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
ON = {"flip": "both", "rotate90": True}


def seeds(count):
    return [tf.constant([3, i], tf.int32) for i in range(count)]


def test_every_entry_is_a_recipe_key_and_tested_here():
    assert set(augment.IMAGE) <= set(Augment.model_fields)
    assert set(augment.IMAGE) == set(ON)


@pytest.mark.parametrize("key", augment.IMAGE)
def test_image_change_is_fixed_by_its_seed_and_keeps_the_form(key):
    op = tf.function(lambda image, seed: augment.IMAGE[key](image, ON[key], seed))
    out = [op(IMAGE, seed).numpy() for seed in seeds(12)]
    assert all(o.dtype == np.uint8 and o.shape == IMAGE.shape for o in out)
    assert all(np.array_equal(o, op(IMAGE, seed)) for o, seed in zip(out, seeds(12), strict=True))
    assert len({o.tobytes() for o in out}) > 1
    same = augment.image_augmentation({key: None, "mixup_alpha": 0.2, "unknown": 1})(IMAGE, seeds(1)[0])
    assert np.array_equal(same, IMAGE)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"flip": "horizontal"}, 2),
        ({"flip": "vertical"}, 2),
        ({"flip": "both"}, 4),
        ({"flip": "none", "rotate90": True}, 4),
        ({"flip": "both", "rotate90": True}, 8),
        ({"flip": "none", "rotate90": False}, 1),
    ],
)
def test_all_turns_appear_about_equally_often(settings, expected):
    change = tf.function(augment.image_augmentation(settings))
    image = IMAGE.numpy()
    turns = [np.rot90(m, k).tobytes() for m in (image, image[:, ::-1]) for k in range(4)]
    out = [change(IMAGE, seed).numpy().tobytes() for seed in seeds(160)]
    counts = np.unique(out, return_counts=True)[1]
    assert set(out) <= set(turns) and len(counts) == expected
    assert counts.min() > 0.4 * 160 / expected


def test_switching_one_change_on_leaves_the_others_draws():
    alone = augment.image_augmentation({"flip": "horizontal"})
    both = augment.image_augmentation({"flip": "horizontal", "rotate90": True})
    for seed in seeds(16):
        turned = both(IMAGE, seed).numpy()
        flipped = alone(IMAGE, seed).numpy()
        assert any(np.array_equal(np.rot90(flipped, k), turned) for k in range(4))


@pytest.mark.parametrize("shape", [(300, 300), (375, 500), (40, 400), (7, 5), (1, 1)])
def test_random_window_fits_and_has_the_asked_area_and_ratio(shape):
    scale, ratio = (0.3, 0.9), (0.75, 4 / 3)
    draw = tf.function(lambda seed: augment.random_window(*map(tf.constant, shape), scale, ratio, seed))
    windows = np.array([draw(seed) for seed in seeds(300)])
    top, left, height, width = windows.T
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (top + height <= shape[0]).all() and (left + width <= shape[1]).all()
    if min(shape) < 100:
        return
    area, aspect = height * width / np.prod(shape), width / height
    ratios = np.linspace(*ratio, 1001)
    fits = np.minimum(shape[1] / (shape[0] * ratios), shape[0] * ratios / shape[1])
    expected = (np.minimum(scale[0], fits) + np.minimum(scale[1], fits)).mean() / 2
    assert area.min() > 0.29 and area.max() < 0.91 and abs(area.mean() - expected) < 0.03
    assert aspect.min() > 0.74 and aspect.max() < 1.35 and abs(aspect.mean() - 25 / 24) < 0.04
    free = shape[1] - width
    assert left.min() == 0 or (left / np.maximum(free, 1)).min() < 0.05
    assert (left / np.maximum(free, 1)).max() > 0.95


def test_whole_image_is_a_possible_window():
    window = augment.random_window(tf.constant(224), tf.constant(224), (1.0, 1.0), (1.0, 1.0), seeds(1)[0])
    assert window.numpy().tolist() == [0, 0, 224, 224]


def test_mixup_mixes_pixels_and_labels_alike():
    pixels = tf.reshape(tf.range(5.0), [5, 1, 1, 1]) * tf.ones([5, 4, 4, 3])
    labels = tf.one_hot(tf.range(5), 5)
    shares = []
    for seed in seeds(400):
        x, y = augment.mixup(pixels, labels, 0.2, seed)
        assert np.allclose(tf.reduce_sum(y, 1), 1)
        assert np.allclose(x[:, 0, 0, 0], tf.linalg.matvec(y, tf.range(5.0)), atol=1e-5)
        shares.append(float(tf.linalg.diag_part(y)[0]))
    again, _ = augment.mixup(pixels, labels, 0.2, seeds(400)[-1])
    assert np.array_equal(again, x)
    assert x.dtype == y.dtype == tf.float32


@pytest.mark.parametrize("alpha", [1e-4, 0.2, 1.0, 8.0])
def test_mixup_share_is_beta(alpha):
    pixels, labels = tf.zeros([2, 1, 1, 3]), tf.one_hot([0, 1], 2)

    @tf.function
    def share(seed):
        own = augment.mixup(pixels, labels, alpha, seed)[1][0]
        return tf.reduce_max(own)  # lam or 1 - lam; 1 where the partner is the image itself

    values = np.array([share(seed) for seed in seeds(600)])
    mixed = values[values < 1]
    assert np.isfinite(values).all() and values.min() >= 0.5
    expected = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    if alpha >= 0.2:
        assert abs(mixed.mean() - np.maximum(expected, 1 - expected).mean()) < 0.05
    else:
        assert (values > 0.99).mean() > 0.99

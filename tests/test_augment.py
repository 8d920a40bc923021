"""Every registered augmentation: its form, its random numbers, and that the recipe follows from the registry."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import edgecls
from edgecls.augment import OPERATIONS, Augment, Chain, Mixer
from edgecls.augment.compose import generator
from edgecls.augment.geometry import random_window
from edgecls.augment.settings import only
from edgecls.errors import UsageError
from edgecls.recipe import Recipe, load_recipe

RNG = np.random.default_rng(0)
SIZE, CLASSES = 48, 5
IMAGES = RNG.integers(0, 256, (24, SIZE, SIZE, 3), dtype=np.uint8)
IMAGES[12:] = np.clip(np.linspace(20, 230, SIZE)[None, :, None, None] + IMAGES[12:] / 16, 0, 255)
LABELS = np.arange(24) % CLASSES
ON = {"flip": "both", "rotate90": True}
"""Values of the keys that have no section; an operation with options is on with ``{}``."""
OF_AN_IMAGE = [name for name, op in OPERATIONS.items() if op.where != "batch"]
OF_A_BATCH = [name for name, op in OPERATIONS.items() if op.where == "batch"]


def apply(settings, images=IMAGES, labels=LABELS, **moment):
    return edgecls.augment.apply(images, labels, settings, CLASSES, **moment)


def alone(name, **moment):
    return apply({name: ON.get(name, {})}, **moment)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_the_form_and_leaves_its_input_alone(name):
    before = IMAGES.copy()
    pixels, targets = alone(name, seed=1, epoch=3, epochs=4)
    assert pixels.shape == IMAGES.shape and pixels.dtype == np.float32
    assert pixels.min() >= 0 and pixels.max() <= 255
    assert targets.shape == (24, CLASSES) and targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    assert np.array_equal(IMAGES, before)
    assert not np.array_equal(pixels, IMAGES)


@pytest.mark.parametrize("name", OF_AN_IMAGE)
def test_an_image_operation_gives_whole_numbers_and_no_new_targets(name):
    pixels, targets = alone(name, epoch=3, epochs=4)
    assert np.array_equal(pixels, pixels.round())
    assert np.array_equal(targets, np.eye(CLASSES)[LABELS])


@pytest.mark.parametrize("name", OPERATIONS)
def test_seed_and_epoch_fix_what_is_drawn(name):
    first = alone(name, seed=4, epoch=2, epochs=3)
    again = alone(name, seed=4, epoch=2, epochs=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in ({"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 1}):
        assert not np.array_equal(first[0], alone(name, epochs=3, **other)[0])


@pytest.mark.parametrize("name", OF_AN_IMAGE)
def test_images_are_decided_one_by_one(name):
    """The same photo at every place of the batch comes out differently, and a shorter batch changes nothing."""
    same = np.repeat(IMAGES[13:14], 24, 0)
    pixels, _ = apply({name: ON.get(name, {})}, same, epoch=3, epochs=4)
    assert len({image.tobytes() for image in pixels}) > 1
    fewer, _ = apply({name: ON.get(name, {})}, same[:5], LABELS[:5], epoch=3, epochs=4)
    assert np.array_equal(fewer, pixels[:5])


@pytest.mark.parametrize("name", OPERATIONS)
def test_switching_an_operation_on_leaves_the_others_draws(name, monkeypatch):
    from edgecls.augment import compose

    drawn = {}
    real = compose.generator

    def recorded(seed, epoch, index, key, draw=0):
        drawn.setdefault((key, index, draw), set()).add(real(seed, epoch, index, key, draw).random())
        return real(seed, epoch, index, key, draw)

    monkeypatch.setattr(compose, "generator", recorded)
    alone(name)
    apply({key: ON.get(key, {}) for key in OPERATIONS})
    assert any(key == name for key, *_ in drawn)
    assert all(len(values) == 1 for values in drawn.values())


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_recipe_follows_from_the_registry(name, tmp_path):
    field, op = Augment.model_fields[name], OPERATIONS[name]
    assert field.get_default() == op.default and len(field.description) > 10
    value = ON.get(name, {})
    recipe = load_recipe(
        "mv3_ssld", [f"augment.{name}={str(value).lower() if name == 'rotate90' else value}"]
    )
    assert getattr(recipe.augment, name) not in (None, False, "none")
    path = tmp_path / "again.yaml"
    path.write_text(recipe.dump())
    assert load_recipe(path) == recipe
    if value == {}:
        with pytest.raises(UsageError, match=f"unknown key 'augment.{name}.nosuch'"):
            load_recipe("mv3_ssld", [f"augment.{name}.nosuch=1"])
        assert all(f.description for f in type(getattr(recipe.augment, name)).model_fields.values())


def test_absent_is_off():
    off = Augment.model_validate(only())
    assert not Chain(off) and not Mixer(off) and not Chain(off).crops
    pixels, targets = apply({})
    assert np.array_equal(pixels, IMAGES) and np.array_equal(targets, np.eye(CLASSES)[LABELS])


def test_the_old_key_of_mixup_is_refused_with_the_new_one():
    with pytest.raises(UsageError, match=r"unknown key 'augment.mixup_alpha'.*did you mean 'augment.mixup'"):
        load_recipe("mv3_ssld", ["augment.mixup_alpha=0.2"])
    assert load_recipe("mv3_ssld", ["augment.mixup.alpha=0.4"]).augment.mixup.alpha == 0.4


@pytest.mark.parametrize(
    ("augment", "line"),
    [
        ({"mixup": {"alpha": 0}}, "mixup.alpha"),
        ({"mixpu": {}}, "did you mean 'mixup'"),
        ({"flip": "sideways"}, "flip: expected 'none', 'horizontal'"),
    ],
)
def test_apply_refuses_wrong_keys(augment, line):
    with pytest.raises(UsageError, match=line):
        apply(augment)


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (IMAGES.astype(np.float32), LABELS, "images must be uint8"),
        (IMAGES[0], LABELS[:1], "images must be uint8"),
        (IMAGES[:, 1:], LABELS, "images must be uint8"),
        (IMAGES, LABELS[1:], "24 images need labels"),
        (IMAGES, LABELS + 1, "label 5 is not below classes"),
    ],
)
def test_apply_refuses_wrong_arrays(images, labels, line):
    with pytest.raises(UsageError, match=line):
        apply({}, images, labels)


def test_a_view_of_images_is_taken_as_it_looks():
    settings = {"crop_scale": [0.5, 1.0], "flip": "both", "rotate90": True, "trivialaugment": {}}
    for view in (IMAGES[..., ::-1], IMAGES[:, ::-1], IMAGES.transpose(0, 2, 1, 3)):
        assert np.array_equal(apply(settings, view)[0], apply(settings, view.copy())[0])


def test_no_image_and_no_label():
    pixels, targets = apply({"mixup": {}, "flip": "both"}, IMAGES[:0], LABELS[:0])
    assert pixels.shape == (0, SIZE, SIZE, 3) and targets.shape == (0, CLASSES)
    assert not apply({}, labels=np.full(24, -1))[1].any()


def test_augmentation_needs_no_tensorflow():
    program = (
        "import edgecls, numpy as np, sys\n"
        "edgecls.augment.apply(np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2, int), {'mixup': {}}, classes=2)\n"
        "assert 'tensorflow' not in sys.modules\n"
        "import subprocess\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    reads_a_recipe = (
        "import edgecls.recipe, sys\nassert not {'cv2', 'numpy', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", reads_a_recipe], check=True, timeout=60)


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
    image = IMAGES[0]
    turns = [np.rot90(m, k).tobytes() for m in (image, image[:, ::-1]) for k in range(4)]
    chain = Chain(Augment.model_validate(only(**settings)), seed=3)
    out = [chain(image, i).tobytes() for i in range(1600)]
    counts = np.unique(out, return_counts=True)[1]
    assert set(out) <= set(turns) and len(counts) == expected
    assert counts.min() > 0.75 * 1600 / expected


def test_streams_are_uniform_and_unrelated():
    first = np.array([[generator(s, e, i, n).random() for i in range(500)]
                      for s, e, n in [(0, 0, "flip"), (0, 0, "crop"), (0, 1, "flip"), (1, 0, "flip")]])  # fmt: skip
    assert abs(first.mean(1) - 0.5).max() < 0.06
    assert abs(np.corrcoef(first) - np.eye(4)).max() < 0.2
    views = {generator(0, 0, 7, "crop", draw).random() for draw in range(4)}
    assert len(views) == 4


@pytest.mark.parametrize("shape", [(300, 300), (375, 500), (40, 400), (7, 5), (1, 1)])
def test_random_window_fits_and_has_the_asked_area_and_ratio(shape):
    scale, ratio = (0.3, 0.9), (0.75, 4 / 3)
    rng = np.random.default_rng(0)
    windows = np.array([random_window(*shape, scale, ratio, rng) for _ in range(2000)])
    top, left, height, width = windows.T
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (top + height <= shape[0]).all() and (left + width <= shape[1]).all()
    if min(shape) < 100:
        return
    area, aspect = height * width / np.prod(shape), width / height
    ratios = np.linspace(*ratio, 1001)
    fits = np.minimum(shape[1] / (shape[0] * ratios), shape[0] * ratios / shape[1])
    expected = (np.minimum(scale[0], fits) + np.minimum(scale[1], fits)).mean() / 2
    assert area.min() > 0.29 and area.max() < 0.91 and abs(area.mean() - expected) < 0.015
    assert aspect.min() > 0.74 and aspect.max() < 1.35 and abs(aspect.mean() - 25 / 24) < 0.02
    free = shape[1] - width
    assert left.min() == 0 or (left / np.maximum(free, 1)).min() < 0.05
    assert (left / np.maximum(free, 1)).max() > 0.95


def test_whole_image_is_a_possible_window():
    assert random_window(224, 224, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0)) == (0, 0, 224, 224)


def test_a_crop_of_apply_is_a_window_resized():
    image = np.repeat(np.repeat(np.arange(SIZE, dtype=np.uint8)[:, None, None], SIZE, 1), 3, 2)
    (pixels, *_), _ = apply({"crop_scale": [0.25, 0.25], "crop_ratio": [1.0, 1.0]}, image[None], LABELS[:1])
    rows = pixels[:, 0, 0]
    assert rows[-1] - rows[0] == pytest.approx(SIZE / 2, abs=1.5) and (np.diff(rows) >= 0).all()


def test_the_default_recipe_crops_and_mirrors():
    settings = Recipe.model_fields["augment"].get_default()
    assert settings.crop_scale == [0.5, 1.0] and settings.flip == "horizontal"
    assert all(getattr(settings, name) in (None, False) for name in OPERATIONS if name != "flip")

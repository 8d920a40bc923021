"""The transforms of the policies against Pillow's, and how they grow."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from edgecls.augment import policy, transforms
from edgecls.augment.transforms import TRANSFORMS

RNG = np.random.default_rng(0)
SIZE = 96
FILL = (124, 116, 104)
PHOTO = cv2.resize(
    RNG.integers(0, 256, (7, 6, 3), dtype=np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC
)
SLOPE = np.repeat(np.add.outer(np.arange(SIZE), np.arange(SIZE))[..., None], 3, 2).astype(np.uint8)
NOISE = RNG.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
DARK = (PHOTO // 6 + 90).astype(np.uint8)
FLAT = np.full((SIZE, SIZE, 3), 77, np.uint8)
TWO = np.where(np.arange(SIZE)[:, None, None] < 2, 10, FLAT).astype(np.uint8)


def affine(image, *matrix):
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL
    )


#: By transform: what Pillow does at an amount.
GEOMETRY = {
    "shear_x": lambda image, amount: affine(image, 1, amount, 0, 0, 1, 0),
    "shear_y": lambda image, amount: affine(image, 1, 0, 0, amount, 1, 0),
    "translate_x": lambda image, amount: affine(image, 1, 0, amount * SIZE, 0, 1, 0),
    "translate_y": lambda image, amount: affine(image, 1, 0, 0, 0, 1, amount * SIZE),
    "rotate": lambda image, amount: image.rotate(amount, Image.Resampling.BILINEAR, fillcolor=FILL),
}
COLOR = {
    "identity": lambda image, amount: image,
    "brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(1 + amount),
    "contrast": lambda image, amount: ImageEnhance.Contrast(image).enhance(1 + amount),
    "color": lambda image, amount: ImageEnhance.Color(image).enhance(1 + amount),
    "sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(1 + amount),
    "posterize": lambda image, amount: ImageOps.posterize(image, int(amount)),
    "solarize": lambda image, amount: ImageOps.solarize(image, amount),
    "invert": lambda image, amount: ImageOps.invert(image),
    "autocontrast": lambda image, amount: ImageOps.autocontrast(image),
    "equalize": lambda image, amount: ImageOps.equalize(image),
}
EXACT = {"identity", "brightness", "posterize", "solarize", "invert", "autocontrast", "equalize"}
AMOUNTS = {**policy._TRIVIALAUGMENT, **{"invert": policy.Scale(1, 1)}}


def amounts(name):
    scale = AMOUNTS[name]
    values = [scale.weakest + s * (scale.strongest - scale.weakest) for s in (0.0, 0.13, 0.5, 1.0)]
    return values + ([-v for v in values] if scale.signed else [])


def test_every_transform_has_a_reference_here():
    assert GEOMETRY.keys() | COLOR.keys() == TRANSFORMS.keys() == AMOUNTS.keys()


@pytest.mark.parametrize("name", COLOR)
@pytest.mark.parametrize(
    "image", [PHOTO, NOISE, DARK, FLAT, TWO], ids=["photo", "noise", "dark", "flat", "two"]
)
def test_color_is_pillows(name, image):
    """Exactly, or to two levels: Pillow rounds its gray or smoothed image first, and cuts fractions off after."""
    for amount in amounts(name):
        ours = TRANSFORMS[name](image, amount, FILL).astype(int)
        pillows = np.asarray(COLOR[name](Image.fromarray(image), amount)).astype(int)
        assert abs(ours - pillows).max() <= (0 if name in EXACT else 2), amount


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("image", [PHOTO, NOISE], ids=["photo", "noise"])
def test_geometry_is_pillows_but_for_the_rim(name, image):
    """To two levels, to eight where OpenCV 4 rounds positions to 1/32 of a pixel. Along the rim of the image Pillow repeats the last pixel, and ours blends into the fill."""
    for amount in amounts(name):
        ours = TRANSFORMS[name](image, amount, FILL).astype(int)
        pillows = np.asarray(GEOMETRY[name](Image.fromarray(image), amount)).astype(int)
        white = TRANSFORMS[name](np.full_like(image, 255), amount, (0, 0, 0))[..., 0]
        inside = cv2.erode((white == 255).astype(np.uint8), np.ones((3, 3)), borderValue=0) > 0
        outside = cv2.dilate(white, np.ones((3, 3))) == 0
        assert abs(ours - pillows)[inside].max(initial=0) <= (2 if cv2.getVersionMajor() >= 5 else 8), amount
        assert (ours[outside] == FILL).all() and (pillows[outside] == FILL).all()
        assert (inside | outside).mean() > 0.85


def change(image, other):
    return np.abs(image.astype(int) - other).mean()


@pytest.mark.parametrize("name", sorted(policy._RANDAUGMENT.keys() - {"identity"}))
@pytest.mark.parametrize("sign", [1, -1])
def test_severity_grows_with_the_magnitude(name, sign):
    scale = policy._RANDAUGMENT[name]
    if sign < 0 and not scale.signed:
        return
    image = {
        "autocontrast": DARK,
        "equalize": DARK,
        "sharpness": NOISE,
        "translate_x": SLOPE,
        "translate_y": SLOPE,
    }.get(name, PHOTO)
    changes = []
    for strength in np.linspace(0, 1, 11):
        amount = scale.weakest + strength * (scale.strongest - scale.weakest)
        changes.append(change(TRANSFORMS[name](image, sign * amount, FILL), image))
    assert changes[0] == 0 and changes[-1] > 3
    assert (np.diff(changes) >= 0).all() and len(set(changes)) > 4


def test_amounts_of_the_scales():
    """The ends that AutoAugment, TrivialAugmentWide and PaddleClas publish, and both signs."""
    rng = np.random.default_rng(0)
    rotate = [policy._AUTOAUGMENT["rotate"].at(0.5, rng) for _ in range(400)]
    assert set(rotate) == {15.0, -15.0} and 150 < rotate.count(15.0) < 250
    assert {policy._AUTOAUGMENT_PADDLE["rotate"].at(0.5, rng) for _ in range(50)} == {15.0}
    bits = [int(policy._AUTOAUGMENT["posterize"].at(level / 9, rng)) for level in range(10)]
    assert bits == np.round(np.linspace(8, 4, 10)).astype(int).tolist()
    bits = [int(policy._RANDAUGMENT_PADDLE["posterize"].at(m / 10, rng)) for m in range(11)]
    assert bits == [int(0.4 * m) for m in range(11)]
    bits = [int(policy._TRIVIALAUGMENT["posterize"].at(level / 30, rng)) for level in range(31)]
    assert bits == [8 - int(level / 5 + 0.5) for level in range(31)]
    assert policy._TRIVIALAUGMENT["rotate"][:2] == (0, 135)


def test_gray_blur_and_hue():
    assert np.ptp(transforms.gray(NOISE).astype(int), axis=2).max() == 0
    luma = np.asarray(Image.fromarray(NOISE).convert("L")).astype(int)
    assert abs(transforms.gray(NOISE)[..., 0] - luma).max() <= 1
    blurred = transforms.blur(NOISE, 2.0).astype(float)
    assert blurred.std() < 0.2 * NOISE.std() and blurred.mean() == pytest.approx(NOISE.mean(), abs=2)
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    assert abs(transforms.hue(red, 1 / 3)[0, 0].astype(int) - [0, 255, 0]).max() <= 6  # steps of 1.4 degrees
    assert abs(transforms.hue(PHOTO, 0.0).astype(int) - PHOTO).max() <= 8

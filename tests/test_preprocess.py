"""Decoding and the one preprocessing, against Pillow and an independent OpenCV-like resize."""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edgecls.data import images
from edgecls.data.preprocess import Preprocess
from edgecls.errors import EdgeclsError, UsageError

RNG = np.random.default_rng(7)


def smooth(height, width, channels=3):
    """A picture that JPEG keeps nearly as it is."""
    y, x = np.mgrid[:height, :width].astype(float)
    planes = [127 + 120 * np.sin(x / (9 + 3 * c) + c) * np.cos(y / (11 + 2 * c)) for c in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cv2_linear(image, height, width):
    """OpenCV's INTER_LINEAR for 8 bits: weights of 11 bits, one rounding at the end."""

    def taps(old, new):
        at = (np.arange(new) + 0.5) * old / new - 0.5
        low = np.floor(at).astype(int)
        share = np.rint((at - low) * 2048).astype(np.int64)
        return np.clip(low, 0, old - 1), np.clip(low + 1, 0, old - 1), share

    y0, y1, v = taps(image.shape[0], height)
    x0, x1, u = taps(image.shape[1], width)
    pixels, u, v = image.astype(np.int64), u[None, :, None], v[:, None, None]
    rows = pixels[:, x0] * (2048 - u) + pixels[:, x1] * u
    return ((rows[y0] * (2048 - v) + rows[y1] * v + (1 << 21)) >> 22).astype(np.uint8)


def reference(image, size, short):
    """Short side, center crop, in plain Python."""
    height, width = image.shape[:2]
    least = min(height, width)
    height, width = (round(side * short / least) for side in (height, width))
    top, left = (height - size) // 2, (width - size) // 2
    return cv2_linear(image, height, width)[top : top + size, left : left + size]


def steps(a, b):
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (64, 64), (97, 301), (1000, 41), (28, 28)])
@pytest.mark.parametrize(("size", "short"), [(224, 256), (128, 146), (96, 96), (33, 40)])
def test_bilinear_is_opencvs(shape, size, short):
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert steps(Preprocess(size, short).array(image), reference(image, size, short)) <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
def test_interpolations_agree_on_a_smooth_picture(interpolation):
    image = smooth(300, 400)
    other = np.asarray(Image.fromarray(image).resize((195, 146), Image.Resampling.BICUBIC))[9:137, 33:161]
    pixels = Preprocess(128, 146, interpolation).array(image)
    assert np.abs(pixels.astype(int) - other).mean() < 2.5


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (97, 301), (1000, 41), (28, 28)])
@pytest.mark.parametrize(("kind", "limit"), [("bilinear", 1), ("bicubic", 2)])
def test_antialiased_is_pillows(shape, kind, limit):
    """Pillow rounds and clips after each of two passes; a bicubic kernel overshoots, so its pixels keep off the ends."""
    low, high = (0, 256) if kind == "bilinear" else (64, 192)
    image = RNG.integers(low, high, (*shape, 3), dtype=np.uint8)
    height, width = (round(side * 146 / min(shape)) for side in shape)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling[kind.upper()])
    top, left = (height - 128) // 2, (width - 128) // 2
    expect = np.asarray(resized)[top : top + 128, left : left + 128]
    preprocess = Preprocess(128, 146, kind, antialias=True)
    assert steps(preprocess.array(image), expect) <= limit
    assert min(shape) < 146 or steps(Preprocess(128, 146, kind).array(image), expect) > 20


def test_bicubic_does_not_wrap_around():
    image = np.zeros((50, 50, 3), np.uint8)
    image[:, 25:] = 255
    row = Preprocess(128, 128, "bicubic").array(image)[64, :, 0]
    assert row[:55].max() == 0 and row[73:].min() == 255


def test_real_photos_match_pillow_and_opencv():
    shared = Path(os.environ.get("EDGECLS_SHARED") or Path(__file__).parents[2] / "shared")
    photos = sorted((shared / "photos").glob("*.jpg"))[::20]
    if not photos:
        pytest.skip("no photographs: set EDGECLS_SHARED to the folder that holds photos/")
    preprocess = Preprocess(224)
    for path in photos:
        original = np.asarray(Image.open(path).convert("RGB"))
        assert np.array_equal(images.read_photo(path), original)
        assert steps(preprocess.load(path), reference(original, 224, 256)) <= 1


KINDS = {
    "jpeg": lambda x: encode(Image.fromarray(x), "JPEG", quality=98, subsampling=0),
    "progressive jpeg": lambda x: encode(
        Image.fromarray(x), "JPEG", quality=98, subsampling=0, progressive=True
    ),
    "png": lambda x: encode(Image.fromarray(x)),
    "bmp": lambda x: encode(Image.fromarray(x), "BMP"),
    "webp": lambda x: encode(Image.fromarray(x), "WEBP", lossless=True),
    "opaque rgba": lambda x: encode(Image.fromarray(x).convert("RGBA")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_colour_kinds(kind):
    image = smooth(40, 61)
    data = KINDS[kind](image)
    assert steps(images.decode(data), image) <= (6 if "jpeg" in kind else 0)


def test_grey_stays_one_channel_and_becomes_rgb():
    grey = smooth(30, 40, 1)
    for image in (Image.fromarray(grey[..., 0]), Image.fromarray(grey[..., 0] > 127)):
        data = encode(image)
        assert images.decode(data).shape == (30, 40, 1)
        assert Preprocess(24).array(images.decode(data)).shape == (24, 24, 3)


def test_sixteen_bits_are_scaled():
    values = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    assert images.decode(encode(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_transparency_is_put_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 128, 255
    expected = [255, 127, 0]
    assert images.decode(encode(Image.fromarray(rgba)))[0, :, 0].tolist() == expected
    grey = Image.fromarray(rgba).convert("LA")
    assert images.decode(encode(grey))[0, :, 2].tolist() == expected
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert images.decode(encode(palette, transparency=0))[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_cmyk_jpeg():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255  # cyan
    data = encode(Image.fromarray(ink, "CMYK"), "JPEG", quality=95)
    assert steps(images.decode(data), np.tile(np.uint8([0, 255, 255]), (16, 16, 1))) <= 4


def test_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, tmp_path):
    upright = smooth(24, 40)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(turned.copy()), "JPEG", quality=98, subsampling=0, exif=exif)
    assert steps(images.decode(data), upright) <= 8
    (tmp_path / "a.jpg").write_bytes(data)
    info = images.inspect(tmp_path / "a.jpg")
    assert info[:3] == (24, 40, 3) and info.jpeg == (orientation == 1)


def bad_files():
    jpeg, png = (encode(Image.fromarray(smooth(64, 64)), kind) for kind in ("JPEG", "PNG"))
    return {
        "text.jpg": (b"not a picture\n" * 9, "not an image"),
        "empty.jpg": (b"", "empty file"),
        "torn.jpg": (jpeg[: len(jpeg) // 2], "damaged image"),
        "torn.png": (png[: len(png) // 2], "damaged image"),
        "header.jpg": (jpeg[:3], "image"),
        "float.tif": (encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating point"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_bad_files_are_named_not_raised(name, tmp_path):
    data, reason = bad_files()[name]
    (tmp_path / name).write_bytes(data)
    assert reason in images.inspect(tmp_path / name)
    with pytest.raises(EdgeclsError, match=name):
        Preprocess(32).load(tmp_path / name)


def test_missing_file_is_said():
    assert images.inspect("/nowhere/a.jpg") == "no such file"
    with pytest.raises(EdgeclsError, match=r"/nowhere/a\.jpg"):
        Preprocess(32).load("/nowhere/a.jpg")


ENTRY = SimpleNamespace(
    input_size=260, resize_short=292, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def test_from_recipe_takes_the_published_settings():
    none = SimpleNamespace(input_size=None, resize_short=None, mean=None, std=None)
    published = Preprocess.from_recipe(ENTRY, none)
    assert (published.size, published.resize_short, published.interpolation) == (260, 292, "bicubic")
    smaller = Preprocess.from_recipe(ENTRY, SimpleNamespace(input_size=130, mean=[0.1, 0.2, 0.3], std=None))
    assert (smaller.size, smaller.resize_short, smaller.mean) == (130, 146, (0.1, 0.2, 0.3))
    assert Preprocess(224).resize_short == 256 and Preprocess(128).resize_short == 146
    assert Preprocess.from_recipe(ENTRY, none, antialias=True).antialias and not published.antialias


def test_dict_round_trip_and_bad_settings():
    preprocess = Preprocess(96, 110, "area", (0.1, 0.2, 0.3), (1, 1, 1), antialias=True)
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess
    with pytest.raises(UsageError, match="smaller than the input"):
        Preprocess(128, 100)
    with pytest.raises(UsageError, match="cubic2"):
        Preprocess(128, 146, "cubic2")

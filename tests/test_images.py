"""Image files of every kind come out as a person sees them. The files are made here, in the formats' own terms."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.data import decoding, images
from edgecls.data.preprocess import Preprocess

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
ROW = np.array([[0, 64, 128, 255]], np.uint8)  # dark to bright
COLOR = np.array([[RED, BLUE, (10, 200, 30), WHITE]], np.uint8)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blocks(colors, side=16):
    """Flat squares side by side, which JPEG keeps."""
    return np.repeat(np.repeat(np.array([colors], np.uint8), side, 0), side, 1)


def centers(image, side=16):
    return image[side // 2, side // 2 :: side]


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def deep_png(values, significant=None):
    """A PNG of 16 bits, gray, RGB, gray with alpha or RGBA by its channels; ``significant``: an sBIT chunk."""
    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    bits = chunk(b"sBIT", bytes([significant] * channels)) if significant else b""
    body = chunk(b"IHDR", head) + bits + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(values, tags=()):
    """An uncompressed little-endian TIFF of gray or RGB samples of any depth (TIFF 6.0, section 2)."""
    height, width, channels = values.shape
    bits, data = 8 * values.dtype.itemsize, values.astype(values.dtype.newbyteorder("<")).tobytes()
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 2 if channels == 3 else 1, 277: channels}
    entries |= {278: height, 279: len(data), 339: 2 if values.dtype.kind == "i" else 1, **dict(tags)}
    count = len(entries) + 1
    extra = 8 + 2 + 12 * count + 4
    entries[273] = extra + 2 * channels
    body = struct.pack("<H", count)
    for tag in sorted(entries):
        if tag == 258 and channels > 1:
            body += struct.pack("<HHII", tag, 3, channels, extra)
        elif tag in (281, 339, 258, 259, 262, 277):
            body += struct.pack("<HHIHH", tag, 3, 1, entries[tag], 0)
        else:
            body += struct.pack("<HHII", tag, 4, 1, entries[tag])
    return b"II*\0" + struct.pack("<I", 8) + body + b"\0\0\0\0" + struct.pack("<H", bits) * channels + data


def oriented(kind):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    return encode(Image.fromarray(COLOR[:, ::-1].copy()), kind, exif=exif, lossless=True)


def animated(kind, **options):
    frames = [Image.new("RGB", (4, 1), color) for color in (RED, BLUE)]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def alpha(levels):
    """Black of that opacity."""
    return np.dstack([np.zeros((1, len(levels), 3), np.uint8), np.array([levels], np.uint8)])


def palette(transparent=None):
    image = Image.new("P", (4, 1))
    image.putpalette([*RED, *BLUE, 10, 200, 30, *WHITE])
    image.putdata([0, 1, 2, 3])
    return encode(image, **({} if transparent is None else {"transparency": transparent}))


def ink(colors, adobe_transform):
    """A CMYK JPEG; ``adobe_transform`` 2 stores it as YCCK."""
    image = Image.fromarray(255 - blocks(colors)).convert("RGB")
    cmyk = np.dstack([np.asarray(image), np.zeros(image.size[::-1], np.uint8)])
    return encode(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=98, subsampling=0)


DEEP = (ROW.astype(np.uint16) * 257)[..., None]
DEEP_COLOR = COLOR.astype(np.uint16) * 257
TABLE = {
    "gray": (encode(Image.fromarray(ROW)), ROW, ""),
    "1 bit": (encode(Image.fromarray(ROW > 100)), [[0, 0, 255, 255]], ""),
    "RGB": (encode(Image.fromarray(COLOR)), COLOR, ""),
    "RGBA on white": (encode(Image.fromarray(alpha([0, 128, 255, 255]))), [[255, 127, 0, 0]], ""),
    "gray with alpha": (encode(Image.fromarray(alpha([0, 128, 255, 255])).convert("LA")), [[255, 127, 0, 0]], ""),
    "palette": (palette(), COLOR, ""),
    "palette, one entry transparent": (palette(1), [[RED, WHITE, (10, 200, 30), WHITE]], ""),
    "16-bit gray": (deep_png(DEEP), ROW, ""),
    "16-bit RGB": (deep_png(DEEP_COLOR), COLOR, ""),
    "16-bit RGBA": (deep_png(np.dstack([DEEP_COLOR, np.array([[0, 65535, 65535, 0]])])),
                    [[WHITE, BLUE, (10, 200, 30), WHITE]], ""),
    "16-bit gray with alpha": (deep_png(np.dstack([DEEP, np.array([[0, 65535, 65535, 0]])])), [[255, 64, 128, 255]], ""),
    "12 bits of 16, PNG": (deep_png(np.rint(DEEP / 65535 * 4095)), ROW, "12-bit values in 16-bit samples"),
    "12 bits of 16, by sBIT": (deep_png(np.rint(DEEP / 65535 * 900), 12), ROW * (900 / 4095), "12-bit"),
    "sBIT as the standard means it": (deep_png(DEEP // 16 * 16, 12), ROW, ""),
    "12 bits of 16, RGB": (deep_png(np.rint(DEEP_COLOR / 65535 * 4095)), COLOR, "12-bit"),
    "10 bits of 16, TIFF": (tiff(np.rint(DEEP / 65535 * 1023).astype(np.uint16)), ROW, "10-bit"),
    "12 bits of 16, by MaxSampleValue": (
        tiff(np.rint(DEEP / 65535 * 900).astype(np.uint16), {281: 4095}), ROW * (900 / 4095), "12-bit"),
    "16-bit RGB TIFF": (tiff(DEEP_COLOR), COLOR, ""),
    "32-bit integers": (tiff(DEEP.astype(np.uint32) * 15), ROW, "more than 16 bits"),
    "32-bit unsigned, above 2 ** 31": (tiff(DEEP.astype(np.uint32) * 65537), ROW, "more than 16 bits"),
    "32-bit signed of 12 bits": (tiff(np.rint(DEEP / 65535 * 4095).astype(np.int32)), ROW, "12-bit values in 32-bit"),
    "EXIF in PNG": (oriented("PNG"), COLOR, ""),
    "EXIF in WebP": (oriented("WEBP"), COLOR, ""),
    "animated GIF": (animated("GIF"), [[RED] * 4], ""),
    "animated WebP": (animated("WEBP", lossless=True), [[RED] * 4], ""),
    "animated PNG": (animated("PNG"), [[RED] * 4], ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLE)
def test_lossless_kinds(kind):
    data, expected, note = TABLE[kind]
    photo = decoding.decode(data)
    expected = np.asarray(expected, np.float64)
    expected = expected[..., None] if expected.ndim == 2 else expected
    assert photo.pixels.dtype == np.uint8 and photo.pixels.shape[:2] == (1, 4) and not photo.jpeg
    assert np.abs(photo.pixels - expected).max() <= 1, photo.pixels.tolist()
    assert note in photo.note and bool(note) == bool(photo.note), photo.note


FLAT = (RED, BLUE, (10, 200, 30), WHITE)
JPEGS = {
    "baseline": ({}, True),
    "4:2:0": ({"subsampling": 2}, True),
    "progressive": ({"progressive": True}, True),
    "CMYK": ({"mode": "CMYK"}, False),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_by_any_name(kind, tmp_path):
    options, plain = JPEGS[kind]
    options = {"quality": 98, "subsampling": 0, **options}
    image = Image.fromarray(blocks(FLAT))
    mode = options.pop("mode", "RGB")
    (tmp_path / "a.png").write_bytes(encode(image.convert(mode), "JPEG", **options))
    pixels = images.read_photo(tmp_path / "a.png")
    assert np.abs(centers(pixels).astype(int) - FLAT).max() <= 4
    assert images.inspect(tmp_path / "a.png").jpeg == plain


def test_ycck():
    """An Adobe marker with transform 2 says that the first three channels are YCbCr of inverted inks."""
    rgb = blocks(FLAT)
    # The channels of a YCCK file are those of YCbCr and a fourth: write a 4-channel JPEG of them and set the marker.
    inks = np.asarray(Image.fromarray(255 - rgb).convert("YCbCr"))
    data = encode(Image.fromarray(np.dstack([255 - inks, np.zeros(inks.shape[:2], np.uint8)]), "CMYK"), "JPEG",
                  quality=98, subsampling=0)  # fmt: skip
    start = data.index(b"Adobe")
    assert data[start + 11] in (0, 2)
    data = data[: start + 11] + b"\x02" + data[start + 12 :]
    pixels = decoding.decode(data).pixels
    assert np.abs(centers(pixels).astype(int) - FLAT).max() <= 6, centers(pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "RGBA", "palette"])
def test_giants_are_averaged_down(kind, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 4000)
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    image = small.resize((200, 160), Image.Resampling.BICUBIC)
    mode = {"RGBA": "RGBA", "palette": "P"}.get(kind, "RGB")
    photo = decoding.decode(encode(image.convert(mode), "JPEG" if kind == "JPEG" else "PNG"))
    height, width, _ = photo.pixels.shape
    assert 1000 <= height * width <= 4000 and width / height == 1.25 and "averaged down" in photo.note
    assert not photo.jpeg  # TensorFlow's decoder would give the whole
    want = np.asarray(image.convert(mode).convert("RGB").resize((width, height), Image.Resampling.BOX))
    assert np.abs(photo.pixels.astype(int) - want).mean() < 4


def test_beyond_all_reason_is_refused(monkeypatch):
    monkeypatch.setattr(decoding, "REFUSED_PIXELS", 1000)
    with pytest.raises(ValueError, match="100x11 pixels are more than"):
        decoding.decode(encode(Image.new("L", (100, 11))))


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 4000), (1000, 41)])
@pytest.mark.parametrize("antialias", [False, True])
def test_strips_cost_their_middle(shape, antialias, monkeypatch):
    smooth = np.cumsum(np.random.default_rng(0).integers(-9, 10, (max(shape), 3)), 0).clip(-100, 100) + 128
    photo = np.broadcast_to(smooth[:, None], (max(shape), min(shape), 3)).astype(np.uint8)
    photo = photo if shape[0] > shape[1] else photo.transpose(1, 0, 2)
    preprocess = Preprocess(32, 40, antialias=antialias)
    resized, resize = [], Preprocess.resize
    monkeypatch.setattr(
        Preprocess, "resize", lambda self, x, size: resized.append(size) or resize(self, x, size)
    )
    pixels = preprocess.resize_crop(np.ascontiguousarray(photo))
    assert pixels.shape == (32, 32, 3) and max(resized[0]) <= 100 * 40
    if max(shape) <= 4000:
        monkeypatch.setattr("edgecls.data.preprocess._STRIP", 10**9)
        whole = preprocess.resize_crop(np.ascontiguousarray(photo))
        assert np.abs(pixels.astype(int) - whole).max() <= 4


def no_pixels():
    """A PNG that says that it is 0 pixels wide."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 4, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 4)) + chunk(b"IEND", b"")


def test_files_without_pixels_or_that_cannot_be_opened_are_named(tmp_path, monkeypatch):
    (tmp_path / "empty.png").write_bytes(no_pixels())
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "good.png").write_bytes(encode(Image.fromarray(COLOR)))
    (tmp_path / "locked.png").write_bytes(encode(Image.fromarray(COLOR)))

    def locked(file, mode, buffering):  # root may read everything
        if Path(file).name == "locked.png":
            raise PermissionError(13, "Permission denied")
        return Path(file).open(mode, buffering)

    monkeypatch.setattr(images, "open", locked, raising=False)
    names = ("empty", "loop", "locked", "good")
    empty, loop, refused, good = images.scan([str(tmp_path / f"{name}.png") for name in names])
    assert "no pixels" in empty or "not an image" in empty, empty
    assert (
        loop.startswith("cannot be read: Too many levels") and refused == "cannot be read: Permission denied"
    )
    assert (good.height, good.width) == (1, 4)


def test_a_scan_is_kept_as_it_was_found(tmp_path, monkeypatch):
    files = [str(tmp_path / name) for name in ("a.png", "torn.jpg", "gone.png", "deep.png")]
    Path(files[0]).write_bytes(encode(Image.fromarray(COLOR)))
    Path(files[1]).write_bytes(b"torn")
    Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 200).save(files[3])  # it has a note
    cache = tmp_path / "cache" / "scan.json"
    found = images.scan(files, cache)
    assert found[1].startswith("not an image") and found[2] == "no such file" and found[3].note
    read = []
    monkeypatch.setattr(images, "inspect", lambda path: read.append(path) or "no such file")
    assert images.scan(files[::-1], cache) == found[::-1] and read == [files[2]]
    Path(files[0]).write_bytes(b"another size")
    assert images.scan(files, cache)[0] == "no such file" and read[1:] == [files[0], files[2]]


@pytest.mark.parametrize("shape", [(300, 200, 3), (37, 91, 3), (64, 64, 1), (1, 5, 3)])
@pytest.mark.parametrize("kind", [("bilinear", False), ("bilinear", True), ("area", False)])
def test_random_crops_are_resized_within_one_level(shape, kind):
    photo = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    preprocess = Preprocess(48, interpolation=kind[0], antialias=kind[1])
    window, exact = preprocess.resize_window(photo), preprocess.resize(photo, (48, 48))
    assert window.shape == (48, 48, 3) and window.dtype == np.uint8
    out = np.empty_like(window)
    assert preprocess.resize_window(photo, out) is out and np.array_equal(out, window)
    assert np.abs(window.astype(int) - exact).max() <= (kind == ("bilinear", False))

"""The Kotlin class of ``edgecls export --format android`` computes the pixels of ``Preprocess``, on the JVM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jvm import Kotlin

from edgecls.data import images
from edgecls.data.preprocess import INTERPOLATIONS, Preprocess
from edgecls.data.resizing import describe_preprocess
from edgecls.export import android

STUBS = sorted((Path(__file__).parent / "kotlin").glob("*.kt"))
VARIANTS = {
    f"{name}_{'antialiased' if antialias else 'plain'}": Preprocess(96, 110, name, antialias=antialias)
    for name in INTERPOLATIONS
    for antialias in (False, True)
    if not (antialias and name == "area")  # which is the same
}
SHAPES = [(375, 500), (701, 333), (64, 64), (97, 301), (110, 111), (96, 1500)]
OFF_BY_ONE = {"bilinear_plain": 1e-3, "bicubic_plain": 1e-3, "area_plain": 5e-3}
"""Of the values: sums in another order or precision, rounded to the other side. One level, never more; else none."""
MAIN = """
import android.content.Context
import android.graphics.Bitmap
import java.io.DataInputStream
import java.io.File

fun read(file: File): Bitmap = DataInputStream(file.inputStream().buffered()).use { data ->
    val width = data.readInt()
    val height = data.readInt()
    Bitmap(width, height, IntArray(width * height) { data.readInt() })
}

fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    for (file in folder.listFiles()!!.filter { it.extension == "photo" }) {
        val photo = read(file)
        val row = { y: Int -> IntArray(photo.width).also { photo.getPixels(it, 0, photo.width, 0, y, photo.width, 1) } }
        CALLS
    }
    val classifier = bilinear_plain.PhotoClassifier(Context(File(folder, "assets")))
    val photo = read(File(folder, "0.photo"))
    println(classifier.top(photo, 2) + classifier.labels)
    classifier.close()
    println(bytes.PhotoClassifier(Context(File(folder, "assets"))).scores(photo).toList())
}
"""


def facts(preprocess: Preprocess, **changes: Any) -> dict[str, Any]:
    settings = preprocess.to_dict()
    text = describe_preprocess(settings)
    return {
        **settings,
        "name": "net",
        "scores": "logits",
        "scale": None,
        "zero_point": None,
        "text": text,
        **changes,
    }


def write_photo(path: Path, pixels: np.ndarray) -> None:
    """Width, height and 0xAARRGGBB, big-endian as Java reads them."""
    argb = np.zeros(pixels.shape[:2], ">u4") + 0xFF000000
    for channel, shift in enumerate((16, 8, 0)):
        argb |= pixels[..., channel].astype(">u4") << shift
    path.write_bytes(np.array(pixels.shape[1::-1], ">i4").tobytes() + argb.astype(">u4").tobytes())


def photographs() -> list[np.ndarray]:
    """Noise, which is the hardest, and real photographs where they are at hand."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    shared = Path(os.environ.get("EDGECLS_SHARED") or Path(__file__).parents[2] / "shared")
    return noise + [images.read_photo(path) for path in sorted((shared / "photos").glob("*.jpg"))[::20]]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray], list[str]]:
    """A folder with the pixels that each variant computes, the photos, and what the program printed."""
    kotlin = Kotlin(tmp_path_factory.mktemp("kotlin"))
    folder = tmp_path_factory.mktemp("photos")
    sources = []
    for name, preprocess in VARIANTS.items():
        sources.append(folder / f"{name}.kt")
        sources[-1].write_text(android.kotlin(facts(preprocess), name))
    sources.append(folder / "bytes.kt")
    sources[-1].write_text(android.kotlin(facts(Preprocess(96), scale="0.25", zero_point=100), "bytes"))
    calls = "\n        ".join(
        f'File(folder, file.nameWithoutExtension + ".{name}")'
        f".writeBytes({name}.PhotoClassifier.pixels(photo.width, photo.height, row))"
        for name in VARIANTS
    )
    sources.append(folder / "Main.kt")
    sources[-1].write_text(MAIN.replace("CALLS", calls))
    assert "warning:" not in kotlin.compile([*STUBS, *sources])
    photos = photographs()
    for number, photo in enumerate(photos):
        write_photo(folder / f"{number}.photo", photo)
    (folder / "assets").mkdir()
    (folder / "assets/model.tflite").write_bytes(b"")
    (folder / "assets/labels.txt").write_text("cat\n1 2\u2028\ndog\n", encoding="utf-8")
    (folder / "assets/output").write_bytes(np.array([0.5, -1, 3], "<f4").tobytes())
    return folder, photos, kotlin.run("MainKt", str(folder)).rstrip("\n").split("\n")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_pixels_are_those_of_preprocess(computed, name: str) -> None:
    folder, photos, _ = computed
    different = []
    for number, photo in enumerate(photos):
        found = np.fromfile(folder / f"{number}.{name}", np.uint8).reshape(96, 96, 3)
        difference = np.abs(found.astype(int) - VARIANTS[name].array(photo))
        assert difference.max() <= 1
        if not (VARIANTS[name].antialias and photo.shape[0] > 2 * photo.shape[1]):  # Pillow 13: columns first
            different.append(difference > 0)
    assert np.mean(different) <= OFF_BY_ONE.get(name, 0)


def test_the_class_feeds_the_pixels_and_names_the_scores(computed) -> None:
    folder, _, (floats, integers) = computed
    fed = np.fromfile(folder / "assets/input", np.uint8)
    assert np.array_equal(fed, np.fromfile(folder / "0.bilinear_plain", np.uint8))
    assert floats == "[(dog, 3.0), (cat, 0.5), cat, 1 2\u2028, dog]"
    values = np.frombuffer(np.array([0.5, -1, 3], "<f4").tobytes(), np.uint8)
    assert integers == str([(int(value) - 100) * 0.25 for value in values])

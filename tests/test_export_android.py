"""The Kotlin class of ``edgecls export --format android`` computes the pixels of ``Preprocess``, on the JVM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import brightest
import numpy as np
import pytest
import variants
from jvm import Kotlin
from variants import VARIANTS

from edgecls.data.preprocess import Preprocess
from edgecls.data.resizing import describe_preprocess
from edgecls.export import android

STUBS = sorted((Path(__file__).parent / "kotlin").glob("*.kt"))
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
    photos = variants.photographs()
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
    files = [folder / f"{number}.{name}" for number in range(len(photos))]
    variants.check(name, photos, [np.fromfile(file, np.uint8) for file in files])


def test_the_class_feeds_the_pixels_and_names_the_scores(computed) -> None:
    folder, _, (floats, integers) = computed
    fed = np.fromfile(folder / "assets/input", np.uint8)
    assert np.array_equal(fed, np.fromfile(folder / "0.bilinear_plain", np.uint8))
    assert floats == "[(dog, 3.0), (cat, 0.5), cat, 1 2\u2028, dog]"
    values = np.frombuffer(np.array([0.5, -1, 3], "<f4").tobytes(), np.uint8)
    assert integers == str([(int(value) - 100) * 0.25 for value in values])


def test_a_file_that_no_run_made_becomes_an_app(call, tmp_path: Path) -> None:
    file = brightest.write(tmp_path / "mine.int8.tflite")
    code, out, err = call("export", str(file), "--format", "android", "--json")
    assert code == 0, err
    folder = Path(json.loads(out)["files"]["android"])
    assert folder == tmp_path / "mine.int8.android" and (folder / "PhotoClassifier.kt").is_file()
    assert (folder / "assets/model.tflite").read_bytes() == file.read_bytes()
    for args, found, text in (
        ((str(file),), 2, "a .tflite file cannot become tflite"),
        ((str(file), "--format", "android,onnx"), 2, "cannot become onnx"),
        (
            (str(file), "--format", "android", "--precision", "fp32"),
            2,
            "a .tflite file is as it is (--precision)",
        ),
        ((str(tmp_path / "none.tflite"), "--format", "web"), 3, "no such file"),
        ((str(broken(tmp_path)), "--format", "android"), 2, "broken.tflite"),
    ):
        code, _, err = call("export", *args)
        assert (code, text in err, err.count("\n")) == (found, True, 1), err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "broken.tflite",
        "mine.int8.android",
        file.name,
    ]


def broken(folder: Path) -> Path:
    path = folder / "broken.tflite"
    path.write_bytes(b"text")
    return path

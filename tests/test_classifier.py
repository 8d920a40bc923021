"""The classifier of a .tflite file: paths, bytes and arrays, threads, and no TensorFlow."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import brightest
import numpy as np
import pytest
from brightest import CLASSES, SIZE

from edgecls.errors import UsageError
from edgecls.export import inspect
from edgecls.export.inspect import Runner
from edgecls.infer import opening
from edgecls.infer.classifier import Classifier
from edgecls.infer.opening import Pool


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return brightest.write(tmp_path_factory.mktemp("model") / "brightest.tflite")


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    return [brightest.photo(tmp_path / f"{i}.png", i) for i in range(3)]


def test_logits_are_the_means_of_the_channels(file):
    classifier = Classifier.load(file, workers=2)
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    np.testing.assert_allclose(classifier.logits(pixels), 0.05 * pixels.mean((1, 2)), rtol=1e-5)
    assert classifier.classes == CLASSES


def test_paths_bytes_and_arrays_give_one_answer(file, photos):
    classifier = Classifier.load(file)
    by_path = classifier.predict(photos)
    assert [a["predictions"][0]["class"] for a in by_path] == CLASSES
    by_bytes = classifier.predict([photo.read_bytes() for photo in photos])
    arrays = [np.full((45, 60, 3), 20, np.uint8) for _ in photos]
    for channel, array in enumerate(arrays):
        array[..., channel] = 230
    for answers in (by_bytes, classifier.predict(arrays)):
        assert [a["image"] for a in answers] == [0, 1, 2]
        assert [a["predictions"] for a in answers] == [a["predictions"] for a in by_path]
    mixed = classifier.predict([photos[0], b"no image", arrays[2]], skipped=(skipped := []))
    assert [a["image"] for a in mixed] == [str(photos[0]), 2]
    assert skipped == [{"image": 1, "why": "not an image"}]


def test_gray_arrays_are_taken_and_others_refused(file):
    classifier = Classifier.load(file)
    gray = np.full((40, 50), 100, np.uint8)
    first, second = classifier.predict([gray, gray[..., None]], top=3)
    assert first["predictions"] == second["predictions"]
    assert [p["probability"] for p in first["predictions"]] == pytest.approx([1 / 3] * 3)
    for bad in (gray.astype(np.float32), gray[None, ..., None], np.zeros((4, 4, 4), np.uint8), gray[:0]):
        with pytest.raises(UsageError, match=r"cannot read the image.*pixels.*\(0\)"):
            classifier.predict([bad])


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(file, photos):
    classifier = Classifier.load(file)
    assert classifier.pixels(photos[0], most=60 * 45).shape == (SIZE, SIZE, 3)
    with pytest.raises(ValueError, match="60x45 pixels are more than"):
        classifier.pixels(photos[0].read_bytes(), most=60 * 45 - 1)


def test_threads_get_their_own_answers(file):
    classifier = Classifier.load(file, workers=2)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 1, SIZE, SIZE, 3), dtype=np.uint8)
    with ThreadPoolExecutor(8) as pool:
        logits = np.concatenate(list(pool.map(classifier.logits, pixels)))
    np.testing.assert_allclose(logits, 0.05 * pixels.mean((1, 2, 3)), rtol=1e-5)


def test_a_pool_lends_each_model_to_one_thread_at_a_time():
    busy, most, inside = [0, 0], [], threading.Barrier(2, timeout=10)

    def model(i):
        def compute(_):
            busy[i] += 1
            most.append(busy[i])
            inside.wait()  # both models work at once, or this breaks
            busy[i] -= 1
            return i

        return compute

    with ThreadPoolExecutor(8) as threads:
        used = list(threads.map(Pool([model(0), model(1)]), range(40)))
    assert set(used) == {0, 1} and set(most) == {1}


def test_a_model_comes_back_to_the_pool_after_an_error():
    def fails(_):
        raise ValueError("no")

    pool = Pool([fails])
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            pool(None)


def test_predict_of_a_tflite_file_imports_no_tensorflow(file, photos):
    program = (
        "import sys\nfrom edgecls.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, "predict", str(file), str(photos[1]), "--top", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{photos[1]}: bee 100.0 %", "[]"]


def test_the_interpreter_on_all_cores_says_what_the_others_say(tmp_path, monkeypatch):
    monkeypatch.setattr(opening.images, "threads", lambda: 4)
    threads = []
    monkeypatch.setattr(inspect, "Runner", lambda content, n: threads.append(n) or Runner(content, n))
    classifier = Classifier.load(brightest.write(tmp_path / "m.tflite"), workers=2)
    assert threads == [2, 2, 4]
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(classifier.logits(pixels), classifier.logits(pixels, alone=True))


def test_a_file_that_is_overwritten_while_it_is_used_does_no_harm(tmp_path):
    path = brightest.write(tmp_path / "m.tflite")
    classifier = Classifier.load(path)
    pixels = np.full((1, SIZE, SIZE, 3), 100, np.uint8)
    before = classifier.logits(pixels)
    with path.open("r+b") as file:
        file.truncate(0)
    assert np.array_equal(classifier.logits(pixels), before)

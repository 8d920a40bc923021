"""Scores against independent numbers; the classifier over a tiny model of each kind."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecls.errors import MissingError, UsageError
from edgecls.infer.classifier import Classifier
from edgecls.labels import write_labels
from edgecls.metrics import softmax

CLASSES = ["ant", "bee", "cat"]
SIZE = 32


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with a network that answers the brightest color channel, as .keras, fp32 and int8 .tflite."""
    import keras

    from edgecls.data.preprocess import Preprocess
    from edgecls.export.tflite import to_tflite
    from edgecls.quantize import calibrate, quantize_model
    from edgecls.zoo.layers import Normalize

    folder = tmp_path_factory.mktemp("run")
    image = keras.Input((SIZE, SIZE, 3))
    x = Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), name="normalize")(image)
    x = keras.layers.Conv2D(3, 1, name="conv")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Flatten(name="flatten")(
        keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    )
    model = keras.Model(image, keras.layers.Dense(3, name="fc")(x), name="tiny")
    model.get_layer("conv").set_weights([4 * np.eye(3).reshape(1, 1, 3, 3), np.zeros(3)])
    model.get_layer("fc").set_weights([np.eye(3), np.zeros(3)])
    model.save(folder / "float.keras")
    (folder / "labels.txt").write_text("".join(f"{c}\n" for c in CLASSES), encoding="utf-8")
    preprocess = Preprocess(size=SIZE)
    (folder / "preprocess.json").write_text(json.dumps(preprocess.to_dict()), encoding="utf-8")
    (folder / "export").mkdir()
    model.export(folder / "export" / "saved_model", verbose=False)
    to_tflite(model, folder / "export" / "model_fp32.tflite", "fp32", CLASSES, preprocess)
    quantized = quantize_model(model)
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3)).astype(np.float32)
    pixels[:3] = 255 * np.eye(3, dtype=np.float32)[:, None, None]
    calibrate(quantized, [pixels])
    to_tflite(quantized, folder / "export" / "model_int8.tflite", "int8", CLASSES, preprocess, "uint8")
    return folder


@pytest.fixture
def photos(tmp_path) -> list[str]:
    """A red, a green and a blue photograph."""
    paths = []
    for i in range(3):
        colour = tuple(230 if c == i else 20 for c in range(3))
        Image.new("RGB", (60, 45), colour).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    return paths


def test_kinds_agree_and_know_their_labels(run, photos):
    kinds = [Classifier.load(run, kind) for kind in ("float", "fp32", "int8")]
    pixels = np.stack([kinds[0].preprocess.load(p) for p in photos])
    whole, single, small = (k.logits(pixels) for k in kinds)
    assert whole.shape == (3, 3) and whole.dtype == single.dtype == small.dtype == np.float32
    np.testing.assert_allclose(single, whole, atol=1e-4)
    np.testing.assert_allclose(small, whole, atol=0.1)  # uint8 output, dequantized
    for kind in kinds:
        assert kind.classes == CLASSES
        assert kind.preprocess == kinds[0].preprocess
        answers = kind.predict(photos, top=2)
        assert [a["image"] for a in answers] == photos
        assert [a["predictions"][0]["class"] for a in answers] == CLASSES
        assert all(len(a["predictions"]) == 2 for a in answers)
        assert kind.logits(pixels[:0]).shape == (0, 3)


def test_a_run_prefers_int8_and_a_file_stands_alone(run, tmp_path, photos):
    assert Classifier.load(run).path.name == "model_int8.tflite"
    alone = tmp_path / "shipped.tflite"
    alone.write_bytes((run / "export" / "model_int8.tflite").read_bytes())
    assert Classifier.load(alone).predict(photos[:1]) == Classifier.load(run).predict(photos[:1])


def test_a_saved_model_answers_as_the_keras_file(run, photos, call):
    classifier, keras_file = Classifier.load(run / "export" / "saved_model"), Classifier.load(run, "float")
    pixels = np.stack([classifier.pixels(photo) for photo in photos])
    np.testing.assert_allclose(classifier.logits(pixels), keras_file.logits(pixels), atol=1e-5)
    assert classifier.classes == CLASSES and classifier.preprocess == keras_file.preprocess
    code, out, _ = call("predict", str(run / "export" / "saved_model"), photos[2], "--top", "1")
    assert code == 0 and out.startswith(f"{photos[2]}: cat ")


@pytest.mark.parametrize("end", ["layer", "activation", "dense"])
def test_a_model_that_gives_probabilities_is_not_softened_twice(run, tmp_path, end):
    import keras

    network = keras.models.load_model(run / "float.keras")
    scores = {
        "layer": lambda x: keras.layers.Softmax()(x),
        "activation": lambda x: keras.layers.Activation("softmax")(x),
        "dense": lambda x: keras.layers.Dense(3, "softmax", kernel_initializer="identity")(x),
    }[end](network.output)
    mine = keras.Model(network.input, scores)
    mine.save(tmp_path / "mine.keras")
    for name in ("labels.txt", "preprocess.json"):
        shutil.copy(run / name, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    said = softmax(Classifier.load(tmp_path / "mine.keras").logits(pixels))
    np.testing.assert_allclose(said, mine.predict_on_batch(pixels.astype(np.float32)), atol=1e-6)


def test_threads_may_share_a_keras_model(run):
    classifier = Classifier.load(run, "float")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, SIZE, SIZE, 3), dtype=np.uint8)
    with ThreadPoolExecutor(4) as pool:
        logits = np.concatenate(list(pool.map(classifier.logits, pixels)))
    np.testing.assert_allclose(logits, classifier.logits(pixels[:, 0]), atol=1e-5)


def test_a_file_without_metadata_names_classes_by_index(tmp_path, run, photos):
    import keras

    from edgecls.export.tflite import convert

    bare = tmp_path / "bare.tflite"
    bare.write_bytes(convert(keras.saving.load_model(run / "float.keras"), "fp32"))
    classifier = Classifier.load(bare)
    assert classifier.classes == ["0", "1", "2"]
    assert classifier.preprocess.size == SIZE
    assert classifier.predict(photos[1:2])[0]["predictions"][0]["class"] == "1"


def test_a_json_file_beside_a_model_of_the_users_own(tmp_path, run, photos):
    """Of three models that answer the brightest channel, the first two take normalized pixels, the second of any size."""
    import keras

    from edgecls.export.tflite import convert

    def network(side: int | None, *first: keras.Layer) -> keras.Model:
        mean = keras.layers.GlobalAveragePooling2D()
        return keras.Sequential([keras.Input((side, side, 3)), *first, mean, keras.layers.Softmax()])

    network(SIZE).save(tmp_path / "bare.keras")
    network(None).save(tmp_path / "open.keras")
    own = keras.layers.Normalization(mean=[127.5] * 3, variance=[42.5**2] * 3)
    network(SIZE, own).save(tmp_path / "own.keras")
    known = {"labels": CLASSES, "resize_short": 40, "mean": [0.5] * 3, "std": [1 / 6] * 3}
    (tmp_path / "bare.json").write_text(json.dumps(known))
    (tmp_path / "open.json").write_text(json.dumps({**known, "size": SIZE}))
    (tmp_path / "own.json").write_text(json.dumps({"labels": CLASSES, "resize_short": 40}))
    (tmp_path / "file.json").write_text(json.dumps(known))
    (tmp_path / "file.tflite").write_bytes(convert(keras.saving.load_model(run / "float.keras"), "fp32"))
    values = (np.array([230, 20, 20]) - 127.5) / 42.5
    expect = np.exp(values) / np.exp(values).sum()
    for name in ("bare.keras", "open.keras", "own.keras", "file.tflite"):
        classifier = Classifier.load(tmp_path / name)
        assert (classifier.preprocess.size, classifier.preprocess.resize_short) == (SIZE, 40)
        (red, *others), green, _ = (answer["predictions"] for answer in classifier.predict(photos))
        assert (red["class"], green[0]["class"]) == ("ant", "bee")
        if name != "file.tflite":
            assert [p["probability"] for p in (red, *others)] == pytest.approx(list(expect), abs=1e-4)


@pytest.mark.parametrize(
    "text, content",
    [
        ("unknown key 'label'.*keys are labels, size, resize_short", {"label": CLASSES}),
        ("not a JSON object", CLASSES),
        ("cannot read it", "{"),
        ("labels must be a list", {"labels": "ant"}),
        ("empty name", {"labels": ["ant", "bee", ""]}),
        ("3 outputs, but there are 2 labels", {"labels": CLASSES[:2]}),
        ("mean must be three numbers", {"mean": 0.5, "std": [1, 1, 1]}),
        ("std must be three numbers, all above 0", {"mean": [0, 0, 0], "std": [1, 1, 0]}),
        ("resize_short must be a whole number", {"resize_short": True}),
        ("antialias must be true or false", {"antialias": 1}),
        ("smaller than the input", {"resize_short": SIZE - 1}),
        ("unknown interpolation", {"interpolation": "lanczos"}),
        ("makes 31 px", {"size": 31, "resize_short": 40}),
    ],
)
def test_what_is_wrong_in_a_json_file_is_said(tmp_path, run, text, content):
    from edgecls.infer.opening import open_model

    path = tmp_path / "bare.tflite"
    if not (bare := run / "bare.tflite").is_file():
        import keras

        from edgecls.export.tflite import convert

        bare.write_bytes(convert(keras.saving.load_model(run / "float.keras"), "fp32"))
    path.write_bytes(bare.read_bytes())
    (tmp_path / "bare.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError, match=text) as caught:
        open_model(path)
    assert "bare." in str(caught.value)


def test_a_model_that_does_not_normalize_and_nothing_says_how(tmp_path):
    import keras

    layers = [keras.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D()]
    keras.Sequential(layers).save(tmp_path / "bare.keras")
    (tmp_path / "bare.json").write_text(json.dumps({"labels": CLASSES}))
    with pytest.raises(UsageError, match=r"does not normalize pixels.*put mean and std in bare\.json"):
        Classifier.load(tmp_path / "bare.keras")


def test_unreadable_images_are_named(run, tmp_path):
    torn, text = tmp_path / "torn.jpg", tmp_path / "text.jpg"
    Image.effect_noise((64, 64), 50).save(torn)
    torn.write_bytes(torn.read_bytes()[:400])
    text.write_text("no image")
    for bad in (torn, text, tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(UsageError, match=bad.name) as caught:
            Classifier.load(run).predict([bad])
        assert "\n" not in str(caught.value)


def test_unreadable_images_are_skipped_named_and_counted(run, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    foreign = Path(os.fsdecode(bytes(tmp_path) + "/猫狗.png".encode("gbk")))
    foreign.write_bytes(Path(photos[2]).read_bytes())
    skipped = []
    files = [tmp_path / "text.jpg", photos[0], tmp_path / "folder.jpg", foreign, tmp_path / "absent.jpg"]
    answers = Classifier.load(run).predict(files, 1, skipped)
    assert [a["predictions"][0]["class"] for a in answers] == ["ant", "cat"]
    assert [a["image"] for a in answers] == [photos[0], f"{tmp_path}/è\\udcb9\\udcb7.png"]
    assert [(Path(s["image"]).name, s["why"]) for s in skipped] == [
        ("text.jpg", "not an image"),
        ("folder.jpg", "not a file"),
        ("absent.jpg", "no such file"),
    ]
    assert Classifier.load(run).predict(files[:1], 1, skipped) == [] and len(skipped) == 4
    done = []
    Classifier.load(run).predict([photos[0]] * 40, progress=done.append)
    assert done == [32, 40]


def test_runs_are_found_by_name_and_link(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "demo" / "20260101-000000"
    shutil.copytree(run, folder)
    (folder / "recipe.yaml").write_text("name: demo\n")
    (tmp_path / "runs" / "latest").symlink_to("demo/20260101-000000")
    for path in ("runs/latest", "runs/demo", "demo", folder):
        assert Classifier.load(path).path.name == "model_int8.tflite"
    (tmp_path / "runs" / "empty" / "1").mkdir(parents=True)
    (tmp_path / "runs" / "empty" / "1" / "recipe.yaml").write_text("name: empty\n")
    with pytest.raises(MissingError, match=r"the run has no float\.keras.*make it with: edgecls train"):
        Classifier.load("empty")


def test_thousands_of_classes(tmp_path, photos):
    import keras

    names = [f"species {i:04}" for i in range(3000)]
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Dense(3000)(keras.layers.Flatten()(image))).save(tmp_path / "m.keras")
    write_labels(tmp_path / "labels.txt", names)
    (tmp_path / "preprocess.json").write_text('{"size": 8}')
    classifier = Classifier.load(tmp_path / "m.keras")
    assert classifier.classes == names
    (answer,) = classifier.predict(photos[:1], top=3000)
    assert sorted(p["class"] for p in answer["predictions"]) == names


def test_wrong_pixels_and_arguments_are_refused(run):
    classifier = Classifier.load(run)
    for images in (
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros(3, np.uint8),
    ):
        with pytest.raises(UsageError, match="takes uint8"):
            classifier.logits(images)
    with pytest.raises(UsageError, match="top"):
        classifier.predict([], top=0)


def test_wrong_files_are_one_line(run, tmp_path):
    import keras

    def refused(path, match, error=UsageError, kind=None):
        with pytest.raises(error, match=match) as caught:
            Classifier.load(path, kind)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500

    refused(tmp_path / "nowhere", "not a run")
    refused(tmp_path / "nowhere.keras", "no such file", MissingError)
    refused(tmp_path, "not a run")
    refused(run, "edgecls quantize", MissingError, "qat")
    refused(run, "unknown kind", kind="int4")
    refused(run / "labels.txt", "not a model file")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "saved_model.pb").write_bytes(b"x" * 100)
    refused(tmp_path / "torn", "not a usable SavedModel")
    refused(run / "float.keras", "kind", kind="int8")
    for name in ("broken.keras", "broken.tflite", "empty.keras", "empty.tflite"):
        (tmp_path / name).write_bytes(b"x" * 100 if name.startswith("broken") else b"")
        refused(tmp_path / name, name)
    (tmp_path / "torn.tflite").write_bytes((run / "export" / "model_int8.tflite").read_bytes()[:800])
    refused(tmp_path / "torn.tflite", "torn.tflite")

    (tmp_path / "alone.keras").write_bytes((run / "float.keras").read_bytes())
    refused(tmp_path / "alone.keras", "how its images are prepared")
    for name in ("labels.txt", "preprocess.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    Classifier.load(tmp_path / "alone.keras")
    vector = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    vector.save(tmp_path / "vector.keras")
    refused(tmp_path / "vector.keras", "not an image classifier")
    scores = keras.layers.GlobalAveragePooling2D()(image := keras.Input((8, 8, 3)))
    keras.Model(image, [scores, scores]).save(tmp_path / "two.keras")
    refused(tmp_path / "two.keras", "not an image classifier")
    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(image))).save(tmp_path / "five.keras")
    refused(tmp_path / "five.keras", "5 outputs, but there are 3 labels")
    image = keras.Input((16, 16, 3))
    keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image))).save(tmp_path / "small.keras")
    refused(tmp_path / "small.keras", "takes 16 px")
    (tmp_path / "preprocess.json").write_text("{")
    refused(tmp_path / "alone.keras", "preprocess.json")

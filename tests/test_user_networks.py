"""A recipe with the network of a ``.keras`` file: ``model: {file: my.keras}``, from training to every other command."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from served import serving
from tiny_run import RECIPE, edgecls, photos, succeed

import edgecls as package
from edgecls import user_network
from edgecls.data.preprocess import Preprocess
from edgecls.errors import UsageError
from edgecls.infer.beside import read_beside
from edgecls.infer.bodies import Limits
from edgecls.infer.service import Service
from edgecls.networks import Model
from edgecls.recipe import load_recipe
from edgecls.run import Run
from edgecls.train.multipliers import frozen, lr_factors
from edgecls.workflow.serving import load_models

SIZE = 32
OF_ZOO = "name: MobileNetV1_x0_25, input_size: 32, resize_short: 32"


def recipe_of(network: str) -> str:
    """The tiny recipe with another ``model`` section."""
    assert OF_ZOO in RECIPE
    return RECIPE.replace(OF_ZOO, network)


def transfer(classes: int = 4) -> keras.Model:
    """A frozen base inside a model, with augmentation, a normalization and a softmax of its own."""
    keras.utils.set_random_seed(1)
    x = image = keras.Input((SIZE, SIZE, 3), name="pixels")
    for stride, width in ((2, 8), (2, 16)):
        x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False, name=f"conv{width}")(x)
        x = layers.ReLU(name=f"relu{width}")(layers.BatchNormalization(momentum=0.5, name=f"norm{width}")(x))
    base = keras.Model(image, x, name="base")
    base.trainable = False
    image = keras.Input((SIZE, SIZE, 3), name="photo")
    x = layers.Rescaling(1 / 128, -127 / 128)(layers.RandomFlip("horizontal")(image))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(base(x, training=False)))
    return keras.Model(image, layers.Dense(classes, activation="softmax", name="top")(x), name="VGG11")


def plain(size: int | None = None) -> keras.Model:
    """Functional, of any input size, without a normalization, with a bare operation; a convolution makes its scores."""
    keras.utils.set_random_seed(2)
    image = keras.Input((size, size, 3), name="photo")
    x = layers.PReLU(shared_axes=[1, 2], name="slope")(layers.SeparableConv2D(8, 3, 2, padding="same")(image))
    x = keras.ops.relu6(layers.Conv2D(8, 3, 2, padding="same", name="conv")(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1, name="scores")(x))
    return keras.Model(image, layers.Softmax()(x), name="plain")


BESIDE = {"labels": ["blue", "red"], "mean": [0.5] * 3, "std": [0.5, 0.5, 0.25], "resize_short": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both networks, one with a JSON file beside it."""
    folder = tmp_path_factory.mktemp("files")
    transfer().save(folder / "mine.keras")
    plain().save(folder / "plain.keras")
    (folder / "plain.json").write_text(json.dumps(BESIDE))
    return folder


def section(path: Path, **keys: Any) -> Model:
    return Model(file=str(path), **keys)


def test_the_network_computes_what_the_file_does(folder: Path) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
    model, head = user_network.build(section(folder / "mine.keras"), 4, SIZE)
    assert head == "classifier 'top' of 4 classes kept (new_head: true replaces it)"
    scores = keras.ops.softmax(model(pixels, training=False))
    np.testing.assert_allclose(scores, transfer()(pixels, training=False), atol=1e-6)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert len(model.trainable_variables) == 8 and model.name == "mine"  # VGG11 is another network
    model, _ = user_network.build(section(folder / "plain.keras"), 2, SIZE)
    scaled = (pixels / 255 - BESIDE["mean"]) / BESIDE["std"]
    scores = keras.ops.softmax(model(pixels, training=False))
    np.testing.assert_allclose(scores, plain()(scaled, training=False), atol=1e-6)


def test_the_classifier_is_replaced_where_it_must_or_shall(folder: Path) -> None:
    same, _ = user_network.build(section(folder / "plain.keras"), 2, SIZE)
    fresh, head = user_network.build(section(folder / "plain.keras", new_head=True), 2, SIZE)
    assert head == "new classifier 'scores' (2 -> 2 classes), trained from scratch"
    for layer in same.layers:
        other = fresh.get_layer(layer.name).get_weights()
        equal = [np.array_equal(a, b) for a, b in zip(layer.get_weights(), other, strict=True)]
        assert all(equal) == (layer.name != "scores"), layer.name
    model, head = user_network.build(section(folder / "mine.keras"), 7, SIZE)
    assert model.output_shape == (None, 7) and head.startswith("new classifier 'top' (4 -> 7 classes)")


def test_pixels_come_from_the_network_the_file_beside_it_or_the_recipe(folder: Path) -> None:
    own = user_network.preprocess_of(section(folder / "mine.keras"))
    assert own.size == SIZE and own.resize_short == round(SIZE * 256 / 224)
    np.testing.assert_allclose(own.mean, [127 / 255] * 3)
    np.testing.assert_allclose(own.std, [128 / 255] * 3)
    beside = user_network.preprocess_of(section(folder / "plain.keras", input_size=36))
    assert (beside.size, beside.resize_short, beside.std) == (36, 40, (0.5, 0.5, 0.25))
    recipe = section(folder / "plain.keras", input_size=48, resize_short=60, mean=[0.0] * 3, std=[1.0] * 3)
    said = user_network.preprocess_of(recipe)
    assert (said.size, said.resize_short, said.mean, said.std) == (48, 60, (0,) * 3, (1,) * 3)


def test_stages_are_those_of_the_halvings(folder: Path) -> None:
    model, _ = user_network.build(section(folder / "mine.keras"), 2, SIZE)
    stages = package.stages(model)
    assert {name: [e.name for e in each if e.weights] for name, each in stages.items()} == {
        "stem": ["conv8", "norm8"],
        "1": ["conv16", "norm16"],
        "head": ["top"],
    }
    assert lr_factors(model, [0.1, 0.5]) == [0.1] * 3 + [0.5] * 3 + [1.0] * 2
    with frozen(model, ["backbone"]):
        assert [v.path.split("/")[0] for v in model.trainable_variables] == ["top", "top"]
    x = image = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    one = keras.Model(image, layers.Dense(2, name="top")(x), name="one_size")
    assert [e.name for e in package.stages(one)["head"] if e.weights] == ["top"]
    x = layers.Dense(4, name="token")(layers.Reshape((-1, 4))(layers.Conv2D(4, 4, 4)(image)))
    tokens = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)), name="tokens")
    with pytest.raises(UsageError, match=r"cannot tell the stages.*'token' computes no feature map"):
        package.stages(tokens)


def odd_networks() -> dict[str, keras.Model]:
    """Networks that cannot be a classifier of a recipe."""
    image = keras.Input((SIZE, SIZE, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))
    sums = layers.Add()([layers.Dense(3, name="a")(pooled), layers.Dense(3, name="b")(pooled)])
    rows = layers.Reshape((3,))(layers.Dense(3, name="a")(pooled))
    return {
        "two": keras.Model(image, sums),
        "fixed": keras.Model(image, rows),
        "gray": keras.Model(*[keras.Input((4,))] * 2),
    }


@pytest.mark.parametrize(
    ("file", "keys", "line"),
    [
        ("none", {}, r"no such file"),
        ("two", {}, r"its scores come from Dense 'a' and Dense 'b', and a classifier is one"),
        ("fixed", {}, r"cannot give its classifier 2 outputs: .*; end the network with a Dense layer"),
        ("gray", {}, r"not a classifier of RGB images"),
        ("plain", {}, r"the model leaves its input size open .*; give model.input_size"),
        ("mine", {"input_size": 64}, r"mine.keras takes 32 x 32 pixels, not 64 \(model.input_size\)"),
        (
            "mine",
            {"mean": [0.0] * 3, "std": [1.0] * 3},
            r"normalizes pixels from 0 to 255 itself \(model.mean\)",
        ),
        ("raw", {}, r"nothing says which values it takes .*give model.mean and model.std .*raw.json"),
    ],
)
def test_networks_that_cannot_be_trained(
    file: str, keys: Any, line: str, folder: Path, tmp_path: Path
) -> None:
    for name, model in odd_networks().items():
        model.save(tmp_path / f"{name}.keras")
    plain(SIZE).save(tmp_path / "raw.keras")
    path = next(
        f
        for f in (folder / f"{file}.keras", tmp_path / f"{file}.keras")
        if f.is_file() or f.parent == tmp_path
    )
    with pytest.raises(Exception, match=line) as error:
        preprocess = user_network.preprocess_of(section(path, **keys))
        user_network.build(section(path, **keys), 2, preprocess.size)
    assert error.value.exit_code in (2, 3) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (
            "{name: VGG11, file: mine.keras}",
            "model: name and file are two networks (r.yaml:3); leave one of them out; of a base's name: null",
        ),
        ("{}", "model: which network? name or file is missing"),
        ("{file: mine.h5}", "model: file is no .keras file: mine.h5 (r.yaml:3)"),
        (
            "{file: mine.keras, weights: imagenet}",
            "model: weights is for networks of the zoo, and file has its own",
        ),
        ("{file: mine.keras, dropout: 0.5}", "model: dropout is for networks of the zoo"),
        ("{file: mine.keras, mean: [0, 0, 0]}", "model: mean and std belong together"),
        ("{name: VGG11, new_head: true}", "model: new_head is for a network of a file"),
    ],
)
def test_what_a_section_may_not_say(model: str, line: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(RECIPE.replace(f"{{{OF_ZOO}}}", model))
    with pytest.raises(UsageError) as error:
        load_recipe("r.yaml")
    assert str(error.value).startswith(line)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, both networks, and a quantized run of the one with a base inside."""
    root = tmp_path_factory.mktemp("trained")
    photos(root / "photos")
    shutil.copytree(folder, root / "nets")
    (root / "nets" / "r.yaml").write_text(
        recipe_of("file: mine.keras").replace("path: photos", "path: ../photos")
    )
    told = succeed(root, "train", "nets/r.yaml", "-o", "train.freeze=stem")
    assert "mine.keras: new classifier 'top' (4 -> 2 classes), trained from scratch" in told
    succeed(root, "quantize", "tiny")
    return root


def test_every_command_works_on_its_run(trained: Path) -> None:
    run = Run.find(trained / "runs" / "tiny")
    assert run.recipe.model.file == str(trained / "nets" / "mine.keras")
    stem = package.load_model(run.file("float.keras")).get_layer("norm8").get_weights()
    for value, before in zip(
        stem, transfer().get_layer("base").get_layer("norm8").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, before)  # a frozen stage keeps its statistics, too
    shutil.move(trained / "nets" / "mine.keras", trained / "mine.keras")
    try:  # all that comes after the training lives without the file
        verified = json.loads(edgecls(trained, "verify", "tiny", "--json").stdout)
        assert all(rung.get("ok") is not False for rung in verified["rungs"])
        succeed(
            trained, "bench", "tiny", "--device", "host", "--threads", "1", "--runs", "3", "--rounds", "3"
        )
        chosen = succeed(trained, "choose", "--device", "sd855", "--run", "tiny", "--json")
        assert str(run.path) in chosen and "far from the measured" in chosen  # so small a network is refused
        said = [
            json.loads(edgecls(trained, "predict", name, "photos/red/00.jpg", "--json").stdout)
            for name in ("tiny", str(run.file("export", "model_int8.tflite")))
        ]
        assert all("red" in json.dumps(each) for each in said)
        succeed(trained, "eval", "tiny")
        succeed(trained, "export", "tiny", "--format", "saved_model")
        assert "mine.keras" in succeed(trained, "report", "tiny") + run.file("report.html").read_text()
        assert "tiny" in succeed(trained, "runs")
    finally:
        shutil.move(trained / "mine.keras", trained / "nets" / "mine.keras")


def test_its_run_is_served(trained: Path) -> None:
    run = Run.find(trained / "runs" / "tiny")
    service = Service(lambda: load_models(run.path, 1), workers=1, waiting=3, limits=Limits())
    with serving(service) as client:
        assert client.get("/labels").json["labels"] == ["blue", "red"]
        models = client.get("/model").json["models"]
        assert [(m["name"], m["preprocess"]["size"]) for m in models] == [("int8", SIZE), ("fp32", SIZE)]
        for model, label in itertools.product(("int8", "fp32"), ("blue", "red")):
            photo = (trained / f"photos/{label}/00.jpg").read_bytes()
            answer = client.predict(photo, "image/jpeg", f"?top=1&model={model}")
            assert answer.json["results"][0]["predictions"][0]["class"] == label


def test_it_is_tuned_shown_and_shipped(trained: Path, tmp_path: Path) -> None:
    shown = tmp_path / "augmented.png"
    succeed(trained, "augment", "nets/r.yaml", "--preview", str(shown))
    assert shown.stat().st_size
    space = "train.optimizer.lr={low: 0.001, high: 0.1, log: true}"
    more = ("-o", "name=tuned", "-o", "train.epochs=1")
    told = edgecls(trained, "tune", "nets/r.yaml", "--space", space, "--trials", "1", *more, "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    (trial,) = found["trials"]
    assert (trial["state"], found["best"]["score"]) == ("complete", trial["score"])
    assert load_recipe(found["best_recipe"]).model.file == str(trained / "nets" / "mine.keras")
    told = json.loads(
        edgecls(trained, "export", "tiny", "--format", "android", "--format", "keras", "--json").stdout
    )
    assert (Path(told["files"]["android"]) / "assets" / "labels.txt").read_text().split() == ["blue", "red"]
    assert keras.models.load_model(told["files"]["keras"]).output_shape == (None, 2)


def test_a_replaced_file_retires_what_was_made_from_it(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    recipe = root / "nets" / "r.yaml"
    succeed(root, "train", str(recipe))
    first = sorted((root / "runs" / "tiny").iterdir())
    assert "done before, kept" in succeed(root, "train", str(recipe))
    model = transfer()
    model.get_layer("top").set_weights([w + 1 for w in model.get_layer("top").get_weights()])
    model.save(root / "nets" / "mine.keras")
    told = succeed(root, "train", str(recipe))
    assert "student: again (changed: weights)" in told
    assert sorted((root / "runs" / "tiny").iterdir()) == first


def test_phases_of_an_open_network_and_a_file_as_the_teacher(
    trained: Path, folder: Path, tmp_path: Path
) -> None:
    photos(tmp_path / "photos")
    text = (
        recipe_of(f"file: {folder}/plain.keras, input_size: 32")
        + f"""
teacher: {{file: {folder}/plain.keras}}
distill: {{}}
phases:
- {{name: one, train: {{epochs: 1, lr_mult_list: [0.0, 1.0]}}}}
- {{name: two, model: {{input_size: 48, resize_short: 60}}, train: {{epochs: 1, freeze: head}}}}
"""
    )
    (tmp_path / "r.yaml").write_text(text)
    told = succeed(tmp_path, "train", "r.yaml")
    assert "plain.keras: classifier 'scores' of 2 classes kept" in told
    run = Run.find(tmp_path / "runs" / "tiny")
    one, two, last = (
        package.load_model(run.file(name)) for name in ("teacher.keras", "phases/one.keras", "float.keras")
    )
    assert (two.input_shape[1], last.input_shape[1]) == (32, 48)
    slopes = [model.get_layer("slope").get_weights()[0] for model in (one, two, last)]
    np.testing.assert_array_equal(slopes[0], slopes[1])
    assert not np.array_equal(slopes[1], slopes[2])
    scores = [model.get_layer("scores").get_weights()[0] for model in (one, two, last)]
    assert not np.array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[1], scores[2])
    wrong = SimpleNamespace(file=str(folder / "plain.keras"))
    with pytest.raises(UsageError, match=r"other classes, such as 'blue' where the data has 'green'"):
        user_network.check_answers(wrong, ["green", "red"])
    with pytest.raises(UsageError, match=r"knows 2 classes, the data has 3"):
        user_network.check_answers(wrong, ["green", "red", "blue"])
    done = edgecls(tmp_path, "train", "r.yaml", "-o", "phases.one.train.freeze=[7]")
    assert done.returncode == 2 and "plain has no stage '7' (phases[0].train.freeze)" in done.stderr


@pytest.mark.parametrize("phases", ["", "phases: [{name: one}]\n"])
def test_a_teacher_has_the_pixels_that_the_run_found_in_its_file(tmp_path: Path, phases: str) -> None:
    """Beside the file of the recipe is no JSON: what its normalization says is in the run alone."""
    (tmp_path / "recipe.yaml").write_text(recipe_of("file: nets/bare.keras, resize_short: 40") + phases)
    known = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "antialias": True}
    of_last = Preprocess(**known, size=48, resize_short=60)
    (tmp_path / "preprocess.json").write_text(json.dumps(of_last.to_dict()))
    settings = read_beside(tmp_path / "teacher.keras").settings
    assert {key: settings[key] for key in known} == known
    sizes = {key: settings.get(key) for key in ("size", "resize_short")}
    assert sizes == ({"size": None, "resize_short": 40} if phases else {"size": 48, "resize_short": 60})

"""``edgecls quantize MODEL.keras``: ranges, training, sensitivity and bad input, by the command."""

from __future__ import annotations

import json
import re
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from quantization import SIZE, photos, scales_of_kernels, settled

import edgecls
from edgecls.errors import UsageError
from edgecls.export import inspect, metadata
from edgecls.quantize import fake_quantization, ptq, sensitivity
from edgecls.quantize.ptq import correct_biases
from edgecls.quantize.rules.gates import ScaledHardSwish, Swish
from edgecls.train.optimizers import Sgd

IMAGES = photos(SIZE, 24)
JUDGED = IMAGES[1::2]
LABELS = ["ant", "bee", "cat"]


def network(*first: layers.Layer, size: int | None = SIZE) -> keras.Model:
    """Whatever normalizes, two convolutions, a head."""
    keras.utils.set_random_seed(1)
    image = x = keras.Input((size, size, 3), name="image")
    for layer in first:
        x = layer(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="first")(x)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, use_bias=False, name="second")(x))
    x = layers.Dense(8, activation="relu", name="hidden")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(3, activation="softmax", name="top")(x), name="mine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and a model that has seen them, with its labels beside it."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "photos").mkdir()
    for i, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).save(folder / "photos" / f"{i:02d}.png")
    settled(network(layers.Rescaling(1 / 255, name="scale")), IMAGES).save(folder / "mine.keras")
    (folder / "mine.json").write_text(json.dumps({"labels": LABELS, "resize_short": SIZE}))
    network().save(folder / "raw.keras")
    return folder


def run(call: Any, folder: Path, *options: str, model: str = "mine") -> dict[str, Any]:
    words = ("quantize", str(folder / f"{model}.keras"), "--data", str(folder / "photos"), "--json")
    code, out, err = call(*words, *options)
    assert code == 0, err
    return json.loads(out)


def test_ranges_alone(call: Any, folder: Path, tmp_path: Path) -> None:
    result = run(call, folder, "--out", str(tmp_path), "--adaround")
    files = {kind: Path(path) for kind, path in result["files"].items()}
    assert files == {kind: tmp_path / f"mine.{kind}.tflite" for kind in ("int8", "fp32")}
    assert (result["calibrated_on"], result["judged_on"], result["held_out"]) == (12, 12, True)
    scores = {kind: inspect.Runner(path)(JUDGED).argmax(1) for kind, path in files.items()}
    model = keras.models.load_model(folder / "mine.keras")
    np.testing.assert_array_equal(
        scores["fp32"], model.predict(JUDGED.astype(np.float32), verbose=0).argmax(1)
    )
    assert result["agreement"] == pytest.approx(np.mean(scores["int8"] == scores["fp32"]), abs=1e-4)
    file = inspect.describe(files["int8"])
    assert (file["float_ops"], file["partitions"], file["undelegated"]) == ([], 1, ["QUANTIZE"])
    content = metadata.read(files["int8"])
    assert content["classes"] == LABELS and content["preprocess"]["resize_short"] == SIZE


def test_training_layers_in_float_and_a_model_that_does_not_normalize(
    call: Any, folder: Path, tmp_path: Path
) -> None:
    options = ("--out", str(tmp_path), "--epochs", "2", "--keep-float", "hid*", "--pixels", "-1..1")
    options += ("--weights", "per_tensor", "--equalize")
    result = run(call, folder, *options, model="raw")
    assert result["kept_float"] == ["hidden"]
    assert result["verify"]["files"]["raw.int8.tflite"]["float_ops"] == ["FULLY_CONNECTED", "RESHAPE"]
    assert set(scales_of_kernels(tmp_path / "raw.int8.tflite")["CONV_2D"]) == {1}
    expected = keras.models.load_model(folder / "raw.keras").predict(JUDGED / 127.5 - 1, verbose=0)
    fp32 = np.exp(inspect.Runner(tmp_path / "raw.fp32.tflite")(JUDGED))
    np.testing.assert_allclose(fp32, expected, atol=1e-5)
    assert metadata.read(tmp_path / "raw.int8.tflite")["classes"] == ["0", "1", "2"]
    assert not list(tmp_path.glob("*.qat"))  # checkpoints of the training


def test_sensitivity_and_the_fewest_layers_in_float(call: Any, folder: Path, tmp_path: Path) -> None:
    result = run(call, folder, "--sensitivity", "--out", str(tmp_path))
    rows = result["layers"]
    assert {row["layer"] for row in rows} == {"first", "second", "pool", "hidden", "top"}
    assert [row["sqnr_db"] for row in rows] == sorted(row["sqnr_db"] for row in rows)
    svg = Path(result["plot"]).read_text()
    assert svg.startswith("<?xml") and "<svg" in svg
    call_kept = run(call, folder, "--auto", "--max-drop", "100", "--out", str(tmp_path))
    assert call_kept["kept_float"] == []


def test_sensitivity_is_that_of_the_layer_alone() -> None:
    model = settled(network(layers.Rescaling(1 / 255)), IMAGES)
    twin = edgecls.quantize_model(model)
    edgecls.calibrate(twin, [IMAGES])
    logits = keras.Model(twin.input, twin.layers[-1].input)
    kernel = twin.get_layer("second")
    ranges = kernel.ranges["max_var"], kernel.ranges["min_var"]
    for variable in ranges:  # a coarse grid: 20 steps in place of 127
        variable.assign(variable * 6)
    rows = sensitivity.measure(logits, [IMAGES.astype(np.float32)])
    assert rows[0].layer == "second"
    with fake_quantization(twin, on=False):
        expected = np.asarray(logits(IMAGES.astype(np.float32)))
        kernel.enabled = twin.get_layer("norm.quant").enabled = True
        noise = np.asarray(logits(IMAGES.astype(np.float32))) - expected
    assert rows[0].sqnr_db == pytest.approx(
        10 * np.log10(np.var(expected) + np.mean(expected) ** 2) - 10 * np.log10(np.mean(noise**2)), abs=1e-3
    )


def test_corrected_biases_bring_the_means_back() -> None:
    twin = edgecls.quantize_model(settled(network(layers.Rescaling(1 / 255)), IMAGES))
    edgecls.calibrate(twin, [IMAGES], "minmax", correct=False)
    twin.get_layer("first").bias.assign_add(np.full(8, 0.02))  # an error that the correction has to find
    behind = ["first.act", "norm", "hidden.act", "top"]  # a ReLU's, where there is one
    ends = keras.Model(twin.input, [twin.get_layer(name).output for name in behind])
    images = IMAGES.astype(np.float32)

    def means() -> list[np.ndarray]:
        return [np.asarray(x).reshape(-1, x.shape[-1]).mean(0) for x in ends(images)]

    with fake_quantization(twin, on=False):
        expected = means()
    before = means()
    shifts = correct_biases(twin, images)
    assert shifts.keys() == {"first", "norm", "hidden", "top"}
    for now, then, goal in zip(means(), before, expected, strict=True):
        assert np.abs(now - goal).max() < 1e-5 < np.abs(then - goal).max()


@pytest.mark.parametrize("behind", [layers.ReLU(), layers.ReLU(6.0), ScaledHardSwish(), Swish(), None])
def test_a_shift_brings_the_mean_behind_the_activation_back(behind: Any) -> None:
    """Of values nearer to zero than they were: also where most are negative, or an activation falls."""
    values = np.random.default_rng(0).normal([-6, -2, -1, 0, 3], 1.0, (4000, 5)).astype(np.float32)
    function = behind or (lambda x: keras.ops.convert_to_tensor(x))
    target = np.asarray(function(values)).mean(0)
    shift = np.asarray(
        ptq._shift(keras.ops.convert_to_tensor(0.9 * values), behind, keras.ops.convert_to_tensor(target))
    )
    before, after = (np.abs(np.asarray(function(0.9 * values + s)).mean(0) - target) for s in (0.0, shift))
    assert (after <= before).all() and (after[3:] < 1e-3).all()
    if isinstance(behind, layers.ReLU):
        assert shift[0] == 0.0, "nothing passes: it stays as it is"
        assert (after < 1e-3).all() and (shift[1:] > -0.01).all(), (
            "the plain mean would ask for less than nothing"
        )


def test_calibrate_corrects_biases_whatever_was_corrected_before() -> None:
    """From batches of any kind, and twice as once."""
    model = settled(network(layers.Rescaling(1 / 255)), IMAGES)
    twins = [edgecls.quantize_model(model) for _ in range(3)]
    batches = [(IMAGES[:20], None), (IMAGES[20:], None)]
    edgecls.calibrate(twins[0], batches, correct=False)
    np.testing.assert_array_equal(twins[0].get_layer("norm").beta, model.get_layer("norm").beta)
    correct_biases(twins[0], IMAGES.astype(np.float32))
    edgecls.calibrate(twins[1], iter(batches))
    edgecls.calibrate(twins[2], [IMAGES[:3]])
    edgecls.calibrate(twins[2], batches)
    for twin in twins[1:]:
        for name, attribute in (("first", "bias"), ("norm", "beta"), ("hidden", "bias"), ("top", "bias")):
            found, expected = (getattr(each.get_layer(name), attribute).numpy() for each in (twin, twins[0]))
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
            assert np.abs(expected - getattr(model.get_layer(name), attribute)).max() > 1e-5


def test_a_refused_calibration_leaves_the_network_as_it_was() -> None:
    twin = edgecls.quantize_model(settled(network(layers.Rescaling(1 / 255)), IMAGES))
    edgecls.calibrate(twin, [IMAGES])
    before = twin.get_weights()
    with pytest.raises(UsageError, match="shape"):
        edgecls.calibrate(twin, [IMAGES, IMAGES[:, :4]])
    for kept, weights in zip(twin.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, weights)


def test_a_pass_through_the_graph_keeps_no_more_than_what_is_still_read() -> None:
    twin = edgecls.quantize_model(settled(network(layers.Rescaling(1 / 255)), IMAGES))
    seen: list[weakref.ref[Any]] = []

    def note(layer: Any, inputs: Any, outputs: Any) -> Any:
        assert all(ref() is None for ref in seen[:-2]), layer.name
        seen.append(weakref.ref(outputs))
        return outputs

    names = [layer.name for layer in twin.layers]
    ptq.run(twin, keras.ops.convert_to_tensor(IMAGES, "float32"), names, note)
    assert len(seen) == len(names) - 1  # the input is not computed


def test_training_that_makes_it_worse_is_undone(
    call: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(call, folder, "--out", str(tmp_path))
    calibrated = (tmp_path / "mine.int8.tflite").read_bytes()
    words = ("quantize", str(folder / "mine.keras"), "--data", str(folder / "photos"), "--epochs", "2")
    monkeypatch.setattr("edgecls.recipe.QAT_OPTIMIZER", Sgd(lr=100.0))
    code, _, err = call(*words, "--out", str(tmp_path))
    assert code == 0 and "training did not help" in err, err
    assert (tmp_path / "mine.int8.tflite").read_bytes() == calibrated
    monkeypatch.undo()
    code, _, err = call(*words, "--out", str(tmp_path))
    assert code == 0 and "after training" in err and "did not help" not in err, err
    assert (tmp_path / "mine.int8.tflite").read_bytes() != calibrated


def two_inputs() -> keras.Model:
    images = [keras.Input((8, 8, 3)) for _ in range(2)]
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Add()(images))))


def not_finite() -> keras.Model:
    model = network(layers.Rescaling(1 / 255))
    model.get_layer("second").kernel.assign(np.full((3, 3, 8, 8), np.nan))
    return model


BAD_MODELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "2 inputs and 1 outputs": (two_inputs, ()),
    "leaves its input size open.*--input-size": (lambda: network(layers.Rescaling(1 / 255), size=None), ()),
    "does not normalize pixels.*--pixels 0..255": (network, ()),
    "normalizes pixels from 0 to 255 itself": (lambda: network(layers.Rescaling(1 / 255)), ("--pixels", "0..1")),
    "values that are not finite": (not_finite, ()),
    r"not a classifier of RGB images.*\[None, 8, 8, 1\]": (
        lambda: keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2)]), (),
    ),
    "no layer is called typo": (lambda: network(layers.Rescaling(1 / 255)), ("--keep-float", "typo")),
    "no quantization rule.*odd": (lambda: network(layers.Rescaling(1 / 255), layers.ReLU(threshold=1.0, name="odd")), ()),
}  # fmt: skip


@pytest.mark.parametrize("text", BAD_MODELS)
def test_models_that_cannot_be_used(text: str, call: Any, folder: Path, tmp_path: Path) -> None:
    make, options = BAD_MODELS[text]
    make().save(tmp_path / "bad.keras")
    code, _, err = call("quantize", str(tmp_path / "bad.keras"), "--data", str(folder / "photos"), *options)
    assert code == 2 and len(err.splitlines()) == 1, err
    assert re.search(text, err), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.keras"]


def test_what_is_missing_or_meant_for_runs(call: Any, folder: Path, tmp_path: Path) -> None:
    mine, photos_folder = str(folder / "mine.keras"), str(folder / "photos")
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    cases = {
        (3, "no such file"): (str(tmp_path / "none.keras"), "--data", photos_folder),
        (3, "no such folder"): (mine, "--data", str(tmp_path / "nowhere")),
        (3, "no photos"): (mine, "--data", str(tmp_path)),
        (2, "which photos?"): (mine,),
        (2, "has no recipe"): (mine, "--data", photos_folder, "-o", "quantize.train.epochs=1"),
        (2, "--auto needs a limit"): (mine, "--data", photos_folder, "--auto"),
        (2, "2 labels, and the model has 3"): (
            mine, "--data", photos_folder, "--labels", str(tmp_path / "labels.txt"),
        ),
        (2, "the option is for a .keras file"): ("some_run", "--keep-float", "x"),
    }  # fmt: skip
    for (wanted, text), words in cases.items():
        code, _, err = call("quantize", *words)
        assert (code, len(err.splitlines())) == (wanted, 1) and text in err, err


def test_the_plan_of_a_model(call: Any, folder: Path) -> None:
    code, out, err = call("quantize", str(folder / "mine.keras"), "--explain", "--keep-float", "hidden")
    assert code == 0, err
    assert "hidden: Dense, in float, as asked" in out.splitlines()

"""ONNX files compute what Keras computes, and carry labels and preprocessing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from quantization import SIZE, photos, settled
from test_deploying import folder, make_run  # noqa: F401  # a fixture

import edgecls
from edgecls import workflow
from edgecls.cli.main import main
from edgecls.console import Console
from edgecls.data.preprocess import Preprocess
from edgecls.errors import EdgeclsError, MissingError
from edgecls.export import onnx as exporting

SETTINGS = Preprocess(SIZE, SIZE).to_dict()


def ours() -> keras.Model:
    """Squeeze and excitation, hard swish: layers of ours, and constants without a shape."""
    return edgecls.build_model(
        "MobileNetV3_small_x0_35", classes=5, input_size=SIZE, include_preprocessing=True
    )


def users() -> keras.Model:
    """Keras' own layers, as somebody else would write them."""
    x = image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    for filters in (8, 16):
        x = keras.layers.SeparableConv2D(filters, 3, strides=2, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("gelu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(5, activation="softmax")(x), name="users")


@pytest.mark.parametrize("build", [ours, users])
def test_the_file_computes_what_keras_computes(build, tmp_path: Path) -> None:
    model, images, classes = build(), photos(SIZE, 8), ["a", "é", "c", "d", "e"]
    settled(model, images)
    difference = exporting.to_onnx(model, tmp_path / "m.onnx", classes, SETTINGS, images)
    assert 0 < difference <= exporting.LIMIT
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (image,), (scores,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["batch", SIZE, SIZE, 3])
    assert (scores.name, scores.shape) == ("scores", ["batch", 5])
    pixels = images[:3].astype(np.float32)
    expect = model.predict(pixels, verbose=0)
    (found,) = session.run(None, {"image": pixels})
    np.testing.assert_allclose(found, expect, atol=exporting.LIMIT * np.ptp(expect))
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == classes and json.loads(facts["preprocess"]) == SETTINGS


def test_a_file_that_computes_something_else_is_not_left(tmp_path: Path, monkeypatch) -> None:
    model, save = users(), onnx.save

    def damaged(document: onnx.ModelProto, path: Path) -> None:
        kernel = max(document.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = onnx.numpy_helper.to_array(kernel) * 1.01
        kernel.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), kernel.name))
        save(document, path)

    monkeypatch.setattr(onnx, "save", damaged)
    with pytest.raises(EdgeclsError, match="of the outputs' range off Keras"):
        exporting.to_onnx(model, tmp_path / "m.onnx", list("abcde"), SETTINGS, photos(SIZE, 4))
    assert not list(tmp_path.iterdir())


def test_without_the_extra(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(MissingError, match=r"needs tf2onnx.*edgecls\[onnx\]"):
        exporting.to_onnx(users(), tmp_path / "m.onnx", list("abcde"), SETTINGS, photos(SIZE, 4))


def test_a_run(folder: Path, capsys) -> None:  # noqa: F811
    run = make_run(folder, qat=False)
    files = workflow.export(run, Console(), formats=["onnx"])["files"]
    assert files == {"onnx": str(run.file("export/model.onnx"))}
    assert "of Keras on 4 photos" in (text := capsys.readouterr().err) and "Traceback" not in text
    assert "Warning" not in text
    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].shape == ["batch", 2]


def open_size() -> keras.Model:
    """No normalization, any size, and an activation that int8 has no rule for."""
    x = image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, activation="softplus")(x)
    return keras.Model(image, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("build", "options"), [(users, ()), (open_size, ("--pixels", "-1..1", "--input-size", str(SIZE)))]
)
def test_a_file_that_no_run_made(build, options, tmp_path: Path, capsys) -> None:
    model, images = build(), photos(SIZE, 4)
    model.save(tmp_path / "mine.keras")
    (tmp_path / "mine.json").write_text(json.dumps({"labels": list("abcde"), "resize_short": SIZE + 2}))
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    with pytest.raises(SystemExit) as exit_:
        main(
            [
                "export",
                str(tmp_path / "mine.keras"),
                "--format",
                "onnx",
                "--data",
                str(tmp_path / "photos"),
                *options,
            ]
        )
    out, err = capsys.readouterr()
    assert not exit_.value.code, err
    assert out == f"onnx: {tmp_path / 'mine.onnx'}\n" and "of Keras on 4 photos" in err
    session = onnxruntime.InferenceSession(tmp_path / "mine.onnx", providers=["CPUExecutionProvider"])
    pixels = images.astype(np.float32)
    expect = model.predict(pixels if build is users else pixels / 127.5 - 1, verbose=0)
    (found,) = session.run(None, {"image": pixels})
    np.testing.assert_allclose(found, expect, atol=exporting.LIMIT * np.ptp(expect))
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == list("abcde")
    assert json.loads(facts["preprocess"])["resize_short"] == SIZE + 2


def test_what_a_file_needs(tmp_path: Path, capsys) -> None:
    cases = {
        "a .keras file is exported as ONNX only": ("mine.keras",),
        "which photos?": ("mine.keras", "--format", "onnx"),
        "the option is for a .keras file (--pixels)": ("some_run", "--pixels", "0..1"),
    }
    for text, args in cases.items():
        with pytest.raises(SystemExit) as exit_:
            main(["export", *args])
        assert exit_.value.code == 2 and text in capsys.readouterr().err

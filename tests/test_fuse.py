"""Networks with branches for training, and the plain ones that they are fused to."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import fill
import keras
import numpy as np
import pytest
from keras import layers
from quantization import BLOCKS, EQUAL, SIZE, logits, network, photos
from tiny_run import NETWORK, RECIPE, edgecls
from tiny_run import photos as write_photos

from edgecls import build_model, fuse, load_model, load_weights
from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.export.tflite import convert
from edgecls.reparam import asymmetric
from edgecls.run import Run
from edgecls.weights.load import from_paddle, state
from edgecls.workflow import stages
from edgecls.zoo import blocks
from edgecls.zoo import layers as zoo_layers
from edgecls.zoo.state import state_shapes

DATA = Path(__file__).parent / "data"
REFERENCE = json.loads((DATA / "zoo_reference.json").read_text())
LOGITS = np.load(DATA / "zoo_logits.npz")
SMALL = "MobileNetV1_x0_25"
EXACT = 1e-5  # of the logits' standard deviation
SUMS = {"RepVGG_A0": 22, "PPLCNetV2_small": 6, "ResNet50_ACNet": 17}


def filled(name: str, size: int | None = None, features: bool = False) -> keras.Model:
    """A network with the reference's odd weights and statistics: a wrong fold of any of them shows."""
    model = build_model(name, input_size=size, features=features)
    arrays = {
        key: fill.weight(key, shape, REFERENCE[name]["gain"]) for key, shape in state_shapes(model).items()
    }
    load_weights(model, from_paddle(arrays, name), strict=True)
    return model


def shaken(model: keras.Model) -> keras.Model:
    """``model`` with random normalizations."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.variables:
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def kinds(model: keras.Model) -> Counter[type]:
    return Counter(type(layer) for layer in model.layers)


def distance(model: keras.Model, other: keras.Model, size: int) -> float:
    """Largest difference of two networks' outputs on noise, in standard deviations."""
    first, second = (np.asarray(each(fill.image(size), training=False)) for each in (model, other))
    return float(np.abs(first - second).max() / first.std())


@pytest.mark.parametrize("name", SUMS)
def test_the_fused_network_is_the_original(name: str) -> None:
    model = filled(name)
    fused = fuse(model)
    size = model.input_shape[1]
    assert distance(model, fused, size) <= EXACT
    got = np.asarray(fused(fill.image(size), training=False))[0]
    assert np.abs(got - LOGITS[name]).max() <= REFERENCE[name]["tolerance"] * LOGITS[name].std()
    assert kinds(model)[layers.Add] - kinds(fused)[layers.Add] == SUMS[name]
    assert fuse(fused) is fused


def test_acnet_is_fused_to_its_published_deploy_form() -> None:
    model = filled("ResNet50_ACNet", 64)
    fused, deployed = fuse(model), build_model("ResNet50_ACNet_deploy", input_size=64)
    load_weights(deployed, state(fused), strict=True)
    assert distance(model, deployed, 64) <= EXACT
    assert kinds(fused) == kinds(deployed)


def test_pp_lcnet_v2_is_fused_into_the_arrays_that_published_files_carry() -> None:
    model = filled("PPLCNetV2_small", 64)
    carried = {key: shape for key, shape in state_shapes(model).items() if ".dw_conv." in key}
    assert {key: shape for key, shape in state_shapes(fuse(model)).items() if ".dw_conv." in key} == carried


def test_feature_maps_keep_their_names() -> None:
    model = filled("RepVGG_A0", 32, features=True)
    maps, expected = (each(fill.image(32), training=False) for each in (fuse(model), model))
    assert list(maps) == list(expected) == [f"stride_{2**i}" for i in range(1, 6)]
    for name in maps:
        np.testing.assert_allclose(maps[name], expected[name], atol=EXACT * np.std(expected[name]))


SIZES, STRIDES, KERNELS = (9, 10), ((1, 1), (2, 1), (1, 2)), (3, 5)  # strides with dilations
PADDINGS, KINDS = ("same", "valid", "uneven"), ("conv", "grouped", "depthwise")
GEOMETRIES = [
    (*geometry, KINDS[(i + i // 3 + i // 9) % 3])  # each kind with each padding and stride
    for i, geometry in enumerate(itertools.product(SIZES, KERNELS, STRIDES, PADDINGS))
]


def test_branches_of_every_geometry_become_one_convolution() -> None:
    for geometry in GEOMETRIES:
        size, kernel, (stride, dilation), padding, kind = geometry
        image = keras.Input((size, size, 4))
        x = layers.ZeroPadding2D(((1, 2), (2, 0)), name="conv.pad")(image) if padding == "uneven" else image
        options = {
            "padding": "same" if padding == "same" else "valid",
            "dilation_rate": dilation,
            "name": "conv",
        }
        if kind == "depthwise":
            x = layers.DepthwiseConv2D(kernel, stride, depth_multiplier=2, **options)(x)
        else:
            x = zoo_layers.GroupedConv2D(6, kernel, stride, groups=2 if kind == "grouped" else 1, **options)(
                x
            )
        model = keras.Model(image, zoo_layers.BatchNormalization(name="norm")(x))
        branched = shaken(asymmetric(model))
        assert {"conv", "conv_acver", "conv_achor"} < {layer.name for layer in branched.layers}
        noise = np.random.default_rng(0).normal(size=(2, size, size, 4)).astype("float32")
        expected, fused = branched(noise, training=False), fuse(branched)
        np.testing.assert_allclose(fused(noise, training=False), expected, atol=1e-5, err_msg=str(geometry))
        assert kinds(fused)[layers.Add] == 0
        # The vertical and the horizontal branch go through the middle of the square one.
        for layer in branched.layers:
            if layer.name in ("norm", "norm_acver"):
                layer.gamma.assign(np.zeros_like(layer.gamma))
        rows = np.abs(fuse(branched).get_layer("conv").kernel).max((1, 2, 3)) > 0
        assert list(rows) == [row == kernel // 2 for row in range(kernel)], geometry


def test_a_norm_of_the_map_itself_is_a_branch() -> None:
    for kind in ("conv", "grouped", "depthwise"):
        image = keras.Input((8, 8, 4))
        groups = {"conv": 1, "grouped": 2, "depthwise": 4}[kind]
        terms = [blocks.conv_bn(image, 4, 3, groups=groups, name="a"), zoo_layers.BatchNormalization()(image)]
        total = layers.Add()([layers.Add()(terms), zoo_layers.BatchNormalization()(image)])
        model = shaken(keras.Model(image, keras.ops.subtract(total, image)))  # bare operations are kept
        fused = fuse(model)
        assert [type(layer) for layer in fused.layers[1:]] == [type(model.get_layer("a.conv"))], kind
        noise = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
        np.testing.assert_allclose(fused(noise), model(noise, training=False), atol=1e-5)


class Standardised(layers.Conv2D):
    """A convolution that is not what its kernel says."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel / keras.ops.std(kernel))


def _watched(x):
    y = layers.Conv2D(4, 3, padding="same")(x)
    return layers.Concatenate()([y, layers.Add()([y, layers.Conv2D(4, 1)(x)])])


NOT_TO_BE_FUSED = {
    "other maps": lambda x: layers.Add()(
        [layers.Conv2D(4, 3, padding="same")(layers.ReLU()(x)), layers.Conv2D(4, 1)(x)]
    ),
    "a bare map": lambda x: layers.Add()([x, layers.Conv2D(4, 3, padding="same")(x)]),
    "seen from outside": _watched,
    "an activation": lambda x: layers.Add()(
        [layers.Conv2D(4, 3, padding="same", activation="relu")(x), layers.Conv2D(4, 1)(x)]
    ),
    "no kernel covers the other": lambda x: layers.Add()(
        [layers.Conv2D(4, (3, 1), padding="same")(x), layers.Conv2D(4, (1, 3), padding="same")(x)]
    ),
    "kernels of unlike groups": lambda x: layers.Add()(
        [layers.Conv2D(4, 3, padding="same")(x), layers.Conv2D(4, 3, padding="same", groups=2)(x)]
    ),
    "broadcast": lambda x: layers.Add()([layers.Conv2D(4, 8)(x), layers.Conv2D(4, 1)(x)]),
    "zeros where the map was cropped": lambda x: layers.Add()(
        [
            layers.Conv2D(4, 3, padding="same")(x),
            layers.Conv2D(4, 3)(layers.ZeroPadding2D(2)(layers.Cropping2D(1)(x))),
        ]
    ),
    "a class of its own": lambda x: layers.Add()(
        [Standardised(4, 3, padding="same")(x), layers.Conv2D(4, 1)(x)]
    ),
    "nothing to add": lambda x: keras.ops.exp(layers.Conv2D(4, 3)(x)),
}


@pytest.mark.parametrize("case", NOT_TO_BE_FUSED)
def test_what_is_no_sum_of_branches_is_left(case: str) -> None:
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, NOT_TO_BE_FUSED[case](image))
    noise = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype("float32")
    fused = fuse(model)
    np.testing.assert_allclose(fused(noise), model(noise), atol=1e-6)
    assert kinds(fused)[layers.Add] == kinds(model)[layers.Add]


def test_a_crop_before_a_pad_is_not_mistaken_for_less_padding() -> None:
    image = keras.Input((8, 8, 4))
    framed = layers.ZeroPadding2D(2)(layers.Cropping2D(1)(image))
    terms = [layers.Conv2D(4, 3)(framed), layers.Conv2D(4, 1, name="one")(image)]
    model = keras.Model(image, layers.Add()(terms))
    noise = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(fuse(model)(noise), model(noise), atol=1e-6)


@pytest.mark.parametrize("name", ["EfficientNetLite0", "RepVGG_A0"])
def test_asymmetric_branches_keep_what_was_loaded(name: str) -> None:
    model = filled(name, 64) if name in REFERENCE else shaken(build_model(name, input_size=64))
    branched = asymmetric(model, loaded=True)
    assert distance(model, branched, 64) == 0
    arrays, kept = state(branched), state(model)
    assert all(np.array_equal(arrays[key], kept[key]) for key in kept)
    assert {key.rpartition(".")[0][-6:] for key in set(arrays) - set(kept)} == {"_acver", "_achor"}
    # A resumed training finds its variables.
    paths = [[v.path for v in each.trainable_variables] for each in (branched, asymmetric(model))]
    assert paths[0] == paths[1]
    assert len(set(paths[0])) == len(paths[0])
    fused = fuse(shaken(branched))
    assert distance(model, branched, 64) > 0.01
    assert distance(branched, fused, 64) <= EXACT
    assert not [layer.name for layer in fused.layers if "_ac" in layer.name]


def test_fresh_asymmetric_branches_are_as_large_as_one_convolution() -> None:
    image = keras.Input((32, 32, 8))
    model = keras.Model(image, blocks.conv_bn(image, 64, 3, name="a"))
    branched = asymmetric(model)
    noise = np.random.default_rng(0).normal(size=(8, 32, 32, 8)).astype("float32")
    one, three = (float(np.std(each(noise, training=True))) for each in (model, branched))
    assert three == pytest.approx(one, rel=0.03)


def test_asymmetric_needs_a_normalised_convolution() -> None:
    with pytest.raises(UsageError, match=r"no convolution.*SqueezeNet1_1"):
        asymmetric(build_model("SqueezeNet1_1", input_size=64))


def test_the_float_file_has_one_convolution_for_each_sum() -> None:
    from ai_edge_litert.interpreter import Interpreter

    plain = network(BLOCKS["hard_swish_chain"], **EQUAL)
    branched = shaken(asymmetric(plain))
    counts = []
    for model in (plain, fuse(branched)):
        interpreter = Interpreter(model_content=convert(model, "fp32"))
        interpreter.allocate_tensors()
        counts.append(Counter(op["op_name"] for op in interpreter._get_ops_details()))
    assert counts[0] == counts[1]
    images = photos(SIZE, 4)
    np.testing.assert_allclose(logits(fuse(branched), images), logits(branched, images), rtol=1e-4, atol=1e-5)


def test_acnet_from_recipe_to_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    write_photos(tmp_path / "photos", count=12)
    text = RECIPE.replace(f"name: {NETWORK}", f"name: {SMALL}, acnet: true")
    (tmp_path / "recipe.yaml").write_text(text.replace("epochs: 2", "epochs: 1"))
    assert edgecls(tmp_path, "train", "recipe.yaml").returncode == 0
    done = edgecls(tmp_path, "quantize", "--json")
    assert done.returncode == 0, done.stderr
    run = Run((tmp_path / "runs/latest").resolve())
    trained, quantized = (load_model(run.file(name)) for name in ("float.keras", "qat.keras"))
    assert any("_acver" in layer.name for layer in trained.layers)
    assert not any("_ac" in layer.name for layer in quantized.layers)
    verified = json.loads(done.stdout)["verify"]
    assert [rung["name"] for rung in verified["rungs"] if not rung.get("ok", True)] == []
    files = verified["files"]
    assert (files["model_int8.tflite"]["float_ops"], files["model_int8.tflite"]["partitions"]) == ([], 1)
    depthwise = kinds(build_model(SMALL, input_size=32))[layers.DepthwiseConv2D]
    assert files["model_fp32.tflite"]["ops"]["DEPTHWISE_CONV_2D"] == depthwise

    # A later run may start from the branches of this one.
    recipe = run.recipe.override([f"model.weights={run.file('float.keras')}"])
    again = stages.build_network(recipe.model, recipe, SimpleNamespace(classes=["blue", "red"]), Console())
    for was, now in zip(trained.variables, again.variables, strict=True):
        np.testing.assert_array_equal(now, was, err_msg=was.path)

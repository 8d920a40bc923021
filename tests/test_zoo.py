"""The zoo against the originals' numbers, and what every network must be able to do."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fill
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state

import edgecls
from edgecls.weights.load import from_paddle, state
from edgecls.zoo import InputSizeError, catalog, cost
from edgecls.zoo.blocks import divisible, join
from edgecls.zoo.layers import (
    BatchNormalization,
    GroupedConv2D,
    HardSigmoid,
    HardSwish,
    Normalize,
    StridedPointConv2D,
)
from edgecls.zoo.pooling import EdgeAveragePooling2D
from edgecls.zoo.state import state_shapes

DATA = Path(__file__).parent / "data"
REFERENCE = json.loads((DATA / "zoo_reference.json").read_text())
UNPADDED = ("AlexNet", "SqueezeNet1_1", "GoogLeNet")
LOGITS = np.load(DATA / "zoo_logits.npz")
ONE_OF_EACH_FAMILY = [
    *(
        "MobileNetV3_small_x0_35",
        "ResNet18_vd",
        "EfficientNetLite0",
        "MobileNetV1_x0_25",
        "MobileNetV2_x0_25",
    ),
    *("ShuffleNetV2_x0_25", "GhostNet_x0_5", "SqueezeNet1_1", "AlexNet", "PPLCNet_x0_25", "PPLCNetV2_small"),
    *(
        "ESNet_x0_25",
        "RepVGG_A0",
        "EfficientNetB0_small",
    ),
    *("SE_ResNet18_vd", "Res2Net50_26w_4s", "DenseNet121", "Xception41", "GoogLeNet"),
    # The other families are large or slow to train here, and made of the same layers.
]


SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*")  # names that TensorFlow takes


@pytest.fixture(autouse=True)
def forget_models():
    yield
    gc.collect()


@pytest.mark.parametrize("name", REFERENCE)
def test_network_has_the_originals_parameters(name):
    expect = REFERENCE[name]
    with cost.without_values():
        model = edgecls.build_model(name, auxiliary=True)
    assert (cost.params(model), cost.macs(model)) == (expect["params"], expect["macs"])
    assert all(SCOPE.fullmatch(layer.name) for layer in model.layers)
    text = "\n".join(sorted(f"{key} {list(shape)}" for key, shape in state_shapes(model).items()))
    assert hashlib.sha256(text.encode()).hexdigest() == expect["state_sha256"]
    entry = edgecls.model_info(name)
    assert {key: count(model) for key, count in cost.COSTS.items()} == {
        k: getattr(entry, k) for k in cost.COSTS
    }


@pytest.mark.parametrize("name", LOGITS)
def test_network_is_the_original(name):
    model = edgecls.build_model(name, auxiliary=True)
    gain, tolerance = REFERENCE[name]["gain"], REFERENCE[name]["tolerance"]
    filled = {key: fill.weight(key, shape, gain) for key, shape in state_shapes(model).items()}
    edgecls.load_weights(model, from_paddle(filled, name), strict=True)
    got = keras.tree.flatten(model(fill.image(model.input_shape[1]), training=False))
    for logits, expect in zip(got, np.atleast_2d(LOGITS[name]), strict=True):
        assert np.abs(logits.numpy()[0] - expect).max() <= tolerance * expect.std()


# Published sizes of the pretrained checkpoints, statistics of the norms included.
@pytest.mark.parametrize(
    ("name", "numbers"), [("EfficientNetLite0", 4_694_024), ("EfficientNetLite2", 6_150_168)]
)
def test_lite_has_the_size_of_its_checkpoint(name, numbers):
    assert sum(a.size for a in state(edgecls.build_model(name)).values()) == numbers


@pytest.mark.parametrize("name", ["EfficientNetLite1", "EfficientNetLite3", "EfficientNetLite4"])
def test_catalog_costs_are_the_networks_own(name):
    model, entry = edgecls.build_model(name), edgecls.model_info(name)
    assert (cost.params(model), cost.macs(model)) == (entry.params, entry.macs)


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_every_parameter_gets_a_gradient(name):
    # 96 pixels leave 3x3 maps at the end: on a single cell a batch of this size normalizes everything away.
    keras.utils.set_random_seed(
        1
    )  # by bad luck, both of a small gate's two units draw weights that keep them at 0
    model = edgecls.build_model(name, classes=42, input_size=96, include_preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3)).astype("float32")
    with tf.GradientTape() as tape:
        logits = model(pixels, training=True)
        loss = tf.reduce_mean(logits * tf.random.stateless_normal(logits.shape, (1, 2)))
    assert logits.shape == (4, 42)
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient is not None and np.isfinite(gradient).all() and np.any(gradient), variable.path


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_saves_loads_and_converts(name, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = edgecls.build_model(name, input_size=64, include_preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    expect = model(pixels, training=False).numpy()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(pixels, training=False).numpy(), expect)

    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec(pixels.shape)
    )
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.abs(got - expect).max() <= 1e-4 * np.ptp(expect)

    ops = Counter(op["op_name"] for op in interpreter._get_ops_details())
    kinds = Counter(type(layer) for layer in model.layers)
    assert ops["HARD_SWISH"] == kinds[HardSwish]
    # One to normalize, one a gate, swish or pool of edges, one a norm that no convolution precedes to be folded into.
    swishes = sum(getattr(layer, "activation", None) is keras.activations.silu for layer in model.layers)
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    # Fresh norms of one map are equal, and the converter computes them once.
    read = {id(n.input): n.input for n in model.layers if isinstance(n, BatchNormalization)}.values()
    free = sum(not isinstance(tensor._keras_history.operation, convolutions) for tensor in read)
    own = kinds[keras.layers.Multiply] + kinds[EdgeAveragePooling2D]
    assert ops["MUL"] == 1 + own + swishes + free
    assert ops["CONV_2D"] + ops["DEPTHWISE_CONV_2D"] == sum(
        isinstance(layer, convolutions) for layer in model.layers
    )
    assert ops["DELEGATE"] == 1


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_feature_maps_by_stride(name):
    with cost.without_values():
        model = edgecls.build_model(name, features=True)
    strides = {"AlexNet": (4, 8, 16, 32), "SqueezeNet1_1": (2, 4, 8, 16)}.get(name, (2, 4, 8, 16, 32))
    assert list(model.output) == [f"stride_{stride}" for stride in strides]
    for stride, feature_map in zip(strides, model.output.values(), strict=True):
        # Pools without padding lose up to one cell each; padding rounds odd sizes up.
        assert -1 < model.input_shape[1] / stride - feature_map.shape[1] <= (name in UNPADDED) * 1.5


def test_features_by_name():
    model = edgecls.build_model("MobileNetV1_x0_25", 10, 64, features=["stride_8", "conv.act"])
    assert {key: tuple(x.shape[1:3]) for key, x in model.output.items()} == {
        "stride_8": (8, 8),
        "conv.act": (32, 32),
    }
    with pytest.raises(ValueError, match="stride_9"):
        edgecls.build_model("MobileNetV1_x0_25", features=["stride_9"])


@pytest.mark.parametrize("size", [7, 8])
def test_strided_point_convolution_is_the_plain_one(size):
    x = tf.random.stateless_normal((2, size, size, 3), (1, 2))
    ours, plain = StridedPointConv2D(8, 1, 2), keras.layers.Conv2D(8, 1)
    with tf.GradientTape(persistent=True) as tape:
        ours.build(x.shape), plain.build(x.shape)
        plain.set_weights(ours.get_weights())
        outputs = ours(x), plain(x[:, ::2, ::2])
        losses = [tf.reduce_sum(y**2) for y in outputs]
    np.testing.assert_allclose(*outputs, atol=1e-6)
    gradients = [tape.gradient(loss, layer.kernel) for loss, layer in zip(losses, (ours, plain), strict=True)]
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"padding": "same"}, {"strides": 2, "padding": "valid"}])
def test_grouped_convolution_is_one_convolution_a_group(options):
    x = tf.random.stateless_normal((2, 9, 9, 12), (1, 2))
    layer = GroupedConv2D(8, 3, groups=4, use_bias=False, **options)
    with tf.GradientTape(persistent=True) as tape:
        ours = layer(x)
        kernels, padding = tf.split(layer.kernel, 4, -1), options["padding"].upper()
        parts = [
            tf.nn.conv2d(p, k, layer.strides, padding)
            for p, k in zip(tf.split(x, 4, -1), kernels, strict=True)
        ]
        losses = [tf.reduce_sum(y**2) for y in (ours, tf.concat(parts, -1))]
    np.testing.assert_allclose(ours, tf.concat(parts, -1), atol=1e-5)
    np.testing.assert_allclose(*(tape.gradient(loss, layer.kernel) for loss in losses), rtol=1e-4, atol=1e-4)


def test_concatenation_in_steps_keeps_the_order():
    parts = [tf.fill((1, 1, 1, 2), float(i)) for i in range(11)]
    joined = join(parts, "joined")
    assert np.array_equal(joined[0, 0, 0], np.repeat(np.arange(11.0), 2))


def test_exports_as_saved_model(tmp_path):
    model = edgecls.build_model("SqueezeNet1_1", classes=3, input_size=64)
    model.export(tmp_path / "served", verbose=False)
    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3), "float32")
    again = tf.saved_model.load(tmp_path / "served")
    assert np.allclose(again.serve(images), model(images, training=False), atol=1e-6)


def test_convolutions_that_the_platform_fails_at_are_our_own():
    with cost.without_values():
        repvgg, resnext = edgecls.build_model("RepVGG_A0"), edgecls.build_model("ResNeXt50_32x4d")
    assert type(repvgg.get_layer("stage0.rbr_1x1.conv")) is StridedPointConv2D
    assert [e.groups for e in resnext.layers if isinstance(e, GroupedConv2D)] == [32] * 16


@pytest.mark.parametrize("name", ["InceptionV3", "InceptionV4", "Res2Net50_14w_8s"])
def test_no_more_maps_are_joined_at_once_than_xnnpack_takes(name):
    with cost.without_values():
        model = edgecls.build_model(name)
    assert max(len(e.input) for e in model.layers if isinstance(e, keras.layers.Concatenate)) <= 5


def test_a_network_without_values_that_fails_leaves_none_behind():
    with pytest.raises(InputSizeError):
        edgecls.model_cost("InceptionV3", input_size=64)
    assert not global_state.get_global_attribute("uninitialized_variables")


def test_heads():
    model = edgecls.build_model(
        "MobileNetV3_small_x0_35", classes=7, embedding_dim=16, dropout=0.5, input_size=64
    )
    assert model.get_layer("dropout").rate == 0.5
    assert model.get_layer("embedding").output.shape == (None, 16)
    assert model.output.shape == (None, 7)
    assert edgecls.build_model("MobileNetV3_small_x0_35", input_size=64).get_layer("dropout").rate == 0.2
    with pytest.raises(ValueError, match="dropout"):
        edgecls.build_model("ResNet18", dropout=1.0)
    with pytest.raises(ValueError, match="input_size"):
        edgecls.build_model("ResNet18", input_size=8)
    with pytest.raises(InputSizeError, match=r"64 pixels .* InceptionV3, made for 299") as caught:
        edgecls.build_model("InceptionV3", input_size=64)
    assert caught.value.exit_code == 2


def test_cost_by_hand():
    image = keras.Input((8, 8, 3))  # 192 values
    x = keras.layers.Conv2D(4, 3, 2, padding="same", name="a")(image)  # 64 values, 112 weights
    y = keras.layers.ReLU()(x)  # in place of x, if nobody else read that
    y = keras.layers.Conv2D(8, 1, use_bias=False)(y)  # 128 values, 32 weights
    y = keras.layers.Concatenate()([x, y])  # 192 values
    model = keras.Model(image, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(y)))
    assert cost.memory_access(model) == (192 + 112 + 64) + (64 + 32 + 128) + (12 + 12 * 5 + 5 + 5)
    assert cost.peak_activations(model) == 64 + 128 + 192  # x and the second map while they are joined


def test_cost_at_another_size():
    small, full = edgecls.model_cost("MobileNetV1_x0_25", 128), edgecls.model_info("MobileNetV1_x0_25")
    assert small["params"] == full.params and 0.3 < small["macs"] / full.macs < 0.36
    # The stem's 112x112x8 map and its copy padded for the first depthwise convolution of stride 2, at half the size.
    assert edgecls.model_cost("MobileNetV1_x0_25", 112)["peak_activations"] * 3.9 < full.peak_activations
    assert keras.layers.Conv2D(2, 1)(np.ones((1, 4, 4, 3), "float32")).shape == (1, 4, 4, 2)


def test_catalog_finds_and_suggests():
    assert len(edgecls.list_models()) == len(set(edgecls.list_models())) >= 21
    assert len(edgecls.list_models("mobilenetv3_*_x?_*[05]")) == 10
    entry = edgecls.model_info("ResNet50_vd_ssld")
    assert (entry.architecture, entry.top1, entry.params) == ("ResNet50_vd", 0.824, 25_576_264)
    assert edgecls.model_info("MobileNetV3_small_x1_0").sd855_ms == {1: 5.63, 2: 3.65, 4: 2.60}
    with pytest.raises(catalog.UnknownModelError, match="MobileNetV3_large_x1_0") as caught:
        edgecls.build_model("mobilenet_v3_large_x1.0")
    assert caught.value.exit_code == 2


def test_catalog_has_every_network_of_the_reference():
    wanted = (DATA / "zoo_names.txt").read_text().split()
    assert len(wanted) >= 150 and not set(wanted) - set(catalog.names())


def test_importing_needs_no_tensorflow():
    code = "import sys, edgecls; edgecls.model_info('ResNet18'); print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_divisible():
    # Values of the published MobileNet rule, one for each branch: floor of 8, nearest, never below 0.9.
    assert [divisible(v) for v in (5.6, 33.6, 22.4, 11.0, 16.0)] == [8, 32, 24, 16, 16]


def test_activation_layers():
    x = np.array([-4, -3, -1, 0, 1, 2.5, 3, 9], "float32")
    assert np.allclose(HardSwish()(x), x * np.clip(x + 3, 0, 6) / 6)
    assert np.allclose(HardSigmoid()(x), np.clip(0.2 * x + 0.5, 0, 1))
    pixels = np.full((1, 1, 1, 3), 51, "float32")
    layer = Normalize((0.1, 0.2, 0.3), (0.5, 1, 2))
    assert np.allclose(layer(pixels), [0.2, 0, -0.05], atol=1e-7)
    with pytest.raises(ValueError, match="std"):
        Normalize((0, 0, 0), (1, 0, 1))
    for each in (layer, HardSwish(), HardSigmoid(slope=1 / 6)):
        assert type(each).from_config(each.get_config()).get_config() == each.get_config()


@pytest.mark.parametrize("size", [7, 8])
def test_edge_average_pooling_leaves_padding_out(size):
    x = np.random.default_rng(0).normal(size=(1, size, size, 2)).astype("float32")
    starts = range(-1, size - 1 + size % 2, 2)
    expect = [[x[0, max(i, 0) : i + 3, max(j, 0) : j + 3].mean((0, 1)) for j in starts] for i in starts]
    layer = EdgeAveragePooling2D()
    np.testing.assert_allclose(layer(x)[0], expect, atol=1e-6)
    assert layer.compute_output_shape(x.shape) == layer(x).shape


def pair(**kwargs):
    """Keras' layer and ours with the same odd weights, and an input of nonzero mean."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4, 3, 5, 6)) * 2 + 1).astype("float32")
    weights = [rng.uniform(0.5, 2, 6).astype("float32") for _ in range(4)]
    both = keras.layers.BatchNormalization(**kwargs), BatchNormalization(**kwargs)
    for layer in both:
        layer.build(x.shape)
        layer.set_weights(weights[: len(layer.weights)])
    return *both, x


@pytest.mark.parametrize(
    "kwargs", [{}, {"scale": False}, {"center": False}, {"epsilon": 1e-5, "momentum": 0.9}]
)
@pytest.mark.parametrize("mode", ["training", "inference", "frozen"])
def test_fused_batch_normalization_is_keras_own(mode, kwargs):
    *layers, x = pair(**kwargs)
    results = []
    for layer in layers:
        layer.trainable = mode != "frozen"
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = layer(inputs, training=mode != "inference")
            loss = tf.reduce_sum(y * tf.random.stateless_normal(y.shape, (3, 4)))
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        # Moving statistics are among the weights: this is where a Bessel-corrected variance would show.
        results.append([y.numpy(), *(g.numpy() for g in gradients), *layer.get_weights()])
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    assert (mode == "training") == (not np.array_equal(layers[1].moving_mean, pair(**kwargs)[1].moving_mean))


def test_fused_batch_normalization_elsewhere():
    _, ours, x = pair()
    flat = x.reshape(-1, 6)  # rank 2 takes Keras' path
    outputs = []
    for kind in (keras.layers.BatchNormalization, BatchNormalization):
        layer = kind.from_config(ours.get_config())
        layer.build(flat.shape)
        layer.set_weights(ours.get_weights())
        outputs.append(layer(flat, training=True).numpy())
    assert np.array_equal(*outputs)
    half = BatchNormalization(dtype="mixed_float16")
    assert keras.backend.standardize_dtype(half(x, training=True).dtype) == "float16"
    assert half.moving_mean.dtype == "float32"
    first = BatchNormalization(axis=1)
    assert first(x, training=True).shape == x.shape


def test_initial_kernels():
    model = edgecls.build_model("MobileNetV3_large_x1_0")
    kernel = model.get_layer("blocks.14.bottleneck_conv.conv").kernel
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (5 * 5 * 960)), rel=0.05)
    bn = model.get_layer("conv.bn")
    assert (bn.epsilon, bn.momentum) == (1e-5, 0.9)
    assert np.abs(edgecls.build_model("ResNet18").get_layer("fc").kernel).max() == pytest.approx(
        512**-0.5, rel=0.01
    )
    bn = edgecls.build_model("EfficientNetLite0").get_layer("stem.bn")
    assert (bn.epsilon, bn.momentum) == (1e-3, 0.99)

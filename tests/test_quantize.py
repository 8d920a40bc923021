"""The rewritten network is the float one but for 8-bit rounding, trains, and survives saving."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from quantization import (
    BLOCKS,
    EQUAL,
    IMAGENET,
    SIZE,
    logits,
    network,
    photos,
    ranges,
    settled,
    with_border,
)

from edgecls import quantize
from edgecls.errors import UsageError
from edgecls.quantize import layers as quantized
from edgecls.quantize import quantizers
from edgecls.quantize.rules import linear
from edgecls.zoo import build_model
from edgecls.zoo import layers as zoo_layers

IMAGES = photos(SIZE, 16)


def prepared(model: keras.Model, images: np.ndarray = IMAGES) -> keras.Model:
    network = quantize.quantize_model(model)
    quantize.calibrate(network, [images.astype(np.float32)])
    return network


@pytest.mark.parametrize("normalization", [EQUAL, IMAGENET], ids=["equal", "imagenet"])
@pytest.mark.parametrize("block", BLOCKS)
def test_without_rounding_it_is_the_float_network(block: str, normalization: dict) -> None:
    model = network(BLOCKS[block], **normalization)
    expected = logits(model if normalization is EQUAL else with_border(model, **IMAGENET), IMAGES)
    rewritten = quantize.quantize_model(model)
    with quantize.fake_quantization(rewritten, on=False):
        np.testing.assert_allclose(logits(rewritten, IMAGES), expected, atol=1e-4 * np.ptp(expected))
    quantize.calibrate(rewritten, [IMAGES])
    error = np.abs(logits(rewritten, IMAGES) - expected)
    assert 0 < error.max() < 0.15 * np.ptp(expected)


def test_scales_are_folded_into_the_next_kernels() -> None:
    rewritten = quantize.quantize_model(network(BLOCKS["hard_swish_chain"], **EQUAL))
    scales = {
        name: rewritten.get_layer(name).input_scale for name in ("depthwise.conv", "se.conv1", "project.conv")
    }
    assert scales == {
        "depthwise.conv": 6.0,
        "se.conv1": 6.0,
        "project.conv": 36.0,
    }  # gate and hard-swish: 6 * 6
    gate = rewritten.get_layer("se.conv2")
    assert (gate.output_scale, gate.output_shift) == (pytest.approx(1.2), 3.0)
    assert rewritten.get_layer("fc").input_scale == 1.0


def test_gradients_are_those_of_the_float_network() -> None:
    model = network(BLOCKS["hard_swish_chain"], **EQUAL)
    rewritten = quantize.quantize_model(model)
    quantize.freeze_batchnorm(rewritten)
    gradients = []
    with quantize.fake_quantization(rewritten, on=False):
        for net in (model, rewritten):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(net(IMAGES.astype(np.float32), training=False)))
            variables = sorted(net.trainable_variables, key=lambda v: v.path.split("/")[-2:])
            gradients.append(
                {v.path: g for v, g in zip(variables, tape.gradient(loss, variables), strict=True)}
            )
    assert gradients[0].keys() == gradients[1].keys()
    for path, gradient in gradients[0].items():
        assert gradient is not None
        np.testing.assert_allclose(
            gradients[1][path], gradient, atol=1e-4 * float(np.abs(gradient).max()) + 1e-7
        )


def test_it_trains_and_is_saved_with_equal_outputs(tmp_path) -> None:
    rewritten = prepared(network(BLOCKS["hard_swish_chain"], **IMAGENET))
    labels = np.arange(len(IMAGES)) % 5
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)

    @tf.function
    def step(pixels, labels):
        with tf.GradientTape() as tape:
            out = rewritten(pixels, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, out, from_logits=True))
        variables = rewritten.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    losses = [float(step(IMAGES.astype(np.float32), labels)) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
    quantize.finalize(rewritten)
    rewritten.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    np.testing.assert_array_equal(logits(loaded, IMAGES), logits(rewritten, IMAGES))
    names = [[v.path for v in net.variables if "seed_generator" not in v.path] for net in (loaded, rewritten)]
    assert names[0] == names[1]


def test_switches() -> None:
    rewritten = prepared(network(BLOCKS["hard_swish"], **EQUAL))
    norm = rewritten.get_layer("stem.bn")
    bright = np.full_like(IMAGES, 255).astype(np.float32)
    before, mean = ranges(rewritten), norm.moving_mean.numpy().copy()
    quantize.observe(rewritten, on=False)
    quantize.freeze_batchnorm(rewritten)
    rewritten(bright, training=True)
    assert ranges(rewritten) == before
    np.testing.assert_array_equal(norm.moving_mean.numpy(), mean)
    quantize.observe(rewritten)
    quantize.freeze_batchnorm(rewritten, on=False)
    rewritten(bright, training=True)
    assert ranges(rewritten) != before
    assert not np.array_equal(norm.moving_mean.numpy(), mean)


def test_a_learned_range_moves_by_the_values_beyond_it_and_holds_zero() -> None:
    grid = quantized.Quantize()
    values, weights = np.array([-3.0, -0.5, 0.5, 2.0, 5.0], np.float32), np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    grid.build(values.shape)
    grid.set_range(-1.0, 1.0)
    assert not grid.trainable_variables
    grid.learn_range(True)
    ends = grid.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch([end.value for end in ends])
        loss = tf.reduce_sum(grid(values, training=False) * weights)
    gradients = tape.gradient(loss, [end.value for end in ends])
    assert [float(each) for each in gradients] == [1.0, 24.0]
    keras.optimizers.SGD(10.0).apply([-gradients[0], gradients[1]], ends)
    low, high = grid.range
    assert low == 0.0 and high == pytest.approx(grid.quantizer.width)
    grid.learn_range(False)
    assert not grid.trainable_variables
    grids = (quantized.Quantize(fixed=(0.0, 6.0)), quantized.Quantize(symmetric=True))
    for kept in grids:
        kept.build(values.shape)
        kept.learn_range(True)
        assert not kept.trainable_variables


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_calibrated_ranges_hold_the_values(method: str) -> None:
    rewritten = quantize.quantize_model(network(BLOCKS["hard_swish"], **EQUAL))
    limits = quantize.calibrate(rewritten, (batch for batch in np.split(IMAGES, 4)), method)
    found = ranges(rewritten)
    for name, (low, high) in limits.items():
        assert found[name] == pytest.approx((low, high), rel=1e-6)
        assert low <= 0 <= high
        assert high - low > 0
    assert found["a.bn.quant"][0] >= -3.0  # hard-swish is zero below


def test_pixels_may_be_bytes() -> None:
    """As ``tf.data`` gives them for photos."""
    twins = [quantize.quantize_model(network(BLOCKS["conv"], **EQUAL)) for _ in range(2)]
    pixels = np.round(IMAGES).clip(0, 255).astype(np.uint8)
    limits = [quantize.calibrate(twins[0], [pixels]), quantize.calibrate(twins[1], [tf.constant(pixels)])]
    assert limits[0] == limits[1]


def test_the_gradient_of_a_kernel_passes_its_rounding() -> None:
    rng = np.random.default_rng(0)
    kernel = tf.constant(rng.normal(size=(3, 3, 4, 8)) * 4.0 ** -np.arange(8), tf.float32)
    weights = tf.constant(rng.normal(size=kernel.shape), tf.float32)
    low, high = (tf.Variable(np.zeros(8, np.float32)) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        rounded = quantizers.KernelQuantizer()(kernel, True, {"min_var": low, "max_var": high})
        loss = tf.reduce_sum(rounded * weights)
    np.testing.assert_array_equal(tape.gradient(loss, kernel), weights)
    steps = rounded / (high / quantizers.KERNEL_STEPS)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    np.testing.assert_allclose(rounded, kernel, atol=0.51 * float(np.max(high)) / quantizers.KERNEL_STEPS)


def test_calibration_errors() -> None:
    rewritten = quantize.quantize_model(network(BLOCKS["conv"], **EQUAL))
    with pytest.raises(UsageError, match="no image"):
        quantize.calibrate(rewritten, [])
    with pytest.raises(UsageError, match="unknown calibration method"):
        quantize.calibrate(rewritten, [IMAGES], "best")


def test_a_layer_without_rule_is_named() -> None:
    image = keras.Input((8, 8, 3))
    odd_one = layers.SpectralNormalization(layers.Conv2D(4, 3), name="odd_one")
    with pytest.raises(UsageError, match=r"SpectralNormalization.*odd_one"):
        quantize.quantize_model(keras.Model(image, odd_one(image)))
    with pytest.raises(UsageError, match=r"bare operation.*Sin"):
        quantize.quantize_model(keras.Model(image, keras.ops.sin(image)))


@pytest.mark.parametrize(
    ("kind", "options"), [(zoo_layers.GroupedConv2D, {"groups": 4}), (zoo_layers.StridedPointConv2D, {})]
)
def test_a_class_with_a_plan_is_not_lowered_as_its_parent(kind: type, options: dict) -> None:
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, kind(8, 1, 2, name="conv", **options)(image))
    flat, _ = quantize.lower(model)
    assert type(flat.get_layer("conv")) is kind
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_allclose(flat(pixels), model(pixels), atol=1e-6)
    assert isinstance(quantize.quantize_model(model).get_layer("conv"), linear.QuantizedConv2D)


def test_dead_channels_stay_finite() -> None:
    model = network(BLOCKS["residual"], **EQUAL)
    for name in ("a.conv", "b.conv"):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * (np.arange(kernel.shape[-1]) % 2))
    model.get_layer("b.bn").gamma.assign(np.zeros(8))
    assert np.isfinite(logits(prepared(model), IMAGES)).all()


def test_a_normalization_is_free_only_where_that_is_exact() -> None:
    free = quantize.quantize_model(network(BLOCKS["conv"], **EQUAL))
    assert isinstance(free.get_layer("normalize"), zoo_layers.Normalize)
    low, high = free.get_layer("normalize.quant").range
    assert (high - low) / 255 == pytest.approx(1 / 128)
    rounded = quantize.quantize_model(network(BLOCKS["conv"], mean=[0.498] * 3, std=[0.502] * 3))
    assert isinstance(rounded.get_layer("normalize"), zoo_layers.Normalize)
    halves = {"mean": [0.5] * 3, "std": [0.5] * 3}  # zero point 127.5
    for normalization in (IMAGENET, halves):
        in_kernel = quantize.quantize_model(network(BLOCKS["conv"], **normalization))
        assert isinstance(in_kernel.get_layer("normalize"), zoo_layers.Normalize)
        assert in_kernel.get_layer("stem.conv").input_offset
    image = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3)(zoo_layers.Normalize(**IMAGENET, name="normalize")(image))
    own_op = quantize.quantize_model(keras.Model(image, layers.Flatten()(x)))
    assert isinstance(own_op.get_layer("normalize"), quantized.ConstantConv2D)


def test_mobilenet_v3() -> None:
    model = build_model("MobileNetV3_small_x0_35", classes=10, input_size=64, include_preprocessing=True)
    images = photos(64, 8)
    expected = logits(with_border(settled(model, images), **IMAGENET, pad="conv.conv.pad"), images)
    rewritten = quantize.quantize_model(model)
    with quantize.fake_quantization(rewritten, on=False):
        np.testing.assert_allclose(logits(rewritten, images), expected, atol=1e-4 * np.ptp(expected))

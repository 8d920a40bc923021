"""Cross-layer equalization: the same function, equal ranges, and a ReLU6 that cuts nothing more."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from quantization import BLOCKS, EQUAL, SIZE, logits, network, photos

from edgecls import quantize
from edgecls.errors import UsageError
from edgecls.quantize.equalize import MARGIN, equalize

IMAGES = photos(SIZE, 16)


def chain(activation: str = "relu", seed: int = 0) -> keras.Model:
    """Kernels of every kind in a row, with channels that differ a hundredfold."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((16, 16, 6), name="image")
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv")(image)
    x = layers.Activation(activation)(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(
        3, depth_multiplier=2, padding="same", activation=activation, name="depthwise"
    )(x)
    x = layers.MaxPooling2D(2)(
        layers.Conv2D(12, 3, padding="same", groups=4, activation=activation, name="grouped")(x)
    )
    x = layers.Dense(8, activation=activation, name="on_a_map")(layers.ZeroPadding2D(1)(x))
    x = layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x))
    model = keras.Model(image, layers.Dense(5, name="fc")(x), name="chain")
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            spread = np.exp(rng.normal(0, 1.5, variable.shape[-1]))
            noise = rng.normal(0.1, 0.3, variable.shape) + 0.5 * ("variance" in variable.name)
            variable.assign(np.abs(noise) if "variance" in variable.name else noise * spread)
    return model


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {layer.name: np.abs(layer.kernel.numpy()) for layer in model.layers if hasattr(layer, "kernel")}


def test_it_computes_the_same_and_ranges_are_equal() -> None:
    model = chain()
    pixels = np.random.default_rng(1).normal(size=(4, 16, 16, 6)).astype(np.float32)
    expected = np.asarray(model(pixels, training=False))
    equal = equalize(model)
    found = np.asarray(equal(pixels, training=False))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))
    kernel = kernels(equal)
    np.testing.assert_allclose(kernel["conv"].max((0, 1, 2)), kernel["depthwise"].max((0, 1, 3)), rtol=1e-2)
    made = kernel["depthwise"].max((0, 1)).reshape(-1)
    blocks = [kernel["grouped"][..., 3 * group : 3 * group + 3].max((0, 1, 3)) for group in range(4)]
    np.testing.assert_allclose(made, np.concatenate(blocks), rtol=1e-2)
    np.testing.assert_allclose(kernel["grouped"].max((0, 1, 2)), kernel["on_a_map"].max(1), rtol=1e-2)
    np.testing.assert_allclose(kernel["on_a_map"].max(0), kernel["fc"].max(1), rtol=1e-2)
    before = kernels(chain())
    spreads = [np.ptp(np.log(found["grouped"].max((0, 1, 2)))) for found in (kernel, before)]
    assert spreads[0] < 0.7 * spreads[1]
    np.testing.assert_array_equal(kernels(model)["conv"], before["conv"])  # the model is not changed


def test_a_relu6_is_passed_only_where_it_cuts_nothing() -> None:
    model = chain("relu6")
    pixels = np.random.default_rng(1).normal(size=(8, 16, 16, 6)).astype(np.float32)
    expected = np.asarray(model(pixels, training=False))
    folded, equal = equalize(model), equalize(model, pixels)
    for other in (folded, equal):
        np.testing.assert_allclose(
            other(pixels, training=False), expected, rtol=0, atol=1e-5 * np.ptp(expected)
        )
    relu = next(layer for layer in folded.layers if isinstance(layer, layers.ReLU))
    reached = np.asarray(keras.Model(folded.input, relu.input)(pixels)).max((0, 1, 2))
    factors = (kernels(folded)["conv"] / kernels(equal)["conv"]).mean((0, 1, 2))
    near = reached * MARGIN >= 6
    assert near.any() and not near.all()
    np.testing.assert_allclose(factors[near], 1.0, rtol=1e-5)
    assert (np.abs(np.log(factors[~near])) > 0.01).any()
    assert (reached / factors < 6 / MARGIN + 1e-3)[~near].all()


def test_what_has_other_readers_or_stays_in_float_is_left() -> None:
    model = network(BLOCKS["residual"], **EQUAL)
    equal = equalize(model, IMAGES)
    expected = logits(model, IMAGES)
    np.testing.assert_allclose(logits(equal, IMAGES), expected, atol=1e-5 * np.ptp(expected))
    plain = chain()
    kept = kernels(equalize(plain, keep_float=["depthwise", "conv"]))
    np.testing.assert_array_equal(kept["depthwise"], kernels(plain)["depthwise"])
    np.testing.assert_array_equal(kept["conv"], kernels(plain)["conv"])
    with pytest.raises(UsageError, match="no layer is called nothing"):
        equalize(plain, keep_float=["nothing"])


def test_dead_channels_keep_their_scale() -> None:
    model = chain()
    kernel = model.get_layer("grouped").kernel
    kernel.assign(kernel * (np.arange(12) % 3 > 0))
    bias = model.get_layer("grouped").bias
    bias.assign(np.ones(12))
    pixels = np.random.default_rng(1).normal(size=(4, 16, 16, 6)).astype(np.float32)
    expected = np.asarray(model(pixels, training=False))
    found = np.asarray(equalize(model)(pixels, training=False))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_it_pays_where_channels_differ_and_kernels_have_one_scale() -> None:
    model = network(BLOCKS["relu6_depthwise"], **EQUAL)
    norms = [model.get_layer(name) for name in ("stem.bn", "a.bn")]
    gains = np.geomspace(0.02, 1.0, 8)
    norms[0].gamma.assign(gains)
    norms[0].beta.assign(norms[0].beta * gains)
    depthwise = model.get_layer("a.conv").kernel
    depthwise.assign(depthwise / gains[:, None])
    expected = logits(model, IMAGES)
    errors = []
    for floating in (model, equalize(model, IMAGES)):
        twin = quantize.quantize_model(floating, weights="per_tensor")
        quantize.calibrate(twin, [IMAGES])
        errors.append(np.mean((logits(twin, IMAGES) - expected) ** 2))
    assert errors[1] < 0.5 * errors[0]

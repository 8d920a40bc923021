"""One scale for a kernel instead of one for each channel: the same function, the file equal to the twin."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from quantization import BLOCKS, EQUAL, IMAGENET, SIZE, logits, network, photos, scales_of_kernels

import edgecls
from edgecls import quantize
from edgecls.errors import UsageError
from edgecls.export import inspect, verify
from edgecls.export.tflite import to_tflite
from edgecls.quantize.folding import fold_norms
from edgecls.quantize.rules.norm import FreezableBatchNormalization
from edgecls.recipe import load_recipe

IMAGES = photos(SIZE, 24)


def uneven(model: keras.Model) -> keras.Model:
    """``model`` with gains of its normalizations that differ, also in sign."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            gains = np.random.default_rng(3).uniform(0.3, 1.5, layer.gamma.shape)
            layer.gamma.assign(gains * np.where(np.arange(len(gains)) % 3, 1, -1))
            layer.beta.assign(np.random.default_rng(4).normal(0, 0.3, layer.beta.shape))
    return model


def twin(model: keras.Model, weights: str = "per_tensor") -> keras.Model:
    found = quantize.quantize_model(model, weights=weights)
    quantize.calibrate(found, [IMAGES])
    return found


def test_a_folded_network_computes_the_same() -> None:
    for block in ("conv", "relu6_depthwise", "norm_first", "flat", "shared"):
        model = uneven(network(BLOCKS[block], **EQUAL))
        flat, _ = quantize.lower(model)
        folded = fold_norms(flat)
        assert not [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
        expected = logits(flat, IMAGES)
        np.testing.assert_allclose(logits(folded, IMAGES), expected, atol=1e-5 * np.ptp(expected))


def test_a_norm_stays_with_what_is_kept() -> None:
    flat, _ = quantize.lower(network(BLOCKS["conv"], **EQUAL))
    norms = {
        kept: {x.name for x in fold_norms(flat, kept).layers if isinstance(x, layers.BatchNormalization)}
        for kept in (("a.conv",), ("a.bn",), ())
    }
    assert norms == {("a.conv",): {"a.bn"}, ("a.bn",): {"a.bn"}, (): set()}


@pytest.mark.parametrize("normalization", [EQUAL, IMAGENET], ids=["equal", "imagenet"])
@pytest.mark.parametrize(
    "block", ["relu6_depthwise", "hard_swish_chain", "norm_first", "average_pools", "flat"]
)
def test_the_file_is_the_twin_and_has_one_scale_a_kernel(
    block: str, normalization: dict, tmp_path: Path
) -> None:
    model = uneven(network(BLOCKS[block], **normalization))
    network_ = twin(model)
    quantize.finalize(network_)
    path = to_tflite(network_, tmp_path / "int8.tflite", "int8", list("abcde"), {"size": SIZE})
    (rung,) = verify.ladder(IMAGES, qat_model=network_, int8=path)["rungs"]
    assert rung["ok"] and rung["max_steps"] == 0, rung
    file = inspect.describe(path)
    assert (file["float_ops"], file["partitions"]) == ([], 1)
    found = scales_of_kernels(path)
    assert found and all(set(counts) == {1} for counts in found.values()), found


def test_training_sees_the_kernels_of_the_file() -> None:
    """The twin rounds what it will round when it is final: that changes its outputs by steps of rounding alone."""
    trained = twin(uneven(network(BLOCKS["relu6_depthwise"], **EQUAL)))
    before = logits(trained, IMAGES)
    kernels = {
        x.name: x.quantized_kernel(False).numpy() for x in trained.layers if hasattr(x, "kernel_quantizer")
    }
    quantize.finalize(trained)
    for name, kernel in kernels.items():
        np.testing.assert_allclose(trained.get_layer(name).quantized_kernel(False), kernel, rtol=1e-5)
        assert np.size(trained.get_layer(name).ranges["max_var"]) == 1
    assert np.abs(logits(trained, IMAGES) - before).max() < 0.02 * np.ptp(before)


def test_kernels_are_folded_and_rounded_with_one_step() -> None:
    """Against the formula, for a depthwise kernel, a dense one, and one that normalizes the pixels."""
    model = uneven(network(BLOCKS["relu6_depthwise"], **IMAGENET))
    rounded = twin(model)
    assert not [x for x in rounded.layers if isinstance(x, FreezableBatchNormalization)]
    std = 255 * np.array(IMAGENET["std"])
    for name, norm, factor in (
        ("stem.conv", "stem.bn", np.mean(1 / std) * std[:, None]),
        ("a.conv", "a.bn", 1.0),
        ("fc", None, 1.0),
    ):
        kernel = model.get_layer(name).kernel.numpy().astype(np.float64)
        if norm:
            layer = model.get_layer(norm)
            gain = layer.gamma.numpy() / np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
            kernel = kernel * (gain[:, None] if name == "a.conv" else gain)
        wanted = kernel / factor if np.size(factor) == 1 else kernel * (1 / factor)
        step = np.abs(wanted).max() / 127
        found = rounded.get_layer(name).quantized_kernel(False).numpy()
        np.testing.assert_allclose(
            np.rint(found / step).reshape(wanted.shape), np.rint(wanted / step), err_msg=name
        )


def test_it_is_saved(tmp_path: Path) -> None:
    final = twin(network(BLOCKS["relu6_depthwise"], **EQUAL))
    quantize.finalize(final)
    final.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    np.testing.assert_array_equal(logits(loaded, IMAGES), logits(final, IMAGES))


def test_the_plan_says_it_and_bad_names_are_refused() -> None:
    model = network(BLOCKS["conv"], **EQUAL)
    lines = quantize.make_plan(model, weights="per_tensor").text().splitlines()
    (line,) = (line for line in lines if "Conv2D" in line and line.startswith("a."))
    assert "one scale for its kernel" in line
    assert "one scale" not in quantize.make_plan(model).text()
    with pytest.raises(UsageError, match=r"unknown weights 'one'.*per_channel, per_tensor"):
        edgecls.quantize_model(model, weights="one")
    assert load_recipe("mv3_ssld", ["quantize.weights=per_tensor"]).quantize.weights == "per_tensor"
    with pytest.raises(UsageError, match=r"quantize\.weights"):
        load_recipe("mv3_ssld", ["quantize.weights=one"])

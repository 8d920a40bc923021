"""Learned rounding: each weight goes up or down, the layer's error falls, the file has the same integers."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from quantization import BLOCKS, EQUAL, IMAGENET, SIZE, logits, network, photos

from edgecls import quantize
from edgecls.export import verify
from edgecls.export.tflite import to_tflite
from edgecls.quantize.adaround import learn_rounding

IMAGES = photos(SIZE, 16)
BLOCK = "hard_swish_chain"


def twin(weights: str = "per_channel", normalization: dict = EQUAL) -> keras.Model:
    found = quantize.quantize_model(network(BLOCKS[BLOCK], **normalization), weights=weights)
    quantize.calibrate(found, [IMAGES])
    return found


def kernels(model: keras.Model, rounded: bool) -> dict[str, np.ndarray]:
    """In steps of their grids, rounded or as they are."""
    with quantize.fake_quantization(model, on=rounded):
        layers = [layer for layer in model.layers if hasattr(layer, "kernel_quantizer")]
        return {
            layer.name: layer.quantized_kernel(False).numpy() / (layer.ranges["max_var"].numpy() / 127)
            for layer in layers
        }


@pytest.fixture(scope="module")
def learned() -> tuple[keras.Model, dict[str, float]]:
    model = twin()
    return model, learn_rounding(model, IMAGES, steps=150)


def test_each_weight_is_rounded_up_or_down(learned: tuple[keras.Model, dict[str, float]]) -> None:
    before, after = kernels(twin(), rounded=False), kernels(learned[0], rounded=True)
    changed = 0
    for name, values in before.items():
        counts = np.rint(after[name])
        np.testing.assert_allclose(after[name], counts, atol=1e-3)
        assert (np.abs(counts - values) < 1 + 1e-3).all(), name
        changed += np.sum(counts != np.rint(values))
    assert 0.02 < changed / sum(map(np.size, before.values())) < 0.5


def test_the_error_of_a_layer_falls(learned: tuple[keras.Model, dict[str, float]]) -> None:
    """Of the first layer, whose inputs are the same either way, it is computed here; for the others as they say."""
    model, shares = learned
    assert set(shares) == {layer.name for layer in model.layers if hasattr(layer, "kernel_quantizer")}
    assert all(share <= 1.0 for share in shares.values()) and np.mean(list(shares.values())) < 0.9, shares

    def first(network: keras.Model) -> np.ndarray:
        return logits(keras.Model(network.input, network.get_layer("stem.conv").output), IMAGES)

    nearest = twin()
    with quantize.fake_quantization(nearest, on=False):
        expected = first(nearest)
    errors = [np.mean((first(each) - expected) ** 2) for each in (nearest, model)]
    assert errors[1] < 0.95 * errors[0]
    assert errors[1] / errors[0] == pytest.approx(shares["stem.conv"], rel=1e-2)


def test_it_is_deterministic(learned: tuple[keras.Model, dict[str, float]]) -> None:
    again = twin()
    learn_rounding(again, IMAGES, steps=150)
    for one, two in zip(learned[0].weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())


@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
def test_the_file_has_these_integers(weights: str, tmp_path: Path) -> None:
    model = twin(weights, IMAGENET)
    learn_rounding(model, IMAGES, steps=20)
    counts = {name: np.rint(values) for name, values in kernels(model, rounded=True).items()}
    quantize.correct_biases(model, IMAGES)
    quantize.finalize(model)
    for name, values in kernels(model, rounded=True).items():
        np.testing.assert_array_equal(np.abs(np.rint(values)), np.abs(counts[name]), err_msg=name)
    path = to_tflite(model, tmp_path / "int8.tflite", "int8", list("abcde"), {"size": SIZE})
    (rung,) = verify.ladder(IMAGES, qat_model=model, int8=path)["rungs"]
    assert rung["ok"] and rung["max_steps"] == 0, rung

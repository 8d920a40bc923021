"""Mixed precision: what computes in 16 bits and what does not, the loss scale, exact resume, a float32 file."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import edgecls
from edgecls.errors import UsageError
from edgecls.recipe import Train, load_recipe
from edgecls.train.loop import Trainer, fit
from edgecls.train.objective import Objective
from edgecls.train.optimizers import Sgd
from edgecls.train.precision import FLOAT16, LossScale, computing_in
from edgecls.zoo.blocks import Head, classifier, conv_bn
from edgecls.zoo.layers import Normalize
from edgecls.zoo.vit import Attention

MIXED = ("mixed_bfloat16", FLOAT16)
RNG = np.random.default_rng(5)
SIZE, CLASSES, BATCH = 32, 3, 8
LABELS = RNG.integers(0, CLASSES, 4 * BATCH)
PIXELS = np.clip(RNG.normal(128, 40, (len(LABELS), SIZE, SIZE, 3)), 0, 255).astype(np.float32)
PIXELS[np.arange(len(LABELS)), :, :, LABELS] = 220.0  # a class is a color
TARGETS = np.eye(CLASSES, dtype=np.float32)[LABELS]


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = conv_bn(
        Normalize((0.5,) * 3, (0.25,) * 3, name="normalize")(image), 8, 3, 2, act="hard_swish", name="stem"
    )
    x = conv_bn(x, 8, 3, 2, groups=8, act="relu", name="depthwise")
    return keras.Model(image, classifier(x, Head(CLASSES)), name="tiny")


def epoch_batches(epoch: int, start: int = 0) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((PIXELS, TARGETS)).batch(BATCH).skip(start)


def trainer(precision: str, **keys: object) -> Trainer:
    settings = {
        "epochs": 4,
        "batch_size": BATCH,
        "optimizer": Sgd(lr=0.05),
        "select": "last",
        "ema_decay": 0.5,
    }
    return Trainer(network(), Objective(), Train(**settings | keys, precision=precision), 4)


@pytest.mark.parametrize("precision", MIXED)
def test_layers_compute_in_16_bits_between_pixels_and_classifier(precision: str) -> None:
    model = network()
    with computing_in(model, precision):
        inner = {layer.name for layer in model.layers if layer.compute_dtype != "float32"}
        float32 = [layer.name for layer in model.layers if layer.name not in inner]
        logits = model(PIXELS[:BATCH], training=False)
    assert float32 == ["image", "normalize", "stem.conv.pad", "fc"]
    assert logits.dtype == "float32" and all(v.dtype == "float32" for v in model.trainable_variables)
    exact = model(PIXELS[:BATCH], training=False)
    error = np.abs(logits - exact).max() / np.std(exact)
    assert 0 < error < (0.1 if precision == "mixed_bfloat16" else 0.02)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


@pytest.mark.parametrize("precision", MIXED)
def test_a_mixed_training_learns_resumes_exactly_and_gives_a_float32_file(
    precision: str, tmp_path: Path
) -> None:
    losses: list[float] = []
    whole = trainer(precision)
    for epoch in range(4):
        losses.append(whole.run_epoch(epoch_batches(epoch), lambda step: None)["loss"])
    assert losses[-1] < 0.7 * losses[0]
    begun, resumed = trainer(precision), trainer(precision)
    begun.config = begun.config.model_copy(update={"epochs": 2})
    fit(begun, epoch_batches, dict, tmp_path)
    fit(resumed, epoch_batches, dict, tmp_path)
    for a, b in zip(whole.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    resumed.close()
    resumed.model.save(tmp_path / "float.keras")
    saved = edgecls.load_model(tmp_path / "float.keras")
    assert {layer.dtype_policy.name for layer in saved.layers} == {"float32"}
    np.testing.assert_array_equal(saved(PIXELS[:2]), resumed.model(PIXELS[:2]))


def test_a_loss_scale_leaves_a_step_out_that_overflows_and_grows_again() -> None:
    scale, weight, done = LossScale(FLOAT16), tf.Variable(1.0), tf.Variable(0)

    def update(gradients: list[tf.Tensor]) -> None:
        weight.assign_sub(gradients[0])
        done.assign_add(1)

    @tf.function
    def step(gradient: tf.Tensor) -> None:
        scale.step(scale.unscaled([gradient * scale.factor]), update)

    step(tf.constant(0.25))
    assert (weight.numpy(), done.numpy(), scale.factor.numpy()) == (0.75, 1, 2.0**15)
    for bad in (np.inf, np.nan):
        step(tf.constant(bad, tf.float32))
    assert (weight.numpy(), done.numpy(), scale.factor.numpy()) == (0.75, 1, 2.0**13)
    for _ in range(2000):
        step(tf.constant(0.0))
    assert (done.numpy(), scale.factor.numpy()) == (2001, 2.0**14)
    assert LossScale("mixed_bfloat16").variables == [] and LossScale("float32").factor == 1.0


def test_a_gradient_too_small_for_float16_is_kept_by_the_scale() -> None:
    """The smallest float16 is 6e-8: without the factor the gradient would be zero."""
    weight = tf.Variable([1.0], dtype=tf.float16)

    def gradient(scale: LossScale) -> np.ndarray:
        with tf.GradientTape() as tape:
            loss = tf.cast(weight, tf.float32) * 1e-8 * scale.factor
        return scale.unscaled([tf.cast(tape.gradient(loss, weight), tf.float32)])[0].numpy()

    np.testing.assert_allclose(gradient(LossScale(FLOAT16)), 1e-8, rtol=1e-2)
    assert gradient(LossScale("float32")) == 0.0


def test_an_overflow_in_training_moves_no_weight() -> None:
    subject = trainer(FLOAT16, optimizer=Sgd(lr=0.05, weight_decay=0.0), ema_decay=None)
    before = [v.numpy() for v in subject.model.trainable_variables]
    subject._loss_scale.variables[0].assign(2.0**40)  # every gradient overflows
    values = subject.run_epoch(epoch_batches(0), lambda step: None)
    assert subject._loss_scale.factor.numpy() == 2.0**36 and int(subject.optimizer.iterations) == 0
    assert np.isfinite(values["loss"]) and values["gradient_norm"] == 0.0
    for old, new in zip(before, subject.model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_attention_takes_its_softmax_in_float32() -> None:
    inputs = tf.constant(RNG.normal(0, 3, (1, 5, 24)), tf.float16)
    exact = Attention(2, 0.5)(tf.cast(inputs, tf.float32))
    layer = Attention(2, 0.5, dtype=FLOAT16)
    step, got = tf.function(layer).get_concrete_function(tf.TensorSpec((1, 5, 24), tf.float16)), layer(inputs)
    softmaxes = [op for op in step.graph.get_operations() if op.type == "Softmax"]
    assert got.dtype == "float16" and [op.outputs[0].dtype for op in softmaxes] == [tf.float32]
    np.testing.assert_allclose(got, exact, rtol=0.02, atol=0.01)


def test_quantization_aware_training_is_not_mixed() -> None:
    with pytest.raises(UsageError, match=r"computes in float32, so that it rounds as the int8 file does.*-o"):
        load_recipe("mv3_ssld", ["quantize.train.precision=mixed_bfloat16"])
    assert load_recipe("mv3_ssld", ["train.precision=mixed_float16"]).train.precision == FLOAT16

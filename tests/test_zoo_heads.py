"""Classifiers that only training uses, and networks that are not convolutional."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import edgecls
from edgecls.errors import UsageError
from edgecls.export.tflite import convert
from edgecls.recipe import Train
from edgecls.train.loop import Trainer
from edgecls.train.losses import CrossEntropy
from edgecls.train.objective import Objective, as_teacher
from edgecls.train.optimizers import Sgd
from edgecls.weights.load import from_paddle, state
from edgecls.workflow.common import save_network

RNG = np.random.default_rng(0)
PIXELS = RNG.uniform(0, 255, (4, 96, 96, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 0], "int32")
AUXILIARY = ("_conv_o1._conv", "_fc_o1", "_out1", "_conv_o2._conv", "_fc_o2", "_out2")


@pytest.fixture(scope="module")
def googlenet() -> keras.Model:
    keras.utils.set_random_seed(0)
    return edgecls.build_model("GoogLeNet", 3, 96, include_preprocessing=True, auxiliary=True)


def test_a_step_trains_auxiliary_classifiers_and_the_saved_network_has_none(
    googlenet: keras.Model, tmp_path: Path
) -> None:
    before = state(googlenet)
    config = Train(epochs=1, batch_size=4, optimizer=Sgd(lr=0.01))
    trainer = Trainer(googlenet, Objective(), config, 1)
    figures = trainer.run_epoch(
        tf.data.Dataset.from_tensors((PIXELS, tf.one_hot(LABELS, 3))), lambda step: None
    )
    after = state(googlenet)
    assert np.isfinite(figures["loss"]) and 0 <= figures["accuracy"] <= 1
    for name in (*AUXILIARY, "_fc_out", "_ince5b._conv1._conv", "_conv._conv"):
        assert not np.array_equal(before[f"{name}.weight"], after[f"{name}.weight"]), name

    save_network(googlenet, tmp_path / "float.keras")
    saved = edgecls.load_model(tmp_path / "float.keras")
    assert saved.output_shape == (None, 3)
    assert not {layer.name for layer in saved.layers} & set(AUXILIARY)
    expect = googlenet(PIXELS, training=False)[0]
    assert np.array_equal(saved(PIXELS, training=False), expect)


def test_the_objective_adds_three_tenths_of_each_auxiliary_loss() -> None:
    logits = [tf.constant(RNG.normal(size=(4, 3)), tf.float32) for _ in range(3)]
    targets = tf.one_hot(LABELS, 3)
    main, *others = [CrossEntropy()(each, targets).numpy() for each in logits]
    np.testing.assert_allclose(Objective()(PIXELS, targets, logits), main + 0.3 * sum(others), rtol=1e-6)
    asked: list[int] = []
    image = keras.Input((96, 96, 3))
    teacher = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(image)))
    forward = teacher.call
    teacher.call = lambda *args, **kwargs: asked.append(1) or forward(*args, **kwargs)
    soft = Objective(teacher=as_teacher(teacher))
    one = [soft(PIXELS, targets, each).numpy() for each in logits]
    asked.clear()
    np.testing.assert_allclose(soft(PIXELS, targets, logits), one[0] + 0.3 * (one[1] + one[2]), rtol=1e-6)
    assert len(asked) == 1


def test_checkpoints_of_either_form_load_into_the_other(googlenet: keras.Model) -> None:
    arrays = {key: RNG.normal(size=a.shape).astype("float32") for key, a in state(googlenet).items()}
    plain = edgecls.build_model("GoogLeNet", 3, 96)
    report = edgecls.load_weights(plain, arrays, strict=True)
    assert {key.rpartition(".")[0] for key in report.unused} == set(AUXILIARY)
    assert (len(report.unused), report.unexpected, report.missing) == (10, [], [])
    assert "unused: _conv_o1._conv.weight" in str(report)

    whole = edgecls.build_model("GoogLeNet", 3, 96, auxiliary=True)
    report = edgecls.load_weights(whole, from_paddle(arrays, "GoogLeNet"), strict=True)
    assert not report.unused
    got = state(whole)
    for name, kept in (
        ("_fc_out", 0.6),
        ("_out1", 0.3),
        ("_out2", 0.3),
    ):  # after dropouts of 0.4, 0.7 and 0.7
        np.testing.assert_allclose(got[f"{name}.weight"], kept * arrays[f"{name}.weight"], rtol=1e-6)

    report = edgecls.load_weights(whole, {k: v for k, v in arrays.items() if k in state(plain)})
    assert {key.rpartition(".")[0] for key in report.missing} == set(AUXILIARY)
    other = edgecls.build_model("GoogLeNet", 5, 128, auxiliary=True)
    report = edgecls.load_weights(other, arrays)
    fresh = {text.split(":")[0] for text in report.mismatched}
    assert fresh == {
        f"{name}.{part}" for name in ("_fc_out", "_out1", "_out2") for part in ("weight", "bias")
    }
    del arrays["_ince3a._conv1._conv.weight"]
    with pytest.raises(UsageError, match="GoogLeNet"):
        edgecls.load_weights(plain, arrays)


def test_small_images_and_other_networks_have_no_auxiliary_classifiers() -> None:
    for name in ("GoogLeNet", "MobileNetV3_small_x0_35"):
        assert edgecls.build_model(name, 3, 64, auxiliary=True).output_shape == (None, 3)


@pytest.fixture(scope="module")
def transformer() -> keras.Model:
    keras.utils.set_random_seed(0)
    return edgecls.build_model(
        "DeiT_tiny_distilled_patch16_224", 42, 64, include_preprocessing=True, embedding_dim=8, dropout=0.1
    )


def test_every_parameter_of_a_transformer_gets_a_gradient(transformer: keras.Model) -> None:
    pixels = PIXELS[:, :64, :64]
    with tf.GradientTape() as tape:
        logits = transformer(pixels, training=True)
        loss = tf.reduce_mean(logits * tf.random.stateless_normal(logits.shape, (1, 2)))
    found = tape.gradient(loss, transformer.trainable_variables)
    for variable, gradient in zip(transformer.trainable_variables, found, strict=True):
        assert gradient is not None and np.isfinite(gradient).all() and np.any(gradient), variable.path


def test_a_transformer_is_one_partition_of_few_operations(transformer: keras.Model, tmp_path: Path) -> None:
    save_network(transformer, tmp_path / "float.keras")
    again = edgecls.load_model(tmp_path / "float.keras")
    pixels = np.round(PIXELS[:1, :64, :64])
    expect = transformer(pixels, training=False).numpy()
    assert np.array_equal(again(pixels, training=False), expect)

    interpreter = Interpreter(model_content=convert(again, "fp32"), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels.astype("uint8"))
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.abs(got - expect).max() <= 1e-4 * np.ptp(expect)
    ops = Counter(op["op_name"] for op in interpreter._get_ops_details())
    assert ops["DELEGATE"] == 1
    # Twelve blocks: exact GELU is one operation; attention is two products, a softmax, a split and two transpositions.
    assert [ops[name] for name in ("GELU", "BATCH_MATMUL", "SOFTMAX", "SPLIT", "TRANSPOSE")] == [
        12,
        24,
        12,
        12,
        24,
    ]
    assert ops["FULLY_CONNECTED"] == 4 * 12 + 4


def test_a_transformer_has_one_feature_map() -> None:
    model = edgecls.build_model("DeiT_tiny_patch16_224", input_size=96, features=True)
    assert list(model.output) == ["stride_16"] and model.output["stride_16"].shape == (None, 6, 6, 192)
    # The map is that of the patches, row by row, without the classifier's token.
    rows = model.get_layer("norm").output
    tokens = keras.Model(model.input, rows)(PIXELS[:1], training=False).numpy()
    np.testing.assert_array_equal(model(PIXELS[:1])["stride_16"][0, 2, 3], tokens[0, 1 + 2 * 6 + 3])

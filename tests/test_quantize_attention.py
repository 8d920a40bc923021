"""Transformers and ConvNeXt in int8: products and kernels on grids, normalizations and softmax in float between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers
from keras.src.applications.convnext import ConvNeXt
from quantization import EQUAL, logits, photos

import edgecls
from edgecls.errors import UsageError
from edgecls.export import inspect, verify
from edgecls.export.gates import gates
from edgecls.export.tflite import convert
from edgecls.quantize import fake_quantization, make_plan
from edgecls.zoo import layers as zoo_layers
from edgecls.zoo import vit
from edgecls.zoo.blocks import Head

SIZE, CLASSES = 64, 6
IMAGES = photos(SIZE, 24)
KERNEL_GAIN = (
    4  # random kernels make shares that are all alike, and a network that hardly depends on its image
)


def image() -> keras.KerasTensor:
    return keras.Input((SIZE, SIZE, 3), name="image")


def deit() -> keras.Model:
    vit.MODELS["tiny"] = vit.Variant(32, 2, depth=2, distilled=True, drop_path=0.1)
    try:
        x = image()
        return keras.Model(x, vit.build("tiny", zoo_layers.Normalize(**EQUAL)(x), Head(CLASSES))[1])
    finally:
        del vit.MODELS["tiny"]


def convnext() -> keras.Model:
    """Of ``keras.applications``, with scales of its layers as after training."""
    shape = (SIZE, SIZE, 3)
    model = ConvNeXt(
        [1, 1, 2, 1], [16, 24, 32, 48], 0.1, weights=None, classes=CLASSES, input_shape=shape, name="small"
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(rng.uniform(0.1, 0.5, layer.gamma.shape))
    return keras.Model(model.input, model.output)


def users_transformer() -> keras.Model:
    """Keras' own attention, normalized behind; one sequence reads another, and a product is written out."""
    x = image()
    y = layers.Conv2D(24, 16, 16, name="patches")(layers.Rescaling(1 / 128, -127 / 128)(x))
    y = layers.Reshape((16, 24))(y)
    y = layers.LayerNormalization()(y + layers.MultiHeadAttention(3, 8, dropout=0.1, name="self")(y, y))
    short = layers.Cropping1D((0, 8))(y)
    z = layers.MultiHeadAttention(2, 6, value_dim=5, output_shape=10, name="cross")(
        short, y, use_causal_mask=False
    )
    z = keras.ops.matmul(keras.ops.transpose(z, (0, 2, 1)), short)
    z = layers.Dense(16, activation="gelu")(layers.RMSNormalization()(z))
    return keras.Model(x, layers.Dense(CLASSES, name="fc")(layers.GlobalAveragePooling1D()(z)))


MODELS: dict[str, Callable[[], keras.Model]] = {
    "deit": deit,
    "convnext": convnext,
    "users": users_transformer,
}
# Layers in float of each: normalizations, softmaxes, sums that normalizations read, tokens.
FLOAT = {
    "deit": Counter(LayerNormalization=5, Softmax=2, Add=4, Tokens=1),
    "convnext": Counter(LayerNormalization=10, Add=3),
    "users": Counter(LayerNormalization=1, RMSNormalization=1, Softmax=2, Add=1),
}
PRODUCTS = {"deit": 4, "convnext": 0, "users": 5}


def random_model(name: str, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = MODELS[name]()
    for variable in model.variables:
        if variable.path.endswith("kernel"):
            variable.assign(variable.numpy() * KERNEL_GAIN)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_the_file_is_the_twin_in_one_partition(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    expected = logits(model, IMAGES)
    twin = edgecls.quantize_model(model)
    with fake_quantization(twin, on=False):
        # GELU is x * sigmoid(1.702 x), at most 0.0204 off.
        np.testing.assert_allclose(logits(twin, IMAGES), expected, atol=0.03 * np.ptp(expected))
    edgecls.calibrate(twin, [IMAGES])
    path = edgecls.export_tflite(twin, tmp_path / "int8.tflite")
    result = verify.ladder(IMAGES, qat_model=twin, int8=path)
    about = result["files"]["int8.tflite"]
    assert (about["partitions"], about["undelegated"]) == (1, ["QUANTIZE"])
    assert about["ops"].get("BATCH_MATMUL", 0) == PRODUCTS[name]
    assert Counter(reason.split(",")[0] for reason in about["in_float"].values()) == FLOAT[name]
    assert all(rung["ok"] for rung in [*result["rungs"], *gates(result)]), result["rungs"]
    noise = logits(twin, IMAGES) - expected
    assert np.mean(noise**2) < 0.06 * np.var(expected)  # 12 dB


@pytest.mark.parametrize("seed", [1, 2])
def test_products_are_exact_and_float_between_them_moves_few_values(seed: int) -> None:
    """Up to the first softmax all is as the file has it; the logits differ by what rounding in float moves.

    TensorFlow's reference kernels round the accumulators of int8 kernels in another way than XNNPACK does.
    """
    twin = edgecls.quantize_model(random_model("deit", seed))
    edgecls.calibrate(twin, [IMAGES])
    edgecls.quantize.finalize(twin)
    step = np.ptp(twin.layers[-1].range) / 255
    content = convert(twin, "int8")
    expected = logits(twin, IMAGES)
    steps = np.abs(inspect.Runner(content)(IMAGES) - expected) / step
    assert steps.max() < 3.5 and steps.mean() < 0.1, steps.max()
    reference = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    reference.allocate_tensors()
    found = []
    for pixels in IMAGES[:4]:
        reference.set_tensor(reference.get_input_details()[0]["index"], pixels[None])
        reference.invoke()
        found.append(reference.get_tensor(reference.get_output_details()[0]["index"])[0])
    assert np.abs(found - expected[:4]).max() / step < 8
    products = twin.get_layer("blocks.0.attn.gather.products.quant")
    part = keras.Model(twin.input, products.output)
    found = inspect.Runner(convert(part, "int8")).outputs(IMAGES)
    off = np.abs(found - logits(part, IMAGES)) / (np.ptp(products.range) / 255)
    assert np.mean(off > 0.5) < 1e-3


def test_right_factors_lie_on_symmetric_grids_through_training(tmp_path: Path) -> None:
    model = random_model("deit")
    twin = edgecls.quantize_model(model)
    edgecls.calibrate(twin, [IMAGES], "minmax")
    twin.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)  # tracing takes longer than the step
    twin.train_on_batch(IMAGES[:4].astype(np.float32), np.ones((4, CLASSES)))
    twin.save(tmp_path / "twin.keras")
    for network in (twin, edgecls.load_model(tmp_path / "twin.keras")):
        for part in ("key", "value"):
            low, high = network.get_layer(f"blocks.1.attn.qkv.{part}.quant").range
            assert low / high == pytest.approx(-128 / 127, rel=1e-6)
    before = model.get_layer("blocks.1.attn.qkv").kernel.numpy()[:, 32:64]
    assert np.abs(twin.get_layer("blocks.1.attn.qkv.key").kernel.numpy() - before).max() > 0


def test_the_plan_says_what_is_float_and_why() -> None:
    model = random_model("deit")
    notes = dict(line.split(": ", 1) for line in make_plan(model).text().splitlines())
    assert notes["blocks.0.norm1"] == "LayerNormalization, in float, int8 kernels have no square root"
    assert notes["blocks.0.attn.gather.shares"] == "Softmax, in float, int8 kernels have no softmax"
    assert notes["blocks.0.attn.add"] == "Add, in float, a normalization reads it in float"
    assert "learned tokens" in notes["tokens"]
    assert notes["blocks.0.attn.qkv.key"].endswith("symmetric")
    asked = make_plan(model, keep_float=["blocks.0.attn.qkv", "blocks.1.attn.gather"]).text()
    assert "blocks.0.attn.gather.key: Channels" in asked  # one dense layer in float, cut into three
    assert "blocks.1.attn.gather: Attention, in float, as asked" in asked


def test_attention_that_is_not_known_is_refused() -> None:
    def small(call: Callable[..., keras.KerasTensor]) -> keras.Model:
        x = keras.Input((4, 6))
        return keras.Model(x, call(x))

    refused = {
        "attention with use_causal_mask": lambda x: layers.MultiHeadAttention(2, 3, name="odd")(
            x, x, use_causal_mask=True
        ),
        "attention with return_attention_scores": lambda x: layers.MultiHeadAttention(2, 3, name="odd")(
            x, x, return_attention_scores=True
        )[0],
        "attention with use_gate": lambda x: layers.MultiHeadAttention(2, 3, use_gate=True, name="odd")(x, x),
        "a product with a constant matrix; a Dense": lambda x: keras.ops.matmul(
            x, np.ones((6, 2), "float32")
        ),
    }
    for text, call in refused.items():
        with pytest.raises(UsageError, match=text):
            edgecls.quantize_model(small(call))


def test_float_operations_that_nobody_planned_fail() -> None:
    about = {"quantized": True, "partitions": 1, "float_ops": ["MUL", "ADD"], "ops": {"QUANTIZE": 3}}
    names = {"norm": "LayerNormalization, int8 kernels have no square root"}
    kept = about | {"kept_float": True, "in_float": names}
    fine, more = ({"rungs": [], "files": {"f": kept | {"returns": count}}} for count in (2, 1))
    assert gates(fine)[0] == {"name": "f: every operation in int8 but 1 LayerNormalization", "ok": True}
    assert gates(more)[0]["reasons"] == ["2 results come back from float, and the network has 1 such places"]
    assert not gates({"rungs": [], "files": {"f": about}})[0]["ok"]

"""Every layer of ours by one call of the harness, and the harness by layers that are broken on purpose."""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from harness import check_int8_file, check_layer, check_network
from quantization import BLOCKS, EQUAL, IMAGENET, SIZE, network, photos

import edgecls
from edgecls.errors import UsageError
from edgecls.export import verify
from edgecls.quantize import floats, layers
from edgecls.quantize.rules import (
    activations,
    arithmetic,
    attention,
    functions,
    gates,
    linear,
    norm,
    operations,
    pools,
    resize,
    selections,
)
from edgecls.saving import Deferred
from edgecls.zoo import hrnet, pooling, pplcnet_v2, vit
from edgecls.zoo import layers as zoo_layers

MAP = (16, 16, 8)
IN_NETWORKS = {
    "mixed": False,
    "fp32": False,
}  # quantized layers compute in float32, and are exported as networks


def case(layer: keras.layers.Layer, *shapes_and_weights: Any, **switches: bool) -> Any:
    """The arguments of one call of ``check_layer``."""
    return pytest.param(layer, shapes_and_weights, switches, id=layer.name)


LAYERS = [
    case(zoo_layers.BatchNormalization(momentum=0.7, epsilon=0.01), MAP, MAP, (16, 16), int8=True),
    case(zoo_layers.HardSwish(), MAP, int8=True),
    case(zoo_layers.HardSigmoid(1 / 6, 0.4), MAP, int8=True),
    case(zoo_layers.Normalize([0.4, 0.5], [0.2, 0.3]), (8, 8, 2)),
    case(zoo_layers.StridedPointConv2D(4, 1, 2), MAP, (8, 8, 4), (36, 0), int8=True),
    case(
        zoo_layers.GroupedConv2D(8, 3, groups=4, padding="same", use_bias=False),
        MAP,
        MAP,
        (144, 0),
        int8=True,
    ),
    case(zoo_layers.Channels(2, 6), MAP, (16, 16, 4), int8=True),
    case(zoo_layers.ChannelShuffle(4), MAP, int8=True),
    case(hrnet.Repeat(4), (4, 4, 3), (16, 16, 3)),
    case(pooling.EdgeMaxPooling2D(), (9, 9, 3), (5, 5, 3)),
    case(pooling.EdgeAveragePooling2D(), (9, 9, 3), (5, 5, 3)),
    case(pplcnet_v2.DeployKernel(3), MAP, MAP, (0, 80)),
    case(vit.Tokens(["cls_token"]), (9, 12), (10, 12), (132, 0)),
    case(vit.Attention(2, 0.5), (9, 24), (9, 8)),
    case(layers.Quantize(decay=0.9, floor=-3.0, headroom=1.1), MAP, MAP, (0, 2), **IN_NETWORKS),
    case(linear.QuantizedConv2D(4, 3, input_scale=6.0), MAP, (14, 14, 4), (292, 8), **IN_NETWORKS),
    case(linear.QuantizedDepthwiseConv2D(3, output_shift=3.0), MAP, (14, 14, 8), (80, 16), **IN_NETWORKS),
    case(
        linear.QuantizedConv2DTranspose(4, 3, strides=2, padding="same"),
        MAP,
        (32, 32, 4),
        (292, 2),
        **IN_NETWORKS,
    ),
    case(floats.Boundary(), MAP, **IN_NETWORKS),
    case(linear.QuantizedDense(5, use_bias=False), (8,), (5,), (40, 15), **IN_NETWORKS),
    case(norm.FreezableBatchNormalization(output_scale=6.0), MAP, MAP, (16, 16), **IN_NETWORKS),
    case(gates.ScaledHardSwish(), MAP, **IN_NETWORKS),
    case(layers.ConstantConv2D([0.5] * 8, [1.0] * 8, (2, 2)), MAP, (8, 8, 8), **IN_NETWORKS),
    case(arithmetic.QuantizedAdd(), [MAP, MAP], **IN_NETWORKS),
    case(arithmetic.QuantizedMultiply(), [MAP, MAP], **IN_NETWORKS),
    case(pools.QuantizedMean(keepdims=True), MAP, (1, 1, 8), **IN_NETWORKS),
    case(
        layers.ConstantConv2D(0.5, 1.0, (3, 3), (2, 2), "same", name="strided"), MAP, (8, 8, 8), **IN_NETWORKS
    ),
    case(layers.Quantize(members=3, name="shared_grid"), MAP, MAP, (0, 6), **IN_NETWORKS),
    case(pools.ConstantMultiply([[1.0, 2.0]] * 3), (3, 2, 4), **IN_NETWORKS),
    case(gates.Table("tanh"), MAP, **IN_NETWORKS),
    case(gates.Swish(), MAP, **IN_NETWORKS),
    case(activations.QuantizedLeakyReLU(0.1), MAP, **IN_NETWORKS),
    case(resize.BilinearUpSampling2D(2, interpolation="bilinear"), (4, 4, 3), (8, 8, 3), **IN_NETWORKS),
    case(attention.MatMul(), [(2, 9, 4), (2, 4, 6)], (2, 9, 6)),
    case(attention.QuantizedMatMul(), [(2, 9, 4), (2, 4, 6)], (2, 9, 6), **IN_NETWORKS),
    case(functions.InFloat("mish"), MAP),
    case(operations.ChannelMax(), MAP, (16, 16, 1)),  # outside the delegate, which has no such reduction
    case(selections.ReverseChannels(), (16, 16, 3)),
    case(floats.Call(keras.layers.Multiply(), [[[floats.Call.TENSOR] * 2], {}]), [MAP, MAP], **IN_NETWORKS),
    case(
        arithmetic.QuantizedAdd(steps=(0.1, 0.2, 0.3), zeros=(0, 1, -2), name="finalized_add"),
        [MAP, MAP],
        trains=False,
        **IN_NETWORKS,
    ),
]


@pytest.mark.parametrize(("layer", "shapes_and_weights", "switches"), LAYERS)
def test_layer(
    layer: keras.layers.Layer, shapes_and_weights: tuple[Any, ...], switches: dict[str, bool]
) -> None:
    check_layer(layer, *shapes_and_weights, **switches)


def test_every_layer_is_checked() -> None:
    """A new layer of the package needs its line in ``LAYERS``."""
    registered = [
        kind for name, kind in keras.saving.get_custom_objects().items() if name.startswith("edgecls>")
    ]
    imported = [
        getattr(importlib.import_module(kind.module), kind.name) if isinstance(kind, Deferred) else kind
        for kind in registered
    ]
    ours = {kind.__name__ for kind in imported if issubclass(kind, keras.layers.Layer)}
    assert ours - {type(parameters.values[0]).__name__ for parameters in LAYERS} == set()


def test_network() -> None:
    files = check_network(network(BLOCKS["hard_swish_chain"], **IMAGENET), (1161, 96))
    assert [file["ops"].get("HARD_SWISH") for file in files.values()] == [2, None]


@pytest.mark.slow
def test_network_of_the_zoo() -> None:
    keras.utils.set_random_seed(1)
    model = edgecls.build_model(
        "MobileNetV3_small_x0_35", classes=5, input_size=64, include_preprocessing=True
    )
    check_network(model)


# The harness itself: a layer in a dozen lines, which is right, and its twins, each of which has one fault.


@keras.saving.register_keras_serializable(package="tests")
class Gain(keras.layers.Layer):
    """Multiplies by a constant and by a learned number."""

    def __init__(self, constant: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.constant = constant

    def build(self, input_shape: Any) -> None:
        self.gain = self.add_weight((), "ones", name="gain")

    def call(self, inputs: Any) -> Any:
        return inputs * self.gain * self.constant

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"constant": self.constant}


def test_a_new_layer() -> None:
    check_layer(Gain(3.0), (4,), weights=(1, 0))


@keras.saving.register_keras_serializable(package="tests")
class ForgetsItsConstant(Gain):
    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "constant"}


@keras.saving.register_keras_serializable(package="tests")
class LosesItsWeight(Gain):
    def save_own_variables(self, store: Any) -> None:
        store["0"] = np.float32(1.0)


@keras.saving.register_keras_serializable(package="tests")
class StopsGradients(Gain):
    def call(self, inputs: Any) -> Any:
        return inputs * keras.ops.stop_gradient(self.gain)


@keras.saving.register_keras_serializable(package="tests")
class HidesItsInput(Gain):
    def call(self, inputs: Any) -> Any:
        return self.gain + 0.0 * inputs


@keras.saving.register_keras_serializable(package="tests")
class HasInfiniteGradients(Gain):
    def call(self, inputs: Any) -> Any:
        return inputs * keras.ops.sqrt(self.gain - keras.ops.stop_gradient(self.gain))


@keras.saving.register_keras_serializable(package="tests")
class ClaimsAnotherShape(Gain):
    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, 1)


@keras.saving.register_keras_serializable(package="tests")
class IsAlwaysWide(Gain):
    def call(self, inputs: Any) -> Any:
        return keras.ops.cast(super().call(inputs), "float32")


@keras.saving.register_keras_serializable(package="tests")
class IsOtherwiseInGraphs(Gain):
    def call(self, inputs: Any) -> Any:
        return super().call(inputs) * (1.0 if tf.executing_eagerly() else 1.01)


@keras.saving.register_keras_serializable(package="tests")
class LeavesTheDelegate(Gain):
    def call(self, inputs: Any) -> Any:
        return keras.ops.cumsum(super().call(inputs), -1)


class IsNotRegistered(Gain):
    pass


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (ForgetsItsConstant, "the copy from get_config computes something else"),
        (LosesItsWeight, "the copy from a .keras file computes something else"),
        (StopsGradients, "gain gets no gradient"),
        (HidesItsInput, "gradient of input 0 is zero"),
        (HasInfiniteGradients, "gradient of .*gain is not finite"),
        (ClaimsAnotherShape, r"the shape of the graph is \(4, 1\), expected \(4,\)"),
        (IsAlwaysWide, "outputs of mixed_float16 are float32"),
        (IsOtherwiseInGraphs, "TFLite is .* off Keras"),
        (LeavesTheDelegate, "outside of the delegate"),
        (IsNotRegistered, "IsNotRegistered"),
    ],
)
def test_the_harness_names_what_is_wrong(kind: type[Gain], complaint: str) -> None:
    with pytest.raises((AssertionError, TypeError), match=complaint):
        check_layer(kind(3.0), (4,), weights=(1, 0))


def test_the_harness_counts_weights() -> None:
    with pytest.raises(AssertionError, match=r"\[1, 0\] trainable and other weights, not \(2, 0\)"):
        check_layer(Gain(3.0), (4,), weights=(2, 0))


def test_the_harness_wants_int8_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(BLOCKS["conv"], **EQUAL)
    monkeypatch.setattr(verify, "STEP_LIMIT", -1)
    with pytest.raises(AssertionError, match=r"qat\.keras = int8\.tflite"):
        check_int8_file(model, photos(SIZE, 2))
    no_rule = keras.layers.SpectralNormalization(keras.layers.Conv2D(4, 3))
    with pytest.raises(UsageError, match="SpectralNormalization"):
        check_int8_file(network(no_rule, **EQUAL), photos(SIZE, 2))

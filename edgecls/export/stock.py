"""A network in Keras' own layers alone: its ``.keras`` file opens where edgecls is not installed.

A layer of ours says what stands for it by a method ``to_keras()``: a Keras layer with the same variables, or a function
of its inputs that is made of Keras layers and operations. A layer without variables needs no such method if its
``call`` is written with ``keras.ops``: the operations themselves stand for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from edgecls.errors import UsageError
from edgecls.text import first_line


def to_stock(model: keras.Model) -> keras.Model:
    """Copy a functional model with every layer of edgecls replaced by Keras' own.

    Args:
        model: A float network; stays as it is.

    Returns:
        A network of the same outputs and of the same names of layers, where one stands for one. Weights are copied.

    Raises:
        UsageError: A layer has no form in Keras' own layers, as those of quantization-aware networks.

    Example:
        >>> model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
        >>> stock = to_stock(model)
        >>> {type(layer).__module__.partition(".")[0] for layer in stock.layers}
        {'keras'}
    """
    copies: list[tuple[Any, Any]] = []

    def twin(layer: Any) -> Callable[..., Any]:
        stands_for_it = _stock_form(layer)
        copies.append((layer, stands_for_it))
        return stands_for_it

    stock = keras.models.clone_model(
        model, clone_function=twin, call_function=lambda layer, *args, **kwargs: layer(*args, **kwargs)
    )
    for layer, copy in copies:
        if isinstance(copy, keras.Layer):
            copy.set_weights(layer.get_weights())
    return stock


def _stock_form(layer: Any) -> Callable[..., Any]:
    kind = type(layer)
    if not kind.__module__.startswith("edgecls."):
        return kind.from_config(layer.get_config())
    if "to_keras" in vars(kind):  # not that of a base class, which computes something else
        return layer.to_keras()

    def expand(*args: Any, **kwargs: Any) -> Any:
        if layer.weights:
            raise _refused(layer, "it has weights")
        try:
            return layer.call(*args, **kwargs)
        except Exception as error:  # operations of TensorFlow raise whatever they raise on symbolic tensors
            raise _refused(layer, first_line(error)) from error

    return expand


def _refused(layer: Any, reason: str) -> UsageError:
    return UsageError(
        f"layer '{layer.name}' ({type(layer).__name__}) has no form in Keras' own layers: {reason}",
        fix="export the float network",
    )

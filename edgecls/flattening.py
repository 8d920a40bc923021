"""Copies of any functional or Sequential Keras model without nested models, and what makes the scores of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecls.errors import UsageError
from edgecls.quiet import import_tensorflow
from edgecls.saving import load_model

if TYPE_CHECKING:
    import keras


def classifier(model: keras.Model) -> Any:
    """The layer that makes the scores of a network without nested models: a dense one, or a convolution.

    Raises:
        UsageError: The scores come from another layer, or from several.
    """
    from keras import layers

    from edgecls.weights.load import classifiers
    from edgecls.zoo.state import state_name

    names = classifiers(model)
    found = [layer for layer in model.layers if state_name(layer) in names]
    if len(found) != 1 or not isinstance(found[0], layers.Dense | layers.Conv2D):
        kinds = " and ".join(f"{type(layer).__name__} {layer.name!r}" for layer in found) or "no layer"
        raise UsageError(
            f"its scores come from {kinds}, and a classifier is one Dense or Conv2D layer",
            where=model.name,
            fix="end the network with a Dense layer",
        )
    return found[0]


def copied(
    model: keras.Model,
    inputs: Any = None,
    change: Callable[[Any, Any, Any], Any] = lambda copy, layer, inputs: None,
) -> keras.Model:
    """A copy of a functional or Sequential model in float32, all of it trainable, without nested models.

    Args:
        model: It is not changed.
        inputs: (image, what the model is called on); None: an input like the model's own.
        change: Is given the copy under way, each layer and its input; returns what replaces its output, or None.

    Raises:
        UsageError: The model is not functional.
    """
    import_tensorflow()
    import keras

    from edgecls.quantize.lower import Lowering

    class Copy(Lowering):
        def apply(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs.pop("training", None)  # of a base that was called as base(x, training=False)
            if isinstance(layer, keras.Model):
                return super().apply(layer, *args, **kwargs)
            first = next(iter((*args, *kwargs.values())), None)
            changed = change(self, layer, first)
            if changed is not None:
                return changed
            if not isinstance(layer, keras.Layer):  # a bare operation
                config = layer.get_config() | {"name": self.name(layer.name)}
                return type(layer).from_config(config)(*args, **kwargs)
            twin = self.clone(layer, trainable=True)
            outputs = twin(*args, **kwargs)
            if isinstance(layer, keras.layers.Normalization):
                getattr(twin, "twin", twin).finalize_state()
            return outputs

    copy = Copy(model)
    if inputs is None:
        image = keras.Input(model.input_shape[1:], name=model.inputs[0].name)
        inputs = (image, image)
    image, start = inputs
    copy.name(image.name)
    return keras.Model(image, keras.tree.flatten(copy.inline(model, start))[0], name=model.name)


def take_weights(model: keras.Model, path: Path) -> None:
    """Give a network the weights of its copy in a file, layer by layer.

    Raises:
        UsageError: The file has another network.
    """
    layers = {layer.name: layer for layer in load_model(path).layers}
    for layer in model.layers:
        source = layers.get(layer.name)
        shapes = [[tuple(v.shape) for v in each.variables] if each else None for each in (layer, source)]
        if shapes[0] and shapes[0] != shapes[1]:
            raise UsageError(f"layer {layer.name!r} has other weights there", where=str(path))
        for target, value in zip(layer.variables, source.variables if source else (), strict=True):
            target.assign(value.value)


def behind(model: keras.Model, head: Any) -> set[str]:
    """Names of what follows a classifier."""
    from edgecls.graph import trace

    graph = trace(model)
    waiting, names = [(head.name, 0, 0)], set[str]()
    while waiting:
        for op in graph.consumers(waiting.pop()):
            names.add(op.layer.name)
            waiting.append(op.output)
    return names


def makes_probabilities(layer: Any) -> bool:
    """Whether a layer or operation makes probabilities of logits."""
    return type(layer).__name__ in ("Softmax", "Sigmoid") or (
        type(layer).__name__ == "Activation" and activation_of(layer) in ("softmax", "sigmoid")
    )


def activation_of(layer: Any) -> str | None:
    """The name of a layer's activation; None without one."""
    import keras

    kind = getattr(layer, "activation", None)
    return keras.activations.serialize(kind) if kind else None


def width_of(layer: Any) -> str:
    """The key of a layer's configuration that says how many outputs it has."""
    return "units" if hasattr(layer, "units") else "filters"

"""First pass: any functional or Sequential Keras 3 model as a flat float network of layers that have a plan.

The result computes the same as the model in inference, so it can be tested on its own. Nested models are inlined,
activations become layers of their own, layers that only act in training are left out, sums of branches are fused
(``reparam``). Layers keep their names; where a nested model repeats one, its own name goes in front.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers as kl

from edgecls.errors import UsageError
from edgecls.graph import remade
from edgecls.quantize import floats, registry
from edgecls.reparam import fuse

Tensor = Any
Size = int | tuple[int, int]


def lower(
    model: keras.Model, input_size: Size | None = None, keep_float: Sequence[str] = ()
) -> tuple[keras.Model, frozenset[str]]:
    """Write ``model`` in the layers that have a plan.

    Args:
        model: A functional or Sequential model. It is not changed.
        input_size: Height and width for a model that leaves them open.
        keep_float: Shell patterns of names of layers, or of nested models, that are left as they are.

    Returns:
        The float network, and the names of its layers that were left as they are.

    Raises:
        UsageError: A layer has no rule, or the model is not functional, or its input size is open.

    Example:
        >>> image = keras.Input((8, 8, 3))
        >>> model = keras.Model(image, kl.SeparableConv2D(4, 3, activation="relu", name="sep")(image))
        >>> [layer.name for layer in lower(model)[0].layers[1:]]
        ['sep.depthwise', 'sep', 'sep.act']
    """
    _check_kind(model)
    lowering = Lowering(model, keep_float)
    inputs = [_input(tensor, model.name, input_size) for tensor in model.inputs]
    outputs = keras.tree.flatten(lowering.inline(model, inputs if len(inputs) > 1 else inputs[0]))
    one = len(inputs) == len(outputs) == 1
    flat = keras.Model(*((inputs[0], outputs[0]) if one else (inputs, outputs)), name=model.name)
    return fuse(flat), frozenset(lowering.kept)


class Lowering:
    """One pass over a model; what rules call to make layers.

    Args:
        model: The model, whose inputs keep their names.
        keep_float: See ``lower``.

    Attributes:
        kept: Names of the new network's layers that stay in float.
    """

    def __init__(self, model: keras.Model, keep_float: Sequence[str] = ()) -> None:
        self.keep_float, self.kept = keep_float, set[str]()
        self._names = dict.fromkeys((tensor.name for tensor in model.inputs), 1)
        self._clones: dict[tuple[int, str], Any] = {}
        self._parents: list[str] = []

    def inline(self, model: keras.Model, inputs: Any) -> Any:
        """The outputs of ``model`` on ``inputs``, computed by layers of the new network."""
        _check_kind(model)
        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                inputs = self.apply(layer, inputs)
            return inputs
        return model._run_through_graph(inputs, operation_fn=lambda op: op, call_fn=self.apply)

    def apply(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """The outputs of ``layer``, of any kind, on tensors of the new network."""
        inputs = _inputs(layer, args, kwargs)
        if isinstance(layer, keras.Model):
            self._parents.append(layer.name)
            outputs = self.inline(layer, inputs)
            self._parents.pop()
            return outputs
        if self._asked(layer, inputs):
            return self._as_it_is(layer, *args, **kwargs)
        if getattr(layer, "data_format", None) == "channels_first":
            raise UsageError(
                "channels come first, and TFLite wants them last",
                where=layer.name,
                fix="build the model with channels_last; its weights are the same",
            )
        rule = registry.find(registry.LOWERINGS, layer)
        if rule:
            return rule(self, layer, inputs)
        if not registry.find(registry.PLANS, layer):
            raise registry.missing(layer)
        return self.plain(layer, inputs)

    def plain(self, layer: Any, inputs: Any) -> Any:
        """``layer`` itself on ``inputs``, its activation as a layer of its own."""
        kind = getattr(layer, "activation", None)
        outputs = self.clone(layer, activation="linear")(inputs) if kind else self.clone(layer)(inputs)
        return self.activate(kind, f"{layer.name}.act", outputs) if kind else outputs

    def _asked(self, layer: Any, inputs: Any) -> bool:
        """Whether ``layer`` is to stay in float, and can."""
        before = _tensors(inputs)[0]._keras_history.operation
        asked = any(floats.matches(name, self.keep_float) for name in (layer.name, *self._parents))
        return asked and floats.can_stay(layer, before)

    def _as_it_is(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """The outputs of ``layer`` in float: a layer of the network that takes tensors alone, for each of them."""
        count = len(keras.tree.flatten(layer.compute_output_spec(*args, **kwargs)))
        bare = not isinstance(layer, keras.Layer)
        if count > 1 and not bare:
            raise UsageError(
                f"{type(layer).__name__} gives {count} tensors, and what stays in float gives one",
                where=layer.name,
                fix="make a layer of each",
            )
        _, *others = *args, *kwargs.values()
        if not bare and not _tensors(others):
            twin = self.clone(layer)
            self.kept.add(twin.name)
            return twin(*args, **kwargs)
        tensors, given = _tensors([args, kwargs]), floats.Call.without_tensors(args, kwargs)
        calls = []
        for index in range(count):
            inner = layer if bare else remade(layer, dtype="float32")
            call = floats.Call(inner, given, index, name=self.name(layer.name))
            calls.append(call(tensors[0] if len(tensors) == 1 else tensors))
            self.kept.add(call.name)
            for target, source in zip(call.variables, getattr(layer, "variables", ()), strict=True):
                target.assign(source.value)
        return calls if count > 1 else calls[0]

    def activate(self, function: Any, name: str, inputs: Tensor) -> Tensor:
        """``inputs`` after an activation function of Keras, as a layer ``name``."""
        return self.apply(kl.Activation(function, name=name), inputs)

    def clone(
        self,
        layer: Any,
        part: str = "",
        like: keras.Layer | None = None,
        weights: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Any:
        """The twin of ``layer`` in the new network, in float32 and with its weights.

        A layer that is called again with weights has one twin; without, one for each call.

        Args:
            layer: A layer of the model.
            part: Added to the name, where a layer becomes several.
            like: A layer of the class and configuration that it gets; None: its own.
            weights: Its variables of other names than the layer's, ``{"kernel": "depthwise_kernel"}``.
            changes: Keys of its configuration.
        """
        key = id(layer), part
        if key not in self._clones:
            like = like or layer
            config = {"dtype": "float32"} | changes
            config["name"] = self.name(f"{layer.name}.{part}" if part else layer.name)
            twin = remade(like, **config)
            if not layer.variables:
                return twin
            self._clones[key] = _Weighted(twin, layer, weights or {})
        return self._clones[key]

    def name(self, wish: str) -> str:
        """``wish``, or what comes nearest to it of the names that are not taken."""
        if wish in self._names and self._parents:
            wish = f"{self._parents[-1]}.{wish}"
        count = self._names[wish] = self._names.get(wish, 0) + 1
        return wish if count == 1 else self.name(f"{wish}_{count - 1}")


class _Weighted:
    """A twin that takes over the variables of the same name when it has been called first."""

    def __init__(self, twin: keras.Layer, source: keras.Layer, names: Mapping[str, str]) -> None:
        self.twin, self.source, self.names, self.name = twin, source, names, twin.name
        self.built = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self.twin(*args, **kwargs)
        if not self.built:
            self.built = True
            sources = {variable.path.split("/")[-1]: variable for variable in self.source.variables}
            if not self.names and len(sources) < len(self.source.variables):  # a layer made of layers
                sources = {}
            for i, variable in enumerate(self.twin.variables):
                name = self.names.get(variable.name, variable.name)
                source = sources[name] if sources else self.source.variables[i]
                variable.assign(keras.ops.reshape(source.value, variable.shape))  # where axes of one move
        return outputs


def _inputs(layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a rule takes for a call: its first argument, all of a bare operation, by name if several of a layer's are tensors."""
    given = [*args, *kwargs.values()]
    if not isinstance(layer, keras.Layer):
        return given if len(given) > 1 else given[0]
    if sum(isinstance(value, keras.KerasTensor) for value in given) < 2:
        return given[0]
    return dict(inspect.signature(layer.call).bind(*args, **kwargs).arguments)


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in keras.tree.flatten(values) if isinstance(x, keras.KerasTensor)]


def _input(tensor: Any, name: str, size: Size | None) -> Tensor:
    shape = list(tensor.shape[1:])
    if size and len(shape) == 3:
        shape[:2] = (size, size) if isinstance(size, int) else size
    if None in shape:
        raise UsageError(
            f"the input size {tuple(tensor.shape)} is open, and an int8 file has a fixed one",
            where=name,
            fix="give it: quantize_model(model, input_size=224)",
        )
    return keras.Input(shape, batch_size=None, dtype="float32", name=tensor.name)


def _check_kind(model: Any) -> None:
    functional = isinstance(model, keras.Sequential) or hasattr(model, "_run_through_graph")
    own = next(
        (c for c in type(model).__mro__ if "call" in vars(c) and c.__module__.split(".")[0] != "keras"), None
    )
    if not functional or own:
        raise UsageError(
            "not a functional or Sequential Keras model",
            where=getattr(model, "name", str(model)),
            fix="build it from keras.Input and layers",
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise UsageError(
            "the Sequential model has no input", where=model.name, fix="begin it with keras.Input"
        )

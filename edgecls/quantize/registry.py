"""The rules of quantization, by the class of the layer that they are for.

A rule is a file in ``rules/``. It says up to three things about its layers:

``@lowers(kl.SeparableConv2D)``
    how a layer is written in simpler layers of the float network (see ``lower``);
``@plans(kl.Conv2D)``
    what becomes of it in the int8 network: which layer of the twin, from tensors at which scale, on which grid (see
    ``plan``);
a layer of the twin
    what it computes in training, and with ``Exact`` the integers of the file.

A layer of your own needs ``@lowers`` alone if known layers can express it::

    @edgecls.quantize.lowers(MyScaledSum)
    def _(lowering, layer, inputs):
        return keras.layers.Add()([inputs[0], keras.layers.Rescaling(layer.factor)(inputs[1])])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecls.errors import UsageError

LOWERINGS: dict[type, Callable[..., Any]] = {}
PLANS: dict[type, Callable[..., Any]] = {}

# What makes a subclass compute something else than the layer whose rule it would inherit.
OVERRIDES = ("call", "__call__", "convolution_op", "_activation")


def lowers(*classes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register ``function(lowering, layer, inputs)``, which returns what replaces the layer's output.

    The tensors are those of a float network under construction: call Keras layers on them. Layers that it calls are
    not lowered again; use ``lowering.apply(layer, inputs)`` for those that need it. ``inputs`` is the first argument of
    the call, or a dictionary of all by name if several are tensors.

    Args:
        classes: Of the layers.
    """
    return _register(LOWERINGS, classes)


def plans(*classes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register ``function(plan, op, values)``, which adds nodes to the plan and returns the ``Value`` of the result.

    Args:
        classes: Of the layers.
    """
    return _register(PLANS, classes)


def _register(
    rules: dict[type, Callable[..., Any]], classes: tuple[type, ...]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        rules.update(dict.fromkeys(classes, function))
        return function

    return register


def find(rules: dict[type, Callable[..., Any]], layer: Any) -> Callable[..., Any] | None:
    """The rule for ``layer``; None if there is none.

    A subclass has the rule of its parent, as long as it computes the same. A class with a plan is not lowered as its
    parent is.

    Raises:
        UsageError: It is a subclass that computes something else.
    """
    changed: list[str] = []
    for cls in type(layer).__mro__:
        if cls in rules:
            if changed:
                raise UsageError(
                    f"{type(layer).__name__} is a {cls.__name__} with {' and '.join(changed)} of its own, "
                    "which quantization cannot know",
                    where=layer.name,
                    fix="register a rule for it (edgecls.quantize.lowers)",
                )
            return rules[cls]
        if rules is LOWERINGS and cls in PLANS:
            return None
        changed += [name for name in OVERRIDES if name in vars(cls) and name not in changed]
    return None


def missing(layer: Any, what: str = "") -> UsageError:
    """The error for a layer or operation that has no rule.

    Args:
        layer: The layer or bare operation.
        what: What about it has no rule; empty: its class.
    """
    kind = "layers" if hasattr(layer, "get_config") and hasattr(layer, "variables") else "bare operations"
    return UsageError(
        f"no quantization rule for {what or f'{kind} of class {type(layer).__name__}'}",
        where=layer.name,
        fix=f"keep it in float (keep_float=[{layer.name!r}]) or register a rule (edgecls.quantize.lowers)",
    )

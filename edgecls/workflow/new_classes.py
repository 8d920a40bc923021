"""Training only new classes beside old ones: ``model.only_new_classes``.

The classifier becomes two: one of the old classes, which does not train, and one of the new ones, which alone does. After
the training they are one layer again. Nothing else of the network changes, so the old classes keep their logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.errors import UsageError
from edgecls.flattening import classifier, width_of
from edgecls.infer.beside import read_beside
from edgecls.networks import Model
from edgecls.saving import load_model

if TYPE_CHECKING:
    import keras


def old_classes(section: Model) -> list[str]:
    """The classes that the network in ``weights`` or ``file`` knows, by the labels beside it.

    Raises:
        UsageError: No labels lie beside it.
    """
    path = _source(section)
    labels = read_beside(path).labels
    if labels is None:
        raise UsageError(
            "nothing beside the network says which classes it knows",
            where=str(path),
            fix="name the float.keras in a run folder, or put its labels in a .json beside it",
        )
    return labels


def positions(section: Model, classes: list[str]) -> list[int]:
    """Where the old classes are among those of the data.

    Raises:
        UsageError: The data has not all of the old classes, or no new one.
    """
    old, where = old_classes(section), "model.only_new_classes"
    if missing := [name for name in old if name not in classes]:
        fix = f"add it: data.classes: [{', '.join([*classes, *missing])}]"
        raise UsageError(
            f"the data has no class {missing[0]!r}, which the network knows", where=where, fix=fix
        )
    if len(old) == len(classes):
        fix = "add a class, or leave only_new_classes out"
        raise UsageError("the network knows all classes of the data", where=where, fix=fix)
    return [classes.index(name) for name in old]


def put_old(model: keras.Model, section: Model, old: list[int]) -> None:
    """Give the outputs of the old classes the weights that they have in the source.

    Args:
        model: With the source's weights in all other layers.
        section: Names the source.
        old: See ``positions``.

    Raises:
        UsageError: Another layer is not the source's: the old logits would change.
    """
    path = _source(section)
    source = load_model(path)
    known, head = classifier(source), classifier(model)
    layers = {layer.name: layer for layer in source.layers}
    for layer in model.layers:
        if layer.name != head.name and not _equal(layer, layers.get(layer.name)):
            raise UsageError(
                f"layer {layer.name!r} is not as the network of the old classes has it",
                where=str(path),
                fix="give the model section of the run that it is from",
            )
    if known.output.shape[-1] != len(old):
        what = f"{len(old)} labels, and the network has {known.output.shape[-1]} outputs"
        raise UsageError(what, where=str(path))
    for target, value in zip(head.variables, known.variables, strict=True):
        _assign(target, value, old)


def split(model: keras.Model, old: list[int]) -> keras.Model:
    """A copy of a network of which only the outputs of new classes train.

    Args:
        model: With one classifier of all classes.
        old: See ``positions``.
    """
    import keras

    from edgecls.graph import rebuild

    head = classifier(model)
    new = _others(old, model.output_shape[-1])
    order = np.argsort([*old, *new]).tolist()

    def change(layer: Any, inputs: Any) -> Any:
        if layer.name != head.name:
            return None
        parts = []
        for name, members in (("old", old), ("new", new)):
            config = layer.get_config() | {"name": f"{head.name}.{name}", width_of(layer): len(members)}
            part = type(layer).from_config(config)
            parts.append(part(inputs))
            for target, value in zip(part.variables, head.variables, strict=True):
                target.assign(value.numpy()[..., members])
        return keras.ops.take(keras.ops.concatenate(parts, axis=-1), order, axis=-1)

    copy = rebuild(model, change)
    for layer in copy._flatten_layers(include_self=False):
        layer.trainable = layer.name == f"{head.name}.new"
    return copy


def merge(model: keras.Model, trained: keras.Model, old: list[int]) -> None:
    """Give ``model`` what the copy of ``split`` has learned."""
    head = classifier(model)
    new = _others(old, model.output_shape[-1])
    for target, value in zip(head.variables, trained.get_layer(f"{head.name}.new").variables, strict=True):
        _assign(target, value, new)


def _source(section: Model) -> Path:
    return Path(str(section.file or section.weights))


def _others(old: list[int], count: int) -> list[int]:
    return [i for i in range(count) if i not in old]


def _assign(target: Any, value: Any, outputs: list[int]) -> None:
    """Replace some outputs in a variable whose last axis they are."""
    whole = target.numpy().copy()
    whole[..., outputs] = value.numpy()
    target.assign(whole)


def _equal(layer: Any, other: Any) -> bool:
    """Whether two layers compute the same; of those without weights the normalization of pixels counts."""
    from edgecls.zoo.layers import Normalize

    if isinstance(layer, Normalize):
        return isinstance(other, Normalize) and layer.line == other.line
    if not layer.variables:
        return True
    values = [[v.numpy() for v in each.variables] if each else [] for each in (layer, other)]
    return len(values[0]) == len(values[1]) and all(map(np.array_equal, *values))

"""The zoo: networks as tables, built of shared blocks. Importing it does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecls.zoo import catalog
from edgecls.zoo.families import family_module

if TYPE_CHECKING:
    import keras


class InputSizeError(ValueError):
    """A network cannot take images this small: its last maps would have no cells."""

    exit_code = 2


def build_model(
    name: str,
    classes: int = 1000,
    input_size: int | None = None,
    *,
    dropout: float | None = None,
    embedding_dim: int | None = None,
    include_preprocessing: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: bool | Sequence[str] = False,
    auxiliary: bool = False,
) -> keras.Model:
    """Build a network of the catalog with fresh weights.

    Arguments, result and errors are those of ``edgecls.build_model``, which also loads weights.
    """
    entry = catalog.get(name)
    size = entry.input_size if input_size is None else input_size
    rate = entry.dropout if dropout is None else dropout
    if size < 32 or classes < 1 or not 0 <= rate < 1:
        raise ValueError(
            f"{name}: input_size must be at least 32, classes at least 1 and dropout in [0, 1), "
            f"got {size}, {classes} and {rate}"
        )
    import keras

    from edgecls.zoo.blocks import Head
    from edgecls.zoo.layers import Normalize

    image = keras.Input((size, size, 3), name="image")
    x = image
    if include_preprocessing:
        x = Normalize(mean or entry.mean, std or entry.std, name="normalize")(x)
    head = Head(classes, rate, embedding_dim, auxiliary)
    try:
        taps, logits = family_module(entry.family).build(entry.architecture, x, head)
    except ValueError as error:  # Keras says of which layer, not what to do
        if size >= entry.input_size:
            raise
        raise InputSizeError(f"{size} pixels are too few for {name}, made for {entry.input_size}") from error
    model = keras.Model(image, logits, name=name)
    if not features:
        return model
    maps = taps.outputs()
    if not isinstance(features, bool):
        maps = {key: maps[key] if key in maps else model.get_layer(key).output for key in features}
    return keras.Model(image, maps, name=name)

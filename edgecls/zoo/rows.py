"""Rows of the catalog, made from the families' files: what a file says of a network, and what the network costs."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import keras
from keras import layers

from edgecls.zoo import cost
from edgecls.zoo.blocks import Head, Taps
from edgecls.zoo.entry import Entry, Published, WeightSource
from edgecls.zoo.families import family_module
from edgecls.zoo.state import state_name


def family_entries(family: str, others: Mapping[str, Published] | None = None) -> dict[str, Entry]:
    """The entries of a family by name; each network is built without values, about a second each.

    Args:
        family: Its name.
        others: What is published of names that the family's file says nothing about.

    Example:
        >>> family_entries("SqueezeNet")["SqueezeNet1_1"].params
        1235496
    """
    rows = published_names(family_module(family), others or {})
    return {name: count_entry(family, name, published) for name, published in rows.items()}


def published_names(module: ModuleType, others: Mapping[str, Published]) -> dict[str, Published]:
    """All names of a family in the order of its table; a network that nobody says anything of has the defaults."""
    rows = {**others, **getattr(module, "PUBLISHED", {})}
    names: dict[str, list[str]] = {}
    for name, published in rows.items():
        names.setdefault(published.architecture or name, []).append(name)
    return {
        name: rows.get(name, Published())
        for architecture in module.MODELS
        for name in names.get(architecture, [architecture])
    }


def count_entry(family: str, name: str, published: Published) -> Entry:
    """The entry of one name: what is published of it, and what is counted from its network."""
    crop = published.crop or published.input_size
    network, taps = _network(family, published.architecture or name, published)
    return Entry(
        name=name,
        architecture=published.architecture or name,
        family=family,
        input_size=published.input_size,
        resize_short=published.resize_short or round(crop / 0.875),
        crop=crop,
        interpolation=published.interpolation,
        mean=published.mean,
        std=published.std,
        dropout=published.dropout,
        dropout_scales=_dropout_scales(network) if published.scales_at_inference else {},
        stages=taps.stages,
        lr_groups=taps.lr_groups,
        auxiliary=_auxiliary(network),
        **{cost_name: count(network) for cost_name, count in cost.COSTS.items()},
        top1=published.top1,
        top5=published.top5,
        sd855_ms=dict(published.sd855_ms),
        storage_mb=published.storage_mb,
        source=published.source,
        weights={
            key: WeightSource.parse(address, needs_hash=False) for key, address in published.weights.items()
        },
    )


def _network(family: str, architecture: str, published: Published) -> tuple[keras.Model, Taps]:
    """The network as it is trained, with 1000 classes and without values, and what its builder says of it."""
    image = keras.Input((published.input_size, published.input_size, 3))
    with cost.without_values():
        taps, logits = family_module(family).build(
            architecture, image, Head(dropout=published.dropout, auxiliary=True)
        )
    return keras.Model(image, logits), taps


def _auxiliary(network: keras.Model) -> tuple[str, ...]:
    """State names of the layers that only the auxiliary classifiers use."""
    deployed = set(keras.Model(network.inputs, network.outputs[0]).layers)
    return tuple(state_name(e) for e in network.layers if e.weights and e not in deployed)


def _dropout_scales(network: keras.Model) -> dict[str, float]:
    """The layers whose kernels read what a dropout made, to the share that the dropout keeps.

    Layers without weights may lie between the two.
    """
    scales = {}
    for layer in network.layers:
        source = layer
        while hasattr(layer, "kernel") and not isinstance(source.input, list):
            source = source.input._keras_history.operation
            if isinstance(source, layers.Dropout):
                scales[state_name(layer)] = 1 - source.rate
            if source.weights or isinstance(source, layers.Dropout | layers.InputLayer):
                break
    return scales

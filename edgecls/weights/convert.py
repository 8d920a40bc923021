"""Turn a file of weights into a ``.keras`` model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

import edgecls
from edgecls.errors import UsageError
from edgecls.files import atomic
from edgecls.weights import load


def convert(
    source: str,
    name: str,
    output: str | Path | None = None,
    *,
    classes: int | None = None,
    input_size: int | None = None,
    include_preprocessing: bool = False,
    strict: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Build a network, load weights into it and save it.

    Args:
        source: What ``load_weights`` takes.
        name: The network, a name of ``edgecls.list_models()``.
        output: The ``.keras`` file to write; by default one of the source's name in the current folder.
        classes: Number of logits; as many as the source has by default. Of another number, the classifier is left
            fresh and reported.
        input_size: Height and width in pixels; the network's own by default.
        include_preprocessing: Take pixels 0..255 and normalise them inside.
        strict: Refuse anything but a complete match.
        dry_run: Do all but write.

    Returns:
        ``{"schema": "edgecls.convert/1", "model", "classes", "source", "output", "bytes", "loaded"}`` and the lists of
        a ``LoadReport``; ``loaded`` is how many arrays, ``bytes`` is None where nothing was written.

    Raises:
        edgecls.errors.EdgeclsError: The weights cannot be had, do not fit, or the disk is full.
        edgecls.zoo.catalog.UnknownModelError: No network has this name.
    """
    path = Path(f"{_stem(source, name)}.keras" if output is None else output)
    if path.suffix != ".keras":
        raise UsageError("the output must end in .keras", where=str(path))

    def build(classes: int) -> keras.Model:
        return edgecls.build_model(name, classes, input_size, include_preprocessing=include_preprocessing)

    model = build(classes or 1000)
    weights = load.read(model, source)
    if classes is None and (own := _classes(model, weights)) != 1000:
        model = build(own)
    report = load.assign(model, weights, strict)
    if not dry_run:
        with atomic(path) as temporary:
            model.save(temporary)
    return {
        "schema": "edgecls.convert/1",
        "model": name,
        "classes": model.output_shape[-1],
        "source": source,
        "output": str(path),
        "bytes": None if dry_run else path.stat().st_size,
        **vars(report),
        "loaded": len(report.loaded),
    }


def _stem(source: str, name: str) -> str:
    file = Path(source.partition("#")[0])
    return file.stem if file.suffix else f"{name}_{source}"  # such as "imagenet"


def _classes(model: keras.Model, weights: load.Weights) -> int:
    """How many classes the source's classifier has; the network's number where it does not say."""
    own = load.state_shapes(model)
    biases = (f"{name}.bias" for name in load.classifiers(model))
    found = (np.size(weights.arrays[bias]) for bias in biases if bias in own and bias in weights.arrays)
    return next(found, model.output_shape[-1])

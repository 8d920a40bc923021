"""Turn a file of weights into a ``.keras`` model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from edgecls import zoo
from edgecls.errors import UsageError
from edgecls.files import atomic
from edgecls.weights import load


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` did.

    Args:
        model: The network's name.
        classes: Number of its classes.
        source: Where the weights came from.
        output: The ``.keras`` file.
        bytes: Size of the file; None where nothing was written.
        report: What was loaded and what was not.
    """

    model: str
    classes: int
    source: str
    output: str
    bytes: int | None
    report: load.LoadReport

    def as_json(self) -> dict[str, Any]:
        """The object that ``edgecls convert --json`` prints; ``loaded`` is the number of arrays."""
        fields = asdict(self)
        report = fields.pop("report")
        return {"schema": "edgecls.convert/1", **fields, **report, "loaded": len(report["loaded"])}


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
) -> Conversion:
    """Build a network, load weights into it and save it.

    Args:
        source: What ``load_weights`` takes.
        name: The network, a name of ``edgecls.list_models()``.
        output: The ``.keras`` file to write; by default one of the source's name in the current folder.
        classes: Number of logits; as many as the source has by default. With another number, the classifier keeps its
            fresh weights and is reported.
        input_size: Height and width in pixels; the network's own by default.
        include_preprocessing: Take pixels 0..255 and normalize them inside.
        strict: Refuse anything but a complete match.
        dry_run: Do all but write.

    Example:
        >>> convert("ResNet50_vd_pretrained.pdparams", "ResNet50_vd").output  # doctest: +SKIP
        'ResNet50_vd_pretrained.keras'

    Raises:
        edgecls.errors.EdgeclsError: The weights cannot be had, do not fit, or the disk is full.
        edgecls.zoo.catalog.UnknownModelError: No network has this name.
    """
    path = Path(f"{_stem(source, name)}.keras" if output is None else output)
    if path.suffix != ".keras":
        raise UsageError("the output must end in .keras", where=str(path))

    def build(classes: int) -> keras.Model:
        return zoo.build_model(name, classes, input_size, include_preprocessing=include_preprocessing)

    model = build(classes or 1000)
    weights = load.read(model, source)
    source_classes = load.classes_of(model, weights) or 1000
    if classes is None and source_classes != 1000:
        model = build(source_classes)
    report = load.assign(model, weights, strict)
    if not dry_run:
        with atomic(path) as temporary:
            model.save(temporary)
    size = None if dry_run else path.stat().st_size
    return Conversion(name, model.output_shape[-1], source, str(path), size, report)


def _stem(source: str, name: str) -> str:
    file = Path(source.partition("#")[0])
    return file.stem if file.suffix else f"{name}_{source}"  # such as "imagenet"

"""A ``.tflite`` file for an Android app: the file, its labels, and a Kotlin class that makes the pixels it takes.

The class computes the pixels of ``Preprocess`` itself: a tap (weights of old pixels) for each kept row and column. Its text
comes from one template, ``templates/PhotoClassifier.kt``, and holds the arithmetic of one interpolation only:

- ``bilinear`` and ``bicubic`` without anti-aliasing as OpenCV and TensorFlow compute them (positions in float32, for bicubic in
  steps of 1/1024);
- ``bilinear`` and ``bicubic`` with it as Pillow does (weights in steps of 2^-22, rounded to 8 bits after each pass). Pillow 13
  and newer shrink the columns of a tall photo first, which moves some values by a level; this shrinks rows first;
- ``area``: the overlap of old and new pixels.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.data.resizing import describe_preprocess
from edgecls.errors import UsageError
from edgecls.export import inspect, metadata
from edgecls.labels import format_labels

RUNTIME = "2.3.0"
"""The release of LiteRT whose Kotlin API the class is written for."""
_TEMPLATES = Path(__file__).with_name("templates")
_REACH = {"bilinear": 1, "bicubic": 2}  # of a kernel to each side, in pixels


def write_android(model: Path, folder: Path, package: str = "edgecls") -> None:
    """Write ``PhotoClassifier.kt``, ``assets/`` and ``README.md``.

    Args:
        model: A ``.tflite`` file with labels and preprocessing in its metadata, and uint8 input.
        folder: Where to; made.
        package: Of the Kotlin class.

    Raises:
        UsageError: The file does not say how photos become its pixels.

    Example:
        >>> write_android(Path("model_int8.tflite"), Path("android"))  # doctest: +SKIP
    """
    facts = describe_file(model)
    assets = folder / "assets"
    assets.mkdir(parents=True)
    shutil.copyfile(model, assets / "model.tflite")
    (assets / "labels.txt").write_text(format_labels(facts["labels"]), encoding="utf-8")
    (folder / "PhotoClassifier.kt").write_text(kotlin(facts, package), encoding="utf-8")
    (folder / "README.md").write_text(render("android.md", facts), encoding="utf-8")


def describe_file(model: Path) -> dict[str, Any]:
    """What an app must know of a ``.tflite`` file.

    Returns:
        ``name``, ``labels``, ``classes`` (how many), ``scores`` ("probabilities" or "logits"), ``scale`` and
        ``zero_point`` of an uint8 output (else None), the keys of ``Preprocess.to_dict()``, and ``text`` with the same in
        a sentence.

    Raises:
        UsageError: It has no such metadata, or its input is not uint8.
    """
    found, runner = metadata.read(model), inspect.Runner(model)
    settings, fix = found["preprocess"], "export it with edgecls"
    if not settings or not found["classes"]:
        raise UsageError("the file has no labels, or no preprocessing", where=str(model), fix=fix)
    if runner.input["dtype"] != np.uint8:
        raise UsageError(
            f"the input is {np.dtype(runner.input['dtype']).name}, not uint8", where=str(model), fix=fix
        )
    scale, zero_point = runner.output["quantization"] if runner.output["dtype"] == np.uint8 else (None, None)
    return {
        **settings,
        "name": found["name"] or model.stem,
        "labels": found["classes"],
        "classes": len(found["classes"]),
        "scores": "probabilities" if runner.head else "logits",
        "scale": scale and repr(float(np.float32(scale))),
        "zero_point": zero_point,
        "text": describe_preprocess(settings),
        "runtime": RUNTIME,
    }


def kotlin(facts: dict[str, Any], package: str = "edgecls") -> str:
    """The source of ``PhotoClassifier`` for ``describe_file``'s facts."""
    interpolation = facts["interpolation"]
    antialias = (
        bool(facts.get("antialias")) and interpolation != "area"
    )  # which counts every pixel in any case
    text = facts["text"][0].upper() + facts["text"][1:]
    chosen = {"package": package, "antialias": antialias, "reach": _REACH.get(interpolation), "text": text}
    return render("PhotoClassifier.kt", {**facts, **chosen})


def render(template: str, values: dict[str, Any]) -> str:
    """Fill in a file of ``templates/``."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)

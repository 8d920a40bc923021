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

from edgecls.export.apps import describe_file, render
from edgecls.labels import format_labels

RUNTIME = "2.3.0"
"""The release of LiteRT whose Kotlin API the class is written for."""
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
    readme = render("android.md", {**facts, "runtime": RUNTIME})
    (folder / "README.md").write_text(readme, encoding="utf-8")


def kotlin(facts: dict[str, Any], package: str = "edgecls") -> str:
    """The source of ``PhotoClassifier`` for ``describe_file``'s facts."""
    interpolation = facts["interpolation"]
    antialias = (
        bool(facts.get("antialias")) and interpolation != "area"
    )  # which counts every pixel in any case
    text = facts["text"][0].upper() + facts["text"][1:]
    chosen = {"package": package, "antialias": antialias, "reach": _REACH.get(interpolation), "text": text}
    return render("PhotoClassifier.kt", {**facts, **chosen})

"""The stages that leave Python behind: export, the parity ladder, the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.console import Console
from edgecls.errors import MissingError
from edgecls.files import atomic, read_json, write_json
from edgecls.recipe import Precision
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.workflow.common import (
    load_data,
    load_deployed,
    recipe_preprocess,
    run_stage,
    spread,
)

TFLITE = {
    "fp32": "export/model_fp32.tflite",
    "fp16": "export/model_fp16.tflite",
    "int8": "export/model_int8.tflite",
}
LADDER_IMAGES = 200


def export(
    run: Run,
    console: Console,
    precisions: Sequence[Precision] | None = None,
    formats: Sequence[str] = ("tflite",),
) -> dict[str, Any]:
    """Write the run's networks for other programs under ``export/``.

    Args:
        precisions: ``fp32``, ``fp16`` and ``int8`` for TFLite; None: the recipe's, int8 only after QAT.
        formats: ``tflite``, ``saved_model``, ``keras``.
    """
    recipe = run.recipe
    files: dict[str, str] = {}
    if "tflite" in formats:
        wanted = precisions or [
            p for p in recipe.export.precisions if p != "int8" or run.file("qat.keras").exists()
        ]
        for precision in wanted:
            source, maker = (
                ("qat.keras", "quantize") if precision == "int8" else ("float.keras", "train RECIPE")
            )
            inputs = {
                "model": run.require(source, fix=f"make it with: edgecls {maker}"),
                "labels": run.file("labels.txt"),
                "preprocess": run.file("preprocess.json"),
                "output": recipe.export.output,
            }
            work = partial(_convert, run, source, precision)
            run_stage(run, console, f"export_{precision}", inputs, [TFLITE[precision]], work)
            files[precision] = str(run.file(TFLITE[precision]))
    for form, name in (("saved_model", "export/saved_model"), ("keras", "export/model.keras")):
        if form in formats:
            model = load_deployed(run.require("float.keras", fix="make it with: edgecls train RECIPE"))
            with atomic(run.file(name)) as part:
                model.export(part, verbose=False) if form == "saved_model" else model.save(part)
            files[form] = str(run.file(name))
    return {"schema": "edgecls.export/1", "run": str(run.path), "files": files}


def verify(run: Run, console: Console, images: Path | None = None) -> dict[str, Any]:
    """Climb the parity ladder (keras = qat = tflite) on real images; writes ``verify.json``.

    Args:
        images: A folder of photos with or without class folders; None: 200 of the training images.

    Returns:
        The content of ``verify.json``; a rung that does not hold has ``"ok": false``.

    Raises:
        MissingError: The run is not quantized yet.
    """
    paths = ladder_files(run)
    inputs = ladder_inputs(run, paths, images)
    run_stage(run, console, "verify", inputs, ["verify.json"], partial(_climb, run, console, paths, images))
    return read_json(run.file("verify.json"))


def _convert(run: Run, source: str, precision: Precision) -> dict[str, Any]:
    from edgecls.data.preprocess import Preprocess
    from edgecls.export.tflite import to_tflite

    path = run.file(TFLITE[precision])
    classes = run.file("labels.txt").read_text(encoding="utf-8").splitlines()
    preprocess = Preprocess.from_dict(read_json(run.file("preprocess.json")))
    to_tflite(load_deployed(run.file(source)), path, precision, classes, preprocess, run.recipe.export.output)
    return {"bytes": path.stat().st_size}


def ladder_files(run: Run) -> dict[str, Path]:
    """The networks and files that the ladder compares: ``float``, ``qat``, ``fp32``, ``int8``."""
    names = {"float": "float.keras", "qat": "qat.keras", "fp32": TFLITE["fp32"], "int8": TFLITE["int8"]}
    return {kind: run.require(name, fix="make it with: edgecls quantize") for kind, name in names.items()}


def ladder_inputs(run: Run, paths: dict[str, Path], images: Path | None) -> dict[str, Any]:
    """What the stamp of ``verify`` is made from."""
    return paths | {"images": str(images), "split": read_json(run.file("split.json"))}


def ladder_pixels(run: Run, console: Console, images: Path | None) -> np.ndarray:
    """What the ladder is climbed on, uint8 [N, S, S, 3]: photos of a folder, or 200 of the training images."""
    return _pixels_of_folder(run, images) if images else _pixels_of_training(run, console)


def _climb(run: Run, console: Console, paths: dict[str, Path], images: Path | None) -> dict[str, Any]:
    from edgecls.export.verify import ladder

    pixels = ladder_pixels(run, console, images)
    networks = {kind: load_model(paths[kind]) for kind in ("float", "qat")}
    result = ladder(pixels, networks["float"], paths["fp32"], networks["qat"], paths["int8"])
    write_json(run.file("verify.json"), result)
    return {"images": len(pixels)}


def _pixels_of_training(run: Run, console: Console) -> np.ndarray:
    """200 of the training images as the network sees them, uint8 [N, S, S, 3]."""
    from edgecls.data.pipeline import batches

    split = spread(load_data(run.recipe.data, console).train, LADDER_IMAGES)
    pixels = [x.numpy() for x, _ in batches(split, recipe_preprocess(run.recipe), 50)]
    return np.concatenate(pixels).astype(np.uint8)


def _pixels_of_folder(run: Run, folder: Path) -> np.ndarray:
    """At most 200 photos from anywhere in a folder, evenly over their names; they need no classes."""
    from edgecls.data.images import EXTENSIONS

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise MissingError("no photos", where=str(folder), fix="name a folder of images")
    chosen = np.unique(np.linspace(0, len(files) - 1, LADDER_IMAGES).astype(int))
    preprocess = recipe_preprocess(run.recipe)
    return np.stack([preprocess.load(files[i]) for i in chosen])

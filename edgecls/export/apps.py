"""What the folders for apps have in common: what an app must know of a ``.tflite`` file, and texts from ``templates/``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecls.data.preprocess import Preprocess
from edgecls.data.resizing import describe_preprocess
from edgecls.errors import UsageError
from edgecls.export import inspect, metadata

TEMPLATES = Path(__file__).with_name("templates")


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
    settings = Preprocess.from_dict(settings).to_dict()  # an older file may leave a key out
    return {
        **settings,
        "name": found["name"] or model.stem,
        "labels": found["classes"],
        "classes": len(found["classes"]),
        "scores": "probabilities" if runner.head else "logits",
        "scale": None if scale is None else float(np.float32(scale)),
        "zero_point": zero_point,
        "text": describe_preprocess(settings),
    }


def render(template: str, values: dict[str, Any]) -> str:
    """Fill in a file of ``templates/``."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)

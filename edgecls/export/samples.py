"""Photos with the pixels and scores that are right: an app's author checks the app against them.

::

    samples/
        samples.json        for each photo: its label, the scores of each file, the tolerances
        0.photo.jpg         the photo as it came
        0.pixels.png        what preprocessing makes of it: the input of the network, uint8 RGB
        ...

An app that is given ``0.pixels.png`` must compute the scores of ``samples.json``, whatever it does to photos. An app that
is given ``0.photo.jpg`` must make nearly those pixels first.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgecls.data.resizing import describe_preprocess
from edgecls.export import inspect
from edgecls.export.verify import FLOAT_LIMIT, STEP_LIMIT
from edgecls.files import write_json

HALF_LIMIT = 1e-2
"""Of the logits' range: how far fp16 files may be apart, where a phone computes in 16 bits."""
DIGITS = 8  # of a score, as many as float32 has


@dataclass(frozen=True)
class Sample:
    """One photo.

    Attributes:
        photo: The content of its file.
        suffix: Of its file, such as ``.jpg``.
        pixels: What preprocessing makes of it, uint8 [size, size, 3].
        label: Its class, or None.
    """

    photo: bytes
    suffix: str
    pixels: np.ndarray
    label: str | None


def png(image: np.ndarray) -> bytes:
    """An image, uint8 [height, width, 1 or 3], as the content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return file.getvalue()


def write_samples(
    folder: Path,
    samples: Sequence[Sample],
    files: Mapping[str, Path],
    classes: Sequence[str],
    preprocess: Mapping[str, Any],
) -> None:
    """Write the photos, their pixels, and what each file computes from the pixels.

    Args:
        folder: Where to; made.
        samples: The photos.
        files: Precision to .tflite file.
        classes: The labels, in the order of the scores.
        preprocess: ``Preprocess.to_dict()``.
    """
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number, sample in enumerate(samples):
        photo, picture = f"{number}.photo{sample.suffix}", f"{number}.pixels.png"
        (folder / photo).write_bytes(sample.photo)
        (folder / picture).write_bytes(png(sample.pixels))
        rows.append({"photo": photo, "pixels": picture, "label": sample.label, "top1": {}, "scores": {}})
    pixels = np.stack([sample.pixels for sample in samples])
    outputs = {}
    for precision, path in files.items():
        runner = inspect.Runner(path)
        results = runner.outputs(pixels)
        outputs[path.name] = _output(runner, precision, runner.real(results), path)
        for row, scores in zip(rows, runner.scores(results), strict=True):
            row["top1"][path.name] = classes[scores.argmax()]
            row["scores"][path.name] = [float(f"{score:.{DIGITS}g}") for score in scores]
    document = {
        "schema": "edgecls.samples/1",
        "preprocess": dict(preprocess),
        "preprocess_text": describe_preprocess(preprocess),
        "classes": list(classes),
        "files": outputs,
        "samples": rows,
    }
    write_json(folder / "samples.json", document)


def _output(runner: inspect.Runner, precision: str, logits: np.ndarray, path: Path) -> dict[str, Any]:
    """The type of a file's output, and how far its scores may be from those of ``samples.json``."""
    step = inspect.output_step(path)
    limit = FLOAT_LIMIT if precision == "fp32" else HALF_LIMIT
    tolerance = STEP_LIMIT * step if step else limit * float(np.ptp(logits))
    if runner.head:  # a probability changes by at most half of what its logit changes against the others
        tolerance /= 2
    kind = "probabilities" if runner.head else "logits"
    about = {
        "output": np.dtype(runner.output["dtype"]).name,
        "scores": kind,
        "tolerance": float(f"{tolerance:.3g}"),
    }
    if runner.output["dtype"] != np.float32:  # scores are (output - zero_point) * scale
        about["scale"], about["zero_point"] = map(float, runner.output["quantization"])
    return about

"""What int8 costs networks with their published weights, calibrated and trained on a folder of photographs.

    python scripts/experiment_ptq.py PHOTOS [--minutes 30] [--only "EfficientNetLite0, as by default"]

Every other photograph calibrates, and trains where a row says so; the others judge. Then the two halves change places, so
that each photograph judges once. Each half is a line of ``docs/results/experiment_ptq.jsonl`` (or ``--results``) as soon as
it is known, and what is there is not done again. A ``labels.csv`` (``file,imagenet_class``) beside the photographs adds top-1.

The table is printed, and with ``--write`` put into docs/quantize.md.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import edgecls  # before Keras: it says what TensorFlow computes with

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import experiments
import keras
import numpy as np

from edgecls.console import Console
from edgecls.files import hash_json
from edgecls.quantize.twin import calibrated_twin, some_images
from edgecls.recipe import QAT_OPTIMIZER
from edgecls.workflow import quantized_training, quantizing
from edgecls.workflow.user_models import read_user_model
from edgecls.zoo import catalog

PAGE = Path(__file__).parents[1] / "docs/quantize.md"
RESULTS = PAGE.parent / "results/experiment_ptq.jsonl"
BEGIN, END = "<!-- photographs: begin, written by scripts/experiment_ptq.py -->", "<!-- photographs: end -->"
HALVES = 2
ABLATED = "EfficientNetLite0"
DEFAULT = "as by default: squared error, corrected biases"
INGREDIENTS: dict[str, dict[str, Any]] = {  # arguments of calibrated_twin; "epochs": of training
    DEFAULT: {},
    "biases not corrected": {"corrected": False},
    "ranges: minmax": {"ranges": "minmax"},
    "ranges: percentile": {"ranges": "percentile"},
    "`--equalize`": {"equalized": True},
    "`--adaround`": {"adaround": True},
    "`--weights per_tensor`": {"weights": "per_tensor"},
    "`--weights per_tensor --equalize`": {"weights": "per_tensor", "equalized": True},
    "`--weights per_tensor --adaround`": {"weights": "per_tensor", "adaround": True},
    "`--epochs 4`": {"epochs": 4},
    "`--epochs 12`": {"epochs": 12},
    "`--weights per_tensor --epochs 4`": {"weights": "per_tensor", "epochs": 4},
}
ROWS: dict[str, tuple[str, Mapping[str, Any]]] = {
    **{f"{ABLATED}, {name}": (ABLATED, how) for name, how in INGREDIENTS.items()},
    **{
        f"EfficientNetLite2, {name}": ("EfficientNetLite2", INGREDIENTS[name])
        for name in (DEFAULT, "`--epochs 4`")
    },
}
LEGEND = (
    "Signal to noise: of the logits, int8 against float. Divergence: Kullback-Leibler, of int8's probabilities from"
    " float's. Each photograph is judged by a network that did not see it."
)


def main() -> None:
    """Do the runs that are missing, then show the table."""
    chosen = experiments.options(
        __doc__, str(RESULTS), PAGE, ROWS, "folder of photographs, labels.csv beside them"
    )
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(chosen.data), Path(folder))
        experiments.finish(chosen, ROWS, HALVES, key, laboratory.run, score="same")
    experiments.show(chosen, PAGE, BEGIN, END, "\n".join(table(experiments.finished(chosen.results))))


def key(name: str, half: int) -> str:
    """Tells runs apart: by all that they are made by."""
    network, how = ROWS[name]
    training = [QAT_OPTIMIZER.model_dump(), quantized_training.BATCH] if "epochs" in how else []
    return hash_json([network, dict(how), half, training])[:16]


class Laboratory:
    """Quantizes networks and compares them with float.

    Args:
        photos: The folder.
        folder: For files in between.
    """

    def __init__(self, photos: Path, folder: Path) -> None:
        self._photos, self._folder, self._console = photos, folder, Console()
        labels = photos / "labels.csv"
        rows = csv.DictReader(labels.read_text(encoding="utf-8").splitlines()) if labels.is_file() else ()
        self._truth = {row["file"]: int(row["imagenet_class"]) for row in rows}

    def run(self, name: str, half: int) -> dict[str, float]:
        """Figures of one half of the photographs: sums, so that those of both halves can be added."""
        started, (network, how) = time.perf_counter(), ROWS[name]
        request = quantizing.Request(
            self._file(network), self._photos, folder=self._folder, epochs=how.get("epochs", 0)
        )
        user = read_user_model(request.model)
        seen, judged = quantizing.halves(quantizing.read_photos(request, user, self._console))
        if half:
            seen, judged = judged, seen
        calibration = {key: value for key, value in how.items() if key != "epochs"}
        twin = calibrated_twin(user.network, seen.batches(), some_images([seen.pixels]), **calibration)
        if request.epochs:
            quantized_training.train(request, user, twin, seen, (), self._console)
            shutil.rmtree(request.file(".qat"), ignore_errors=True)
        figures = self.compared(
            quantizing.scores(user.network, judged), quantizing.scores(twin, judged), judged.files
        )
        keras.backend.clear_session()
        return figures | {"seconds": time.perf_counter() - started}

    def _file(self, name: str) -> Path:
        """A network of the zoo with its published weights as anyone's ``.keras`` file."""
        entry, path = catalog.get(name), self._folder / f"{name}.keras"
        if path.exists():
            return path
        edgecls.build_model(name, weights="imagenet", include_preprocessing=True).save(path)
        beside = {"resize_short": entry.resize_short, "interpolation": entry.interpolation}
        path.with_suffix(".json").write_text(json.dumps(beside), encoding="utf-8")
        return path

    def compared(self, expected: np.ndarray, found: np.ndarray, files: Sequence[str]) -> dict[str, float]:
        """Figures of int8's logits (``found``) against float's (``expected``), both [N, classes], of these files."""
        logs, others = (np.asarray(keras.ops.log_softmax(logits)) for logits in (expected, found))
        answers, others_answers = expected.argmax(1), found.argmax(1)
        figures = {
            "photos": len(expected),
            "signal": float((expected**2).sum()),
            "noise": float(((found - expected) ** 2).sum()),
            "divergence": float((np.exp(logs) * (logs - others)).sum()),
            "same": float((answers == others_answers).mean()),
        }
        if self._truth:
            truth = np.array([self._truth[Path(file).name] for file in files])
            figures |= {
                "float": float((answers == truth).mean()),
                "int8": float((others_answers == truth).mean()),
            }
        return figures


def table(done: experiments.Results) -> Iterator[str]:
    """Rows of both halves."""
    yield "| network | quantization | photographs | signal to noise, dB | divergence | same answer, % | float top-1, % | int8 top-1, % |"
    yield "| --- | --- | --: | --: | --: | --: | --: | --: |"
    for name, (network, _) in ROWS.items():
        runs = list(experiments.by_seed(name, HALVES, key, done).values())
        if len(runs) < HALVES:
            continue
        total = {part: sum(run[part] for run in runs) for part in ("photos", "signal", "noise", "divergence")}
        shares = [
            f"{100 * sum(run[part] * run['photos'] for run in runs) / total['photos']:.1f}"
            if part in runs[0]
            else ""
            for part in ("same", "float", "int8")
        ]
        figures = [
            f"{10 * np.log10(total['signal'] / total['noise']):.2f}",
            f"{total['divergence'] / total['photos']:.4f}",
        ]
        cells = [network, name.removeprefix(f"{network}, "), str(total["photos"]), *figures, *shares]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield LEGEND


if __name__ == "__main__":
    main()

"""Run folders of JSON files, without any training: what the report and the list of runs read."""

import json

from edgecls.files import sha256
from edgecls.run import Run

RECIPE = """name: demo
seed: 3
model: {name: MobileNetV3_small_x1_0, weights: null}
teacher: {name: EfficientNetLite0, weights: imagenet, train: {epochs: 2, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}}
data: {source: elpv}
train: {epochs: 3, batch_size: 8, optimizer: {name: sgd, lr: 0.1}, schedule: {name: cosine}}
distill: {loss: js, weight: 1.0, hard_weight: 0.0}
"""


def write(run: Run, name: str, value) -> None:
    run.file(name).parent.mkdir(exist_ok=True, parents=True)
    run.file(name).write_text(json.dumps(value), encoding="utf-8")


def scores(balanced: float) -> dict:
    return {
        "top1": 0.9,
        "top5": 1.0,
        "balanced_accuracy": balanced,
        "balanced_accuracy_ci95": [balanced - 0.03, balanced + 0.03],
        "confusion": [[70, 5], [11, 14]],
        "per_class": [
            {"class": "good", "count": 75, "recall": 0.933, "precision": 0.864},
            {"class": "cracked", "count": 25, "recall": 0.56, "precision": 0.737},
        ],
    }


def timing(precision: str, threads: int, median: float, **other) -> dict:
    row = {"model": f"model_{precision}.tflite", "threads": threads, "bytes": 6_000_000, "median_ms": median}
    row |= {
        "p90_ms": median * 1.1,
        "min_ms": median * 0.9,
        "ci95_ms": [median * 0.98, median * 1.03],
        "n": 90,
    }
    return row | {"init_ms": 12.0, "peak_mib": 40.0, "status": "ok", "why": ""} | other


MODEL_FILES = {
    "teacher": "teacher.keras",
    "float": "float.keras",
    "qat": "qat.keras",
    "fp32": "export/model_fp32.tflite",
    "int8": "export/model_int8.tflite",
}


def make_models(run: Run) -> None:
    """Model files of some bytes, for what is stamped on them."""
    for kind, name in MODEL_FILES.items():
        run.file(name).parent.mkdir(exist_ok=True)
        run.file(name).write_bytes(f"the {kind} model".encode())


def stamp(run: Run, stage: str, reads=(), writes=(), **fields) -> None:
    """A stamp of a finished stage, as ``edgecls.stamps`` writes it."""
    outputs = {
        name: {"bytes": run.file(name).stat().st_size, "sha256": sha256(run.file(name))} for name in writes
    }
    reads = {name: sha256(run.file(name)) for name in reads}
    whole = {"schema": "edgecls.stamp/2", "stage": stage, "inputs": {}, "reads": reads, "outputs": outputs}
    whole |= {"seconds": 1.0, "finished": "2026-01-02T03:04:05+0000", "figures": {}}
    write(run, f"stamps/{stage}.json", whole | fields)


def stamp_reports(run: Run) -> None:
    """Stamps of verify.json and predictions.json as they are now."""
    files = [MODEL_FILES[kind] for kind in ("float", "qat", "fp32", "int8")]
    stamp(run, "verify", files, ["verify.json"], finished="2026-01-02T03:40:00+0000")
    stamp(run, "photos", files[:1], ["predictions.json"], finished="2026-01-02T03:41:00+0000")

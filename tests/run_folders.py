"""Run folders of JSON files, without any training: what the report and the list of runs read."""

import base64
import io
import json
from pathlib import Path

from PIL import Image

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


def trained_run(folder: Path) -> Run:
    """A run that is trained and nothing else."""
    run = Run(folder)
    run.path.mkdir(parents=True)
    run.file("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write(run, "env.json", {"python": "3.11.7", "versions": {"keras": "3.15.1"}})
    for stage in ("teacher", "student", "qat"):
        for epoch in range(3):
            run.metric(stage, epoch, loss=1 / (epoch + 1), accuracy=0.5, val_balanced_accuracy=0.6, lr=0.1)
    make_models(run)
    images = {"images.train.sha256": "of train", "images.val.sha256": "of val"}
    figures = {"epochs": 3, "best_epoch": 1, "best_value": 0.6, "selected": "best"}
    stamp(run, "teacher", [], ["teacher.keras"], finished="2026-01-02T03:10:00+0000", figures=figures)
    stamp(
        run,
        "student",
        ["teacher.keras"],
        ["float.keras"],
        inputs=images | {"train.epochs": 3},
        seconds=95.2,
        finished="2026-01-02T03:20:00+0000",
        figures=figures,
    )
    for name in ("export/model_fp32.tflite", "export/model_int8.tflite", "qat.keras"):
        run.file(name).unlink()
    return run


def finished_run(run: Run) -> Run:
    """The run of ``trained_run`` with every file."""
    models = {"teacher": 0.85, "float": 0.812, "qat": 0.81, "fp32": 0.812, "int8": 0.808}
    make_models(run)
    stamp(
        run,
        "qat",
        ["float.keras"],
        ["qat.keras"],
        finished="2026-01-02T03:30:00+0000",
        inputs={"quantize.train.epochs": 4},
        figures={"epochs": 4, "best_epoch": 3, "selected": "last"},
    )
    classes = ["good", "cracked"]
    entries = {
        name: scores(value) | {"sha256": sha256(run.file(MODEL_FILES[name]))}
        for name, value in models.items()
    }
    document = {"split": "test", "split_sha256": "of test", "count": 100, "classes": classes}
    write(run, "eval.json", document | {"models": entries})
    parts = {
        n: {"count": c, "per_class": [c - 10, 10], "sha256": f"of {n}"}
        for n, c in (("train", 270), ("val", 30), ("test", 100))
    }
    write(run, "split.json", {"classes": classes, "splits": parts, "bad": [["torn.jpg", "truncated"]]})
    rungs = [
        {
            "name": "float.keras = model_fp32.tflite",
            "max_abs": 1e-5,
            "of_range": 2e-6,
            "limit": 1e-4,
            "ok": True,
        },
        {
            "name": "qat.keras = model_int8.tflite",
            "max_steps": 3,
            "top1_agreement": 0.99,
            "limit": 1,
            "ok": False,
        },
        {"name": "float.keras ~ model_int8.tflite", "top1_agreement": 0.965},
    ]
    files = {
        "model_fp32.tflite": {"bytes": 6_000_000, "ops": {"CONV_2D": 30}, "partitions": 1},
        "model_int8.tflite": {
            "bytes": 1_680_000,
            "ops": {"CONV_2D": 30, "HARD_SWISH": 2},
            "float_ops": ["LOGISTIC"],
            "partitions": 22,
            "undelegated": ["QUANTIZE"],
        },
    }
    write(run, "verify.json", {"images": 200, "rungs": rungs, "files": files, "size_ratio": 0.28})
    results = [timing("fp32", 1, 8.0), timing("fp32", 2, 5.0), timing("int8", 1, 3.2, bytes=1_680_000)]
    results += [timing("int8", 2, 2.5, status="unsure", why="rounds differ by 12 %")]
    results += [{"model": "model_int8.tflite", "threads": 4, "status": "failed", "why": "worker was killed"}]
    for row in results:
        row["sha256"] = sha256(run.file("export", row["model"]))
    device = {"kind": "host", "name": "bench-box", "cpu": "Test CPU", "cores": 2}
    write(run, "bench.json", {"device": device, "protocol": {"warmup": 10, "runs": 30}, "results": results})
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), "teal").save(buffer, "JPEG")
    photo = {
        "file": "/home/somebody/a.jpg",
        "label": "good",
        "jpeg_base64": base64.b64encode(buffer.getvalue()).decode(),
    }
    photo |= {
        "float": {"class": "good", "probability": 0.91},
        "int8": {"class": "cracked", "probability": 0.55},
    }
    write(run, "predictions.json", {"photos": [photo]})
    stamp_reports(run)
    return run

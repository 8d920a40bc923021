"""The report page, the model card and the comparison, from run folders of JSON files."""

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from edgecls.report import compare, plots, write_card, write_report
from edgecls.report.figures import duration, megabytes, milliseconds, percent, points
from edgecls.run import Run

EVIL = "<script>alert('x')</script>|*`\n\"&amp;"
RECIPE = """name: demo
seed: 3
model: {name: MobileNetV3_small_x1_0, weights: null}
teacher: {name: EfficientNetLite0, weights: imagenet, train: {epochs: 2, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}}
data: {source: elpv}
train: {epochs: 3, batch_size: 8, optimizer: {name: sgd, lr: 0.1}, schedule: {name: cosine}}
distill: {loss: js, weight: 1.0, hard_weight: 0.0}
"""
VOID = {"meta", "img", "br", "link", "input"}


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


@pytest.fixture
def trained(tmp_path) -> Run:
    """A run that is trained and nothing else."""
    run = Run(tmp_path / "demo" / "20260102-030405")
    run.path.mkdir(parents=True)
    run.file("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write(run, "env.json", {"python": "3.11.7", "versions": {"keras": "3.15.1"}})
    for stage in ("teacher", "student", "qat"):
        for epoch in range(3):
            run.metric(stage, epoch, loss=1 / (epoch + 1), accuracy=0.5, val_balanced_accuracy=0.6, lr=0.1)
    write(run, "stamps/student.json", {"stage": "student", "seconds": 95.2})
    return run


@pytest.fixture
def finished(trained) -> Run:
    """A run with every file."""
    run, models = trained, {"teacher": 0.85, "float": 0.812, "qat": 0.81, "fp32": 0.812, "int8": 0.808}
    classes = ["good", "cracked"]
    entries = {name: scores(value) for name, value in models.items()}
    write(run, "eval.json", {"split": "test", "count": 100, "classes": classes, "models": entries})
    parts = {
        n: {"count": c, "per_class": [c - 10, 10]} for n, c in (("train", 270), ("val", 30), ("test", 100))
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
    return run


class Page(HTMLParser):
    """Checks nesting and collects what a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> does not match"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += f"{data} "


def read(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object"), "the page must stand alone"
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "http:" not in path.read_text() and "https:" not in path.read_text()
    return page


def test_headline_figures_come_from_the_files(finished):
    text = read(write_report(finished)).text
    for figure in ("85.0 %", "81.2 %", "80.8 %", "77.8–83.8 % (95 %)", "−0.4 points", "0.28", "0.40"):
        assert figure in text
    assert "1.68 MB of 6.00 MB" in text and "3.20 ms of 8.00 ms" in text


def test_every_part_is_there(finished):
    page = read(write_report(finished))
    for said in (
        "1 of 2 parity checks failed",
        "✗ fails",
        "✓ holds",
        "3 steps",
        "22 delegate partitions",
        "float operators left: LOGISTIC",
        "rounds differ by 12 %",
        "worker was killed",
        "bench-box, Test CPU, 2 cores",
        "cracked ✗",
        "1 min 35 s",
        "versions.keras",
        "1 unreadable file left out",
        "hard_weight",
    ):
        assert said in page.text, said
    assert (
        sum(tag == "svg" for tag, _ in page.tags) == 3 * 3 + 3
    )  # three stages of three plots; latency, accuracy against it, sizes
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert "Make it with" not in page.text
    assert "somebody" not in page.text


def test_a_trained_run_names_the_commands_that_are_left(trained):
    text = read(write_report(trained)).text
    for command in ("edgecls eval", "edgecls quantize"):
        assert f"{command} {trained.path}" in text
    trained.file("export").mkdir()
    trained.file("export", "model_int8.tflite").touch()
    text = read(write_report(trained)).text
    for command in ("edgecls verify", "edgecls bench", "edgecls report"):
        assert f"{command} {trained.path}" in text
    assert "edgecls eval" in write_card(trained).read_text()


def test_an_empty_run_and_broken_files_still_give_a_page(tmp_path):
    run = Run(tmp_path)
    read(write_report(run))
    write_card(run)
    for name in ("eval.json", "verify.json", "bench.json", "split.json", "predictions.json", "env.json"):
        run.file(name).write_text('{"torn": ')
    run.file("recipe.yaml").write_text("a: [")
    assert "eval.json cannot be read" in read(write_report(run)).text
    write_card(run)
    for name in ("eval.json", "verify.json", "bench.json", "predictions.json", "split.json"):
        keys = ("models", "classes", "files", "rungs", "results", "device", "photos", "splits", "count")
        for junk in (None, 3, "x", [1, None], {"a": 1}, {"a": [None]}):
            write(run, name, dict.fromkeys(keys, junk))
            read(write_report(run))
            write_card(run)


def test_hostile_names_are_text(finished):
    for name in ("eval.json", "split.json", "verify.json", "bench.json", "predictions.json", "env.json"):
        text = finished.file(name).read_text()
        for harmless in (
            "cracked",
            "float.keras",
            "model_int8.tflite",
            "CONV_2D",
            "Test CPU",
            "a.jpg",
            "rounds",
            "keras",
        ):
            text = text.replace(harmless, json.dumps(harmless + EVIL)[1:-1])
        finished.file(name).write_text(text)
    finished.metric(EVIL, 0, **{"loss": 1.0, f"loss{EVIL}": 2.0})
    finished.file("recipe.yaml").write_text(RECIPE.replace("name: demo", f"name: {json.dumps(EVIL)}"))
    assert "alert('x')" in read(write_report(finished)).text
    Page(compare([finished]))
    card = write_card(finished).read_text()
    assert "<script" not in card
    for row in re.findall(r"^\|.*\|$", card, re.M):  # a name cannot add a cell
        assert len(re.findall(r"(?<!\\)\|", row)) in (5, 7)


def test_only_jpegs_become_images(tmp_path):
    run = Run(tmp_path)
    for data in ("javascript:alert(1)", base64.b64encode(b"<svg onload=alert(1)>").decode(), None, '"><b>'):
        write(run, "predictions.json", {"photos": [{"file": "a", "label": "b", "jpeg_base64": data}]})
        assert not [tag for tag, _ in read(write_report(run)).tags if tag == "img"]


def test_a_photo_without_a_label_is_not_judged(tmp_path):
    run = Run(tmp_path)
    write(run, "predictions.json", {"photos": [{"file": "a.jpg", "label": None, "int8": {"class": "good"}}]})
    text = read(write_report(run)).text
    assert "good" in text and "None" not in text and "✗" not in text


def test_many_classes_list_the_confusions(finished):
    classes = [f"c{i}" for i in range(30)]
    entry = scores(0.7) | {
        "confusion": [[9 if i == j else (i + 1) * (j == 0) for j in range(30)] for i in range(30)]
    }
    entry["per_class"] = [
        {"class": c, "count": 9, "recall": i / 30, "precision": None} for i, c in enumerate(classes)
    ]
    write(finished, "eval.json", {"count": 270, "classes": classes, "models": {"int8": entry}})
    text = read(write_report(finished)).text
    assert "c29 c0 30 c28 c0 29" in text
    assert "the 20 with the lowest recall" in text and "top-5" in text


def test_same_files_same_page(finished):
    first = write_report(finished).read_bytes()
    assert write_report(finished).read_bytes() == first
    assert len(first) < 300_000


def test_a_failed_write_leaves_the_old_page(finished, monkeypatch):
    path = write_report(finished)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError):
        write_report(finished)
    assert path.read_bytes() == before
    assert sorted(p.name for p in finished.path.glob("*.html")) == ["report.html"]


def test_card_says_what_a_reader_must_know(finished):
    card = write_card(finished).read_text()
    for said in (
        "CC BY-NC-SA 4.0",
        "train: 270 images (good 260, cracked 10)",
        "Weakest class: cracked, recall 56.0 %",
        "−0.4 points",
        "| 1.68 MB | 22 | 1 |",
        "EfficientNetLite0, starting from imagenet; 2 epochs",
        "js loss",
        "edgecls predict",
        "bench-box",
    ):
        assert said in card, said


def test_compare_puts_runs_side_by_side(finished, tmp_path):
    page = Page(compare([finished, Run(tmp_path / "absent")]))
    assert "2 runs compared" in page.text
    assert "80.8 % – " in page.text and "0.40 – " in page.text
    assert "3.20 ms – " in page.text


def test_plots_leave_gaps_for_figures_that_are_not_finite():
    (stage,) = plots.curves(
        [{"stage": "student", "epoch": i, "loss": v} for i, v in enumerate([1, float("nan"), 0.5])]
    )
    assert stage["epochs"] == 3 and len(stage["plots"]) == 1
    assert plots.curves([{"stage": "student", "epoch": 0, "loss": None}])[0]["plots"] == []
    assert plots.latency([timing("int8", 1, 3.0, status="failed")]) == ""


def test_units():
    assert (percent(0.5), percent(None), percent(float("nan"))) == ("50.0 %", "–", "–")
    assert (points(-0.04), points(-1.26), points(2)) == ("0.0 points", "−1.3 points", "+2.0 points")
    assert (milliseconds(0.123), milliseconds(12.34), milliseconds(123.4)) == ("0.12 ms", "12.3 ms", "123 ms")
    assert (megabytes(1_680_000), megabytes(900)) == ("1.68 MB", "0.9 kB")
    assert (duration(9.81), duration(95.2), duration(3725)) == ("9.8 s", "1 min 35 s", "1 h 02 min")


def test_no_tensorflow(finished):
    code = (
        "import sys; from edgecls.report import write_report, write_card, compare; from edgecls.run import Run;"
        f"run = Run({str(finished.path)!r}); write_report(run); write_card(run); compare([run]);"
        "print([m for m in ('tensorflow', 'keras', 'pyplot', 'matplotlib.pyplot') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )

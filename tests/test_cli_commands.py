"""What the commands pass on to the workflow and print of its results; their gates."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import edgecls
from edgecls.recipe import load_recipe
from edgecls.run import Run

pytestmark = pytest.mark.usefixtures("recipe_folder")


def test_train(call, workflow):
    def train(recipe, console, directory, fresh):
        run = Run.start(recipe, directory=directory, fresh=fresh)
        run.unlock()
        console.log(f"run: {run.path}")
        console.say("student: 3 s")
        return {
            "schema": "edgecls.train/1",
            "run": str(run.path),
            "test": {"float": {"count": 9, "top1": 0.5}},
        }

    workflow.train = train
    code, out, err = call("train", "r.yaml", "-o", "seed=5")
    assert code == 0 and "student: 3 s\n" in out and re.search(r"float +50\.0 ", out) and "9 images" in out
    run = Run.find("demo")
    assert run.recipe == load_recipe("r.yaml", ["seed=5"]) and str(run.path) in err
    code, out, err = call("train", "r.yaml", "--json", "--run", "there")
    assert code == 0 and json.loads(out)["run"] == str(Path("there").resolve()) and "student: 3 s" in err
    code, _, err = call("train", "r.yaml", "-o", "seed=6", "--run", "there")
    assert code == 2 and "--fresh" in err
    assert call("train", "r.yaml", "-o", "seed=6", "--run", "there", "--fresh")[0] == 0


def test_dry_run_does_nothing(call, workflow):
    workflow.plan = lambda recipe, directory, fresh: {
        "schema": "edgecls.plan/1",
        "recipe": "demo",
        "images": {"train": 1500},
        "teacher": None,
    }
    code, out, _ = call("train", "r.yaml", "--dry-run", "-o", "seed=4")
    resolved, plan = out.split("---\n")
    Path("again.yaml").write_text(resolved)
    assert code == 0 and load_recipe("again.yaml").seed == 4
    assert re.search(r"images: +train 1,500\n", plan) and re.search(r"teacher: +none", plan)
    code, out, _ = call("train", "r.yaml", "--dry-run", "--json")
    assert json.loads(out)["resolved"]["name"] == "demo" and not Path("runs").exists()


VERIFY = {
    "schema": "edgecls.verify/1",
    "images": 200,
    "rungs": [
        {
            "name": "float = fp32",
            "max_abs": 1e-5,
            "of_range": 3e-7,
            "top1_agreement": 1.0,
            "limit": 1e-4,
            "ok": True,
        },
        {"name": "qat = int8", "max_steps": 1, "top1_agreement": 0.995, "limit": 1, "ok": True},
        {"name": "float ~ int8", "top1_agreement": 0.98},
    ],
    "files": {
        "model_int8.tflite": {"bytes": 1234567, "ops": {"CONV_2D": 12}, "float_ops": [], "partitions": 1}
    },
    "size_ratio": 0.27,
}


@pytest.mark.parametrize(("limit", "code"), [([], 0), (["--max-drop", "1.3"], 0), (["--max-drop", "1"], 4)])
def test_quantize_and_its_gate(call, workflow, run, limit, code):
    seen = []

    def quantize(run, console, overrides, gated):
        seen.append((run.path, overrides))
        assert gated == bool(limit)
        scores = {
            "float": {"balanced_accuracy": 0.8, "count": 9},
            "int8": {"balanced_accuracy": 0.788, "count": 9},
        }
        return {
            "schema": "edgecls.quantize/1",
            "run": "r",
            "test": scores,
            "drop": 0.012,
            "files": {},
            "verify": VERIFY,
        }

    workflow.quantize = quantize
    got, out, err = call("quantize", *limit, "-o", "quantize.train.epochs=2")
    assert got == code and seen == [(run.path, ["quantize.train.epochs=2"])]
    assert "1.20 points" in out and "1 step" in out and "1 steps" not in out and "0.270" in out, (
        "the result is shown though the gate fails"
    )
    if code:
        assert err.endswith(
            f"edgecls: error: int8 loses 1.20 points of balanced accuracy, --max-drop 1 ({run.path})\n"
        )
    got, out, _ = call("quantize", *limit, "--json")
    assert got == code and json.loads(out)["drop"] == 0.012
    assert call("quantize", "-o", "quantise.epochs=2")[0] == 2 and len(seen) == 2


def test_verify_fails_when_a_rung_does(call, workflow, run):
    workflow.verify = lambda run, console, images: VERIFY
    assert call("verify", "demo")[0] == 0
    broken = {**VERIFY, "rungs": [{"name": "qat = int8", "max_steps": 9, "ok": False}]}
    workflow.verify = lambda run, console, images: broken
    code, out, err = call("verify", str(run.path))
    assert code == 1 and "FAILED" in out and "qat = int8" in err


def bench_result(*medians: float | None) -> dict:
    rows = [
        {"model": f"m{i}.tflite", "threads": 1, "bytes": 1000, "n": 90, "status": "ok" if ms else "failed",
         "why": "" if ms else "torn", "peak_mib": 5.0, "ci95_ms": [ms, ms] if ms else None,
         **{f"{k}_ms": ms for k in ("median", "p90", "min", "init", "first")}}
        for i, ms in enumerate(medians)
    ]  # fmt: skip
    protocol = {"warmup": 10, "warmup_s": 0.5, "runs": 30, "run_s": 0.5, "rounds": 5}
    return {"schema": "android_bench/2", "device": {"name": "host"}, "protocol": protocol, "results": rows}


@pytest.mark.parametrize(
    ("medians", "args", "code", "line"),
    [
        ([3.0, 4.0], [], 0, ""),
        ([3.0, 4.0], ["--max-ms", "4"], 0, ""),
        ([3.0, 4.5], ["--max-ms", "4"], 4, "4.5 ms is longer than --max-ms 4 (m1.tflite, 1 thread)"),
        ([3.0, None], ["--max-ms", "4"], 1, "1 of 2 not measured: torn (m1.tflite, 1 thread)"),
    ],
)
def test_bench_and_its_gate(call, workflow, run, medians, args, code, line):
    workflow.bench = lambda targets, console, **options: bench_result(*medians)
    got, out, err = call("bench", *args)
    assert got == code and "3.000" in out and err == (f"edgecls: error: {line}\n" if line else "")
    got, out, _ = call("bench", "--json", *args)
    assert got == code and len(json.loads(out)["results"]) == 2


def test_bench_options_come_from_the_recipe_of_the_run(call, workflow, run):
    seen = {}
    workflow.bench = lambda targets, console, **options: (
        seen.update(options, targets=targets) or bench_result(1.0)
    )
    call("bench")
    assert seen == {
        "targets": [run.path],
        "device": "host",
        "threads": [3],
        "warmup": 10,
        "runs": 7,
        "rounds": 5,
        "spacing_s": 6.0,
        "protocol": "standard",
        "repeats": 3,
        "seed": 0,
        "profile": False,
        "delegate": "cpu",
        "binary": None,
        "zoo": (),
        "precisions": [],
        "fresh": False,
        "compare": False,
        "wait": False,
        "watch": False,
    }
    call("bench", "r.yaml", "--device", "sd855", "--threads", "1,2", "--threads", "2,4", "--warmup", "0")
    assert seen["targets"] == [Path("r.yaml")] and seen["device"] == "sd855"
    assert seen["threads"] == [1, 2, 4] and seen["warmup"] == 0 and seen["runs"] == 30


def test_export_predict_eval_report(call, workflow, run):
    seen = []
    workflow.export = lambda run, console, **kw: (
        seen.append(kw) or {"run": "r", "files": {"int8": "m.tflite"}}
    )
    assert "int8: m.tflite" in call("export", "--precision", "int8,fp32")[1]
    assert seen.pop() == {"precisions": ["int8", "fp32"], "formats": ["tflite"]}

    Path("photos/a").mkdir(parents=True)
    for name in ("photos/a/2.JPG", "photos/1.png", "photos/notes.txt"):
        Path(name).touch()
    answer = [{"image": "1.png", "predictions": [{"class": "cat", "probability": 0.875}]}]
    workflow.predict = lambda target, images, top, progress: seen.append((images, top)) or {"results": answer}
    assert call("predict", "demo", "photos", "r.yaml", "--top", "1")[1] == "1.png: cat 87.5 %\n"
    assert seen.pop() == ([Path("photos/1.png"), Path("photos/a/2.JPG"), Path("r.yaml")], 1)

    metrics = {
        "count": 3,
        "top1": 2 / 3,
        "top5": 1.0,
        "balanced_accuracy": 0.5,
        "confusion": [[2, 0], [1, 0]],
        "confused": [[1, 0, 1]],
    }
    metrics["per_class"] = [
        {"class": c, "count": n, "recall": r, "precision": None} for c, n, r in (("a", 2, 1.0), ("b", 1, 0.0))
    ]
    result = {"model": "m", "split": "test", "classes": ["a", "b"], "metrics": metrics}
    workflow.evaluate = lambda target, console, data, split: seen.append((target, data, split)) or result
    out = call("eval")[1]
    assert re.search(r"b +a +1$", out, re.MULTILINE) and "66.7" in out
    assert seen.pop() == (run.path, None, "test")

    workflow.report = lambda run, console: {"report": "p.html", "card": "c.md"}
    assert call("report")[1] == "report: p.html\ncard: c.md\n"


def test_models(call):
    code, out, _ = call("models", "--json")
    names = [m["name"] for m in json.loads(out)["models"]]
    assert code == 0 and names == edgecls.list_models()
    assert all(re.search(rf"^{re.escape(n)} ", call("models")[1], re.MULTILINE) for n in names[:3])
    only = json.loads(call("models", "--family", "mobilenetv3", "--json")[1])["models"]
    assert {m["family"] for m in only} == {"MobileNetV3"}
    assert (
        json.loads(call("models", "ResNet50_vd", "--json")[1])["params"]
        == edgecls.model_info("ResNet50_vd").params
    )
    assert "11,693,736" in call("models", "ResNet18")[1], "the reference's parameters, see its notes"

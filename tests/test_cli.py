"""The command line: exit codes, one-line errors, JSON, help, speed of what must not load TensorFlow."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import edgecls
from edgecls.cli.main import COMMANDS, cli
from edgecls.console import Console, to_json
from edgecls.errors import EdgeclsError, InterruptedRun
from edgecls.recipe import load_recipe
from edgecls.run import Run

NAMES = [name for section in COMMANDS.values() for name in section]
RECIPE = "name: demo\nmodel: {name: MobileNetV3_small_x1_0}\ndata: {source: elpv}\nbench: {threads: [3], runs: 7}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test stands in an empty folder with a recipe; signals and the environment stay as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    (tmp_path / "r.yaml").write_text(RECIPE)
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def workflow(monkeypatch):
    """A stand-in for edgecls.workflow: the tests say what its functions return or raise."""
    fake = SimpleNamespace()
    monkeypatch.setattr(edgecls, "workflow", fake, raising=False)
    return fake


def process(*args: str, code: str = "", **env: str) -> subprocess.CompletedProcess:
    """Run ``edgecls`` (or ``code``) in a new process."""
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "edgecls.cli", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False
    )


def one_line(err: str) -> str:
    assert err.endswith("\n") and err.count("\n") == 1, err
    assert err.startswith("edgecls: ")
    return err


# Help and laziness


@pytest.mark.parametrize(
    "args", [["--help"], ["models"], ["models", "ResNet50_vd"], ["train", "--help"], ["--version"]]
)
def test_nothing_heavy_is_imported(args):
    code = (
        "import sys\nfrom edgecls.cli.main import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit as e:\n    assert not e.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = process(code=code)
    assert done.returncode == 0 and done.stdout
    top = {name.split(".")[0] for name in done.stderr.split()}
    assert not top & {"tensorflow", "keras", "tf_keras", "numpy", "pydantic", "rich", "PIL", "matplotlib"}


def test_help_lists_every_command(call):
    code, out, _ = call("--help")
    assert code == 0 and all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in NAMES)
    assert call() == (0, out, "")


@pytest.mark.parametrize("name", NAMES)
def test_every_help_ends_with_an_example(call, name):
    code, out, _ = call(name, "--help")
    assert code == 0
    assert re.search(rf"Examples?:\n(  edgecls {name}.*\n)+\Z", out)
    assert "--json" in out and "--debug" in out


def test_the_list_says_what_the_commands_say():
    assert set(NAMES) == {p.stem for p in Path(edgecls.__file__).parent.glob("cli/*.py")} - {
        "__init__", "__main__", "main", "common", "completers", "show",
    }  # fmt: skip
    for name in NAMES:
        command = cli.get_command(None, name)
        assert command.name == name and command.help


# Usage errors: exit code 2 and one line


@pytest.mark.parametrize(
    ("args", "what"),
    [
        ("trian", "no command 'trian'; did you mean 'train'?"),
        ("xyz", "no command 'xyz'; edgecls --help lists"),
        ("train", "Missing argument 'RECIPE'; see edgecls train --help"),
        ("train r.yaml --frehs", "--fresh"),
        ("train none.yaml", "no such recipe (none.yaml)"),
        ("train r.yaml -o train.epohcs=1", "did you mean 'train.epochs'?"),
        ("train r.yaml -o model.name=ResNet5", "unknown model 'ResNet5'"),
        ("bench --threads 0,x", "--threads"),
        ("bench --threads 1,x", "'x' is not a valid integer range"),
        ("bench --threads ,", "--threads"),
        ("bench --max-ms 0 x", "--max-ms"),
        ("predict none.tflite r.yaml", "not a run (none.tflite)"),
        ("predict r.yaml none.jpg", "none.jpg"),
        ("export --precision fp64", "fp64"),
        ("eval --split dev", "dev"),
        ("models ResNet5", "did you mean"),
        ("models --family Nonet", "no family 'Nonet' (--family); there are: "),
        ("models zzz*", "no network is called like 'zzz*'"),
        ("completion tcsh", "tcsh"),
        ("convert x.pdparams", "Missing option '--model'"),
        ("convert x.pdparams --model ResNet5", "unknown model 'ResNet5'; did you mean"),
    ],
)
def test_usage_errors(call, args, what):
    code, out, err = call(*args.split())
    assert code == 2 and not out
    assert what in one_line(err) and "edgecls: error: " in err


@pytest.mark.parametrize("name", ["quantize", "export", "verify", "report", "eval", "bench"])
def test_without_a_run(call, name):
    code, out, err = call(name)
    assert (code, out) == (3, "")
    assert (
        one_line(err) == "edgecls: error: there is no run yet (runs/); start one with: edgecls train RECIPE\n"
    )
    assert not Path("runs").exists()


# Every way a command can end


class AnyonesError(Exception):
    exit_code = 3


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EdgeclsError("it\nbroke", where="here", fix="mend it"), 1, "error: it broke (here); mend it"),
        (AnyonesError("no phone"), 3, "error: no phone"),
        (OSError(errno.ENOSPC, "No space", "x.npz"), 3, "error: no disk space left (x.npz); free some space and run again"),
        (RuntimeError("write: No space left on device"), 3, "error: no disk space left; free some space and run again"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 1, "error: Permission denied (runs)"),
        (MemoryError(), 1, "error: not enough memory; lower the batch size, e.g. -o train.batch_size=16"),
        (ResourceExhaustedError("OOM"), 1, "error: not enough memory; lower the batch size, e.g. -o train.batch_size=16"),
        (ModuleNotFoundError("x", name="elpv_dataset"), 3,
         "error: package 'elpv_dataset' is not installed; edgecls doctor says what is missing"),
        (KeyboardInterrupt(), 130, "interrupted; checkpoint saved; run the same command to continue"),
        (InterruptedRun("stopped"), 130, "error: stopped"),
        (ValueError("odd\nthing"), 1, "internal error: ValueError: odd thing; run again with --debug"),
        (AssertionError(), 1, "internal error: AssertionError; run again with --debug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_exit_codes(call, workflow, error, code, line):
    def fail(*args, **kwargs):
        raise error

    workflow.train = fail
    got, out, err = call("train", "r.yaml")
    assert (got, out) == (code, "")
    assert err.strip().splitlines()[-1] == f"edgecls: {line}"
    assert "Traceback" not in err
    got, _, err = call("train", "r.yaml", "--debug")
    assert got == code and "Traceback" in err and "in fail" in err
    got, out, _ = call("train", "r.yaml", "--json")
    assert got == code
    assert json.loads(out) == {
        "schema": "edgecls.error/1",
        "exit_code": code,
        "error": line.removeprefix("error: "),
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number):
    code = (
        "import os, edgecls, types\nfrom edgecls.cli.main import main\n"
        f"edgecls.workflow = types.SimpleNamespace(train=lambda *a: os.kill(os.getpid(), {int(number)}))\n"
        "main(['train', 'r.yaml'])"
    )
    done = process(code=code)
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1] == (
        "edgecls: interrupted; checkpoint saved; run the same command to continue"
    )


def test_a_reader_that_goes_away():
    done = subprocess.run(
        f"{sys.executable} -m edgecls.cli models --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{" and done.stderr == ""


# What the commands pass on and print


def test_train(call, workflow):
    def train(recipe, run, console):
        console.say("student: 3 s")
        return {
            "schema": "edgecls.train/1",
            "run": str(run.path),
            "test": {"float": {"count": 9, "top1": 0.5}},
        }

    workflow.train = train
    code, out, err = call("train", "r.yaml", "-o", "seed=5")
    assert code == 0 and "student: 3 s\n" in out and re.search(r"float +50\.0 ", out) and "9 images" in out
    assert Run.find().recipe == load_recipe("r.yaml", ["seed=5"]) and str(Run.find().path) in err
    code, out, err = call("train", "r.yaml", "--json", "--run", "there")
    assert code == 0 and json.loads(out)["run"] == str(Path("there").resolve()) and "student: 3 s" in err
    code, _, err = call("train", "r.yaml", "-o", "seed=6", "--run", "there")
    assert code == 2 and "--fresh" in err
    assert call("train", "r.yaml", "-o", "seed=6", "--run", "there", "--fresh")[0] == 0


def test_dry_run_does_nothing(call, workflow):
    workflow.plan = lambda recipe: {
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


@pytest.fixture
def run():
    run = Run.start(load_recipe("r.yaml"))
    yield run
    run.unlock()


@pytest.mark.parametrize(("limit", "code"), [([], 0), (["--max-drop", "1.3"], 0), (["--max-drop", "1"], 4)])
def test_quantize_and_its_gate(call, workflow, run, limit, code):
    seen = []

    def quantize(run, console, overrides):
        seen.append((run.path, overrides))
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
    assert "1.20 points" in out and "1 steps" in out and "0.270" in out, (
        "the result is shown though the gate fails"
    )
    if code:
        assert err.endswith(
            f"edgecls: error: int8 loses 1.20 points of balanced accuracy, --max-drop 1 ({run.path})\n"
        )
    got, out, _ = call("quantize", *limit, "--json")
    assert got == code and json.loads(out)["drop"] == 0.012
    assert call("quantize", "-o", "quantise.epochs=2")[0] == 2 and len(seen) == 2


def test_an_error_after_tensorflow_is_imported_is_one_line():
    command = [sys.executable, "-m", "edgecls.cli", "models", "InceptionV3", "--input-size", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edgecls: error: 64 pixels are too few for InceptionV3, made for 299\n"


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
         "why": "" if ms else "torn", "peak_mb": 5.0, "ci95_ms": [ms, ms] if ms else None,
         **{f"{k}_ms": ms for k in ("median", "p90", "min", "init", "first")}}
        for i, ms in enumerate(medians)
    ]  # fmt: skip
    protocol = {"warmup": 10, "warmup_s": 0.5, "runs": 30, "run_s": 0.5, "rounds": 5}
    return {"schema": "android_bench/1", "device": {"name": "host"}, "protocol": protocol, "results": rows}


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
        "profile": False,
        "delegate": "cpu",
        "binary": None,
        "zoo": (),
        "precisions": [],
        "fresh": False,
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
    workflow.predict = lambda target, images, top: seen.append((images, top)) or {"results": answer}
    assert call("predict", "demo", "photos", "r.yaml", "--top", "1")[1] == "1.png: cat 87.5 %\n"
    assert seen.pop() == ([Path("photos/1.png"), Path("photos/a/2.JPG"), Path("r.yaml")], 1)

    metrics = {
        "count": 3,
        "top1": 2 / 3,
        "top5": 1.0,
        "balanced_accuracy": 0.5,
        "confusion": [[2, 0], [1, 0]],
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


# JSON and progress


def test_json_is_strict_and_alone():
    code = (
        "import os, edgecls, types, numpy\nfrom edgecls.cli.main import main\n"
        "def report(run, console):\n"
        "    print('a library prints'); os.write(1, b'C++ prints\\n'); console.say('said'); console.log('logged')\n"
        "    return {'schema': 's', 'nan': float('nan'), 'n': numpy.float32(0.5), 'a': numpy.arange(2), 'p': os.sep}\n"
        "edgecls.workflow = types.SimpleNamespace(report=report)\n"
        "main(['report', '--json'])"
    )
    Run.start(load_recipe("r.yaml")).unlock()
    done = process(code=code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"schema": "s", "nan": None, "n": 0.5, "a": [0, 1], "p": "/"}
    assert sorted(done.stderr.split("\n")) == ["", "C++ prints", "a library prints", "logged", "said"]


def test_to_json_takes_what_results_hold():
    assert json.loads(to_json({1: (True, None, Path("a"), float("inf"))})) == {"1": [True, None, "a", None]}


def test_progress_without_a_terminal_is_a_line_an_epoch(capsys):
    console = Console()
    with console.progress() as progress:
        task = progress.add_task("student", total=20, text="")
        progress.update(task, completed=10)  # resumed after an epoch
        for _ in range(5):
            progress.advance(task)
        progress.update(task, text="loss 0.5")
        console.say("result")
    out, err = capsys.readouterr()
    assert out == "result\n" and re.fullmatch(r"student  15/20  0:00 left  loss 0\.5\n", err)
    with Console(quiet=True).progress() as progress:
        progress.update(progress.add_task("x"), text="said")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_drawn(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console()
    with console.progress() as progress:
        task = progress.add_task("student", total=2)
        progress.update(task, completed=1, text="loss [0.5]")
        console.log("a [remark]")
    err = capsys.readouterr().err
    assert "student" in err and "1/2" in err and "loss [0.5]" in err and "a [remark]\n" in err
    assert not re.search(r"\x1b\[[\d;]*3\d(;\d+)*m", err), "no colours with NO_COLOR"


# Completion


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("edgecls tr", {"train"}),
        ("edgecls models EfficientNetLite", {f"EfficientNetLite{i}" for i in range(5)}),
        ("edgecls models --family MobileNetV3", {"MobileNetV3"}),
        ("edgecls train recipes/a", {"recipes/a.yaml"}),
        ("edgecls quantize de", {"demo"}),
        ("edgecls bench --device ho", {"host"}),
        ("edgecls bench --device sd85", {"sd855", "sd855p"}),
        ("edgecls export --precision fp3", {"fp32"}),
    ],
)
def test_completion(words, offers):
    Path("recipes").mkdir()
    Path("recipes/a.yaml").touch()
    Run.start(load_recipe("r.yaml")).unlock()
    number = str(len(words.split()) - 1)
    done = process(_EDGECLS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == offers


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_completion_script(call, shell):
    code, out, _ = call("completion", shell)
    assert code == 0 and f"_EDGECLS_COMPLETE={shell}_complete" in out


# Doctor


def test_doctor_reads_the_pins(call, monkeypatch):
    from edgecls import doctor

    lines = [
        "click==0.1",
        "rich>=1",
        "no-such-thing==2 ; extra == 'demo'",
        "nothing-like-it==3",
        "mypy; extra == 'dev'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(doctor, "_stack", list)
    monkeypatch.setattr(doctor, "_phones", list)
    code, out, err = call("doctor", "--json")
    found = {c["name"]: (c["status"], c["fix"]) for c in json.loads(out)["checks"]}
    assert found["click"] == ("warn", "pip install 'click==0.1', the version edgecls was measured with")
    assert found["rich"] == ("ok", "")
    assert found["no-such-thing"] == ("warn", "pip install 'edgecls[demo]'")
    assert found["nothing-like-it"] == ("missing", "pip install 'nothing-like-it==3'") and "mypy" not in found
    assert code == 3 and err.endswith("edgecls: error: missing: nothing-like-it; see the lines above\n")


@pytest.mark.slow
def test_doctor_really():
    done = process("doctor", "--json")
    checks = {c["name"]: c["status"] for c in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0 and checks["tensorflow import"] == checks["litert run"] == "ok"

"""From the command line to real inference on 64-bit ARM: a test adbd with an emulated ARM system behind it.

Times under emulation say nothing about phones; everything else is what happens with one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from adbd import Adbd
from arm64 import ArmPhone, missing_tools, program
from photos import picture
from PIL import Image
from quantization import settled
from test_workflow import edgecls

from android_bench.adb.claim import Claim
from android_bench.adb.direct import DirectTransport
from android_bench.adb.link import FOLDER, Link
from android_bench.adb.transport import TimedOut
from android_bench.devices import attached
from android_bench.devices.binary import cached_binaries
from android_bench.measure.phone import PhoneBackend
from android_bench.models import find_models

pytestmark = pytest.mark.skipif(
    bool(missing_tools()),
    reason=f"not installed: {', '.join(missing_tools())} (Debian: apt install proot qemu-user-static "
    "gcc-aarch64-linux-gnu libc6-dev-arm64-cross)",
)
RECIPE = """
name: tiny
model: {name: MobileNetV3_small_x0_35, input_size: 32, resize_short: 32}
data: {source: folder, path: photos}
"""
IMAGES = 6
SCRIPT = Path(__file__).parents[1] / "android_bench/runner/edgecls_runner.py"


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No adb server, no USB; our runner is where `bench` looks for it."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as free:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        patch.setattr(attached, "from_usb", lambda usb: [])
        patch.setenv("EDGECLS_CONFIG", str(tmp_path_factory.mktemp("config")))
        patch.setenv("EDGECLS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("EDGECLS_BENCHMARK_MODEL", raising=False)
        own = cached_binaries() / "aarch64-linux"
        own.parent.mkdir(parents=True)
        own.symlink_to(program().parent)
        yield


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adbd]:
    daemon = Adbd(ArmPhone(tmp_path_factory.mktemp("board"))).start()
    yield daemon
    daemon.stop()


@pytest.fixture
def new_board(tmp_path: Path) -> Iterator[Adbd]:
    daemon = Adbd(ArmPhone(tmp_path / "board")).start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose untrained networks are exported to an int8 and a float file, and photos beside it."""
    import keras

    from edgecls import quantize
    from edgecls.console import Console
    from edgecls.files import write_json
    from edgecls.recipe import load_recipe
    from edgecls.run import Run
    from edgecls.workflow import export
    from edgecls.workflow.common import recipe_preprocess, save_network
    from edgecls.zoo import build_model

    folder = tmp_path_factory.mktemp("work")
    for number in range(IMAGES):
        picture(folder / f"photos/{number}.png", number, (40, 40))
    (folder / "recipe.yaml").write_text(RECIPE)
    run = Run.start(load_recipe(folder / "recipe.yaml"), root=folder / "runs")
    # Of other images it would compute numbers so large that float32 itself differs between processors.
    alike = [picture(folder / f"alike/{number}.png", number, (32, 32)) for number in range(4 * IMAGES)]
    images = np.stack([np.asarray(Image.open(path)) for path in alike])
    keras.utils.set_random_seed(0)
    model = build_model("MobileNetV3_small_x0_35", classes=5, input_size=32, include_preprocessing=True)
    settled(model, images)
    twin = quantize.quantize_model(model)
    quantize.calibrate(twin, [images.astype(np.float32)])
    quantize.finalize(twin)
    save_network(model, run.file("float.keras"))
    save_network(twin, run.file("qat.keras"))
    run.file("labels.txt").write_text("a\nb\nc\nd\ne\n")
    write_json(run.file("preprocess.json"), recipe_preprocess(run.recipe).to_dict())
    write_json(run.file("split.json"), {})
    export(run, Console(), ["fp32", "int8"])
    return run.path


def test_bench(run: Path, board: Adbd) -> None:
    """The line the kit is named for, with `--device` of the board."""
    options = ["--threads", "1,2,4", "--warmup", "2", "--runs", "5", "--rounds", "1"]
    done = edgecls(run.parent, "bench", str(run), "--device", board.where, *options)
    assert done.returncode == 0, done.stderr
    document = json.loads((run / "bench.json").read_text())
    device = document["device"]
    assert (device["name"], device["cpu"], device["machine"]) == (
        "ARM64 board",
        "Snapdragon 855",
        "aarch64-linux",
    )
    assert device["os"] == "Linux" and [c["mask"] for c in device["clusters"]] == ["0f", "70", "80"]
    results = document["results"]
    assert [(r["model"], r["threads"]) for r in results] == [
        (f"model_{kind}.tflite", threads) for kind in ("fp32", "int8") for threads in (1, 2, 4)
    ]
    for r in results:
        assert r["status"] == "ok", r["why"]
        assert r["runtime"] == "edgecls runner (litert)" and r["delegates"] == ["XNNPACK"]
        assert 0 < r["min_ms"] <= r["median_ms"] <= r["p90_ms"] <= r["p99_ms"] <= r["max_ms"] and r["n"] >= 5
        assert r["ci95_ms"] is None and "one round" in r["why"]  # from one round nobody knows how sure it is
        assert r["init_ms"] > 0 and r["first_ms"] > 0
        assert r["peak_total_mib"] > r["peak_mib"] > 0
        (row,) = r["rounds"]
        assert len(row["samples_ms"]) == row["n"] == r["n"] and np.median(row["samples_ms"]) == pytest.approx(
            r["median_ms"], abs=1e-4
        )
        # This computer has fewer cores than the board tells: its kernel refuses the mask, and that is said.
        if (os.cpu_count() or 1) < 5:
            assert r["mask"] is None and "not pinned: taskset f0 failed" in r["why"]
    assert "Snapdragon 855" in (run / "report.html").read_text()
    assert board.phone.left() == []


def test_outputs_on_the_device_are_those_of_the_host(run: Path, board: Adbd) -> None:
    photos = str(run.parents[2] / "photos")
    done = edgecls(run.parent, "verify", str(run), "--images", photos, "--device", board.where, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert all(gate["ok"] for gate in result.pop("gates"))  # of this command's limits, not of the run
    assert result["images"] == IMAGES and result == json.loads((run / "verify.json").read_text())
    exact, steps = (r for r in result["rungs"] if "device" in r)
    assert exact["device"] == steps["device"] == "ARM64 board (Snapdragon 855)"
    assert exact["name"].startswith("model_fp32.tflite = ") and exact["of_range"] <= 1e-4 and exact["ok"]
    assert steps["name"].startswith("model_int8.tflite = ") and steps["max_steps"] <= 1 and steps["ok"]
    assert exact["top1_agreement"] == steps["top1_agreement"] == 1
    left = [path.name for path in board.phone.path(FOLDER).iterdir()]
    assert "outputs" not in left and not [name for name in left if name.endswith(".inputs")]
    # The ladder itself is not climbed again, and the rungs of the device stay.
    again = edgecls(run.parent, "verify", str(run), "--images", photos, "--json")
    kept = json.loads(again.stdout)
    assert "done before" in again.stderr and kept.pop("gates") and kept == result


def test_a_device_that_computes_something_else(
    run: Path, board: Adbd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The float file on the device where the int8 one should be: the rung fails, with the code of a gate."""
    push = PhoneBackend.push
    (other,) = find_models([run / "export/model_fp32.tflite"])
    monkeypatch.setattr(PhoneBackend, "push", lambda self, model: push(self, other))
    photos = str(run.parents[2] / "photos")
    done = edgecls(run.parent, "verify", str(run), "--images", photos, "--device", board.where)
    assert done.returncode == 4 and "model_int8.tflite = model_int8.tflite on ARM64 board" in done.stderr
    assert "model_fp32.tflite =" not in done.stderr


def test_a_program_that_does_not_end_is_ended(run: Path, board: Adbd) -> None:
    link = Link(DirectTransport(board.address))
    link.push(run / "export/model_int8.tflite", f"{FOLDER}/m.tflite")
    (runner,) = (
        f"{FOLDER}/{p.parent.name}/{p.name}" for p in board.phone.path(FOLDER).glob("*/edgecls_runner")
    )
    program = f"{runner} --graph={FOLDER}/m.tflite --num_runs=100000000"
    with pytest.raises(TimedOut):
        Claim(link).run(program, 2.0)
    assert link.run("true").code == 0 and board.phone.left() == []
    link.close()


def test_bad_model_fails_alone(run: Path, board: Adbd, tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    shutil.copy(run / "export/model_int8.tflite", tmp_path / "good.tflite")
    options = ["--threads", "1", "--warmup", "0", "--runs", "2", "--rounds", "1", "--json"]
    done = edgecls(tmp_path, "bench", str(tmp_path), "--device", board.where, *options)
    assert done.returncode == 1 and "bad.tflite" in done.stderr
    bad, good = json.loads(done.stdout)["results"]
    assert (bad["status"], good["status"]) == ("failed", "ok")
    assert "exit code" in bad["why"] and "\n" not in bad["why"]


@pytest.mark.slow
def test_the_program_in_python(
    run: Path, new_board: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a program of its own a board measures, and computes, with its Python and `pip install ai-edge-litert`."""
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path))
    file, photos = run / "export/model_int8.tflite", str(run.parents[2] / "photos")
    options = ["--threads", "2", "--warmup", "2", "--runs", "5", "--rounds", "1", "--json"]
    done = edgecls(tmp_path, "bench", str(file), "--device", new_board.where, *options)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["results"]
    assert row["status"] == "ok" and row["runtime"] == "edgecls runner (litert)", row["why"]
    assert row["delegates"] == ["XNNPACK"] and row["peak_total_mib"] > row["peak_mib"] > 0
    assert len(row["rounds"][0]["samples_ms"]) == row["n"] >= 5 and row["init_ms"] > 0
    done = edgecls(run.parent, "verify", str(run), "--images", photos, "--device", new_board.where, "--json")
    assert done.returncode == 0, done.stderr
    on_board = [rung for rung in json.loads(done.stdout)["rungs"] if "device" in rung]
    assert len(on_board) == 2 and all(rung["ok"] for rung in on_board)
    (pushed,) = new_board.phone.path(FOLDER).glob("*/edgecls_runner")
    assert pushed.read_bytes() == SCRIPT.read_bytes()

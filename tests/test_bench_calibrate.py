"""``edgecls bench --calibrate``: a phone that nobody measured, until ``edgecls choose`` predicts what it takes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from adbd import Adbd

from android_bench.adb.link import FOLDER
from android_bench.predict import device as devices
from android_bench.predict.operations import parse
from edgecls.workflow import latencies, zoo_files
from edgecls.zoo.operations import operations

pytestmark = pytest.mark.usefixtures("alone")
FASTER = {"fp32": 0.5, "int8": 0.2}  # than a Snapdragon 855 takes in fp32
OPTIONS = ("--threads", "1", "--rounds", "1", "--spacing", "0", "--runs", "1", "--warmup", "0")


def published_ms(name: str) -> float:
    """What a Snapdragon 855 takes by the model that the predictor fits."""
    predictor = latencies.published().predictor("fp32")
    return predictor.predict(parse(operations(name).text), 1, check=False).ms


@pytest.fixture
def converted(tmp_path: Path) -> list[str]:
    """The networks of the list, as if they had been converted: each file says how long it takes on the played phone."""
    names = latencies.calibration_list()
    folder = zoo_files.files_folder()
    folder.mkdir(parents=True)
    for name in names:
        for precision, factor in FASTER.items():
            content = f"\0\0\0\0TFL3 {name} takes {1000 * factor * published_ms(name):.0f} us "
            (folder / f"{name}_{precision}.tflite").write_bytes(content.encode())
    return names


def test_a_phone_is_learnt_and_an_interrupted_calibration_goes_on(
    call: Callable[..., tuple[int, str, str]], converted: list[str], pixel: Adbd
) -> None:
    ran = pixel.phone.root / FOLDER.lstrip("/") / "ran"

    def interrupt() -> None:  # Ctrl-C after eight models were tried and some of them measured
        while not ran.exists() or ran.read_text().count("\n") < 8 + 6:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    command = ("bench", "--calibrate", "--device", pixel.where, *OPTIONS)
    code, _, err = call(*command)
    assert code == 130 and "kept for: edgecls choose" in err, err
    before = devices.read(pixel.where)
    assert before and all(figure.sure for network in before.networks for figure in network.figures.values())
    assert 1 <= len(before.networks) <= 8

    code, out, err = call(*command, "--json")
    assert code == 0 and f"{len(before.networks)} of {2 * len(converted)} rounds measured before" in err, err
    assert [r["status"] for r in json.loads(out)["results"]] == ["ok"] * 2 * len(converted)

    for precision, factor in FASTER.items():
        code, out, err = call("choose", "--device", pixel.where, "--precision", precision, "--json")
        found = json.loads(out)
        assert code == 0 and found["device"]["runtime"] == "TFLite", err
        assert found["predicted_from"]["networks"] == len(converted)
        assert found["predicted_from"]["precision"] == precision
        by_name = {c["name"]: c for c in found["candidates"]}
        assert {name for name, c in by_name.items() if c["measured"]} >= set(converted)
        for name in ("MobileNetV2", "PPLCNet_x1_0", "MobileNetV3_large_x1_0"):
            assert not by_name[name]["measured"]
            assert by_name[name]["ms"] == pytest.approx(factor * published_ms(name), rel=0.02)

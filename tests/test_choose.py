"""``edgecls choose``: the table, the budget, the page, a device that was measured, own runs."""

import json
import re
from pathlib import Path

import pytest
from run_folders import RECIPE, scores, timing, write

from android_bench.predict import device as devices
from edgecls.files import sha256
from edgecls.run import Run
from edgecls.workflow import latencies
from edgecls.zoo import catalog


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGECLS_CONFIG", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)


def chosen(call, *args: str) -> dict:
    code, out, err = call("choose", *args, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["schema"] == "edgecls.choose/1"
    return found


def bench_json(
    path: Path, names, threads=(1,), factor: float = 0.5, precision: str = "fp32", cpu: str = "Test chip"
) -> Path:
    """A bench.json of a phone that takes ``factor`` times what the published one takes."""
    rows = []
    for name in names:
        for count in threads:
            ms = factor * catalog.get(name).sd855_ms[count]
            row = timing(
                precision, count, ms, model=f"{name}_{precision}.tflite", network=name, sha256="0", mean_ms=ms
            )
            rows.append(row | {"max_ms": ms * 1.2, "first_ms": ms, "std_ms": 0.1, "rounds": []})
    document = {
        "schema": "android_bench/2",
        "device": {"kind": "phone", "name": "Test", "cpu": cpu, "cores": 8},
    }
    path.write_text(
        json.dumps(document | {"protocol": {}, "started": "2026", "complete": True, "results": rows})
    )
    return path


def test_what_fits_comes_with_the_best_accuracy_first(call) -> None:
    found = chosen(call, "--device", "sd855", "--threads", "4", "--max-ms", "6", "--max-mb", "20")
    fitting = [c for c in found["candidates"] if c["fits"] != "no"]
    assert fitting
    for candidate in fitting:
        assert candidate["ms"] <= 6 and candidate["mb"] <= 20
    for candidate in found["candidates"]:
        assert (candidate["excess"] > 1) == (candidate["fits"] == "no")
    rated = [c["top1"] for c in found["candidates"] if c["top1"] is not None]
    assert rated == sorted(rated, reverse=True)
    by_name = {c["name"]: c for c in found["candidates"]}
    measured = by_name["MobileNetV3_small_x1_0"]
    assert (measured["ms"], measured["measured"]) == (catalog.get("MobileNetV3_small_x1_0").sd855_ms[4], True)
    assert measured["weights"] == ["imagenet"]
    predicted = by_name["EfficientNetLite0"]
    assert not predicted["measured"] and predicted["interval"][0] < predicted["ms"] < predicted["interval"][1]
    assert {"VGG16", "DeiT_tiny_patch16_224"} <= {r["name"] for r in found["refused"]}
    assert len(found["candidates"]) + len(found["refused"]) == len(catalog.names())


def test_the_front_has_no_network_that_another_beats(call) -> None:
    candidates = [c for c in chosen(call)["candidates"] if c["top1"] is not None]
    for c in candidates:
        beaten = any(
            o["top1"] >= c["top1"] and o["ms"] <= c["ms"] and (o["top1"], o["ms"]) != (c["top1"], c["ms"])
            for o in candidates
        )
        twins = [o for o in candidates if (o["top1"], o["ms"]) == (c["top1"], c["ms"])]
        assert beaten != any(t["front"] for t in twins), c["name"]


def test_a_prediction_that_may_be_too_long_fits_perhaps(call) -> None:
    lite = next(c for c in chosen(call, "EfficientNetLite0")["candidates"])
    low, high = lite["interval"]
    for limit, answer in ((high * 1.01, "yes"), ((lite["ms"] + high) / 2, "perhaps")):
        found = chosen(call, "EfficientNetLite0", "--max-ms", str(limit))
        assert found["candidates"][0]["fits"] == answer
    assert low > 0


def test_smaller_images_and_fewer_classes_cost_less(call) -> None:
    whole, small, few = (
        chosen(call, "MobileNetV2", *args)["candidates"][0]
        for args in ((), ("--input-size", "160"), ("--classes", "12"))
    )
    assert small["macs"] == pytest.approx(whole["macs"] * (160 / 224) ** 2, rel=0.02)
    assert 0.45 < small["ms"] / whole["ms"] < 0.65 and not small["measured"]
    assert few["params"] == whole["params"] - 988 * 1281
    assert 0.9 < few["ms"] / whole["ms"] < 1 and few["measured"]


def test_a_measured_network_is_not_scaled_out_of_sight(call) -> None:
    for args in (("--input-size", "4000"), ("--classes", "10000000")):
        code, out, _ = call("choose", "MobileNetV2", *args, "--json")
        (refused,) = json.loads(out)["refused"]
        assert code == 4 and (
            "is far from the measured" in refused["reason"] or "in proportion" in refused["reason"]
        )


def test_int8_is_smaller_and_says_that_nobody_measured_it(call) -> None:
    fp32, int8 = (chosen(call, "MobileNetV2", "--precision", p)["candidates"][0] for p in ("fp32", "int8"))
    assert 3 < fp32["mb"] / int8["mb"] < 4
    assert int8["ms"] < fp32["ms"] < int8["interval"][1]
    assert "int8 was not measured" in call("choose", "MobileNetV2", "--precision", "int8")[1]


def test_nothing_fits(call) -> None:
    code, out, err = call("choose", "--max-ms", "0.5", "--max-mb", "20")
    assert code == 4
    assert "nothing fits; nearest is ShuffleNetV2_x0_25 with 1.94 ms (--max-ms 0.5)" in err
    code, out, _ = call("choose", "MobileNetV2", "--max-ms", "1", "--json")
    assert code == 4 and json.loads(out)["candidates"][0]["fits"] == "no"


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--device", "nowhere"], 3, "edgecls bench --calibrate --device nowhere"),
        (["--threads", "3"], 2, "measured with 1, 2, 4 threads, not with 3"),
        (["NoSuchNet*"], 2, "no network is called like"),
        (["--save", "page.pdf"], 2, "end the name with .html"),
        (["--save", "no/folder/choose.html"], 2, "no such folder"),
        (["--device", "none.json"], 2, "cannot read"),
        (["--max-ms", "0"], 2, "--max-ms"),
        (["--max-ms", "nan"], 2, "nan is not a finite number"),
        (["--max-mb", "inf"], 2, "inf is not a finite number"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(call, args, code, text) -> None:
    found, _, err = call("choose", *args)
    assert (found, text in err) == (code, True), err
    assert err.count("\n") == 1


NAMES = [
    "MobileNetV2",
    "MobileNetV1",
    "PPLCNet_x1_0",
    "GhostNet_x1_0",
    "ShuffleNetV2",
    "MobileNetV3_small_x1_0",
]


def test_a_bench_json_is_a_device(call, tmp_path: Path) -> None:
    path = bench_json(tmp_path / "bench.json", NAMES, threads=(1, 2))
    found = chosen(call, "--device", str(path), "--threads", "2")
    by_name = {c["name"]: c for c in found["candidates"]}
    assert found["device"]["about"] == "Test Test chip"
    assert by_name["MobileNetV2"]["ms"] == 0.5 * catalog.get("MobileNetV2").sd855_ms[2]
    assert by_name["MobileNetV2"]["interval"] == pytest.approx(
        [by_name["MobileNetV2"]["ms"] * f for f in (0.98, 1.03)]
    )
    half = 0.5 * catalog.get("MobileNetV3_large_x0_75").sd855_ms[2]
    other = by_name["MobileNetV3_large_x0_75"]
    assert not other["measured"] and other["interval"][0] < half < other["interval"][1]
    assert other["ms"] == pytest.approx(half, rel=0.15)


def test_a_measured_device_goes_before_the_published_one(call, tmp_path: Path) -> None:
    document = json.loads(bench_json(tmp_path / "bench.json", NAMES, precision="int8").read_text())
    latencies.learn(document, "sd855")
    found = chosen(call, "MobileNetV2*", "--device", "sd855", "--precision", "int8")
    assert found["device"]["runtime"] == "TFLite" and found["predicted_from"]["precision"] == "int8"
    assert {c["measured"] for c in found["candidates"]} == {True, False}


def test_with_few_networks_only_the_measured_ones_are_known(call, tmp_path: Path) -> None:
    path = bench_json(tmp_path / "bench.json", NAMES[:2])
    found = chosen(call, "--device", str(path))
    assert {c["name"] for c in found["candidates"]} >= {"MobileNetV2", "MobileNetV1"}
    assert all(c["measured"] for c in found["candidates"])
    reason = "a prediction needs 4 measured networks, there are 2"
    assert reason in found["refused"][0]["reason"]
    assert f"networks left out, mostly: {reason}" in " ".join(
        call("choose", "--device", str(path))[1].split()
    )
    code, out, err = call("choose", "--device", str(path), "--input-size", "160")
    assert code == 4 and f"nothing is known of any of these networks on this device: {reason}" in err
    assert "*:" not in out, "there is no table to explain"


def test_a_bench_json_says_what_it_lacks(call, tmp_path: Path) -> None:
    path = bench_json(tmp_path / "bench.json", NAMES, threads=(2,))
    code, _, err = call("choose", "--device", str(path))
    assert code == 2 and "measured with 2 threads, not with 1 (--threads); measure it: " in err
    assert "--calibrate --device NAME --threads 1" in err
    for lacks in ({"network": None}, {"delegate": "gpu"}):
        document = json.loads(path.read_text())
        document["results"] = [row | lacks for row in document["results"]]
        (tmp_path / "other.json").write_text(json.dumps(document))
        code, _, err = call("choose", "--device", str(tmp_path / "other.json"))
        assert code == 2 and "no network of the zoo was measured on the CPU in it" in err
    document["results"] += json.loads(path.read_text())["results"][:1]
    assert latencies.learn(document, "mixed") and len(devices.read("mixed").networks) == 1


def test_the_page_is_one_file_without_script_or_network(call, tmp_path: Path) -> None:
    page = tmp_path / "choose.html"
    assert call("choose", "--max-ms", "20", "--save", str(page))[0] == 0
    text = page.read_text()
    assert not re.search(r"<script|src=|@import|url\(|https?://(?!www\.w3\.org)", text)
    assert text.count("<svg") == 3 and "default-src 'none'" in text
    assert text.count('class="limit"') == 1, "the latency has a limit"
    assert "At most 20 ms." in text
    for plot in text.split("<svg")[1:]:
        assert plot.rindex('class="dot') < plot.index('class="tip"'), "no dot lies on a name"
    for name in ("MobileNetV3_small_x1_0", "GhostNet_x1_0"):
        assert text.count(f">{name}</text>") == 3, "a point in each plot"
    for x, y in re.findall(r'class="near" cx="([\d.]+)" cy="([\d.]+)"', text):
        assert 52 <= float(x) <= 740 and 16 <= float(y) <= 392, "inside the frame"
    assert "prefers-color-scheme: dark" in text


def test_an_own_run_is_among_the_networks(call, tmp_path: Path, tiny) -> None:
    folder = tmp_path / "runs" / "demo" / "20260102-030405"
    (folder / "export").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    run = Run(folder)
    file = run.file("export", "model_fp32.tflite")
    file.write_bytes(tiny["fp32"].read_bytes())
    run.file("float.keras").write_bytes(b"the float model")
    digest = sha256(run.file("float.keras"))
    write(run, "eval.json", {"models": {"float": scores(0.8) | {"sha256": digest}}, "count": 100})
    device = bench_json(tmp_path / "b.json", NAMES)
    unlike = chosen(call, "--run", str(folder), "--device", str(device))
    assert unlike["refused"][-1]["name"] == str(folder), "it takes microseconds, and was not measured"
    document = json.loads(device.read_text())
    document["results"] = [timing("fp32", 1, 4.5, sha256=sha256(file))]
    write(run, "bench.json", document)
    own = chosen(call, "--run", str(folder), "--device", str(device))["candidates"][0]
    assert (own["own"], own["name"], own["ms"], own["measured"]) == (True, "demo 20260102-030405", 4.5, True)
    assert (own["top1"], own["mb"]) == (0.9, pytest.approx(file.stat().st_size / 1e6))
    code, _, err = call("choose", "--run", str(folder), "--precision", "int8")
    assert code == 3 and "edgecls export" in err


def test_a_device_file_survives_what_it_is_written_for(tmp_path: Path) -> None:
    document = json.loads(bench_json(tmp_path / "bench.json", NAMES).read_text())
    latencies.learn(document, "phone")
    found = devices.read("phone")
    assert devices.from_json("phone", devices.to_json(found)) == found


@pytest.mark.parametrize("args", [["model.tflite", "--calibrate"], ["--calibrate", "--compare"]])
def test_calibration_takes_nothing_else(call, args) -> None:
    code, _, err = call("bench", *args)
    assert code == 2 and "--calibrate" in err

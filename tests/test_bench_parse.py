"""Outputs of both benchmark_model programs: every figure read, and none from a torn or failed run."""

import dataclasses
from pathlib import Path

import pytest
from adbd import Adbd

from android_bench import bench
from android_bench.adb.link import FOLDER
from android_bench.output.operators import profile_json
from android_bench.output.parse import Output, ParseError, parse

DATA = Path(__file__).parent / "data" / "bench"


def sample(number: str) -> str:
    return next(DATA.glob(f"{number}_*.txt")).read_text()


# file: kind, runs, mean, median, init, first, growth at init and over all, peak, operators
EXPECTED = {
    "01": ("tflite", 189, 5.27426, 5.273, 14.873, 6.212, 10.3242, 15.6914, None, 0),
    "02": ("tflite", 95, 10.6437, 10.634, 15.21, 12.044, 10.2305, 15.3711, 29.4141, 0),
    "03": ("tflite", 50, 33.2051, None, 0.855, 49.06, 8.97656, 18.7227, None, 0),
    "04": ("tflite", 189, 2.74737, 2.748, 9.012, 3.3, 4.10156, 6.75, None, 6),
    "05": ("litert", 189, 5.28128, 5.285, 22.031, 6.212, 12.41, 17.02, None, 0),
    "07": ("tflite", 50, 37.5356, None, 4.183, 39.195, None, None, None, 0),
    "08": ("tflite", 189, 2.74737, None, 9.012, 3.3, 4.10156, 6.75, None, 6),
}


@pytest.mark.parametrize("number", EXPECTED)
def test_sample(number: str) -> None:
    o = parse(sample(number))
    found = (o.kind, o.runs.count, o.runs.mean_ms, o.runs.median_ms, o.init_ms, o.first_ms, o.init_delta_mib)
    assert (*found, o.overall_delta_mib, o.peak_mib, len(o.layers)) == EXPECTED[number]
    assert o.runs.min_ms <= o.runs.mean_ms <= o.runs.max_ms
    assert o.notes == ()


@pytest.mark.parametrize("number", ["04", "08"])
def test_profile_is_read_by_header_names(number: str) -> None:
    output = parse(sample(number))
    assert [layer.type for layer in output.layers][1:3] == ["DEPTHWISE_CONV_2D", "CONV_2D"]
    assert output.layers[4].name == "[MobilenetV3/Logits/Conv2d_1c_1x1]:4"
    assert output.layers[4].avg_ms == 0.228
    assert sum(layer.percent for layer in output.layers) == pytest.approx(100, abs=0.01)
    assert next(iter(profile_json(output.layers)["by_type_ms"])) == "Convolution (NHWC, F32) IGEMM"


REASONS = [
    "name of your TF Lite input file",
    "Failed to load model",
    "cannot be executed",
    "is not there",
    "does not know --use_xnpack=true",
    "Failed to apply GPU delegate",
]


@pytest.mark.parametrize("index", range(6))
def test_failures_say_why(index: int) -> None:
    text, code = sample("06").split("====\n")[index].rsplit("#exit=", 1)
    with pytest.raises(ParseError, match=REASONS[index]) as error:
        parse(text, int(code))
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", EXPECTED)
def test_cut_anywhere_never_gives_a_wrong_figure(number: str) -> None:
    text = sample(number)
    whole = dataclasses.asdict(parse(text))
    accepted = 0
    for end in range(len(text)):
        try:
            output: Output = parse(text[:end])
        except ParseError:
            continue
        accepted += 1
        for name, value in dataclasses.asdict(output).items():
            if name != "notes":
                assert value == whole[name] or value in (None, ()), (name, text[max(0, end - 60) : end])
    assert accepted < len(text) - text.index("BENCHMARK RESULTS" if number == "05" else "timings in us")


def test_broken_connection_is_not_a_result() -> None:
    with pytest.raises(ParseError, match="connection broke"):
        parse(sample("01"), None)


@pytest.mark.parametrize(
    ("line", "changed", "reason"),
    [
        ("Inference (avg): 5274.26", "Inference (avg): 5374.26", "contradicts"),
        ("min=5071 max=5522", "min=5522 max=5071", "contradict"),
        ("avg=5274.26 std=77", "avg=5274.26", "torn"),
        ("count=189 first=5316 curr=5258", "count=0 first=0 curr=0", "no run was measured"),
    ],
)
def test_contradictions(line: str, changed: str, reason: str) -> None:
    assert line in sample("01")
    with pytest.raises(ParseError, match=reason):
        parse(sample("01").replace(line, changed))


def test_all_runs_alike_and_exponents() -> None:
    lines = "count=1 curr=2.5e+06\ncount=3 curr=2.5e+06(all same) p5=2.5e+06 median=2.5e+06 p95=2.5e+06\n"
    summary = "Inference timings in us: Init: 10, First inference: 2.5e+06, "
    output = parse(lines + summary + "Warmup (avg): 2.5e+06, Inference (avg): 2.5e+06\n")
    assert (output.runs.count, output.runs.median_ms, output.runs.std_ms) == (3, 2500.0, 0.0)


@pytest.mark.parametrize("text", ["", "\n", "hello\n", "count=\n", "count=3 first=x\n" * 2, "\0\xff\n"])
def test_nonsense(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


def test_an_output_without_end_is_refused() -> None:
    noise = "INFO: a line that says nothing\n" * 600_000
    with pytest.raises(ParseError, match="printed more than 16 MiB"):
        parse(noise + sample("01"))
    assert parse(noise[: 2**20] + "\n" + sample("01")) == parse(sample("01"))


@pytest.mark.usefixtures("alone")
def test_a_phone_that_prints_without_end_costs_no_memory(pixel: Adbd) -> None:
    folder = pixel.phone.path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour").write_text(
        "case $* in *num_runs=5*) yes 'INFO: nothing' | head -c 60000000;; esac\n"
    )
    plan = {"warmup": 1, "runs": 5, "rounds": 1, "spacing_s": 0.0, "repeats": 0}
    (row,) = bench(["a.tflite"], pixel.where, [1], **plan)["results"]
    assert row["status"] == "failed" and "printed more than 16 MiB" in row["why"]

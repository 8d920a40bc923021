"""Predicted latencies: the operations of networks, the fit, what it refuses, and how well it holds."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from android_bench.errors import BenchError, BenchUsageError
from android_bench.predict import device as devices
from android_bench.predict.latency import TERMS, Measured, OutsideError, Predictor, fit, terms
from android_bench.predict.least_squares import nonnegative
from android_bench.predict.operations import KINDS, Operation, parse, rescale, to_text
from android_bench.predict.short_list import most_telling
from android_bench.predict.tflite import read_operations
from edgecls.workflow import latencies
from edgecls.zoo import catalog
from edgecls.zoo.operations import operations

FUSED = ("RepVGG", "ACNet", "PPLCNetV2")
"""Families whose branches become one convolution: they execute less than the catalog counts."""
CONVOLUTIONAL = [
    name
    for name in catalog.names()
    if catalog.get(name).family not in (*FUSED, "ViT") and not catalog.get(name).auxiliary
]


def script():
    """scripts/verify_predictor.py as a module."""
    path = Path(__file__).parents[1] / "scripts" / "verify_predictor.py"
    spec = importlib.util.spec_from_file_location("verify_predictor", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sd855() -> Predictor:
    return latencies.published().predictor("fp32")


def test_nonnegative_least_squares_are_scipys() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows, columns = int(rng.integers(3, 40)), int(rng.integers(1, 10))
        matrix = rng.normal(0.3, 1.0, (rows, columns))
        if columns > 2 and rng.random() < 0.3:
            matrix[:, 1] = matrix[:, 0] * (1 + 1e-3 * rng.normal(size=rows))  # nearly the same column
        target = rng.normal(0.5, 1.0, rows)
        ours, (theirs, distance) = nonnegative(matrix, target), nnls(matrix, target)
        assert (ours >= 0).all()
        assert np.linalg.norm(matrix @ ours - target) == pytest.approx(distance, abs=1e-6)
        if rows >= columns and np.linalg.cond(matrix) < 1e3:
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_operations_are_read_as_they_were_written() -> None:
    for name in catalog.names():
        found = parse(operations(name).text, classes=7)
        again = parse(to_text(found))
        assert sorted(map(str, found)) == sorted(map(str, again)), name
        assert {o.kind for o in found} <= set(KINDS)
    for wrong in ("conv3 8x8x3>8x8x3", "juggle 8x8x3>8x8x3", "conv3x3 8x8x3"):
        with pytest.raises(ValueError, match="not an operation"):
            parse(wrong)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_table_has_the_macs_of_the_catalog(name: str) -> None:
    """Counted in two ways: from shapes of feature maps here, from kernels in ``edgecls.zoo.cost``."""
    kept, entry = operations(name), catalog.get(name)
    executed = rescale(parse(kept.text), kept.input_size, entry.input_size)
    # The catalog counts a row and a column that PaddlePaddle computes and drops.
    assert sum(o.macs for o in executed) == pytest.approx(entry.macs, rel=0.004)
    assert sum(o.weights for o in executed) == pytest.approx(entry.params, rel=0.02)


def test_fused_networks_execute_less_than_they_train() -> None:
    for name in catalog.names():
        if catalog.get(name).family in FUSED and not name.endswith("_deploy"):
            assert sum(o.macs for o in parse(operations(name).text)) < catalog.get(name).macs, name


def test_a_classifier_has_the_classes_that_are_asked_for() -> None:
    thousand, twelve = (parse(operations("MobileNetV2").text, classes) for classes in (1000, 12))
    assert sum(o.weights for o in thousand) - sum(o.weights for o in twelve) == 988 * (1280 + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV1_x0_25", "ShuffleNetV2_x0_25", "GhostNet_x0_5", "RepVGG_A0"])
def test_the_table_is_what_the_built_network_says(name: str) -> None:
    from edgecls.reparam import fuse
    from edgecls.zoo.executed import catalog_operations

    assert catalog_operations(name, fuse) == operations(name).text, "run scripts/make_operations.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3_small_x0_35", "ShuffleNetV2_x0_25"])
def test_a_file_has_the_operations_of_the_table(name: str, tmp_path: Path) -> None:
    """The table, its scaling to another size, and the reader of files: three ways to the same sums."""
    from edgecls.export.fresh import write_fresh

    assert write_fresh(name, tmp_path, ["fp32"], input_size=64) == {}
    executed = read_operations(tmp_path / f"{name}_fp32.tflite")
    kept = operations(name)
    np.testing.assert_allclose(
        terms(executed), terms(rescale(parse(kept.text), kept.input_size, 64)), rtol=1e-9
    )


def test_what_is_no_tflite_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_bytes(b"once upon a time")
    (tmp_path / "torn.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3\x00\x00")
    for name in ("missing.tflite", "text.tflite", "torn.tflite"):
        with pytest.raises(BenchUsageError):
            read_operations(tmp_path / name)


def test_transformers_have_no_other_size() -> None:
    with pytest.raises(ValueError, match="not a convolutional network"):
        rescale([Operation("matmul", ((3, 8, 4), (3, 4, 8)), (3, 8, 8))], 224, 160)


def truth(operations, coefficients: np.ndarray, threads: int) -> float:
    """A device that obeys the model exactly: twice as many threads make the variable part 0.6 times as long."""
    row = terms(operations) * coefficients
    return float(row[:6].sum() * 0.6 ** math.log2(threads) + row[6:].sum())


COEFFICIENTS = np.array([0.05, 0.04, 0.07, 0.3, 0.5, 0.1, 0.01, 0.005])


def made(noise: float = 0.0, seed: int = 0) -> list[Measured]:
    rng = np.random.default_rng(seed)
    found = []
    for network in latencies.published().measured("fp32"):
        ms = {
            t: truth(network.operations, COEFFICIENTS, t) * math.exp(noise * rng.normal()) for t in (1, 2, 4)
        }
        found.append(dataclasses.replace(network, ms=ms))
    return found


def test_a_device_that_obeys_the_model_is_found() -> None:
    predictor = Predictor(made())
    new = parse(operations("EfficientNetLite0").text)
    for threads in (1, 2, 4):
        predicted = predictor.predict(new, threads)
        assert predicted.ms == pytest.approx(truth(new, COEFFICIENTS, threads), rel=0.02)
        assert np.abs(predictor.left_out(threads, lambda m: m.name)).max() < 0.02
    assert predictor.coefficients.shape == (len(TERMS),)
    with pytest.raises(BenchError, match="not measured with 3 threads, only with 1, 2, 4"):
        predictor.predict(new, 3)


def test_intervals_grow_with_the_noise_and_hold() -> None:
    quiet, loud = (Predictor(made(noise)).spread(1) for noise in (0.01, 0.05))
    assert 3 * quiet < loud
    rng, hits = np.random.default_rng(1), []
    for seed in range(4):
        measured = made(0.03, seed)
        held = set(rng.choice(len(measured), 10, replace=False))
        predictor = Predictor([m for i, m in enumerate(measured) if i not in held])
        for i in held:
            predicted = predictor.predict(measured[i].operations, 1, check=False)
            hits.append(predicted.interval[0] <= measured[i].ms[1] <= predicted.interval[1])
    assert np.mean(hits) >= 0.9  # of 40, with intervals for 95 %


def test_few_networks_lean_on_the_prior(sd855: Predictor) -> None:
    """A device three times as slow in all: four networks and the prior tell of it what they cannot tell alone."""
    measured = [
        dataclasses.replace(m, ms={1: 3 * float(terms(m.operations) @ sd855.coefficients)})
        for m in sd855.measured
    ]
    few, others = measured[::11], [m for i, m in enumerate(measured) if i % 11]
    assert len(few) == 4

    def error(prior) -> float:
        predictor = Predictor(few, prior)
        return np.mean(
            [abs(predictor.predict(m.operations, 1, check=False).ms / m.ms[1] - 1) for m in others]
        )

    assert error(sd855.coefficients) < 0.02 < error(None)


def test_too_few_networks_are_no_device() -> None:
    with pytest.raises(BenchError, match="needs 4 measured networks, there are 3"):
        Predictor(made()[:3])


def test_a_coefficient_is_never_negative(sd855: Predictor) -> None:
    assert (sd855.coefficients >= 0).all()
    assert (fit(np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]), np.array([3.0, 2.0, 1.0])) >= 0).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ResNet50", "MACs of convolutions larger than 1x1"),
        ("VGG16", "ms is far from the measured"),
        ("DeiT_tiny_patch16_224", "operations of the kind"),
    ],
)
def test_what_is_unlike_all_measured_networks_is_refused(sd855: Predictor, name: str, reason: str) -> None:
    executed = parse(operations(name).text)
    with pytest.raises(OutsideError, match=reason):
        sd855.predict(executed, 1)
    with pytest.raises(OutsideError, match=reason):
        sd855.predict_int8(executed, 1)


def test_the_published_phone_is_predicted_as_well_as_promised() -> None:
    verify = script()
    measured = latencies.published().measured("fp32")
    assert len(measured) == 41
    predictor = Predictor(measured)
    for group, most in (("network", 0.03), ("family", 0.06)):
        assert np.abs(verify.errors(predictor, 1, group)).mean() <= most


def test_tflites_own_points_are_within_the_interval() -> None:
    verify = script()
    found = list(verify.tflite_rows())
    assert len(found) == 12
    assert all(verify.within(prediction, ms) for _, _, ms, prediction in found)


def test_int8_lies_between_a_quarter_and_all_of_fp32(sd855: Predictor) -> None:
    executed = parse(operations("MobileNetV2").text)
    fp32, int8 = sd855.predict(executed, 1), sd855.predict_int8(executed, 1)
    assert fp32.ms / 4 < int8.ms < fp32.ms
    assert int8.interval[0] < fp32.ms / 2 and int8.interval[1] > fp32.ms * 0.9
    assert int8.reach > fp32.reach


def test_the_short_list_tells_more_than_chance() -> None:
    chosen = latencies.calibration_list()
    assert len(chosen) == len(set(chosen)) == latencies.CALIBRATION
    assert chosen == latencies.calibration_list()
    measured = {m.name: m for m in made(0.02)}
    prior = latencies.published().predictor("fp32").coefficients

    def error(names) -> float:
        known = [
            Measured(n, catalog.get(n).family, tuple(parse(operations(n).text)), {1: truth(parse(operations(n).text), COEFFICIENTS, 1)})
            for n in names
        ]  # fmt: skip
        predictor = Predictor(known, prior)
        return np.mean(
            [abs(predictor.predict(m.operations, 1, check=False).ms / m.ms[1] - 1) for m in measured.values()]
        )

    rng = np.random.default_rng(0)
    by_chance = [error(rng.choice(sorted(measured), len(chosen), replace=False)) for _ in range(15)]
    assert error(chosen) < np.median(by_chance)


def test_of_two_alike_the_short_list_takes_one() -> None:
    nets = {
        "a": parse("add 8x8x8+8x8x8>8x8x8"),
        "a again": parse("add 8x8x8+8x8x8>8x8x8"),
        "b": parse("pointwise 8x8x8>8x8x8"),
        "slow": parse("100*pointwise 80x80x800>80x80x800"),
    }
    assert sorted(most_telling(nets, np.ones(8), 2, 100.0)) == ["a", "b"]


@pytest.fixture(scope="module")
def calibrated() -> tuple[list[Measured], list[Measured]]:
    """The networks of --calibrate, and others, without latencies."""
    names = latencies.calibration_list()
    others = [m for m in latencies.published().measured("fp32") if m.name not in names]
    known = [latencies.network_of(catalog.get(name), "fp32") for name in names]
    return [Measured(n.name, n.series, tuple(parse(n.operations)), {}) for n in known], others


def test_a_device_that_is_not_like_the_prior_is_told_by_its_own_networks(sd855, calibrated) -> None:
    known, others = calibrated
    rng = np.random.default_rng(0)
    own = np.maximum(sd855.coefficients, 0.003) * np.exp(rng.normal(0, 0.7, len(sd855.coefficients)))
    device = Predictor(
        [dataclasses.replace(m, ms={1: float(terms(m.operations) @ own)}) for m in known], sd855.coefficients
    )
    ratios = [device.predict(m.operations, 1, check=False).ms / (terms(m.operations) @ own) for m in others]
    assert np.abs(np.log(ratios)).mean() < 0.02


def test_noisy_figures_lean_on_the_prior(sd855, calibrated) -> None:
    """One factor slower than the prior, each figure wrong by a quarter: ten such figures cannot tell eight coefficients."""
    known, others = calibrated
    rng, wrong = np.random.default_rng(0), {"alone": [], "leaning": []}
    for _ in range(5):
        measured = [
            dataclasses.replace(
                m, ms={1: 3 * float(terms(m.operations) @ sd855.coefficients) * np.exp(rng.normal(0, 0.25))}
            )
            for m in known
        ]
        for how, prior in (("alone", None), ("leaning", sd855.coefficients)):
            device = Predictor(measured, prior)
            for m in others:
                ratio = device.predict(m.operations, 1, check=False).ms / (
                    3 * terms(m.operations) @ sd855.coefficients
                )
                wrong[how].append(np.log(ratio))
    rms = {how: np.sqrt(np.mean(np.square(found))) for how, found in wrong.items()}
    assert rms["leaning"] < 0.8 * rms["alone"], rms


def bench(cpu: str = "Kryo", **results: float) -> dict:
    rows = [
        {"model": f"{name}.tflite", "network": name.rpartition("_")[0], "threads": 1, "status": "ok", "median_ms": ms, "ci95_ms": [ms * 0.99, ms * 1.01], "peak_mib": 20.0}
        for name, ms in results.items()
    ]  # fmt: skip
    return {"device": {"name": "phone", "cpu": cpu, "cores": 8}, "results": rows}


def test_a_device_remembers_what_was_measured_on_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGECLS_CONFIG", str(tmp_path))
    assert devices.read("my phone") is None
    path = latencies.learn(bench(MobileNetV2_fp32=20.0, MobileNetV2_int8=9.0), "my phone")
    latencies.learn(bench(MobileNetV2_fp32=21.0, MobileNetV1_fp32=30.0), "my phone")
    found = devices.read("my phone")
    assert [m.name for m in found.measured("fp32")] == ["MobileNetV2", "MobileNetV1"]
    figure = found.figure("MobileNetV2", "fp32", 224, 1)
    assert (figure.ms, figure.interval, figure.peak_mib) == (21.0, (20.79, 21.21), 20.0)
    assert found.figure("MobileNetV2", "int8", 224, 1).ms == 9.0
    assert found.figure("MobileNetV2", "int8", 160, 1) is None
    latencies.learn(bench("Another", PPLCNet_x1_0_fp32=5.0), "my phone")
    assert [n.name for n in devices.read("my phone").networks] == ["PPLCNet_x1_0"], (
        "another phone of this name"
    )
    failed = bench(MobileNetV2_fp32=1.0)
    failed["results"][0]["status"] = "failed"
    assert latencies.learn(failed, "my phone") is None
    assert devices.known_devices() == ["my_phone"]
    path.write_text(json.dumps({"schema": "something else"}))
    with pytest.raises(BenchUsageError, match="cannot be read"):
        devices.read("my phone")

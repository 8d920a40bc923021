"""What holds for all tests, and what several test files need."""

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from adbd import Adbd
from checkout import CleanCheckout
from commands import RECIPE
from phone import BENCHMARK, furnish
from tiny_run import quantized  # noqa: F401  a fixture

import edgecls
from android_bench.devices import attached as seen
from edgecls.cli.main import main
from edgecls.recipe import load_recipe
from edgecls.run import Run


def pytest_configure(config: pytest.Config) -> None:
    """Let child processes be interrupted: a runner in the background starts us with Ctrl-C ignored, they inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # of several processes, the one that started the others
        config.pluginmanager.register(CleanCheckout(config.rootpath))


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache and settings stay out of the tests, and what the tests remember out of the user's.

    Otherwise a second run of the tests would find the figures that the first one measured.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("EDGECLS_CACHE", "EDGECLS_CONFIG"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs an edgecls command in this process; gives its exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leave:
            main(arguments)
        out, err = capsys.readouterr()
        return int(leave.value.code or 0), out, err

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny network in fp32 and int8, one whose outputs are NaN, and a torn file."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("models")
    image = keras.Input((32, 32, 3), batch_size=1)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, activation="relu")(x))
    net = keras.Model(image, keras.layers.Dense(4)(x))

    def convert(model: Any, name: str, int8: bool = False) -> Path:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if int8:
            photos = np.random.default_rng(0).random((4, 1, 32, 32, 3), np.float32)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([photo] for photo in photos)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        path = folder / f"{name}.tflite"
        path.write_bytes(converter.convert())
        return path

    fp32 = convert(net, "fp32")
    negative = keras.layers.Lambda(lambda t: tf.math.log(-1.0 - t))(image)
    torn = folder / "torn.tflite"
    torn.write_bytes(fp32.read_bytes()[:2000])
    return {
        "fp32": fp32,
        "int8": convert(net, "int8", int8=True),
        "nan": convert(keras.Model(image, negative), "nan"),
        "torn": torn,
    }


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with three models, no adb server, no USB, no binary but the test's, whatever this computer has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    monkeypatch.setattr(seen, "from_usb", lambda usb: [])
    for name in ("EDGECLS_CONFIG", "EDGECLS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("android_bench.measure.phone.PhoneBackend.settle", lambda self: True)
    monkeypatch.setattr("android_bench.adb.link.PATIENCE_S", 0.5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tool").write_text(BENCHMARK)
    monkeypatch.setenv("EDGECLS_BENCHMARK_MODEL", "tool")
    for name, content in {"a": b"good", "b": b"BAD", "c": b"good too"}.items():
        (tmp_path / f"{name}.tflite").write_bytes(b"\0\0\0\0TFL3" + content)


@pytest.fixture
def pixel(tmp_path: Path) -> Iterator[Adbd]:
    """A phone that speaks ADB over the network."""
    furnish((daemon := Adbd(tmp_path / "phone")).phone.root)
    yield daemon.start()
    daemon.stop()


@pytest.fixture
def recipe_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the recipe r.yaml, to stand in; signals and the environment stay as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    (tmp_path / "r.yaml").write_text(RECIPE)
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def workflow(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for edgecls.workflow: the tests say what its functions return or raise."""
    fake = SimpleNamespace()
    monkeypatch.setattr(edgecls, "workflow", fake, raising=False)
    return fake


@pytest.fixture
def run(recipe_folder: Path) -> Run:
    """The newest run of r.yaml; nobody works in it."""
    run = Run.start(load_recipe("r.yaml"))
    run.make_latest()
    run.unlock()
    return run

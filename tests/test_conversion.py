"""Files are converted in a process of its own, and what can go wrong there is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from harness import answer
from keras import layers

from edgecls.errors import EdgeclsError
from edgecls.export import conversion

SIZE = 8


def function(compute):
    spec = tf.TensorSpec([1, SIZE, SIZE, 3], tf.float32, name="image")
    return tf.function(compute, input_signature=[spec], autograph=False).get_concrete_function()


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(image))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))


@pytest.fixture
def slow(network):
    """A function whose conversion takes long enough to be seen."""

    def repeated(x):
        for _ in range(300):
            x = tf.nn.relu6(x * 1.01 + 0.01)
        return network(x)

    return function(repeated)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def when_it_converts(work) -> None:
    """Call ``work(server, copy)`` with the two processes as soon as a conversion has begun."""

    def wait() -> None:
        while True:
            process = conversion.server._process
            if process and process.poll() is None and (copies := children(process.pid)):
                return work(process.pid, copies[0])
            time.sleep(0.001)

    threading.Thread(target=wait, daemon=True).start()


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(500):
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("nested", [False, True])
def test_a_file_computes_what_the_network_computes(network, nested: bool) -> None:
    compute = tf.function(network) if nested else network
    content = conversion.convert(function(lambda x: compute(x, training=False)), "small")
    image = np.random.default_rng(0).normal(size=(1, SIZE, SIZE, 3)).astype(np.float32)
    np.testing.assert_allclose(answer(content, image), network(image), rtol=1e-5, atol=1e-6)


def test_what_the_converter_refuses_is_one_line() -> None:
    refused = function(lambda x: tf.raw_ops.Betainc(a=x, b=x, x=x))
    with pytest.raises(EdgeclsError, match=r"TFLite conversion failed: .*\(small\)") as raised:
        conversion.convert(refused, "small")
    assert "\n" not in str(raised.value)


def test_a_graph_beyond_2_gb_is_refused_before_it_is_made(network, monkeypatch) -> None:
    monkeypatch.setattr(conversion, "MAX_BYTES", 1000)
    with pytest.raises(
        EdgeclsError, match=r"a TensorFlow graph holds at most 2 GB, and .* GB in float \(small\)"
    ):
        conversion.convert(function(network), "small")


def test_a_full_disk_is_one_line(network, monkeypatch, tmp_path) -> None:
    def fill(task: str) -> int:
        (Path(task) / conversion.FILE).symlink_to("/dev/full")
        return run(task)

    run = conversion.server.run
    monkeypatch.setattr(conversion.server, "run", fill)
    with pytest.raises(EdgeclsError, match=r"TFLite conversion failed: .*No space left on device"):
        conversion.convert(function(network), "small")


def test_a_killed_conversion_says_what_it_needs_and_the_next_one_works(network, slow) -> None:
    when_it_converts(lambda server, copy: os.kill(copy, signal.SIGKILL))
    with pytest.raises(
        EdgeclsError, match=r"was ended by SIGKILL \(small\); free memory: it takes about .* GB"
    ):
        conversion.convert(slow, "small")
    assert conversion.convert(function(network), "small")


def test_a_server_that_was_killed_is_started_again(network, slow) -> None:
    when_it_converts(lambda server, copy: [os.kill(pid, signal.SIGKILL) for pid in (copy, server)])
    with pytest.raises(EdgeclsError, match="was ended by SIGKILL"):
        conversion.convert(slow, "small")
    assert conversion.convert(function(network), "small")


def test_an_interruption_ends_the_conversion(slow) -> None:
    seen: list[int] = []

    def interrupt(*processes: int) -> None:
        seen.extend(processes)
        os.kill(os.getpid(), signal.SIGINT)

    when_it_converts(interrupt)
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(slow, "small")
    assert len(seen) == 2 and all(map(gone, seen))


SCRIPT = """
import tensorflow as tf
from edgecls.export import conversion

@tf.function(input_signature=[tf.TensorSpec([1, 8], tf.float32)], autograph=False)
def slow(x):
    for _ in range(3000):
        x = tf.nn.relu6(x * 1.01 + 0.01)
    return x

concrete = slow.get_concrete_function()
conversion.server.start()
print(conversion.server._process.pid, flush=True)
conversion.convert(concrete, "slow")
"""


def test_nothing_goes_on_or_stays_when_who_asked_is_killed(tmp_path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    asking = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert asking.stdout
    server = int(asking.stdout.readline())
    while not (copies := children(server)):
        assert asking.poll() is None
        time.sleep(0.001)
    asking.kill()
    asking.wait()
    assert gone(copies[0]) and gone(server) and not list(tmp_path.glob("edgecls-*"))

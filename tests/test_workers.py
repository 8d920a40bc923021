"""Two processes train together on 127.0.0.1: equal weights, those of one process, and a way on after one is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import worker

from edgecls.cluster import JOIN_SECONDS, VARIABLE, Cluster
from edgecls.errors import MissingError, UsageError

NOTICED = 60.0  # seconds in which a worker must have ended after another one has died


def free_ports(count: int) -> list[int]:
    with_ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in with_ports]
    for each in with_ports:
        each.close()
    return ports


def tf_config(ports: list[int], index: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def start(
    folder: Path, cases: str, kill_second_at: tuple[int, int] | None = None
) -> list[subprocess.Popen[str]]:
    """Both workers of a training; their output is in ``folder/log-<worker>.txt``."""
    folder.mkdir(exist_ok=True)
    ports, started = free_ports(2), []
    for index in range(2):
        kill = [str(number) for number in kill_second_at or ()] if index == 1 else []
        command = [sys.executable, worker.__file__, str(folder), cases, *kill]
        with (folder / f"log-{index}.txt").open("a") as log:
            env = os.environ | {VARIABLE: tf_config(ports, index)}
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, text=True))
    return started


def finish(folder: Path, cases: str) -> None:
    codes = [process.wait(timeout=600) for process in start(folder, cases)]
    assert codes == [0, 0], (folder / "log-0.txt").read_text()[-2000:]


def weights(folder: Path, case: str, index: int) -> list[np.ndarray]:
    with np.load(folder / f"{case}-{index}.npz") as file:
        return [file[name] for name in file.files]


def figures(folder: Path, case: str, index: int) -> dict:
    return json.loads((folder / f"{case}-{index}.json").read_text())


@dataclass
class Kill:
    """How the chief ended after the other worker was killed."""

    code: int
    seconds: float
    last_line: str


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, Kill]:
    """All cases by two workers. In one of them the second worker is killed in the middle of an epoch; both begin again."""
    folder = tmp_path_factory.mktemp("two")
    chief, second = start(folder, "killed", kill_second_at=(1, 22))
    assert second.wait(timeout=600) == -signal.SIGKILL
    died = time.monotonic()
    code = chief.wait(timeout=NOTICED)
    kill = Kill(code, time.monotonic() - died, (folder / "log-0.txt").read_text().splitlines()[-1])
    assert not (folder / "killed-0.npz").exists()
    finish(folder, "killed,all,plain,batchnorm")
    return folder, kill


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The cases by this process alone."""
    folder = tmp_path_factory.mktemp("one")
    for case in ("plain", "all", "batchnorm"):
        worker.train(case, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", worker.CASES)
def test_both_workers_have_the_same_weights_and_figures(two: tuple[Path, Kill], case: str) -> None:
    folder, _ = two
    for a, b in zip(weights(folder, case, 0), weights(folder, case, 1), strict=True):
        assert np.array_equal(a, b)
    first, second = (figures(folder, case, index) for index in range(2))
    for row, other in zip(first["rows"], second["rows"], strict=True):
        same = row.keys() - {"images_per_s"}
        assert {key: row[key] for key in same} == {key: other[key] for key in same}
    assert list(folder.glob("checkpoints-*-1/*")) == [], "a worker other than the chief writes checkpoints"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "all"])
def test_two_workers_learn_what_one_process_learns(one: Path, two: tuple[Path, Kill], case: str) -> None:
    """50 steps; "all" has EMA, accumulation, Mixup and CutMix. Neither network has batch normalization."""
    for a, b in zip(weights(one, case, 0), weights(two[0], case, 0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    alone, both = figures(one, case, 0), figures(two[0], case, 0)
    assert alone["best_epoch"] == both["best_epoch"] and alone["best_value"] == both["best_value"]
    for row, other in zip(alone["rows"], both["rows"], strict=True):
        for key in (
            "loss",
            "accuracy",
            "gradient_norm",
            "lr",
            "val_loss",
            "val_top1",
            "val_balanced_accuracy",
        ):
            assert row[key] == pytest.approx(other[key], rel=1e-4), key


@pytest.mark.slow
def test_batch_normalization_sees_half_a_batch_and_its_statistics_are_shared(
    one: Path, two: tuple[Path, Kill]
) -> None:
    """The statistics are the mean of both workers'; the weights differ from one process's, but not much."""
    pairs = list(zip(weights(one, "batchnorm", 0), weights(two[0], "batchnorm", 0), strict=True))
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-5
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=0.1)


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_both_go_on(two: tuple[Path, Kill]) -> None:
    folder, kill = two
    print(f"the chief ended {kill.seconds:.1f} s after the worker was killed")
    assert kill.code == 1 and kill.last_line.startswith("edgecls: error: another worker has ended"), kill
    for a, b in zip(weights(folder, "killed", 0), weights(folder, "all", 0), strict=True):
        assert np.array_equal(a, b), "the way on is not the way without a kill"
    epochs = [row["epoch"] for row in figures(folder, "killed", 0)["rows"]]
    assert epochs == [1], "it did not go on in the middle of the second epoch"


WRONG = {
    "{": "it is not JSON",
    "[]": "it is not a JSON object",
    '{"cluster": []}': "cluster is not an object",
    '{"cluster": {"ps": ["a:1"]}}': "cluster has the job 'ps'",
    '{"cluster": {"worker": "a:1"}}': "cluster.worker is not a list",
    '{"cluster": {"worker": ["a"]}}': "cluster has 'a', expected host:port",
    '{"cluster": {"worker": ["a:0"]}}': "expected host:port",
    '{"cluster": {"worker": ["a:1", "a:1"]}}': "cluster has a:1 twice",
    '{"cluster": {"chief": ["a:1", "b:1"]}}': "cluster has 2 chiefs",
    '{"cluster": {"worker": ["a:1", "b:1"]}}': "task.type is not one of worker",
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}': "task.type is not one of worker",
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}': "task.index is 1, expected 0 to 0",
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}': 'task.index is "0"',
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_tf_config_is_told_in_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match="TF_CONFIG") as error:
        Cluster.from_environment()
    assert WRONG[text] in str(error.value) and "\n" not in str(error.value)


def test_a_chief_comes_before_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    found = []
    for task in ({"type": "chief", "index": 0}, {"type": "worker", "index": 1}):
        monkeypatch.setenv(VARIABLE, json.dumps({"cluster": jobs, "task": task}))
        found.append(Cluster.from_environment())
    assert [each.index for each in found] == [0, 2] and [each.chief for each in found] == [True, False]
    assert found[0].addresses == ("a:1", "b:1", "c:1")
    assert found[0].jobs == {"chief": 1, "worker": 2}
    monkeypatch.setenv(VARIABLE, "")
    assert Cluster.from_environment() == Cluster() and Cluster().chief and Cluster().count == 1


@pytest.fixture
def pair() -> Iterator[Cluster]:
    yield Cluster(0, tuple(f"127.0.0.1:{port}" for port in free_ports(2)))


def test_a_worker_that_never_comes_is_named(pair: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOIN_SECONDS, "0.3")
    with pytest.raises(MissingError, match=f"1 worker did not come in 0 s .{pair.addresses[1]}"):
        pair.join(print)
    monkeypatch.setenv(JOIN_SECONDS, "soon")
    with pytest.raises(UsageError, match="not a number of seconds: 'soon'"):
        pair.join(print)


def test_a_port_that_is_taken_is_named(pair: Cluster) -> None:
    port = int(pair.addresses[0].rpartition(":")[2])
    with (
        closing(socket.create_server(("127.0.0.1", port))),
        pytest.raises(MissingError, match=f"port {port} is taken"),
    ):
        pair.join(print)


OTHER = """
import socket, sys
from edgecls.cluster import Cluster
Cluster(1, tuple(sys.argv[1:])).join(print)
server = socket.create_server(("127.0.0.1", int(sys.argv[2].rpartition(":")[2])))  # as TensorFlow's would be
print("joined", flush=True)
sys.stdin.read()
"""


def test_workers_wait_for_each_other(pair: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes first: each has reached the other when it goes on."""
    monkeypatch.setenv(JOIN_SECONDS, "60")
    command = [sys.executable, "-c", OTHER, *pair.addresses]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        pair.join(print)
        with closing(socket.create_server(("127.0.0.1", int(pair.addresses[0].rpartition(":")[2])))):
            assert other.stdout and other.stdout.readline() == "joined\n"
        other.communicate()
    assert other.returncode == 0

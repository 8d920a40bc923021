"""Where training runs: on one device, on all GPUs of this computer, or on many computers (``TF_CONFIG``).

Everything that workers tell each other goes through one sum over all of them. So they must ask the same things in the same
order, and each question is also a barrier: nobody goes on before all are there.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgecls.cluster import Cluster
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import atomic
from edgecls.recipe import Train
from edgecls.text import first_line
from edgecls.train.checkpoint import value_of

_MESSAGE = 2**10  # words of four bytes that a worker tells at once
_PIECE = 2**18  # words of a file that are sent at once
_START_SECONDS = 120.0  # for TensorFlow's own start, after all workers were reached
_HEARTBEAT_SECONDS = (
    60.0  # of silence after which a worker counts as lost; one that has died is noticed at once
)
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
"""What a collective operation raises when a worker is gone."""


class Workers:
    """The workers of a training, seen from one of them; a training without ``TF_CONFIG`` has one.

    Attributes:
        cluster: Says how many there are and which one this is.
        strategy: Networks and optimizers must be made inside its ``scope()``. Batches are divided over its devices and
            gradients summed, so the recipe's batch size and learning rate mean the same on any number of them.
    """

    def __init__(self, cluster: Cluster, strategy: tf.distribute.Strategy) -> None:
        self.cluster, self.strategy = cluster, strategy
        self.index, self.count, self.chief = cluster.index, cluster.count, cluster.chief
        self._sum_everywhere = tf.function(self._sum_on_devices)

    @property
    def share(self) -> tuple[int, int]:
        """Number of this worker, and how many there are: what ``Batches`` takes."""
        return self.index, self.count

    @property
    def devices(self) -> int:
        """Devices of all workers together."""
        return self.strategy.num_replicas_in_sync

    def distribute(self, batches: tf.data.Dataset) -> Any:
        """Batches for ``strategy.run``.

        Args:
            batches: Of all images; where there are several workers, without an end and of this worker's images only.
        """
        if self.count == 1:
            return self.strategy.experimental_distribute_dataset(batches)
        # Of a dataset that may end TensorFlow asks all workers before every batch whether it has.
        batches = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        if self._local > 1:
            own = tf.nest.flatten(batches.element_spec)[0].shape[0]
            batches = batches.rebatch(own // self._local, drop_remainder=True)
        return self.strategy.distribute_datasets_from_function(lambda context: batches)

    def exchange(self, value: Any) -> list[Any]:
        """What each worker has to say, in their order.

        Args:
            value: Anything JSON takes, at most 4096 characters.
        """
        if self.count == 1:
            return [value]
        text = json.dumps(value).encode()
        mine = np.frombuffer(text.ljust(4 * _MESSAGE)[: 4 * _MESSAGE], np.uint32)
        rows = np.zeros((self.count, _MESSAGE))
        rows[self.index] = mine
        told = self.sum(rows).astype(np.uint32)
        return [json.loads(row.tobytes()) for row in told]

    def ask_chief(self, answer: Callable[[], Any]) -> Any:
        """What the chief answers, on all workers; its error is an error of them all.

        Args:
            answer: Called on the chief alone; gives anything JSON takes. It must not ask the workers itself.
        """
        if self.count == 1:
            return answer()
        failure: EdgeclsError | None = None
        told: dict[str, Any] = {}
        try:
            told = {"value": answer()} if self.chief else {}
        except EdgeclsError as error:
            failure = error
            told = {"failed": str(error), "exit_code": error.exit_code}
        told = json.loads(self._from_chief(json.dumps(told, default=_plain).encode()))
        if failure is not None:
            raise failure
        if "failed" in told:
            refused = EdgeclsError(f"the chief cannot go on: {told['failed']}")
            refused.exit_code = told["exit_code"]
            raise refused
        return told["value"]

    def send(self, path: Path) -> None:
        """Give every worker the chief's file at ``path``; where the chief has none nobody has one."""
        if self.count == 1:
            return
        if not self.ask_chief(path.is_file):
            path.unlink(missing_ok=True)
            return
        data = self._from_chief(path.read_bytes() if self.chief else b"")
        if not self.chief:
            with atomic(path) as temporary:
                temporary.write_bytes(data)

    def follow_chief(self, variables: Sequence[Any]) -> None:
        """Give variables the values that they have in the chief: two kinds of processors do not compute alike."""
        if self.count == 1:
            return
        values = [value_of(v) for v in variables]
        data, start = self._from_chief(b"".join(value.tobytes() for value in values)), 0
        for variable, value in zip(variables, values, strict=True):
            chiefs = np.frombuffer(data, value.dtype, value.size, start).reshape(value.shape)
            if not self.chief:
                variable.assign(chiefs)
            start += value.nbytes

    def _from_chief(self, data: bytes) -> bytes:
        """The chief's bytes, whatever the others have given."""
        length = int(self.numbers(len(data))[0])
        data = data[:length].ljust(-(-length // 4) * 4, b"\0")
        words, pieces = np.frombuffer(data, np.uint32), []
        for start in range(0, len(words), _PIECE):
            part = words[start : start + _PIECE]
            piece = np.zeros(_PIECE if len(words) > _MESSAGE else _MESSAGE)  # two shapes: each is traced once
            piece[: len(part)] = part if self.chief else 0
            pieces.append(self.sum(piece).astype(np.uint32)[: len(part)])
        return b"".join(piece.tobytes() for piece in pieces)[:length]

    def numbers(self, value: float) -> list[float]:
        """A number of each worker, in their order."""
        row = np.zeros(self.count)
        row[self.index] = value
        return self.sum(row).tolist()

    def interleaved(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Rows that the workers have computed, ``share`` for ``share``, in one array of ``count`` rows."""
        whole = np.zeros((count, *rows.shape[1:]), rows.dtype)
        whole[self.index :: self.count] = rows
        return self.sum(whole)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over all workers, float32 or float64; it is the same on all of them."""
        if self.count == 1:
            return values
        return self._sum_everywhere(tf.constant(values)).numpy()

    @property
    def _local(self) -> int:
        """Devices of this worker."""
        return self.devices // self.count

    def _sum_on_devices(self, values: tf.Tensor) -> tf.Tensor:
        def on_device(values: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = tf.equal(tf.cast(context.replica_id_in_sync_group, tf.int32) % self._local, 0)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values * tf.cast(first, values.dtype))

        return self.strategy.experimental_local_results(self.strategy.run(on_device, (values,)))[0]


@functools.cache
def workers() -> Workers:
    """The workers that ``TF_CONFIG`` names; the first call waits for all of them.

    Of several computers it must be the first that TensorFlow does in the process.

    Raises:
        UsageError: ``TF_CONFIG`` is wrong.
        MissingError: A port is taken, or a worker did not come.
    """
    cluster = Cluster.from_environment()
    if cluster.count == 1:
        several = len(tf.config.list_logical_devices("GPU")) > 1
        return Workers(cluster, tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy())
    cluster.join(lambda text: print(text, file=sys.stderr, flush=True))
    with _ends_within(_START_SECONDS, cluster):
        _wait_longer_for_heartbeats(cluster)
        try:
            return Workers(cluster, tf.distribute.MultiWorkerMirroredStrategy())
        except (RuntimeError, tf.errors.OpError) as error:
            fix = "start all workers again with the same command"
            raise MissingError(f"the workers do not come together: {first_line(error)}", fix=fix) from error


def training_strategy() -> tf.distribute.Strategy:
    """The strategy of ``workers()``: of one device, of all GPUs of this computer, or of all workers."""
    return workers().strategy


@contextmanager
def lost_workers_are_told() -> Iterator[None]:
    """Say in one line that another worker is gone, where TensorFlow says it in many.

    TensorFlow notices at once that a process has died, and after ``_HEARTBEAT_SECONDS`` that one does not answer.

    Raises:
        EdgeclsError: Another worker is gone.
    """
    team = workers()
    try:
        yield
    except _GONE as error:
        if team.count == 1:
            raise
        silent = team.cluster.silent()
        raise EdgeclsError(
            "another worker has ended or does not answer",
            where=", ".join(silent) or _reason(error),
            fix="see what it said, then start all workers again with the same command: the training goes on from its last"
            " checkpoint",
        ) from error


def _reason(error: BaseException) -> str:
    """Why a collective operation was given up, out of the pages that TensorFlow writes."""
    found = re.search(r"aborted by: (.*)", str(error))
    return found[1].strip()[:120] if found else first_line(error)


def _wait_longer_for_heartbeats(cluster: Cluster) -> None:
    """Take a worker for lost when it was not heard for ``_HEARTBEAT_SECONDS``.

    TensorFlow's own 10 s are too few: a loaded computer, or one whose disk hangs, is silent for longer. There is no public
    way to say so; a TensorFlow without this one keeps its own time.
    """
    with suppress(ImportError, AttributeError):
        from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
        from tensorflow.python.eager import context

        jobs = [CoordinatedJob(name=name, num_tasks=count) for name, count in cluster.jobs.items()]
        context.context().configure_coordination_service(
            "standalone",
            service_leader=f"/job:{next(iter(cluster.jobs))}/replica:0/task:0",
            heartbeat_timeout_in_ms=int(1000 * _HEARTBEAT_SECONDS),
            coordinated_jobs=jobs,
        )


@contextmanager
def _ends_within(seconds: float, cluster: Cluster) -> Iterator[None]:
    """End the process if the block takes longer: TensorFlow waits for a lost worker without an end."""

    def give_up() -> None:
        silent = ", ".join(cluster.silent()) or "a worker"
        print(
            f"edgecls: error: {silent} left while the training started; start all workers again",
            file=sys.stderr,
        )
        os._exit(MissingError.exit_code)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON takes them; anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def check_batch(section: str, config: Train, devices: int) -> None:
    """Refuse a batch that cannot be divided over the devices.

    Args:
        section: Where ``config`` stands in the recipe.
        config: Has the batch, and the parts in which a device computes its share.
        devices: Of all workers together.

    Raises:
        UsageError: It cannot.
    """
    parts = config.accumulate * devices
    if config.batch_size % parts:
        raise UsageError(
            f"a batch of {config.batch_size} cannot be divided into {parts} equal parts",
            where=f"{section}.batch_size",
            fix=f"make it a multiple of {parts}: accumulate times the number of devices",
        )


def check_same(what: str, value: Any, where: str = "") -> None:
    """Refuse workers that would not do the same.

    Args:
        what: What must be the same on all, for the error.
        value: It, as JSON.
        where: Stage or key, for the error.

    Raises:
        UsageError: Some worker has another value.
    """
    values = workers().exchange(value)
    odd = [str(i + 1) for i, other in enumerate(values) if other != values[0]]
    if odd:
        raise UsageError(
            f"worker {', '.join(odd)} has {what} other than worker 1", fix=f"give all workers the same {what}"
        )

"""What a person and the run folder get to know of a training: a bar, curves, rows of figures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgecls.console import Console, Progress
from edgecls.run import Run
from edgecls.train.callbacks import Callback


class Watcher(Callback):
    """Moves a bar on, and writes ``log.jsonl``, ``metrics.jsonl`` and TensorBoard curves of a stage."""

    def __init__(
        self,
        run: Run,
        console: Console,
        progress: Progress,
        stage: str,
        network: str,
        epochs: int,
        steps: int,
    ) -> None:
        self._run, self._console, self._progress = run, console, progress
        self._stage, self._steps = stage, steps
        self._task = progress.add_task(f"{stage}: {network}", total=epochs * steps, text="")
        self._waiting = False
        self._writer: Any = None

    def on_restart(self, changes: str) -> None:
        self._console.log(f"{self._stage}: its checkpoint is of other inputs ({changes}); trained anew")
        shutil.rmtree(self._folder, ignore_errors=True)

    def on_start(self, epoch: int) -> None:
        self._waiting = True
        text = "building the graph of the first step"
        self._progress.update(self._task, completed=epoch * self._steps, text=text)

    def on_step(self, epoch: int, step: int) -> None:
        cleared = {"text": ""} if self._waiting else {}
        self._waiting = False
        self._progress.update(self._task, completed=epoch * self._steps + step, **cleared)

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        self._run.metric(self._stage, epoch, **values)
        self._run.log("epoch", stage=self._stage, epoch=epoch, **values)
        self._add_curves(epoch, values)
        text = " ".join(f"{key} {value:.4g}" for key, value in values.items())
        self._progress.update(self._task, text=text)

    def close(self) -> None:
        """No more epochs will come."""
        if self._writer is not None:
            self._writer.close()

    @property
    def _folder(self) -> str:
        return str(self._run.file("tensorboard", self._stage))

    def _add_curves(self, epoch: int, values: dict[str, float]) -> None:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
        with self._writer.as_default(step=epoch):
            for key, value in values.items():
                tf.summary.scalar(key, value)
        self._writer.flush()


@contextmanager
def watching(
    run: Run, console: Console, stage: str, network: str, epochs: int, steps: int
) -> Iterator[Watcher]:
    """A watcher of one stage, with a bar on the console while the block lasts."""
    with console.progress() as progress:
        watcher = Watcher(run, console, progress, stage, network, epochs, steps)
        try:
            yield watcher
        finally:
            watcher.close()

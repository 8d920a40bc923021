"""What a teacher says of fixed views of the images, computed once and kept on disk.

::

    views.json      what the answers were made from
    view-0000.npy   float16 [images, classes]: log-probabilities of view 0 of each image, in the order of the split
    view-0001.part  a view that is being computed: the same file, its rows so far

With ``top_k`` a row holds the classes and log-probabilities of the k likeliest classes, and the rest of the probability
is spread evenly over the others (Shen and Xing 2021, arXiv:2112.01528, keep answers so).
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.augment import OPERATIONS
from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sources import Dataset
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import full_disk, read_json, remove, write_json
from edgecls.recipe import Augment, Recipe
from edgecls.stamps import Fingerprint, changes, fingerprint
from edgecls.train.teachers import Networks

SCHEMA = "edgecls.views/1"
BATCH = 64  # images that the teacher sees at a time
_DRAWS = 1  # raise it when the same recipe draws other pixels
_LOWEST = -1e4  # log-probability; float16 ends at -65,504
_LEAST = 1e-12  # probability of a class that is left out, at least


class Views:
    """Answers to ``count`` fixed views of each image.

    Calling it with images and views, int32 [B, 2], gives log-probabilities, float32 [B, classes]: the form that
    ``edgecls.data.pipeline.Batches`` takes.

    Args:
        folder: Where they are kept.
        images: Number of images.
        classes: Number of classes.
        count: Number of views of each image.
        top_k: Keep that many classes of an answer; None: all.

    Example:
        >>> views = Views(Path("views"), images=4, classes=10, count=2)
        >>> views.bytes
        160
        >>> list(views.missing())
        [0, 1]
    """

    def __init__(self, folder: Path, images: int, classes: int, count: int, top_k: int | None = None) -> None:
        self.folder, self.images, self.classes, self.count = folder, images, classes, count
        self._row = _row(classes, top_k)
        self._files: list[np.ndarray] = []

    @property
    def row_bytes(self) -> int:
        """Size of one answer on disk: 2 bytes a class, or 4 to 6 bytes for each class that is kept."""
        return self._row.itemsize

    @property
    def bytes(self) -> int:
        """Size of all answers on disk."""
        return self.images * self.count * self.row_bytes

    def missing(self) -> Iterator[int]:
        """Views that are not there as a whole."""
        for view in range(self.count):
            if not _is_whole(self._file(view), self._row, self.images):
                yield view

    def writer(self, view: int) -> Writer:
        """Takes the answers to a view, from where a killed process stopped."""
        return Writer(self._file(view), self._row, self.images)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        if not self._files:
            self._files = [np.load(self._file(view), mmap_mode="r") for view in range(self.count)]
        rows = np.stack([self._files[view][image] for image, view in places.tolist()])
        return unpacked(rows, self.classes)

    def _file(self, view: int) -> Path:
        return self.folder / f"view-{view:04d}.npy"


class Writer:
    """Appends rows to a file that gets its name when it is whole.

    Attributes:
        done: Rows that are written.
    """

    def __init__(self, path: Path, row: np.dtype, count: int) -> None:
        self._path, self._row, self._count = path, row, count
        self._part = path.with_suffix(".part")
        self._header = _header(row, count)
        self.done = self._rows_so_far()

    def _rows_so_far(self) -> int:
        """Whole rows of the file that a killed process left; a file of another form counts nothing."""
        with suppress(FileNotFoundError), self._part.open("rb") as file:
            if file.read(len(self._header)) == self._header:
                return (self._part.stat().st_size - len(self._header)) // self._row.itemsize
        return 0

    def append(self, logs: np.ndarray, done: int) -> None:
        """Write the answers from row ``done`` on; what is there of later rows is replaced.

        Args:
            logs: Log-probabilities, float32 [N, classes].
            done: Rows before them.

        Raises:
            MissingError: The disk is full. What was written before stays.
        """
        start = len(self._header) + done * self._row.itemsize
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("r+b" if done else "wb") as file:
                if not done:
                    file.write(self._header)
                file.truncate(start)
                file.seek(start)
                file.write(packed(logs, self._row).tobytes())
        except OSError as error:
            raise full_disk(error, self._part) from error
        self.done = done + len(logs)

    def finish(self) -> None:
        """Give the whole file its name."""
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self._path)


def packed(logs: np.ndarray, row: np.dtype) -> np.ndarray:
    """Log-probabilities float32 [N, classes] as rows of a file."""
    base, shape = row.subdtype or (row, ())
    if base.fields is None:
        return np.maximum(logs, _LOWEST).astype(base)
    best = np.argsort(-logs, axis=1, kind="stable")[:, : shape[0]]
    rows = np.empty(best.shape, base)
    rows["class"], rows["log"] = best, np.maximum(np.take_along_axis(logs, best, 1), _LOWEST)
    return rows


def unpacked(rows: np.ndarray, classes: int) -> np.ndarray:
    """Rows of a file as log-probabilities, float32 [N, classes]."""
    if rows.dtype.fields is None:
        return rows.astype(np.float32)
    kept = rows["log"].astype(np.float32)
    rest = 1.0 - np.exp(kept).sum(axis=1, keepdims=True)
    others = np.maximum(rest / max(classes - kept.shape[1], 1), _LEAST)
    logs = np.repeat(np.log(others), classes, axis=1).astype(np.float32)
    np.put_along_axis(logs, rows["class"].astype(np.int64), kept, axis=1)
    return logs


def _row(classes: int, top_k: int | None) -> np.dtype:
    """What a file holds of one image."""
    if top_k is None or top_k >= classes:
        return np.dtype((np.float16, (classes,)))
    number = "<u2" if classes <= 2**16 else "<u4"
    return np.dtype(([("class", number), ("log", "<f2")], (top_k,)))


def _header(row: np.dtype, count: int) -> bytes:
    """The beginning of the ``.npy`` file of ``count`` rows."""
    base, shape = row.subdtype or (row, ())
    described = {
        "descr": np.lib.format.dtype_to_descr(base),
        "fortran_order": False,
        "shape": (count, *shape),
    }
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _is_whole(path: Path, row: np.dtype, count: int) -> bool:
    """Whether a view's file is there, of the right form and size."""
    header = _header(row, count)
    with suppress(FileNotFoundError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return file.read(len(header)) == header and size == len(header) + count * row.itemsize
    return False


# Computing them ----------------------------------------------------------------------------------------------------


def make_views(
    teachers: Networks,
    recipe: Recipe,
    data: Dataset,
    preprocess: Preprocess,
    folder: Path,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Views:
    """The teachers' answers to ``distill.views`` fixed views of each training image; only what is missing is computed.

    Args:
        teachers: Answer with their stored statistics, so that an answer depends on one image alone.
        recipe: Has ``distill``, ``augment`` and ``seed``.
        data: Its training images.
        preprocess: How the networks see a photo.
        folder: Where the answers are kept unless the recipe has ``distill.store``.
        say: Is told their size and what is done anew.
        progress: Called with (done, all) images while they are computed.

    Raises:
        UsageError: ``distill.store`` holds answers that were made from something else.
        MissingError: The disk is full or cannot be written. The answers so far are kept.
        EdgeclsError: An answer is not finite.
    """
    settings, split = recipe.distill, data.train
    assert settings is not None and settings.views is not None
    place = folder if settings.store is None else Path(settings.store)
    views = Views(place, len(split), len(data.classes), settings.views, settings.top_k)
    inputs = identity(teachers.models, split, preprocess, recipe.augment, recipe.seed, settings.top_k)
    with alone(place):
        prepare(views, inputs, is_ours=settings.store is None, say=say)
        missing = list(views.missing())
        state = f"{len(missing)} to compute" if missing else "all there"
        say(
            f"the teacher's answers: {len(split):,} images x {views.count} views x {views.row_bytes} bytes ="
            f" {_size(views.bytes)} in {place}, {state}"
        )
        feed = Batches(
            split,
            preprocess,
            BATCH,
            training=True,
            augment=recipe.augment,
            seed=recipe.seed,
            drop_remainder=False,
            cast=False,
            order=lambda epoch: np.arange(len(split)),
            views=views.count,
        )
        try:
            for number, view in enumerate(missing):
                before, total = number * len(split), len(missing) * len(split)
                for done in _compute(views.writer(view), teachers, feed, view):
                    progress(before + done, total)
        finally:
            feed.close()
    return views


def _compute(writer: Writer, teachers: Networks, feed: Batches, view: int) -> Iterator[int]:
    """Write the answers to one view, from where they end; gives how many there are."""
    forward = tf.function(
        lambda pixels: tf.nn.log_softmax(teachers(tf.cast(pixels, tf.float32))), reduce_retracing=True
    )
    first = writer.done // BATCH
    for step, (pixels, _) in enumerate(feed.epoch(view, first), first):
        logs = forward(pixels).numpy()
        if not np.isfinite(logs).all():
            raise EdgeclsError("the teacher's answers are not finite", fix="check its weights")
        writer.append(logs, step * BATCH)
        yield writer.done
    writer.finish()


def identity(
    teachers: Sequence[keras.Model],
    split: Split,
    preprocess: Preprocess,
    augment: Augment,
    seed: int,
    top_k: int | None = None,
) -> Fingerprint:
    """What the answers depend on: the teachers' weights, the images' bytes, and what draws the views.

    Labels, the number of views and what mixes images do not count.
    """
    mixing = {op.name for op in OPERATIONS.values() if op.where == "batch"}
    inputs: Mapping[str, Any] = {
        "teacher": [_digest_of_network(model) for model in teachers],
        "images": hashlib.sha256("\n".join(split.digests).encode("utf-8", "surrogateescape")).hexdigest(),
        "preprocess": preprocess.to_dict(),
        "augment": augment.model_dump(exclude=mixing | {"off_epochs", "repeats"}),
        "seed": seed,
        "top_k": top_k,
        "draws": _DRAWS,
    }
    return fingerprint(inputs)


def _digest_of_network(model: keras.Model) -> str:
    """SHA-256 of what a network computes: its layers, but for their names, and its weights."""
    digest = hashlib.sha256()
    for layer in model._flatten_layers(include_self=False):
        config = {} if isinstance(layer, keras.Model) else layer.get_config()
        config.pop("name", None)
        digest.update(json.dumps([type(layer).__name__, config], sort_keys=True, default=str).encode())
    for variable in model.variables:
        digest.update(np.asarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def prepare(views: Views, inputs: Fingerprint, is_ours: bool, say: Callable[[str], None]) -> None:
    """Make a folder ready for answers that are made from ``inputs``.

    Args:
        views: Whose folder.
        inputs: See ``identity``.
        is_ours: The folder is the run's: other answers in it are removed. Else they are refused.
        say: Is told what is found and what the answers will take.

    Raises:
        UsageError: The folder holds answers that were made from something else, or something that is no views.
        MissingError: The disk has no room for them.
    """
    manifest = views.folder / "views.json"
    found = _made_from(manifest)
    occupied = bool(_content(views.folder))
    if occupied and found is None and not is_ours:
        raise UsageError(
            "the folder for the teacher's answers holds something else",
            where=str(views.folder),
            fix="name a new folder as distill.store",
        )
    changed = changes(found, inputs) if found is not None else ""
    if changed and not is_ours:
        raise UsageError(
            f"the teacher's answers here were made from something else (changed: {changed})",
            where=str(views.folder),
            fix="name another folder as distill.store, or remove this one",
        )
    if occupied and (changed or found is None):
        why = f"changed: {changed}" if changed else f"{manifest.name} is missing or cannot be read"
        say(f"the teacher's answers are computed anew ({why})")
        for path in _content(views.folder):
            remove(path)
    for view in views.missing():
        if views._file(view).exists():
            say(f"view {view} of the teacher's answers is torn and is computed anew")
            views._file(view).unlink()
    write_json(manifest, {"schema": SCHEMA, "inputs": inputs})
    free = shutil.disk_usage(views.folder).free
    needed = len(list(views.missing())) * views.bytes // views.count
    if needed > free:
        raise MissingError(
            f"the teacher's answers take {_size(needed)}, the disk has {_size(free)}",
            where=str(views.folder),
            fix="set distill.store to a folder on another disk, lower distill.views, or set distill.top_k",
        )


def _made_from(manifest: Path) -> Fingerprint | None:
    """What the answers beside a manifest were made from; None: there is no manifest, or it tells nothing."""
    try:
        content = read_json(manifest)
    except EdgeclsError:
        return None
    return content.get("inputs") if isinstance(content, dict) and content.get("schema") == SCHEMA else None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process computes answers in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise MissingError(
            f"cannot write the teacher's answers: {error.strerror}", where=str(folder)
        ) from error
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"

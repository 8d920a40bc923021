"""The files that keep what a teacher says of fixed views of the images.

::

    view-0000.npy   float16 [images, classes]: log-probabilities of view 0 of each image, in the order of the split
    view-0001.part  a view that is being computed: the same file, its rows so far

With ``top_k`` a row holds the classes and log-probabilities of the k likeliest classes, and the rest of the probability
is spread evenly over the others (Shen and Xing 2021, arXiv:2112.01528, keep answers so).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from edgecls.files import full_disk

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
            if not _is_whole(self.file(view), self._row, self.images):
                yield view

    def writer(self, view: int) -> Writer:
        """Takes the answers to a view, from where a killed process stopped."""
        return Writer(self.file(view), self._row, self.images)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        if not self._files:
            self._files = [np.load(self.file(view), mmap_mode="r") for view in range(self.count)]
        rows = np.stack([self._files[view][image] for image, view in places.tolist()])
        return unpacked(rows, self.classes)

    def file(self, view: int) -> Path:
        """Where a view is kept."""
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

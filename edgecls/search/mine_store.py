"""What ``mine`` has found out, kept by content in one SQLite file: a killed search goes on where it was.

SQLite writes whole transactions or nothing, and keeps millions of rows out of memory. No TensorFlow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from edgecls.errors import EdgeclsError, MissingError

_VERSION = 1  # raise when the tables or what is in them are made differently
_MANY = 500  # values in one question; SQLite allows 999
_TABLES = """
CREATE TABLE files (path BLOB PRIMARY KEY, size INTEGER, time INTEGER, digest TEXT, bad TEXT) WITHOUT ROWID;
CREATE TABLE thumbnails (digest TEXT PRIMARY KEY, pixels BLOB);
CREATE TABLE pairs (left TEXT, right TEXT, same INTEGER, PRIMARY KEY (left, right)) WITHOUT ROWID;
CREATE TABLE held (images TEXT, digest TEXT, other TEXT, PRIMARY KEY (images, digest)) WITHOUT ROWID;
CREATE TABLE answers (teacher TEXT, digest TEXT, class INTEGER, probability REAL,
  PRIMARY KEY (teacher, digest)) WITHOUT ROWID;
"""

Seen = tuple[int, int, str, str]
"""Bytes of a file, its time in ns, the digest of its content, and why it cannot be used (empty: it can)."""


class Store:
    """The file; it is made where there is none. Use ``open_store``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            if version:  # of another version of edgecls: begin anew
                for (table,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                ).fetchall():
                    connection.execute(f"DROP TABLE {table}")
            connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")

    def files(self, paths: Sequence[bytes]) -> dict[bytes, Seen]:
        """What is known of files."""
        rows = self._rows("SELECT path, size, time, digest, bad FROM files WHERE path IN ({})", paths)
        return {path: (size, time, digest, bad) for path, size, time, digest, bad in rows}

    def add_files(self, seen: Mapping[bytes, Seen], thumbnails: Mapping[str, np.ndarray]) -> None:
        """Keep what was seen of files, and the thumbnails of their contents."""
        with self._connection:
            self._connection.executemany(
                "REPLACE INTO files VALUES (?, ?, ?, ?, ?)", ((path, *row) for path, row in seen.items())
            )
            rows = ((digest, pixels.tobytes()) for digest, pixels in thumbnails.items())
            self._connection.executemany("REPLACE INTO thumbnails VALUES (?, ?)", rows)

    def thumbnails(self, digests: Sequence[str]) -> np.ndarray:
        """Thumbnails of contents in their order, uint8 [N, 1105]. All must be there."""
        found = dict(self._rows("SELECT digest, pixels FROM thumbnails WHERE digest IN ({})", digests))
        return np.stack([np.frombuffer(found[digest], np.uint8) for digest in digests])

    def pair(self, left: str, right: str) -> bool | None:
        """Whether two contents show the same picture; None: it was not decided yet."""
        row = self._connection.execute(
            "SELECT same FROM pairs WHERE left = ? AND right = ?", sorted((left, right))
        ).fetchone()
        return None if row is None else bool(row[0])

    def add_pairs(self, decided: Mapping[tuple[str, str], bool]) -> None:
        """Keep decisions."""
        rows = ((*sorted(pair), int(same)) for pair, same in decided.items())
        with self._connection:
            self._connection.executemany("REPLACE INTO pairs VALUES (?, ?, ?)", rows)

    def held(self, images: str, digests: Sequence[str]) -> dict[str, str]:
        """Of contents that were compared with the evaluation ``images``: the one that is the same, or ""."""
        return dict(
            self._rows("SELECT digest, other FROM held WHERE images = ? AND digest IN ({})", digests, images)
        )

    def add_held(self, images: str, found: Mapping[str, str]) -> None:
        """Keep the result of comparing contents with the evaluation ``images``."""
        rows = ((images, digest, other) for digest, other in found.items())
        with self._connection:
            self._connection.executemany("REPLACE INTO held VALUES (?, ?, ?)", rows)

    def answers(self, teacher: str, digests: Sequence[str]) -> dict[str, tuple[int, float]]:
        """What a teacher has answered: the likeliest class of each content, and its probability."""
        rows = self._rows(
            "SELECT digest, class, probability FROM answers WHERE teacher = ? AND digest IN ({})",
            digests,
            teacher,
        )
        return {digest: (number, probability) for digest, number, probability in rows}

    def add_answers(self, teacher: str, answers: Mapping[str, tuple[int, float]]) -> None:
        """Keep answers of a teacher."""
        rows = ((teacher, digest, *answer) for digest, answer in answers.items())
        with self._connection:
            self._connection.executemany("REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)

    def _rows(self, question: str, values: Sequence[str | bytes], *first: str) -> Iterator[tuple]:
        for start in range(0, len(values), _MANY):
            some = values[start : start + _MANY]
            marks = ",".join("?" * len(some))
            yield from self._connection.execute(question.format(marks), (*first, *some))


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open the file for the length of a block.

    Raises:
        MissingError: The disk is full, or the file cannot be written.
        EdgeclsError: It is damaged, or another process writes to it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MissingError(f"cannot be made: {error.strerror}", where=str(path.parent), fix=_OTHER) from error
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            yield Store(path, connection)
    except sqlite3.Error as error:
        raise _explained(error, path) from error


_OTHER = "set EDGECLS_CACHE to a folder that can be written"


def _explained(error: sqlite3.Error, path: Path) -> EdgeclsError:
    text = str(error)
    if "full" in text:
        return MissingError("no disk space left", where=str(path), fix="free some space and run again")
    if "locked" in text:
        return EdgeclsError("another process searches these images", where=str(path), fix="wait for it")
    if isinstance(error, sqlite3.OperationalError):
        return MissingError(f"cannot be used: {text}", where=str(path), fix=_OTHER)
    return EdgeclsError(f"damaged: {text}", where=str(path), fix="remove it and run again")

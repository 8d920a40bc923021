"""Finds the files to measure, checks that they are TFLite, and identifies them by their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from android_bench.errors import BenchUsageError

# A TFLite file is a FlatBuffer: its file identifier stands after the 4-byte root offset.
_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class ModelFile:
    """One TFLite file: ``name`` is unique among those measured together, ``bytes`` its size."""

    path: Path
    name: str
    sha256: str
    bytes: int


def find_models(paths: Iterable[str | Path]) -> list[ModelFile]:
    """The TFLite files behind ``paths``; a folder stands for all ``*.tflite`` files in it.

    Raises:
        BenchUsageError: A file is missing, is not TFLite, or there is none at all.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.tflite")) if path.is_dir() else [path]
        if not found:
            raise BenchUsageError("no .tflite file in this folder", where=str(path))
        files += [f for f in found if f not in files]
    if not files:
        raise BenchUsageError("no model to measure", fix="name a .tflite file or a folder of them")
    names = [f.name for f in files]
    return [_read(f, f.name if names.count(f.name) == 1 else str(f)) for f in files]


def _read(path: Path, name: str) -> ModelFile:
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except FileNotFoundError:
        raise BenchUsageError("no such model file", where=str(path)) from None
    except OSError as error:
        raise BenchUsageError(f"cannot read the model: {error.strerror}", where=str(path)) from None
    if head[4:8] != _IDENTIFIER:
        raise BenchUsageError(
            "not a TFLite file", where=str(path), fix="make one with `edgecls export` or the TFLite converter"
        )
    return ModelFile(path, name, digest, size)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_threads(threads: str | int | Iterable[int | str]) -> list[int]:
    """``"1,2,4"`` or ``[1, 2, 4]`` as a list of thread counts, each 1 to 64, none twice.

    Raises:
        BenchUsageError: An item is not such a number.
    """
    items: list[int | str]
    if isinstance(threads, str):
        items = list(threads.split(","))
    else:
        items = [threads] if isinstance(threads, int) else list(threads)
    counts: list[int] = []
    for item in items:
        text = str(item).strip()
        if isinstance(item, bool) or not (text.isascii() and text.isdigit() and 1 <= int(text) <= 64):
            raise BenchUsageError(
                f"threads must be numbers from 1 to 64, not {text!r}", where=f"--threads {threads}"
            )
        if int(text) not in counts:
            counts.append(int(text))
    if not counts:
        raise BenchUsageError("no thread count given", fix="use for example --threads 1,2,4")
    return counts

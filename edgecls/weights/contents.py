"""What a file that cannot be read as its suffix says really is, from its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

_HEAD = 4096
_TORCH, _PADDLE = (".pth", ".pt", ".pth.tar", ".bin"), (".pdparams", ".pkl")
_KERAS, _NPZ, _H5, _SAFETENSORS = (".keras",), (".npz",), (".h5", ".hdf5"), (".safetensors",)
_NO_WEIGHTS = {
    b"version https://git-lfs": "it is only a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"<!doctype html": "it is a web page: download the file itself",
    b"<html": "it is a web page: download the file itself",
    b"\x1f\x8b": "it is packed with gzip: unpack it",
    b"bzh": "it is packed with bzip2: unpack it",
    b"\xfd7zxz\x00": "it is packed with xz: unpack it",
}


def hint(path: str | Path) -> str:
    """What to do with a file that is not of the format that its suffix names.

    Args:
        path: A file that could not be read.

    Returns:
        A clause for an error; ``""`` where the content says nothing, or nothing else than the suffix.

    Example:
        >>> Path("lite0.pth").write_text("<!DOCTYPE html><html>")  # doctest: +SKIP
        >>> hint("lite0.pth")  # doctest: +SKIP
        'it is a web page: download the file itself'
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    if not head:
        return "it is empty"
    start = head.lstrip().lower()
    for sign, what in _NO_WEIGHTS.items():
        if start.startswith(sign):
            return what
    if head[257:262] == b"ustar":
        return "it is a tar archive: unpack it, and name the file in it"
    suffixes = _suffixes(path, head)
    if suffixes == ():
        return "it is a zip archive: unpack it, and name the file in it"
    if suffixes is None or path.name.lower().endswith(suffixes):
        return ""
    return f"it looks like a {suffixes[0]} file: give it that suffix"


def _suffixes(path: Path, head: bytes) -> tuple[str, ...] | None:
    """The suffixes that fit the content; none of a zip archive of other files; None: not known."""
    if zipfile.is_zipfile(path):
        return _of_zip(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _H5
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27:
        return _SAFETENSORS
    if head[4:8] == b"TFL3":
        return (".tflite",)
    if head.startswith(b"\x80"):  # a pickle; PyTorch's begins with a number of its own and has storages
        return (
            _PADDLE
            if b"multiarray" in head
            else _TORCH
            if b"torch" in head or head[2:4] == b"\x8a\n"
            else None
        )
    return None


def _of_zip(path: Path) -> tuple[str, ...] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    if any(name.endswith("data.pkl") for name in names):
        return _TORCH
    if names and all(name.endswith(".npy") for name in names):
        return _NPZ
    return _KERAS if "model.weights.h5" in names else ()

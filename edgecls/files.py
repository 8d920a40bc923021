"""Files that are whole or absent: atomic writing, hashes, and JSON lines which survive a kill."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgecls.errors import EdgeclsError, MissingError, UsageError

TEMPORARY = ".tmp-"  # in the name of every temporary file
_ASIDE = ".aside-"  # in the name of a folder that is being replaced


def cache_dir() -> Path:
    """The user's cache: ``$EDGECLS_CACHE``, else ``$XDG_CACHE_HOME/edgecls``, else ``~/.cache/edgecls``.

    A user without a home (a container's bare user id) gets a folder of their own among the temporary files.
    """
    if chosen := os.environ.get("EDGECLS_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "edgecls"
    try:
        return Path.home() / ".cache" / "edgecls"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"edgecls-{os.getuid()}"


def expand_user(path: str | Path) -> Path:
    """A path with ``~`` or ``~name`` at its beginning written out.

    Raises:
        UsageError: That user has no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError("this user has no home", where=str(path), fix="write the whole path") from None


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` with the same suffix; renamed to it on success, removed on failure.

    The block may write a file or make a folder. Missing parent folders are made. What was at ``path`` stays whole
    until its successor is whole.

    Raises:
        MissingError: The disk is full.

    Example:
        >>> with atomic("labels.txt") as temporary:
        ...     _ = temporary.write_text("cat\\ndog\\n")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}{TEMPORARY}{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, path)
        else:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        remove(temporary)
        raise full_disk(error, path) from error
    except BaseException:
        remove(temporary)
        raise


def _replace_folder(new: Path, path: Path) -> None:
    """Rename a folder to ``path``. A folder cannot be renamed onto a full one, so the old one steps aside first."""
    aside = path.with_name(f".{path.name}{_ASIDE}{os.getpid()}")
    if path.is_dir() and not path.is_symlink():
        path.rename(aside)
    try:
        new.replace(path)
    except OSError:
        if aside.is_dir():
            aside.rename(path)
        raise
    remove(aside)


def sweep(folder: Path) -> None:
    """Clear up after a killed process: remove its temporary files, put back a folder that it was replacing."""
    for left in list(folder.rglob(f".*{_ASIDE}*")):
        path = left.with_name(left.name.removeprefix(".").rpartition(_ASIDE)[0])
        if path.exists():
            remove(left)
        else:
            left.rename(path)
    for left in list(folder.rglob(f".*{TEMPORARY}*")):
        remove(left)


def full_disk(error: OSError, path: Path) -> Exception:
    """A full disk, or a limit on files, as the one-line error; every other OSError as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MissingError("no disk space left", where=str(path), fix="free some space and run again")
    if error.errno == errno.EFBIG:
        fix = "raise it (ulimit -f) or use another disk, and run again"
        return MissingError("the file would be larger than the system allows", where=str(path), fix=fix)
    return error


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_text(path, _json_bytes(text).decode("utf-8"))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        EdgeclsError: It is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError("no such file", where=str(path), fix="run the command that makes it") from None
    except ValueError as error:
        fix = "remove it and run the command that makes it"
        raise EdgeclsError(f"not valid JSON: {error}", where=str(path), fix=fix) from None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, or of the names and contents in a folder, hexadecimal."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return hash_json([[p.relative_to(path).as_posix(), sha256(p)] for p in files])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a value as JSON, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return (
        sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        if path.is_dir()
        else path.stat().st_size
    )


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a .jsonl file; a line torn by a kill is left out. No file: no rows."""
    rows = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a CSV table; its columns are all keys of all rows, in the order in which they come first.

    Example:
        >>> to_csv([{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.25, "lr": 0.1}])
        'epoch,loss,lr\\n0,0.5,\\n1,0.25,0.1\\n'
    """
    table = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _json_bytes(text: str) -> bytes:
    r"""JSON as UTF-8; bytes of file names that are not UTF-8 become JSON's escapes (``\udcff``)."""
    return text.encode("utf-8", "backslashreplace")


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Append one line and force it to disk; a line torn by a kill before it is closed first."""
    line = _json_bytes(json.dumps(row, ensure_ascii=False, default=str)) + b"\n"
    try:
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise full_disk(error, path) from error

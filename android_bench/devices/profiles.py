"""The entries of devices.yaml: chips, and the user's phones by name.

Three files are read: the built-in one, the user's (``<config folder>/devices.yaml``, see ``folders.config_folder``) and
the project's (``devices.yaml`` in the working directory). A later file replaces single fields of the earlier ones.
Fields of a key, all optional:

- ``serial``: the phone's serial or ``host:port``; ``soc``: the key of the chip that it must have; ``binary``: its
  benchmark_model, relative to the file that names it.
- ``name``, ``match``, ``clusters``, ``rounded``, ``note``: a chip, as the built-in file explains.
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from android_bench.errors import BenchUsageError
from android_bench.folders import config_folder

_BUILT_IN = Path(__file__).with_name("devices.yaml")
_FIELDS: dict[str, type] = {
    "serial": str, "soc": str, "binary": str, "name": str, "match": dict, "clusters": list, "rounded": bool,
    "note": str,
}  # fmt: skip
_KINDS = {str: "text (in quotes)", dict: "a mapping", list: "a list", bool: "true or false"}
_CHIP = ("name", "match", "clusters")
_MATCH = {"soc_model", "platform"}


@dataclass(frozen=True)
class Cluster:
    """Cores that share a clock: affinity mask, and their highest clock in kHz (None: not confirmed)."""

    mask: int
    max_khz: int | None


@dataclass(frozen=True)
class Profile:
    """A chip (SoC). ``clusters`` are ordered from the slowest; ``rounded`` clocks are known to the MHz only."""

    key: str
    name: str
    soc_model: str
    platform: str
    clusters: tuple[Cluster, ...]
    rounded: bool = False
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """One key of devices.yaml. A field that is not given is empty."""

    key: str
    serial: str = ""
    soc: str = ""
    binary: str = ""
    profile: Profile | None = None


def entries() -> dict[str, Entry]:
    """All entries by key, in small letters.

    Raises:
        BenchUsageError: A file has another form.
    """
    rows: dict[str, dict[str, Any]] = {}
    for path in (_BUILT_IN, config_folder() / "devices.yaml", Path("devices.yaml").absolute()):
        for key, row in _read(path, path.stat().st_mtime_ns if path.is_file() else 0).items():
            rows[key] = rows.get(key, {}) | row
    return {key: _entry(key, row) for key, row in rows.items()}


def profiles() -> dict[str, Profile]:
    """The chips by key, e.g. ``"sd855"``."""
    return {key: entry.profile for key, entry in entries().items() if entry.profile}


def called(name: str) -> tuple[Profile, ...]:
    """The chips with this key, name or ``ro.soc.model``. Case, blanks and dashes do not count.

    Example:
        >>> [chip.key for chip in called("Snapdragon 855")], [chip.key for chip in called("SM8150")]
        (['sd855'], ['sd855', 'sd855p'])
    """
    wanted = _bare(name)
    return tuple(p for p in profiles().values() if wanted in map(_bare, (p.key, p.name, p.soc_model)))


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


@functools.cache
def _read(path: Path, changed: int) -> dict[str, dict[str, Any]]:
    """The rows of a file; none where there is no file. ``changed``, its time, makes the cache forget old content."""
    if not changed:
        return {}
    import yaml  # options are read without it

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise BenchUsageError(f"cannot read: {error.strerror}", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise BenchUsageError("not YAML", where=where) from None
    if not isinstance(table, dict):
        raise BenchUsageError("devices must be a mapping from names to fields", where=str(path))
    return {str(key).lower(): _row(str(key), row, path) for key, row in table.items()}


def _row(key: str, row: Any, path: Path) -> dict[str, Any]:
    if key.lower() == "host" or not re.fullmatch(r"[\w.+-]+", key):
        raise BenchUsageError(f"{key!r} cannot be a device's name", where=str(path))
    if not isinstance(row, dict):
        raise BenchUsageError(f'{key}: expected fields such as serial: "R58M"', where=str(path))
    for field, value in row.items():
        if field not in _FIELDS:
            near = difflib.get_close_matches(str(field), _FIELDS, n=1)
            fix = f"did you mean {near[0]}?" if near else f"there are {', '.join(_FIELDS)}"
            raise BenchUsageError(f"{key}: no field {field!r}", where=str(path), fix=fix)
        if not isinstance(value, _FIELDS[field]):
            expected = _KINDS[_FIELDS[field]]
            raise BenchUsageError(f"{key}.{field}: expected {expected}, not {value!r}", where=str(path))
    if "binary" in row:
        try:
            row = row | {"binary": str(path.parent / Path(row["binary"]).expanduser())}
        except RuntimeError:
            what = f"{key}.binary: no home folder for {row['binary']!r}"
            raise BenchUsageError(what, where=str(path), fix="write the whole path") from None
    return dict(row)


def _entry(key: str, row: dict[str, Any]) -> Entry:
    phone = {field: row.get(field, "") for field in ("serial", "soc", "binary")}
    return Entry(key, **phone, profile=_profile(key, row) if row.keys() & set(_CHIP) else None)


def _profile(key: str, row: dict[str, Any]) -> Profile:
    where = f"{key} in devices.yaml"
    missing = [field for field in _CHIP if field not in row] or sorted(_MATCH - row["match"].keys())
    if missing or row["match"].keys() - _MATCH:
        fix = "a chip has name, match: {soc_model, platform} and clusters"
        raise BenchUsageError(
            f"a chip without {missing[0]}" if missing else "a strange match", where=where, fix=fix
        )
    try:
        clusters = tuple(
            Cluster(int(str(mask), 16), None if khz is None else int(khz)) for mask, khz in row["clusters"]
        )
    except (TypeError, ValueError):
        fix = 'a cluster is ["0f", 1785600]: mask in hexadecimal, kHz or null'
        raise BenchUsageError("clusters cannot be read", where=where, fix=fix) from None
    match = {field: str(value) for field, value in row["match"].items()}
    return Profile(
        key,
        row["name"],
        **match,
        clusters=clusters,
        rounded=row.get("rounded", False),
        note=row.get("note", ""),
    )

"""The zip archive at the end of a .tflite file: labels, and how photos are prepared.

A module of its own, because who classifies a photo needs no more of the file's metadata, and the schema that the rest
is read with takes a tenth of a second to import.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

from edgecls.errors import UsageError
from edgecls.labels import parse_labels
from edgecls.text import first_line

LABELS, DETAILS = "labels.txt", "edgecls.json"
MEMBER_LIMIT = 8_000_000
"""Bytes of labels or details: 100,000 classes with long names need less."""


def attached(content: bytes, where: str = "") -> tuple[list[str], dict[str, Any]]:
    """Labels and details in the zip at the end of a file's content; empty where there is none.

    Raises:
        UsageError: They cannot be read; ``where`` is named in the text.
    """
    try:
        return _read(content)
    except (ValueError, RecursionError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(
            f"the metadata cannot be read: {first_line(error)}", where=where, fix="export the file again"
        ) from None


def _read(content: bytes) -> tuple[list[str], dict[str, Any]]:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return [], {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        text = [name for name in names if name == LABELS or name.endswith(".txt")]
        classes = parse_labels(_member(archive, text[0]).decode()) if text else []
        details = json.loads(_member(archive, DETAILS)) if DETAILS in names else {}
    if not isinstance(details, dict):
        raise ValueError(f"{DETAILS} is not a JSON object")
    return classes, details


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's content. A few bytes can be packed gigabytes, so no more than the limit is unpacked."""
    with archive.open(name) as file:
        content = file.read(MEMBER_LIMIT + 1)
    if len(content) > MEMBER_LIMIT:
        raise ValueError(f"{name} is larger than {MEMBER_LIMIT / 1e6:.0f} MB")
    return content

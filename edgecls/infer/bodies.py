"""The photos in the body of an HTTP request, and what a request may cost. Knows no web framework."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgecls.text import escape, first_line, plural

MULTIPART, JSON = "multipart/form-data", "application/json"
_RAW = "application/octet-stream"
_TYPES = f"send a photo as image/jpeg (or another image type) or {_RAW}, or photos as {MULTIPART} or {JSON}"


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        bytes: Of the body of one request.
        pixels: Of one image, before it is decoded.
        images: In one request.
        seconds: In which the headers, and then the body, must arrive.
        memory: Bytes of all bodies that are in memory at once.
    """

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    images: int = 64
    seconds: float = 30.0
    memory: int = 256_000_000


class Refusal(Exception):
    """A request that is not answered with predictions.

    Args:
        status: The HTTP status.
        text: What is wrong and what to do, in one line.
        retry_s: Seconds after which the same request may succeed.
    """

    def __init__(self, status: int, text: str, retry_s: int | None = None) -> None:
        self.status, self.text, self.retry_s = status, text, retry_s
        super().__init__(text)


class Upload(NamedTuple):
    """One image of a request."""

    name: str | int
    """The file's name, or the image's position where it has none."""
    data: bytes


def media_type(content_type: str | None) -> str:
    """Which kind of body a Content-Type header announces: ``MULTIPART``, ``JSON`` or another of one image.

    Raises:
        Refusal: 415, no kind that can hold a photo.

    Example:
        >>> media_type("multipart/form-data; boundary=x")
        'multipart/form-data'
    """
    kind = (content_type or _RAW).partition(";")[0].strip().lower()
    if kind in (MULTIPART, JSON, _RAW) or kind.startswith("image/"):
        return kind
    raise Refusal(415, f"{escape(kind[:80])} cannot hold a photo; {_TYPES}")


def uploads(content_type: str | None, body: bytes, most: int) -> list[Upload]:
    """The images of a request.

    Args:
        content_type: Of the request.
        body: All of it.
        most: How many images are allowed.

    Raises:
        Refusal: 400, the body is empty or not of its type; 413, too many images; 415, an unknown type.

    Example:
        >>> uploads("image/jpeg", b"...", most=1)
        [Upload(name=0, data=b'...')]
    """
    kind = media_type(content_type)
    if not body:
        raise Refusal(400, f"the body is empty; {_TYPES}")
    readers = {MULTIPART: _multipart, JSON: _json}
    found = readers[kind](content_type or "", body) if kind in readers else [Upload(0, body)]
    if not found:
        raise Refusal(400, 'the request has no image; give each as a file, e.g. curl -F "image=@photo.jpg"')
    if len(found) > most:
        raise Refusal(413, f"{plural(len(found), 'image')} in one request, {most} are allowed; send several")
    return found


def _multipart(content_type: str, body: bytes) -> list[Upload]:
    """The parts that are files, whatever their fields are called."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    parts = _Parts()
    try:
        parser = MultipartParser(parse_options_header(content_type)[1][b"boundary"], parts.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, KeyError) as error:
        raise Refusal(400, f"not {MULTIPART}: {first_line(error)}") from None
    if not parts.whole:
        raise Refusal(400, f"the {MULTIPART} ends before its last boundary")
    names = [parse_options_header(head)[1].get(b"filename") for head in parts.dispositions]
    files = [(name, data) for name, data in zip(names, parts.contents, strict=True) if name is not None]
    return [
        Upload(escape(name.decode("utf-8", "replace")) if name else i, bytes(data))
        for i, (name, data) in enumerate(files)
    ]


class _Parts:
    """Collects what a ``MultipartParser`` finds."""

    def __init__(self) -> None:
        self.dispositions: list[bytes] = []
        self.contents: list[bytearray] = []
        self.whole = False
        self._field = self._value = b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self.dispositions.append(b"")
        self.contents.append(bytearray())

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self.dispositions[-1] = self._value
        self._field = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.contents[-1] += data[start:end]

    def _end(self) -> None:
        self.whole = True


def _json(content_type: str, body: bytes) -> list[Upload]:
    """``{"image": base64}`` or ``{"images": [base64, ...]}``; a data URL is taken, too."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"not JSON: {first_line(error)}") from None
    images = content.get("images", content.get("image")) if isinstance(content, dict) else None
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Refusal(400, 'the JSON is not {"image": base64} or {"images": [base64, ...]}')
    return [Upload(i, _decoded(i, image)) for i, image in enumerate(images)]


def _decoded(position: int, text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"image {position} is not base64: {first_line(error)}") from None

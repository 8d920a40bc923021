"""TFRecord files of encoded images: a reader that finds each image in its file, and a writer. No TensorFlow.

A file is a sequence of records: length (uint64), its checksum, data, the data's checksum; each record is a
``tf.train.Example`` in protobuf's wire format (https://www.tensorflow.org/tutorials/load_data/tfrecord). The reader
walks over the records and notes where the encoded image lies, so that no image is copied: a training reads it from
there (``Member``). The names of the features are those of the TensorFlow models and of TFDS, or are given.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from google_crc32c import value as crc32c

from edgecls.data.members import member
from edgecls.data.rows import Rows
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import atomic
from edgecls.text import escape, plural

IMAGES = ("image/encoded", "image", "image_raw", "encoded", "image_bytes", "jpeg", "png")
LABELS = ("image/class/label", "label", "class", "target", "image/label", "label_id", "image/class/text")
NAMES = ("image/filename", "filename", "image/filename/raw")
SUFFIXES = (".tfrecord", ".tfrecords", ".tfrec")
CHECKED_BYTES = 4 * 2**30
"""Size of all files up to which the checksums of the data are checked at the start: 4 GiB take some seconds."""


class _Span(NamedTuple):
    """Where a value lies in a file."""

    start: int
    length: int


class _Several(NamedTuple):
    """A feature with more than one value: of a label they are several classes, or a vector with a 1 in it."""


Feature = _Span | int | float | _Several
"""A bytes value by its place, or a number."""


class _Damaged(ValueError):
    """A record cannot be read; the text says why."""


def tfrecord_files(path: Path) -> list[Path]:
    """The files of a TFRecord source.

    Args:
        path: One file, a folder of them, or a pattern such as ``data/train-*``.

    Raises:
        MissingError: There is none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.iterdir() if is_tfrecord_name(file.name) and file.is_file()]
    else:
        found = (
            [file for file in path.parent.glob(path.name) if file.is_file()] if path.parent.is_dir() else []
        )
    if not found:
        raise MissingError(
            "no TFRecord files", where=str(path), fix="name a file, a folder or a pattern train-*"
        )
    return sorted(found)


def is_tfrecord_name(name: str) -> bool:
    """Whether a file is called like a TFRecord file, shards (``train.tfrecord-00000-of-00010``) included."""
    stem = name.lower().split("-of-")[0].rstrip("0123456789").rstrip("-")
    return not name.startswith(".") and (stem.endswith(SUFFIXES) or name.lower().endswith(SUFFIXES))


def read_tfrecords(path: Path, image_feature: str | None = None, label_feature: str | None = None) -> Rows:
    """The images of TFRecord files.

    Args:
        path: See ``tfrecord_files``.
        image_feature: Feature of the encoded image; None: the first of ``IMAGES`` that is there.
        label_feature: Feature of the label; None: the first of ``LABELS`` that is there.

    Returns:
        Images as ``Member`` of their file. Damaged records and records without the features are in ``bad``; after a
        damaged length the rest of a file cannot be read and counts as one.

    Raises:
        MissingError: There are no files.
        UsageError: A file is no TFRecord file, no record has an image, or none has the features that are named.
    """
    files = tfrecord_files(path)
    checked = sum(file.stat().st_size for file in files) <= CHECKED_BYTES
    found: list[_Image] = []
    bad: list[tuple[str, str]] = []
    seen: set[str] = set()
    for file in files:
        with file.open("rb") as source:
            for number, record in enumerate(_records(source, file, checked)):
                name = f"{escape(file.name)}/{number}"
                if isinstance(record, str):
                    bad.append((name, record))
                    continue
                seen |= record.keys()
                try:
                    found.append(_image(source, file, name, record, image_feature, label_feature))
                except _Damaged as error:
                    bad.append((name, str(error)))
    there = f"there are: {', '.join(map(escape, sorted(seen)))}"
    if seen and not seen & {image_feature, *(() if image_feature else IMAGES)}:
        fix = f"name the image's feature in data.image_column; {there}"
        raise UsageError("no record has an image", where=str(path), fix=fix)
    if seen and label_feature and label_feature not in seen:
        what = f"no record has the feature {escape(label_feature)}"
        raise UsageError(what, where=str(path), fix=f"set data.label_column; {there}")
    if not found and bad and not seen:
        raise EdgeclsError(f"no record can be read: {bad[0][0]}: {bad[0][1]}", where=str(path))
    notes = [] if checked else [f"{plural(len(files), 'large file')}: checksums of the data are not checked"]
    if found and (without := sum(image.label is None for image in found)):
        some = f"{plural(without, 'record has', 'records have')} no label"
        said = "no record has a label" if without == len(found) else some
        notes.append(f"{said}; data.label_column names the feature; {there}")
    originals = [image.original for image in found]
    by_original = None not in originals and len(set(originals)) == len(originals)
    return Rows(
        names=[str(image.original) if by_original else image.name for image in found],
        files=[image.member for image in found],
        labels=[image.label for image in found],
        where=lambda i: found[i].name,
        bad=bad,
        notes=notes,
    )


class _Image(NamedTuple):
    name: str
    member: str
    label: str | None
    original: str | None


def _image(
    source: BinaryIO,
    file: Path,
    name: str,
    record: Mapping[str, Feature],
    image_feature: str | None,
    label_feature: str | None,
) -> _Image:
    image = _pick(record, [image_feature] if image_feature else IMAGES)
    if not isinstance(image, _Span):
        raise _Damaged(f"no feature {escape(image_feature)}" if image_feature else "no feature with an image")
    label = _pick(record, [label_feature] if label_feature else LABELS)
    if label is None and label_feature:
        raise _Damaged(f"no feature {escape(label_feature)}")
    if isinstance(label, _Several):
        raise _Damaged("its label has several values")
    original = _text(source, _pick(record, NAMES))
    return _Image(
        name,
        member(file.absolute(), image.start, image.length),
        _text(source, label) or None,
        None if original is None else escape(original),
    )


def _pick(record: Mapping[str, Feature], names: Sequence[str]) -> Feature | None:
    return next((record[name] for name in names if name in record), None)


def _text(source: BinaryIO, feature: Feature | None) -> str | None:
    if isinstance(feature, _Span):
        source.seek(feature.start)
        return source.read(feature.length).decode("utf-8", "surrogateescape")
    return None if feature is None or isinstance(feature, _Several) else str(feature)


# Records ---------------------------------------------------------------------------------------------------------

_HEAD = struct.Struct("<QI")  # length, its checksum
_TAIL = struct.Struct("<I")


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated by 15 bits, plus a constant.

    Example:
        >>> hex(masked_crc(b"123456789"))   # of CRC-32C's check value, 0xe3069283
        '0xc78ab0e5'
    """
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _records(source: BinaryIO, file: Path, checked: bool) -> Iterator[dict[str, Feature] | str]:
    """The features of each record, or the reason why it cannot be read; after a damaged length the rest is lost.

    Raises:
        UsageError: The file does not begin like a TFRecord file.
    """
    size = file.stat().st_size
    if not size:
        yield "empty file"
        return
    at = 0
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while at < size:
            head = data[at : at + _HEAD.size]
            good = len(head) == _HEAD.size and masked_crc(head[:8]) == _HEAD.unpack(head)[1]
            if not good and at == 0:
                fix = "gzipped files are not read: unpack them" if head[:2] == b"\x1f\x8b" else ""
                raise UsageError(
                    "not a TFRecord file, or its first length is damaged", where=str(file), fix=fix
                )
            start = at + _HEAD.size
            end = start + _HEAD.unpack(head)[0] if good else size
            if not good or end + _TAIL.size > size:
                what = "the file ends within it" if good else "damaged length"
                yield f"{what}, the rest of the file cannot be read"
                return
            if checked and masked_crc(data[start:end]) != _TAIL.unpack(data[end : end + _TAIL.size])[0]:
                yield "broken checksum"
            else:
                try:
                    yield _features(data, start, end)
                except _Damaged as error:
                    yield str(error)
            at = end + _TAIL.size


# Protobuf's wire format ------------------------------------------------------------------------------------------
# Example {features: 1}, Features {map entry: 1}, entry {key: 1, value: 2},
# Feature {bytes_list: 1, float_list: 2, int64_list: 3}, each list {value: 1}.

_BYTES, _FLOATS, _INTEGERS = 1, 2, 3


def _features(data: mmap.mmap, start: int, end: int) -> dict[str, Feature]:
    """The value of each feature that has one, and which features have several."""
    found: dict[str, Feature] = {}
    for _, features in _messages(data, _Span(start, end - start), 1):
        for _, entry in _messages(data, features, 1):
            parts = dict(_messages(data, entry, 1, 2))
            if 1 not in parts or 2 not in parts:
                continue
            key = data[parts[1].start : parts[1].start + parts[1].length].decode("utf-8", "replace")
            for kind, span in _messages(data, parts[2], _BYTES, _FLOATS, _INTEGERS):
                values = list(islice(_VALUES[kind](data, span), 2))
                if values:
                    found[key] = values[0] if len(values) == 1 else _Several()
    return found


def _bytes(data: mmap.mmap, values: _Span) -> Iterator[_Span]:
    return (span for _, span in _messages(data, values, 1))


def _floats(data: mmap.mmap, values: _Span) -> Iterator[float]:
    for number, kind, at, length in _fields(data, values):
        if number == 1 and kind in (2, 5):  # packed, or one
            for place in range(at, at + length - 3, 4):
                yield _FLOAT.unpack_from(data, place)[0]


def _integers(data: mmap.mmap, values: _Span) -> Iterator[int]:
    for number, kind, at, length in _fields(data, values):
        end = at + length
        while number == 1 and kind in (0, 2) and at < end:
            value, at = _varint(data, at, end)
            yield value - (1 << 64) if value >> 63 else value


_FLOAT = struct.Struct("<f")
_VALUES: dict[int, Callable[[mmap.mmap, _Span], Iterator[_Span | float | int]]] = {
    _BYTES: _bytes,
    _FLOATS: _floats,
    _INTEGERS: _integers,
}


def _messages(data: mmap.mmap, within: _Span, *numbers: int) -> Iterator[tuple[int, _Span]]:
    """The fields of some numbers that are bytes, strings or messages."""
    for number, kind, at, length in _fields(data, within):
        if kind == 2 and number in numbers:
            yield number, _Span(at, length)


def _fields(data: mmap.mmap, within: _Span) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a message: number, wire type, where its value lies, and how long that is."""
    at, end = within.start, within.start + within.length
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == 0:
            start, (_, at) = at, _varint(data, at, end)
        elif kind == 2:
            length, start = _varint(data, at, end)
            at = start + length
        elif kind in (1, 5):
            start, at = at, at + (8 if kind == 1 else 4)
        else:
            raise _Damaged("no tf.train.Example")
        if at > end:
            raise _Damaged("no tf.train.Example")
        yield key >> 3, kind, start, at - start


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Damaged("no tf.train.Example")


# Writing ---------------------------------------------------------------------------------------------------------


def write_tfrecords(path: Path, examples: Iterable[Mapping[str, bytes | int]], shards: int) -> list[Path]:
    """Write images to shards ``NAME-00000-of-00010.tfrecord`` by turns; each is whole or not there.

    Args:
        path: ``FOLDER/NAME``.
        examples: Features of each image, e.g. ``{"image/encoded": ..., "image/class/label": 3}``.
        shards: Number of files.

    Returns:
        The files.

    Example:
        >>> write_tfrecords(Path("out/train"), examples, shards=2)  # doctest: +SKIP
        [PosixPath('out/train-00000-of-00002.tfrecord'), PosixPath('out/train-00001-of-00002.tfrecord')]
    """
    files = [path.with_name(f"{path.name}-{i:05}-of-{shards:05}.tfrecord") for i in range(shards)]
    with ExitStack() as stack:
        parts = [stack.enter_context(atomic(file)) for file in files]
        opened = [stack.enter_context(part.open("wb")) for part in parts]
        for number, example in enumerate(examples):
            opened[number % shards].write(_record(_example(example)))
    return files


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, _TAIL.pack(masked_crc(length)), data, _TAIL.pack(masked_crc(data))))


def _example(features: Mapping[str, bytes | int]) -> bytes:
    entries = []
    for key, value in sorted(features.items()):
        if isinstance(value, int):
            feature = _delimited(_INTEGERS, b"\x08" + _packed(value & (1 << 64) - 1))
        else:
            feature = _delimited(_BYTES, _delimited(1, value))
        entries.append(_delimited(1, _delimited(1, key.encode()) + _delimited(2, feature)))
    return _delimited(1, b"".join(entries))


def _delimited(number: int, data: bytes) -> bytes:
    return _packed(number << 3 | 2) + _packed(len(data)) + data


def _packed(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

"""The images of one split, checked. No TensorFlow."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgecls.data import images
from edgecls.data.rows import Part
from edgecls.data.sampling import Sampling
from edgecls.errors import EdgeclsError
from edgecls.text import plural


@dataclass(frozen=True)
class Split:
    """Images with labels. Either ``files`` or ``images`` is set.

    Attributes:
        names: Names that are stable and safe to print.
        labels: int64 [N], -1 for unlabeled.
        digests: A hash of each image's content: of the file's bytes, or of the pixels.
        shapes: int32 [N, 3]: height, width, channels (1 or 3) once decoded.
        files: Paths; None where the images are in memory.
        jpeg: bool [N]: ``images.Info.jpeg`` of each file.
        images: uint8 [N, H, W, 1 or 3]; None where there are files.
        sampling: How often each image comes in an epoch; None: once.
        in_memory: The decoded images may be kept in memory.
        bad: (name, reason) of the files that were left out: when this split was read, or when they were met. A
            ``subset`` begins with none.
        assumed: ``images.Info.note`` of each file.
        checked: All files were decoded once. Else ``shapes`` and ``jpeg`` are zeros, and files are checked when they
            are met first.
        bad_allowed: How many files may be left out when they are met: that were not checked, or that went bad since.
        notes: What was assumed when this split was read, one line each; a ``subset`` has none.
        store: Where the pipeline keeps its decoded images between epochs.
    """

    names: list[str]
    labels: np.ndarray
    digests: list[str]
    shapes: np.ndarray
    files: list[str] | None = None
    jpeg: np.ndarray | None = None
    images: np.ndarray | None = None
    sampling: Sampling | None = None
    in_memory: bool = True
    bad: list[tuple[str, str]] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    checked: bool = True
    bad_allowed: int = 0
    notes: list[str] = field(default_factory=list)
    store: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each decoded image, int64 [N]."""
        return self.shapes.astype(np.int64).prod(axis=1)

    @property
    def epoch_size(self) -> int:
        """Images in an epoch of training."""
        return len(self) if self.sampling is None else self.sampling.size

    def subset(self, index: np.ndarray | slice) -> Split:
        """The images at ``index`` (numbers, a mask or a slice), in that order."""
        chosen = np.arange(len(self))[index]
        return replace(
            self,
            names=[self.names[i] for i in chosen],
            labels=self.labels[chosen],
            digests=[self.digests[i] for i in chosen],
            shapes=self.shapes[chosen],
            files=None if self.files is None else [self.files[i] for i in chosen],
            jpeg=None if self.jpeg is None else self.jpeg[chosen],
            images=None if self.images is None else self.images[chosen],
            assumed=[self.assumed[i] for i in chosen] if self.assumed else [],
            sampling=None if self.sampling is None else self.sampling.subset(chosen),
            bad=[],
            notes=[],
            store={},
        )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of names, labels, contents in order, and of the sampling; several stages ask for it."""
        rows = zip(self.names, self.labels.tolist(), self.digests, strict=True)
        text = "".join(f"{name}\0{label}\0{digest}\n" for name, label, digest in rows)
        if self.sampling is not None:
            text += f"{self.sampling.first.tolist()}{self.sampling.last.tolist()}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def describe(self, classes: int) -> dict[str, Any]:
        """Counts and ``sha256``, as JSON can hold them."""
        labelled = self.labels[self.labels >= 0]
        return {
            "count": len(self),
            "unlabelled": len(self) - len(labelled),
            "per_class": np.bincount(labelled, minlength=classes).tolist(),
            "sha256": self.sha256,
        }


CHECKED_FILES = 100_000
"""The most files of a part that are decoded before a training. Of larger parts each file is checked when it is met."""
LISTED_FILES = 1_000_000
"""The most files of a part that are looked for before a training. Of larger parts a missing file is found when it is met."""


def check(part: Part, source: str, progress: Callable[[int, int], None] | None) -> Split:
    """Decode all images of a part, or of a large part only look whether the files are there.

    Args:
        part: Names, labels and files or images.
        source: Names the cache that keeps the results.
        progress: Called with (done, all) while files are decoded for the first time.
    """
    if part.images is not None:
        shapes = np.tile(np.array(part.images.shape[1:], np.int32), (len(part.names), 1))
        digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in part.images]
        return Split(part.names, part.labels, digests, shapes, images=part.images)
    assert part.files is not None
    here = os.getcwd() + "/"  # noqa: PTH109  # Path would take seconds for a million files
    files = [file if file.startswith("/") else here + file for file in part.files]
    if len(files) > CHECKED_FILES:
        found = _glanced(part.names, part.labels, files)
    else:
        found = _decoded(part.names, part.labels, files, source, progress)
    return replace(found, bad=found.bad + part.left_out)


def confirmed(
    splits: Mapping[str, Split],
    source: str,
    max_bad_fraction: float,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Split], list[tuple[str, str]], list[str]]:
    """The splits of a data set, of which only the training images may be unchecked.

    Scores need images that can be decoded, so all others are decoded now.

    Args:
        splits: By their purposes.
        source: As of ``check``.
        max_bad_fraction: Share of the training images that may be left out when they are met.
        progress: As of ``check``.

    Returns:
        The splits; (name, reason) of images that were left out; notes of what was assumed.

    Raises:
        EdgeclsError: More than ``max_bad_fraction`` of the images of a split cannot be decoded.
    """
    checked, bad, notes = dict(splits), [], []
    for purpose, split in splits.items():
        if purpose == "train":
            checked[purpose] = replace(split, bad_allowed=int(max_bad_fraction * len(split)))
        if split.checked:
            continue
        if purpose == "train":
            notes.append(_unchecked(len(split)))
            continue
        assert split.files is not None
        found = _decoded(split.names, split.labels, split.files, f"{source}#{purpose}", progress)
        if len(found.bad) > max_bad_fraction * len(split):
            name, reason = found.bad[0]
            what = f"{len(found.bad)} of {len(split)} images of the {purpose} split cannot be used: {name}: {reason}"
            raise EdgeclsError(what, fix="remove or repair them, or raise data.max_bad_fraction")
        checked[purpose] = replace(split, **{key: getattr(found, key) for key in _FOUND})
        bad += found.bad
    assumed = Counter(note for split in checked.values() for note in split.assumed if note)
    notes += [f"{plural(count, 'image')}: {note}" for note, count in sorted(assumed.items())]
    return checked, bad, notes


_FOUND = ("names", "labels", "digests", "shapes", "files", "jpeg", "assumed", "checked")


def _decoded(
    names: list[str],
    labels: np.ndarray,
    files: list[str],
    source: str,
    progress: Callable[[int, int], None] | None,
) -> Split:
    """The files that can be decoded; ``bad`` names the others."""
    results = images.scan(files, images.cache_file(source), progress)
    good = [i for i, result in enumerate(results) if not isinstance(result, str)]
    infos = [result for result in results if not isinstance(result, str)]
    shapes = [(info.height, info.width, info.channels) for info in infos]
    return Split(
        names=[names[i] for i in good],
        labels=labels[good],
        digests=[info.digest for info in infos],
        shapes=np.array(shapes, np.int32).reshape(-1, 3),
        files=[files[i] for i in good],
        jpeg=np.array([info.jpeg for info in infos], bool),
        assumed=[info.note for info in infos],
        bad=[(name, result) for name, result in zip(names, results, strict=True) if isinstance(result, str)],
    )


def _unchecked(count: int) -> str:
    """What is not known of so many training images."""
    if count <= LISTED_FILES:
        return (
            f"{count:,} training images are more than {CHECKED_FILES:,}: each is checked when it is met first"
        )
    return (
        f"{count:,} training images are more than {LISTED_FILES:,}: whether a file is there and can be decoded is "
        "found when it is met first, and a file that changes between two commands is not noticed"
    )


def _glanced(names: list[str], labels: np.ndarray, files: list[str]) -> Split:
    """The files that are there and not empty, unchecked; their digests are made of their names and sizes.

    Of more than ``LISTED_FILES`` all are taken to be there, and the sizes are left out.
    """
    bad: list[tuple[str, str]] = []
    if len(files) > LISTED_FILES:
        digests = [f"{name}:0" for name in names]
    else:
        seen = {file: images.glance(file) for file in dict.fromkeys(files)}
        sizes = [seen[file] for file in files]
        bad = [(name, size) for name, size in zip(names, sizes, strict=True) if isinstance(size, str)]
        good = [i for i, size in enumerate(sizes) if not isinstance(size, str)]
        digests = [f"{names[i]}:{sizes[i]}" for i in good]
        names, labels, files = [names[i] for i in good], labels[good], [files[i] for i in good]
    return Split(
        names,
        labels,
        digests,
        shapes=np.zeros((len(files), 3), np.int32),
        files=files,
        jpeg=np.zeros(len(files), bool),
        assumed=[""] * len(files),
        checked=False,
        bad=bad,
    )


def join(splits: Sequence[Split]) -> Split:
    """One split of several, in their order, each with its own ``bad``.

    Example:
        >>> join([data.train, unlabeled])  # doctest: +SKIP
    """
    if len(splits) == 1:
        return splits[0]
    joined: dict[str, Any] = {}
    for each in fields(Split):
        values = [getattr(split, each.name) for split in splits]
        if isinstance(values[0], np.ndarray):
            joined[each.name] = np.concatenate(values)
        elif isinstance(values[0], list):
            joined[each.name] = [item for value in values for item in value]
    checked = all(split.checked for split in splits)
    return replace(splits[0], sampling=None, checked=checked, store={}, **joined)

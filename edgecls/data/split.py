"""The images of one split, checked. No TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgecls.data import images
from edgecls.data.readers import Part


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
        in_memory: The decoded images may be kept in memory.
        bad: (name, reason) of the files that were left out: when this split was read, or when they were met, if it is
            not ``checked``. A ``subset`` begins with none.
        checked: All files were decoded once. Else ``shapes`` and ``jpeg`` are zeros, and files are checked when they
            are met first.
        bad_allowed: How many files may be left out when they are met.
        store: Where the pipeline keeps its decoded images between epochs.
    """

    names: list[str]
    labels: np.ndarray
    digests: list[str]
    shapes: np.ndarray
    files: list[str] | None = None
    jpeg: np.ndarray | None = None
    images: np.ndarray | None = None
    in_memory: bool = True
    bad: list[tuple[str, str]] = field(default_factory=list)
    checked: bool = True
    bad_allowed: int = 0
    store: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each decoded image, int64 [N]."""
        return self.shapes.astype(np.int64).prod(axis=1)

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
            bad=[],
            store={},
        )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of names, labels and contents in order; several stages ask for it."""
        rows = zip(self.names, self.labels.tolist(), self.digests, strict=True)
        text = "".join(f"{name}\0{label}\0{digest}\n" for name, label, digest in rows)
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


def check(part: Part, source: str, progress: Callable[[int, int], None] | None) -> Split:
    """Decode all images of a part. ``source`` names the cache that keeps the results."""
    if part.images is not None:
        shapes = np.tile(np.array(part.images.shape[1:], np.int32), (len(part.names), 1))
        digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in part.images]
        return Split(part.names, part.labels, digests, shapes, images=part.images)
    assert part.files is not None
    results = images.scan(part.files, images.cache_file(source), progress)
    good = [i for i, result in enumerate(results) if not isinstance(result, str)]
    infos = [result for result in results if not isinstance(result, str)]
    return Split(
        names=[part.names[i] for i in good],
        labels=part.labels[good],
        digests=[info.digest for info in infos],
        shapes=np.array([(info.height, info.width, info.channels) for info in infos], np.int32).reshape(
            -1, 3
        ),
        files=[str(Path(part.files[i]).absolute()) for i in good],
        jpeg=np.array([info.jpeg for info in infos], bool),
        bad=[(name, r) for name, r in zip(part.names, results, strict=True) if isinstance(r, str)]
        + part.left_out,
    )

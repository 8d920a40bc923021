"""Copies and near-copies in a data set: counted, kept in one split, or left out. No TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Literal

import numpy as np

from edgecls.data import near_duplicates
from edgecls.data.split import Split
from edgecls.text import escape, plural

Progress = Callable[[int, int], None] | None

MOST_LOOKED_AT = 20_000
"""Images up to which ``data.near_duplicates: warn`` looks for near-copies: it takes seconds."""

_KEPT_FIRST = ("test", "val", "train")  # a copy is left out of the training images, not of the test images


class Copies:
    """The copies and near-copies among the images of some splits.

    Args:
        splits: Images by purpose.
        source: Name of the cache of thumbnails.
        how: ``data.near_duplicates``. With ``off``, and with ``warn`` for many images, only copies of the same bytes
            are known.
        progress: Called with (done, all) while photos are read for the first time.

    Attributes:
        pairs: Near-copies, int64 [P, 2], as numbers of images over all splits in their order; None: not looked for.
    """

    def __init__(
        self,
        splits: Mapping[str, Split],
        source: str,
        how: Literal["off", "warn", "group", "drop"],
        progress: Progress = None,
    ) -> None:
        self.splits = {purpose: splits[purpose] for purpose in _KEPT_FIRST if purpose in splits}
        self.digests = [digest for split in self.splits.values() for digest in split.digests]
        self.pairs: np.ndarray | None = None
        looks = how in ("group", "drop") or (how == "warn" and len(self.digests) <= MOST_LOOKED_AT)
        self.skipped = how == "warn" and not looks
        if looks:
            thumbnails = near_duplicates.read_thumbnails(list(self.splits.values()), source, progress)
            _, first = np.unique(np.array(self.digests, str), return_index=True)
            first = np.sort(first)
            self.pairs = first[near_duplicates.find(thumbnails[first])]

    def groups(self) -> dict[str, list[str]]:
        """The name of each image's group: the alphabetically first name of its copies and near-copies."""
        first, names = self._firsts(), [name for split in self.splits.values() for name in split.names]
        called: dict[int, str] = {}
        for group, name in zip(first, names, strict=True):
            called[group] = min(name, called.get(group, name))
        labels = [called[group] for group in first]
        stops = np.cumsum([len(split) for split in self.splits.values()])[:-1]
        parts = np.split(np.array(labels, object), stops)
        return {purpose: part.tolist() for purpose, part in zip(self.splits, parts, strict=True)}

    def dropped(self) -> tuple[dict[str, Split], list[tuple[str, str]]]:
        """The splits with one image of each group, and (name, reason) of the others.

        Of copies in several splits that in the test images is kept, else that in the validation images. Within a split
        that with the first name is kept.
        """
        names = [name for split in self.splits.values() for name in split.names]
        purposes = [i for i, split in enumerate(self.splits.values()) for _ in split.names]
        best: dict[int, int] = {}
        first = self._firsts()
        for i, group in enumerate(first):
            other = best.setdefault(group, i)
            if (purposes[i], names[i]) < (purposes[other], names[other]):
                best[group] = i
        keep = np.array([best[group] == i for i, group in enumerate(first)], bool)
        out = [(names[i], f"near-copy of {names[best[first[i]]]}") for i in np.flatnonzero(~keep)]
        stops = np.cumsum([len(split) for split in self.splits.values()])[:-1]
        masks = np.split(keep, stops)
        return {
            purpose: split.subset(mask)
            for (purpose, split), mask in zip(self.splits.items(), masks, strict=True)
        }, out

    def numbers(self) -> dict[str, np.ndarray]:
        """The number of each image's group, int64 [N]; names would not do: two splits may use one name twice."""
        stops = np.cumsum([len(split) for split in self.splits.values()])[:-1]
        return dict(zip(self.splits, np.split(np.array(self._firsts(), np.int64), stops), strict=True))

    def _firsts(self) -> list[int]:
        seen: dict[str, int] = {}
        same = [(seen.setdefault(digest, i), i) for i, digest in enumerate(self.digests)]
        pairs = np.array([pair for pair in same if pair[0] != pair[1]], np.int64).reshape(-1, 2)
        if self.pairs is not None:
            pairs = np.concatenate([pairs, self.pairs])
        return near_duplicates.first_of_each(len(self.digests), pairs).tolist()

    def crossing(self) -> Counter[tuple[str, str]]:
        """Pairs of near-copies in two splits: counts by the two purposes."""
        purposes = [purpose for purpose, split in self.splits.items() for _ in split.names]
        pairs = [] if self.pairs is None else self.pairs.tolist()
        found = Counter((purposes[left], purposes[right]) for left, right in pairs)
        return Counter({key: n for key, n in found.items() if key[0] != key[1]})

    def exact_crossing(self) -> Counter[tuple[str, str]]:
        """Contents that are in two splits: counts by the two purposes."""
        contents = {purpose: set(split.digests) for purpose, split in self.splits.items()}
        counts = {(a, b): len(contents[a] & contents[b]) for a, b in combinations(contents, 2)}
        return Counter({key: n for key, n in counts.items() if n})

    def _exact_example(self, *purposes: str) -> str:
        """Names of one content that is in all of some splits."""
        splits = [self.splits[purpose] for purpose in purposes]
        digest = min(set.intersection(*(set(split.digests) for split in splits)))
        names = [escape(split.names[list(split.digests).index(digest)]) for split in splits]
        return " and ".join(f"{name} ({purpose})" for name, purpose in zip(names, purposes, strict=True))

    def notes(self) -> list[str]:
        """What the user should know, one line each."""
        lines = []
        if exact := self.exact_crossing():
            counts = plural(exact.total(), "image is", "images are")
            example = f"such as {self._exact_example(*next(iter(exact)))}"
            lines.append(f"{counts} in two splits ({_counts(exact)}), {example}: {_TOO_HIGH}; {_DROP}")
        if self.pairs is not None and len(self.pairs):
            count = plural(len(self.pairs), "pair of images is", "pairs of images are")
            crossing = self.crossing()
            where = (
                f", {crossing.total():,} in two splits ({_counts(crossing)}): {_TOO_HIGH}" if crossing else ""
            )
            lines.append(f"{count} almost the same{where}" + (f"; {_GROUP}" if crossing else ""))
        if self.skipped:
            fix = "data.near_duplicates: group looks, off says nothing"
            lines.append(f"nobody looked for near-copies among {len(self.digests):,} images; {fix}")
        return lines

    def describe(self) -> dict[str, int] | None:
        """Counts for ``split.json``: pairs of near-copies, and how many are in two splits; None: not looked for."""
        if self.pairs is None:
            return None
        return {"pairs": len(self.pairs), "in_two_splits": self.crossing().total()}


_TOO_HIGH = "scores may be too high"
_DROP = "data.near_duplicates: drop leaves them out of the training images"
_GROUP = "data.near_duplicates: group keeps them in one split that is split off here, drop keeps one of them"


def _counts(counts: Counter[tuple[str, str]]) -> str:
    return ", ".join(f"{a} and {b} {n:,}" for (a, b), n in counts.items())


def held_out(
    extra: Split, splits: Mapping[str, Split], source: str, near: bool
) -> tuple[Split, list[tuple[str, str]]]:
    """The images of an extra source without copies of validation and test images, and (name, reason) of those.

    Args:
        extra: Further training images.
        splits: Images by purpose.
        source: Name of the cache of thumbnails.
        near: Near-copies are left out, too.
    """
    others = {purpose: splits[purpose] for purpose in ("test", "val")}
    both = Copies({**others, "train": extra}, source, "group" if near else "off")
    groups = both.groups()
    taken = {group: purpose for purpose in ("val", "test") for group in groups[purpose]}
    keep = np.array([group not in taken for group in groups["train"]], bool)
    out = [
        (extra.names[i], f"copy of a {_PURPOSES[taken[groups['train'][i]]]} image")
        for i in np.flatnonzero(~keep)
    ]
    return extra.subset(keep), out


_PURPOSES = {"test": "test", "val": "validation"}

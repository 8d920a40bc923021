"""Copies and near-copies in a data set: counted, kept in one split, or left out. No TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations
from typing import Literal

import numpy as np

from edgecls.data import near_duplicates
from edgecls.data.groups import connected, first_equal
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
        self.pairs: np.ndarray | None = None
        self._equal = _same_content(list(self.splits.values()))
        looks = how in ("group", "drop") or (how == "warn" and len(self._equal) <= MOST_LOOKED_AT)
        self.skipped = how == "warn" and not looks
        if looks:
            thumbnails = near_duplicates.read_thumbnails(list(self.splits.values()), source, progress)
            first = np.flatnonzero(self._equal == np.arange(len(self._equal)))
            self.pairs = first[near_duplicates.find(thumbnails[first])]
        self._first = self._equal if self.pairs is None else connected(self._equal, self.pairs)

    @property
    def duplicates(self) -> int:
        """How many images are copies of another one."""
        return int((self._equal != np.arange(len(self._equal))).sum())

    def groups(self) -> dict[str, np.ndarray]:
        """The name of each image's group, str [N]: the alphabetically first name of its copies and near-copies."""
        names = self._names()
        groups = np.array(names, object)
        for members in self._several().values():
            groups[members] = min(names[i] for i in members)
        return self._by_purpose(groups)

    def dropped(self) -> tuple[dict[str, Split], list[tuple[str, str]]]:
        """The splits with one image of each group, and (name, reason) of the others.

        Of copies in several splits that in the test images is kept, else that in the validation images. Within a split
        that with the first name is kept.
        """
        names, purposes = self._names(), self._purposes().tolist()
        kept_for: dict[int, int] = {}
        for members in self._several().values():
            best = min(members, key=lambda i: (purposes[i], names[i]))
            kept_for.update((i, best) for i in members if i != best)
        keep = np.ones(len(names), bool)
        keep[list(kept_for)] = False
        out = [
            (
                names[i],
                "listed again"
                if (purposes[i], names[i]) == (purposes[best], names[best])
                else f"near-copy of {names[best]}",
            )
            for i, best in sorted(kept_for.items())
        ]
        masks = self._by_purpose(keep)
        return {purpose: split.subset(masks[purpose]) for purpose, split in self.splits.items()}, out

    def numbers(self) -> dict[str, np.ndarray]:
        """The number of each image's group, int64 [N]; names would not do: two splits may use one name twice."""
        return self._by_purpose(self._first)

    def _several(self) -> dict[int, list[int]]:
        """The members of each group of more than one image, in order."""
        groups: dict[int, list[int]] = {}
        for i in np.flatnonzero(_in_groups(self._first)).tolist():
            groups.setdefault(int(self._first[i]), []).append(i)
        return groups

    def _names(self) -> list[str]:
        return _joined(split.names for split in self.splits.values())

    def _purposes(self) -> np.ndarray:
        """The number of each image's split, int64 [N]."""
        return np.repeat(np.arange(len(self.splits)), [len(split) for split in self.splits.values()])

    def _by_purpose(self, values: np.ndarray) -> dict[str, np.ndarray]:
        stops = np.cumsum([len(split) for split in self.splits.values()])[:-1]
        return dict(zip(self.splits, np.split(values, stops), strict=True))

    def crossing(self) -> Counter[tuple[str, str]]:
        """Pairs of near-copies in two splits: counts by the two purposes."""
        if self.pairs is None:
            return Counter()
        names, purposes = list(self.splits), self._purposes()[self.pairs]
        found = Counter((names[left], names[right]) for left, right in purposes.tolist())
        return Counter({key: n for key, n in found.items() if key[0] != key[1]})

    def exact_crossing(self) -> Counter[tuple[str, str]]:
        """Contents that are in two splits: counts by the two purposes."""
        counts = {pair: len(self._contents_of(*pair)) for pair in combinations(self.splits, 2)}
        return Counter({key: n for key, n in counts.items() if n})

    def _contents_of(self, *pair: str) -> np.ndarray:
        """The contents that are in both of two splits, as numbers of their first images."""
        contents = self._by_purpose(np.where(_in_groups(self._equal), self._equal, -1))
        left, right = (contents[purpose][contents[purpose] >= 0] for purpose in pair)
        return np.intersect1d(left, right)

    def _exact_example(self, *pair: str) -> str:
        """Names of one content that is in both of two splits."""
        first, contents = self._contents_of(*pair)[0], self._by_purpose(self._equal)
        names = [self.splits[purpose].names[np.argmax(contents[purpose] == first)] for purpose in pair]
        return " and ".join(f"{escape(name)} ({purpose})" for name, purpose in zip(names, pair, strict=True))

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
            lines.append(f"nobody looked for near-copies among {len(self._equal):,} images; {fix}")
        return lines

    def describe(self) -> dict[str, int] | None:
        """Counts for ``split.json``: pairs of near-copies, and how many are in two splits; None: not looked for."""
        if self.pairs is None:
            return None
        return {"pairs": len(self.pairs), "in_two_splits": self.crossing().total()}


def _same_content(splits: Sequence[Split]) -> np.ndarray:
    """For each image the first one that is a copy: int64 [N] over all splits in their order.

    Files that were read are compared by their bytes. One that was not is a copy where the same file is listed again.
    """
    numbers = np.arange(sum(map(len, splits)))
    read = np.flatnonzero(np.repeat([split.checked for split in splits], [len(split) for split in splits]))
    equal = numbers.copy()
    equal[read] = read[first_equal(_joined(split.digests for split in splits if split.checked))]
    if len(read) == len(equal):
        return equal
    same_file = first_equal(_joined(split.files or [] for split in splits))
    return connected(equal, np.stack([same_file, numbers], axis=1)[same_file != numbers])


def _joined(lists: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(lists))


def _in_groups(first: np.ndarray) -> np.ndarray:
    """Which items share their group with others, bool [N]; see ``connected``."""
    return np.bincount(first)[first] > 1


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
    groups = both.numbers()
    keep = ~np.isin(groups["train"], np.concatenate([groups["test"], groups["val"]]))
    of_test = np.isin(groups["train"], groups["test"])
    out = [
        (extra.names[i], f"copy of a {'test' if of_test[i] else 'validation'} image")
        for i in np.flatnonzero(~keep)
    ]
    return extra.subset(keep), out

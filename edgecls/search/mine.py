"""Unlabeled images for SSLD: leave out copies of evaluation images, ask the teacher, take the surest of each class.

The recipe of C. Cui et al., "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve
Backbones" (2021), with its order: near-copies of the evaluation images are dropped, and one of each group of copies
among the unlabeled ones is kept; the teacher answers to what is left; of each class the ``top`` surest images are
taken. What is found out is kept in a ``Store``. No TensorFlow here: the teacher is a function.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from edgecls.data import images, near_duplicates
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError
from edgecls.search import mine_candidates as candidates
from edgecls.search.mine_candidates import Codes, Pairs
from edgecls.search.mine_match import Picture, picture, same
from edgecls.search.mine_store import Seen, Store

Progress = Callable[[int, int], None]

BLOCK = 256  # photos from one commit to the next: what a kill can cost
MOST_ASKED = 16
"""Candidates of a photo that SIFT is asked about, those with the nearest hashes."""


@dataclass(frozen=True)
class Drop:
    """Why an image is not taken.

    Attributes:
        reason: ``unreadable``, ``evaluation``, ``duplicate``, ``unsure`` or ``surplus``.
        detail: What is wrong with the file, or the image that it is a copy of.
    """

    reason: str
    detail: str = ""


class Evaluation:
    """The images that scores are measured on.

    Args:
        splits: Images by purpose, such as ``val`` and ``test``.
        thumbnails: Their thumbnails, in that order.

    Attributes:
        key: Names these images and the way they are compared, whatever their order.
    """

    def __init__(self, splits: dict[str, Split], thumbnails: near_duplicates.Thumbnails) -> None:
        self._items = [(split, i) for split in splits.values() for i in range(len(split))]
        self._names = [f"{purpose}: {name}" for purpose, split in splits.items() for name in split.names]
        self.digests = [digest for split in splits.values() for digest in split.digests]
        self.number = {digest: i for i, digest in reversed(list(enumerate(self.digests)))}
        self.key = hashlib.sha256("".join(sorted(self.number)).encode()).hexdigest()
        self.rows = np.flatnonzero(candidates.has_contrast(thumbnails))
        self.thumbnails = thumbnails[self.rows]
        self.codes = candidates.codes(self.thumbnails)

    def __len__(self) -> int:
        return len(self._items)

    def name(self, digest: str) -> str:
        """Purpose and name of an image."""
        return self._names[self.number[digest]]

    def photo(self, digest: str) -> np.ndarray:
        """The decoded image, uint8 [H, W, 1 or 3]."""
        split, i = self._items[self.number[digest]]
        if split.images is not None:
            return split.images[i]
        assert split.files is not None
        return images.read_photo(split.files[i])


# What the files hold ---------------------------------------------------------------------------------------------


def look(files: Sequence[str], store: Store, progress: Progress) -> tuple[list[str], dict[int, Drop]]:
    """Read every file once: its digest, its thumbnail, or why it cannot be used.

    Args:
        files: Paths.
        store: Files of known size and time are not read again.
        progress: Called with (done, all).

    Returns:
        The digest of each file ("" if it cannot be used), and those that cannot be used by their numbers.
    """
    digests: list[str] = []
    unreadable: dict[int, Drop] = {}
    with ThreadPoolExecutor(images.threads()) as pool:
        for block in candidates.blocks(len(files), BLOCK):
            some = files[block]
            paths = [os.fsencode(path) for path in some]
            known, keys = store.files(paths), [_key(path) for path in some]
            todo = [i for i, key in enumerate(keys) if key is None or known.get(paths[i], ())[:2] != key]
            new: dict[bytes, Seen] = {}
            thumbnails: dict[str, np.ndarray] = {}
            for i, (digest, thumbnail, bad) in zip(
                todo, pool.map(_look, [some[i] for i in todo]), strict=True
            ):
                new[paths[i]] = (*(keys[i] or (-1, -1)), digest, bad)
                if thumbnail is not None:
                    thumbnails[digest] = thumbnail
            if new:
                store.add_files(new, thumbnails)
            known |= new
            for path in paths:
                *_, digest, bad = known[path]
                if bad:
                    unreadable[len(digests)] = Drop("unreadable", bad)
                digests.append(digest)
            progress(len(digests), len(files))
    return digests, unreadable


def _key(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  # called for every file: Path would double the time
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _look(path: str) -> tuple[str, np.ndarray | None, str]:
    if set(path) & {"\n", "\r"}:
        return "", None, "a list file cannot have a line break in a name"
    try:
        photo, data = images.read(path)
    except ValueError as error:
        return "", None, str(error)
    pixels = photo.pixels
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return hashlib.blake2b(data, digest_size=16).hexdigest(), near_duplicates.thumbnail(shown), ""


# Copies ----------------------------------------------------------------------------------------------------------


class Copies:
    """Looks for copies of evaluation images, and for copies among the unlabeled images.

    Args:
        files: Paths of the unlabeled images.
        digests: Of their contents, "" for those that cannot be used.
        evaluation: Images that must not be trained on.
        store: Keeps what was decided.
    """

    def __init__(
        self, files: Sequence[str], digests: Sequence[str], evaluation: Evaluation, store: Store
    ) -> None:
        self._files, self._digests, self._evaluation, self._store = files, digests, evaluation, store
        self._first: dict[str, int] = {}  # content -> number of its first file
        for number, digest in enumerate(digests):
            if digest:
                self._first.setdefault(digest, number)
        self._decided: dict[tuple[str, str], bool] = {}
        self._picture = lru_cache(512)(self._find_points)  # 512 x 200 KB

    def find(self, progress: Progress) -> dict[int, Drop]:
        """The images to leave out by their numbers.

        Of copies among the unlabeled images that with the first path is kept.

        Args:
            progress: Called with (done, all).
        """
        drops: dict[int, Drop] = {}
        chosen = list(self._first.values())
        kept = np.empty((len(chosen), 1, 16), np.uint8)  # hashes of what is kept so far
        numbers = np.empty(len(chosen), np.int64)
        count = 0
        for block in candidates.blocks(len(chosen), BLOCK):
            some = chosen[block]
            names = [self._digests[i] for i in some]
            thumbnails = self._store.thumbnails(names)
            leaks = self._leaks(names, thumbnails)
            clear = candidates.has_contrast(thumbnails)
            rest = [row for row, digest in enumerate(names) if not leaks[digest] and clear[row]]
            stop = count + len(rest)
            kept[count:stop] = candidates.codes(thumbnails[rest], views=1)
            numbers[count:stop] = np.array(some)[rest]
            repeated = self._repeated(kept[:stop], numbers[:stop], count)
            keep = count + np.array([i for i in range(len(rest)) if count + i not in repeated], np.int64)
            for row, other in repeated.items():
                drops[int(numbers[row])] = Drop("duplicate", self._files[numbers[other]])
            for number, digest in zip(some, names, strict=True):
                if leaks[digest]:
                    drops[number] = Drop("evaluation", self._evaluation.name(leaks[digest]))
            kept[count : count + len(keep)], numbers[count : count + len(keep)] = kept[keep], numbers[keep]
            count += len(keep)
            self._store.add_pairs(self._decided)
            self._decided.clear()
            progress(block.stop, len(chosen))
        return drops | self._same_bytes(drops)

    def _same_bytes(self, drops: dict[int, Drop]) -> dict[int, Drop]:
        """The further files of each content: as the first one if that is a copy of an evaluation image."""
        found = {}
        for number, digest in enumerate(self._digests):
            first = self._first.get(digest, number)
            if first != number:
                drop = drops.get(first)
                leak = drop is not None and drop.reason == "evaluation"
                found[number] = drop if drop and leak else Drop("duplicate", self._files[first])
        return found

    def _leaks(self, digests: Sequence[str], thumbnails: np.ndarray) -> dict[str, str]:
        """For each content that of the evaluation image that it is a copy of, or ""."""
        evaluation = self._evaluation
        known = self._store.held(evaluation.key, digests)
        new = {digest: digest for digest in digests if digest not in known and digest in evaluation.number}
        clear = candidates.has_contrast(thumbnails)
        todo = [
            i for i, digest in enumerate(digests) if digest not in known and digest not in new and clear[i]
        ]
        rows = thumbnails[todo]
        pairs = candidates.alike(candidates.codes(rows), evaluation.codes, MOST_ASKED)
        for left, right, likeness in _likely(pairs, rows[pairs.left], evaluation.thumbnails[pairs.right]):
            digest, other = digests[todo[left]], evaluation.digests[evaluation.rows[right]]
            if digest not in new and self._is_copy(digest, other, likeness):
                new[digest] = other
        new = {digest: new.get(digest, "") for digest in digests if digest not in known}
        if new:
            self._store.add_held(evaluation.key, new)
        return known | new

    def _repeated(self, kept: Codes, numbers: np.ndarray, start: int) -> dict[int, int]:
        """Rows of ``kept`` from ``start`` that are copies of an earlier row, and of which."""
        pairs = candidates.alike(kept[start:], kept, 2 * MOST_ASKED)
        pairs = pairs.at(pairs.right < pairs.left + start)
        digests = [self._digests[numbers[row]] for row in pairs.left + start]
        others = [self._digests[numbers[row]] for row in pairs.right]
        repeated: dict[int, int] = {}
        if not digests:
            return repeated
        thumbnails = self._store.thumbnails(digests), self._store.thumbnails(others)
        for left, right, likeness in _likely(pairs, *thumbnails):
            row = left + start
            pair = self._digests[numbers[row]], self._digests[numbers[right]]
            if row not in repeated and right not in repeated and self._is_copy(*pair, likeness):
                repeated[row] = right
        return repeated

    def _is_copy(self, digest: str, other: str, likeness: float) -> bool:
        """Whether two contents show the same picture; without points their thumbnails decide."""
        pair = (digest, other)
        known = self._decided.get(pair, self._store.pair(*pair))
        if known is None:
            known = same(self._picture(digest), self._picture(other))
            known = likeness >= near_duplicates.LEAST_CORRELATION if known is None else known
            self._decided[pair] = known
        return known

    def _find_points(self, digest: str) -> Picture:
        if digest in self._evaluation.number:
            return picture(self._evaluation.photo(digest))
        try:
            return picture(images.read_photo(self._files[self._first[digest]]))
        except ValueError:  # it is gone since: whoever reads it for the teacher will name it
            return picture(np.zeros((1, 1, 1), np.uint8))


def _likely(pairs: Pairs, left: np.ndarray, right: np.ndarray) -> list[tuple[int, int, float]]:
    """The pairs whose thumbnails are alike, too, with their correlation."""
    found = candidates.likeness(left, right, pairs.left_view, pairs.right_view)
    return [
        (int(pairs.left[i]), int(pairs.right[i]), float(found[i]))
        for i in np.flatnonzero(found >= candidates.LEAST_LIKENESS)
    ]


# The teacher's answers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    """Who answers.

    Attributes:
        key: Names its weights, classes and pixels.
        prepare: A photo, uint8 [H, W, 1 or 3], to the network's pixels, uint8 [S, S, 3].
        answer: Pixels, uint8 [N, S, S, 3], to probabilities, float32 [N, C].
    """

    key: str
    prepare: Callable[[np.ndarray], np.ndarray]
    answer: Callable[[np.ndarray], np.ndarray]


def score(
    files: Sequence[str], digests: Sequence[str], teacher: Teacher, store: Store, progress: Progress
) -> tuple[np.ndarray, np.ndarray, dict[int, Drop]]:
    """Ask the teacher about images.

    The images of a commit are always the same ones, so that a search that was killed gives the same bits.

    Args:
        files: Paths.
        digests: Of their contents, each once.
        teacher: Who is asked.
        store: Answers that it has are not asked for again.
        progress: Called with (done, all).

    Returns:
        The likeliest class of each image, int32 [N], its probability, float32 [N], and the images that cannot be read
        any more by their numbers.

    Raises:
        EdgeclsError: An answer is not a number.
    """
    classes, probabilities = np.zeros(len(files), np.int32), np.zeros(len(files), np.float32)
    todo: list[int] = []
    for block in candidates.blocks(len(files), BLOCK):
        known = store.answers(teacher.key, digests[block])
        for number in range(block.start, block.stop):
            if digests[number] in known:
                classes[number], probabilities[number] = known[digests[number]]
            else:
                todo.append(number)
    gone: dict[int, Drop] = {}
    done = len(files) - len(todo)
    for block in candidates.blocks(len(todo), BLOCK):
        numbers = {files[i]: i for i in todo[block]}
        read, pixels, bad = images.read_all(numbers, teacher.prepare)
        gone |= {numbers[path]: Drop("unreadable", reason) for path, reason in bad}
        if read:
            rows = [numbers[path] for path in read]
            answers = teacher.answer(np.stack(pixels))
            if not np.isfinite(answers).all():
                fix = "it was not trained, or its file is damaged: name another one with --teacher"
                raise EdgeclsError("the teacher's answers are not numbers", where=read[0], fix=fix)
            classes[rows], probabilities[rows] = answers.argmax(axis=1), answers.max(axis=1)
            found = zip(rows, classes[rows].tolist(), probabilities[rows].tolist(), strict=True)
            store.add_answers(teacher.key, {digests[i]: (number, p) for i, number, p in found})
        progress(done + block.stop, len(files))
    return classes, probabilities, gone


def choose(
    classes: np.ndarray, probabilities: np.ndarray, top: int, min_probability: float
) -> tuple[np.ndarray, dict[int, Drop]]:
    """The surest images of each class.

    Args:
        classes: The likeliest class of each image, int [N].
        probabilities: Its probability, float [N].
        top: Images of a class.
        min_probability: Least probability.

    Returns:
        Numbers of the images, class by class, the surest first, of equal ones in their order; and the others.

    Example:
        >>> chosen, drops = choose(np.array([1, 0, 1, 1]), np.array([0.6, 0.9, 0.8, 0.7]), 2, 0.5)
        >>> chosen.tolist(), drops
        ([1, 2, 3], {0: Drop(reason='surplus', detail='')})
    """
    order = np.lexsort((-probabilities, classes))
    ordered = classes[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    sure = probabilities[order] >= min_probability
    chosen = order[sure & (rank < top)]
    unsure, surplus = Drop("unsure"), Drop("surplus")  # one each for a million images
    drops = dict.fromkeys(order[~sure].tolist(), unsure)
    return chosen, drops | dict.fromkeys(order[sure & (rank >= top)].tolist(), surplus)

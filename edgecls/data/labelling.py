"""From labels as they are written (names of folders, words in a list file) to class numbers. No TensorFlow."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecls.data.rows import Part, Rows
from edgecls.data.sampling import UNLABELLED
from edgecls.errors import UsageError
from edgecls.text import escape, plural

MAX_CLASSES = 1_000_000
"""Class numbers of a list file end below this: a date or an article number is no class number."""
FEATURES = 1280
"""Inputs of the classifier of a usual network for phones (MobileNetV3-large, EfficientNet-Lite)."""
MANY = 1000
"""Classes from which most of them must have images, if nobody said how many there are."""
COSTLY = 10_000
"""Classes from which it is said what they cost."""
MOSTLY = 0.9
"""Share of labels that are numbers from which the others are taken for mistakes."""

_NUMBER = re.compile(r"-?[0-9]{1,18}(\.0+)?")
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]+([eE]-?[0-9]+)?")


@dataclass(frozen=True)
class Numbering:
    """Class names, and the class number of each label.

    Attributes:
        classes: The class names, in the order of their numbers.
        index: Class number of each label as it is written; ``UNLABELLED`` for one that means "none".
        by_number: Labels are numbers, not names.
        refused: Labels that are no number where the others are.
        notes: What was assumed, one line each.
    """

    classes: list[str]
    index: dict[str, int]
    by_number: bool
    refused: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def numbering(
    words: Counter[str],
    classes: Sequence[str] | int | None,
    *,
    numbers_allowed: bool,
) -> Numbering:
    """Decide which label is which class.

    Labels that are whole numbers are class numbers. They may start anywhere: where they start at 1, class 0 is called
    "1". In other sources than lists every label is a name.

    Args:
        words: How many images have each label as it is written.
        classes: Class names in the order of their numbers, or how many classes there are; None: as found.
        numbers_allowed: The source is a list: labels may be numbers, and -1 means unlabeled.

    Raises:
        UsageError: The labels can be no classes, or there are not as many as ``classes`` says.

    Example:
        >>> numbering(Counter({"1": 3, "2": 5}), None, numbers_allowed=True).classes
        ['1', '2']
    """
    names = None if isinstance(classes, int) else classes
    count = classes if isinstance(classes, int) else None if names is None else len(names)
    none = {"-1"} - set(names or ()) if numbers_allowed else set()
    unlabelled = dict.fromkeys(none, UNLABELLED)
    labels = Counter({word: n for word, n in words.items() if word not in none})
    values = {word: round(float(word)) for word in labels if _NUMBER.fullmatch(word)}
    if numbers_allowed and not labels.keys() & set(names or ()):
        if not labels or sum(labels[word] for word in values) >= MOSTLY * labels.total():
            first, total, notes = _span(sorted(set(values.values())), count, names)
            index = {word: value - first for word, value in values.items() if first <= value < first + total}
            found = names if names is not None else [str(first + i) for i in range(total)]
            refused = frozenset(labels.keys() - values.keys())
            return Numbering(list(found), index | unlabelled, True, refused, notes)
        if names is None:
            _refuse_fractions(labels)
    if names is None and count not in (None, len(labels)):
        counts = f"{len(labels)} classes found, {count} expected"
        raise UsageError(counts, where="data.classes", fix=_head(sorted(labels)))
    found = sorted(labels) if names is None else list(names)
    index = {name: number for number, name in reversed(list(enumerate(found)))}  # of equal names the first
    absent = [name for name in found if name not in labels]
    notes = (
        [f"{plural(len(absent), 'class has', 'classes have')} no images ({_head(absent)})"] if absent else []
    )
    return Numbering(found, unlabelled | index, False, notes=notes + _look_alikes(found))


def number_rows(rows: Mapping[str, Rows], by: Numbering, fix: str) -> dict[str, Part]:
    """The images of each purpose with class numbers.

    Args:
        rows: Images by purpose.
        by: The class number of each label.
        fix: What to do about a label that is no class.

    Raises:
        UsageError: A label is no class.
    """
    return {purpose: _number(part, by, fix) for purpose, part in rows.items()}


def _number(rows: Rows, by: Numbering, fix: str) -> Part:
    index: dict[str | None, int] = dict.fromkeys([None, *by.refused], UNLABELLED)
    index.update(by.index)
    try:
        labels = np.fromiter(map(index.__getitem__, rows.labels), np.int64, len(rows.labels))
    except KeyError as error:
        word, count = error.args[0], len(by.classes)
        where = rows.where(rows.labels.index(word))
        known = f"{by.classes[0]} to {by.classes[-1]}" if by.by_number and count else _head(by.classes)
        what = f"label '{escape(word)}' is not among the {count} classes ({known})"
        raise UsageError(what, where=escape(where), fix=fix) from None
    names, files, bad = rows.names, rows.files, rows.bad
    if by.refused:
        wrong = {i for i, word in enumerate(rows.labels) if word in by.refused}
        good = [i for i in range(len(names)) if i not in wrong]
        bad = bad + [
            (names[i], f"label '{escape(rows.labels[i] or '')}' is no number") for i in sorted(wrong)
        ]
        names, files, labels = [names[i] for i in good], [files[i] for i in good], labels[good]
    return Part(names, labels, files, left_out=rows.left_out, bad=bad)


def _span(
    values: Sequence[int], count: int | None, names: Sequence[str] | None
) -> tuple[int, int, list[str]]:
    """Where class numbers start, how many classes there are, and what was assumed.

    Args:
        values: The numbers that images have, sorted.
        count: How many classes there are, if that was said.
        names: What the classes are called, if that was said.
    """
    low, high = (values[0], values[-1]) if values else (0, -1)
    if count is not None:
        fits = high - low + 1 == count or (low == 1 and high == count)
        first = low if low > 0 and high >= count and fits else 0
        return first, count, _said(values, first, count, "data.classes says so", names)
    if high >= MAX_CLASSES:
        what = f"label {high} is too large for a class number"
        raise UsageError(what, fix="number the classes from 0, or use names")
    first = max(low, 0)
    total = high - first + 1
    if total > MANY and 2 * len(values) < total:
        what = f"label {high} would make {total:,} classes, only {len(values):,} of them with images"
        fix = f"number the classes from 0, or set data.classes: {high + 1}"
        raise UsageError(f"{what}: {cost(total)}", fix=fix)
    return first, total, _said(values, first, total, f"the largest label is {high}", names)


def _said(values: Sequence[int], first: int, count: int, why: str, names: Sequence[str] | None) -> list[str]:
    notes = []
    if first:
        meant = f"class 0 is called {first}" if names is None else f"{first} is {escape(names[0])}"
        notes.append(f"labels run from {first} to {values[-1]}: {meant}")
    empty = count - len(values)
    if values and empty > 0:
        some = [str(first + i) for i in range(count) if first + i not in set(values)] if count < MANY else []
        which = f" ({_head(some)})" if some else ""
        each = plural(empty, "class has", "classes have") + " no images" + which
        notes.append(f"{count:,} classes, because {why}: {each}, {cost(count)}")
    elif count >= COSTLY:
        notes.append(f"{count:,} classes: {cost(count)}")
    return notes


def cost(classes: int) -> str:
    """What a classifier of so many classes costs.

    Example:
        >>> cost(100_000)
        'the classifier alone has 128 million weights (512 MB) with 1,280 features'
    """
    weights = classes * FEATURES
    size = f"{weights / 1e6:,.0f} million" if weights >= 1e6 else f"{weights:,}"
    memory = f"{4 * weights / 1e6:,.0f} MB" if weights >= 2.5e5 else f"{4 * weights / 1e3:,.0f} kB"
    return f"the classifier alone has {size} weights ({memory}) with {FEATURES:,} features"


def _refuse_fractions(labels: Counter[str]) -> None:
    """Refuse labels such as 0.333: probabilities or measured values are no classes."""
    fractions = [word for word in labels if _FRACTION.fullmatch(word)]
    if fractions and all(_FRACTION.fullmatch(word) or _NUMBER.fullmatch(word) for word in labels):
        what = f"labels such as {sorted(fractions)[0]} are no class numbers"
        fix = "round them to classes, choose another column (data.label_column), or name them in data.classes"
        raise UsageError(what, fix=fix)


def _look_alikes(classes: Sequence[str]) -> list[str]:
    """A line on class names that differ only in case or spaces."""
    by_look: dict[str, list[str]] = {}
    for name in dict.fromkeys(classes):
        by_look.setdefault("".join(name.casefold().split()), []).append(name)
    return [
        f"the classes {_head([repr(name) for name in names])} differ only in case or spaces"
        for names in by_look.values()
        if len(names) > 1
    ]


def check_parts(rows: Mapping[str, Rows], by: Numbering) -> list[str]:
    """Compare the classes of the validation and test images with those of the training images.

    Returns:
        A line on classes that have no training images.

    Raises:
        UsageError: A class of another part is written like one of the training part but for case or spaces.
    """
    known = {label for label in rows["train"].labels if label is not None}
    if not known:
        return []
    looks = {} if by.by_number else {"".join(name.casefold().split()): name for name in known}
    trained = {by.index.get(name, UNLABELLED) for name in known}
    missing: set[int] = set()
    for part in rows.values():
        for name in {label for label in part.labels if label is not None} - known:
            twin = looks.get("".join(name.casefold().split()))
            if twin is not None:
                what = f"class '{escape(name)}' is called '{escape(twin)}' in the training images"
                raise UsageError(what, where=escape(part.where(part.labels.index(name))), fix="rename one")
            missing.add(by.index.get(name, UNLABELLED))
    names = [by.classes[number] for number in sorted(missing - trained - {UNLABELLED})]
    return [f"no training images of {_head(names)}"] if names else []


def parse_names(lines: Sequence[str]) -> list[str]:
    """Class names of a label file: one a line, or the label maps of PaddleClas with a number before each name.

    Numbers must be those of the lines, from 0 or 1 in any order; else the lines are taken as they are.

    Example:
        >>> parse_names(["1 dog", "0 cat"]), parse_names(["7 up", "cola"])
        (['cat', 'dog'], ['7 up', 'cola'])
    """
    names = [line.strip() for line in lines if line.strip()]
    pairs = [re.fullmatch(r"([0-9]{1,9})\s*[ \t,:;]\s*(.*\S)", name) for name in names]
    numbered = {int(pair[1]): pair[2] for pair in pairs if pair is not None}
    first = min(numbered, default=0)
    if len(numbered) == len(names) and first in (0, 1) and max(numbered, default=0) == first + len(names) - 1:
        return [numbered[number] for number in sorted(numbered)]
    return names


def _head(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(map(escape, names[:most])) + (", ..." if len(names) > most else "")

"""Items that belong together: equal ones, and those that pairs connect. No TensorFlow.

A data set may have millions of names, and nearly all of them once. So there is no Python step for each item: hashes are
compared as numbers, and what is left is done for the few that are there twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def first_equal(keys: Sequence[str]) -> np.ndarray:
    """For each key the lowest index of an equal one: int64 [N].

    Example:
        >>> first_equal(["a", "b", "a"]).tolist()
        [0, 1, 0]
    """
    first = np.arange(len(keys))
    seen: dict[str, int] = {}
    for i in repeated(keys).tolist():
        first[i] = seen.setdefault(keys[i], i)
    return first


def repeated(keys: Sequence[str]) -> np.ndarray:
    """Indices, in order, of all keys that are there more than once, and perhaps of some that share their hash.

    Example:
        >>> repeated(["a", "b", "a"]).tolist()
        [0, 2]
    """
    hashes = np.fromiter(map(hash, keys), np.int64, len(keys))  # a set would need as much memory as the keys
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.flatnonzero(np.isin(hashes, twice)) if len(twice) else np.zeros(0, np.int64)


def connected(first: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """For each item the lowest index that it is connected with.

    Args:
        first: int64 [N]: for each item the lowest index of its group, as ``first_equal`` returns it.
        pairs: int64 [P, 2]: items that are connected, too.

    Returns:
        int64 [N].

    Example:
        >>> connected(np.arange(5), np.array([[1, 3], [3, 4]])).tolist()
        [0, 1, 2, 1, 1]
    """
    lowest = np.arange(len(first))
    ends = first[pairs]
    while (ends[:, 0] != ends[:, 1]).any():  # each round joins every group to a lower one, if it has one
        np.minimum.at(lowest, ends.max(axis=1), ends.min(axis=1))
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
        ends = lowest[ends]
    return lowest[first]

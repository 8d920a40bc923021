"""Which images are split off for a purpose, and how much each class counts in the loss."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

UNLABELLED = -1


def stratified(labels: np.ndarray, groups: Iterable[str], fraction: float, salt: str) -> np.ndarray:
    """Choose the same share of every class.

    Images of one group (copies of one file) stay together. Groups are chosen in the order of a hash of their names.
    So the choice depends only on the data, and adding images moves few others. Where ``fraction`` is above 0, every
    class of two or more images gives at least one and keeps at least one. Unlabeled images are never chosen.

    Args:
        labels: int [N], ``UNLABELLED`` for none.
        groups: The name of each image's group, N names.
        fraction: Share to choose, in [0, 1).
        salt: The name of the purpose: choices for different purposes are independent.

    Returns:
        bool [N], True for the chosen images.

    Example:
        >>> int(stratified(np.array([0, 0, 1, 1]), ["a", "b", "c", "d"], 0.5, "test").sum())
        2
    """
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    ordered = sorted(members, key=lambda group: _hash(f"{salt}\n{group}"))
    chosen = np.zeros(len(labels), bool)
    if fraction == 0:
        return chosen
    counts = {c: int((labels == c).sum()) for c in np.unique(labels)}
    missing = {c: min(max(1, round(fraction * n)), n - 1) for c, n in counts.items()}
    missing[UNLABELLED] = 0
    for group in ordered:
        indices = members[group]
        label = labels[indices[0]]
        if len(indices) <= missing[label]:
            chosen[indices] = True
            missing[label] -= len(indices)
    return chosen


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def epoch_order(count: int, seed: int, epoch: int, repeats: int = 1) -> np.ndarray:
    """The images of a training epoch, in random order.

    Repeated augmentation (Hoffer et al. 2019, arXiv:1901.09335; Touvron et al. 2020, arXiv:2012.12877): an image comes
    ``repeats`` times in a row, so in the same batch. The epoch stays as long and holds fewer images.

    Args:
        count: Images of the split, and of the epoch.
        seed: Of the recipe.
        epoch: Number of the epoch, which gives each its own order.
        repeats: How often an image comes.

    Returns:
        int [count, 2]: an image, and which of its views this is, from 0.

    Example:
        >>> epoch_order(4, seed=0, epoch=0, repeats=2).tolist()
        [[2, 0], [2, 1], [0, 0], [0, 1]]
    """
    order, place = np.random.default_rng([seed, epoch]).permutation(count), np.arange(count)
    return np.stack([order[place // repeats], place % repeats], axis=1)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights of the loss that make every class count the same, however many images it has.

    The weight is ``n / (k * count)``: n labeled images, k classes that have images, ``count`` images of the class.

    Args:
        labels: int [N]; ``UNLABELLED`` ones are left out.
        classes: Number of classes.

    Returns:
        float32 [classes]. The average over the images is 1. A class without images has 0.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), 2)
        array([0.6666667, 2.       ], dtype=float32)
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes).astype(np.float64)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)

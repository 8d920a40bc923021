"""Which image goes into which split, and how much it counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

UNLABELLED = -1


def stratified(labels: np.ndarray, groups: Iterable[str], fraction: float, salt: str) -> np.ndarray:
    """Choose a fixed share of every class.

    Images of one group (copies of one file) stay together. The order of choice is a hash of the group's name, so it
    depends on nothing but the data, and adding images changes the side of few others. Where ``fraction`` is above 0
    every class of two or more gives at least one image and keeps at least one; unlabelled images are never chosen.

    Args:
        labels: int [N], ``UNLABELLED`` for none.
        groups: N names.
        fraction: Share to choose, in [0, 1).
        salt: Makes choices of another purpose independent.

    Returns:
        bool [N].
    """
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    ordered = sorted(members, key=lambda g: hashlib.sha256(f"{salt}\n{g}".encode()).digest())
    chosen = np.zeros(len(labels), bool)
    if fraction == 0:
        return chosen
    counts = {c: int((labels == c).sum()) for c in np.unique(labels)}
    wanted = {c: min(max(1, round(fraction * n)), n - 1) for c, n in counts.items()}
    wanted[UNLABELLED] = 0
    for group in ordered:
        indices = members[group]
        kind = labels[indices[0]]
        if len(indices) <= wanted[kind]:
            chosen[indices] = True
            wanted[kind] -= len(indices)
    return chosen


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights that make every class count the same: ``n / (k * count)``, over the labelled images.

    Args:
        labels: int [N]; ``UNLABELLED`` entries are left out.
        classes: Number of classes k.

    Returns:
        float32 [classes], average 1 over the images; 0 for a class without images.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes).astype(np.float64)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype(np.float32)

"""Which images are split off, how often each comes in an epoch, and how much each class counts in the loss."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

UNLABELLED = -1


def stratified(labels: np.ndarray, groups: Iterable[str], fraction: float, salt: str) -> np.ndarray:
    """Choose the same share of every class.

    Images of one group (copies of one photo) stay together. Groups are chosen in the order of a hash of their names.
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
        found = Counter(labels[indices].tolist())
        if all(count <= missing[label] for label, count in found.items()):
            chosen[indices] = True
            for label, count in found.items():
                missing[label] -= count
    return chosen


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def epoch_order(
    count: int,
    seed: int,
    epoch: int,
    repeats: int = 1,
    sampling: Sampling | None = None,
    epochs: int = 1,
) -> np.ndarray:
    """The images of a training epoch, in random order.

    Repeated augmentation (Hoffer et al. 2019, arXiv:1901.09335; Touvron et al. 2020, arXiv:2012.12877): an image comes
    ``repeats`` times in a row, so in the same batch. The epoch stays as long and holds fewer images.

    Args:
        count: Images of the split.
        seed: Of the recipe.
        epoch: Number of the epoch, which gives each its own order.
        repeats: How often an image comes.
        sampling: How often images come by themselves; None: once.
        epochs: Epochs of the whole training.

    Returns:
        int [N, 2], N = ``count`` or ``sampling.size``: an image, and which of its views this is, from 0.

    Example:
        >>> epoch_order(4, seed=0, epoch=0, repeats=2).tolist()
        [[2, 0], [2, 1], [0, 0], [0, 1]]
    """
    if sampling is None:
        order = np.random.default_rng([seed, epoch]).permutation(count)
    else:
        order = sampling.order(seed, epoch, epochs)
    order = order[np.arange(len(order)) // repeats]
    return np.stack([order, occurrences(order)], axis=1)


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


@dataclass(frozen=True)
class Sampling:
    """How often each image comes in an epoch.

    Attributes:
        first: float64 [N]: how often in the first epoch, on average: 0.5 is in every second one.
        last: The same in the last epoch, with the same sum; epochs between go evenly from one to the other.
    """

    first: np.ndarray
    last: np.ndarray

    @property
    def size(self) -> int:
        """Images in an epoch."""
        return max(1, round(float(self.first.sum())))

    def order(self, seed: int, epoch: int, epochs: int) -> np.ndarray:
        """The images of an epoch, shuffled.

        Each image comes as often as its number says, rounded up or down at random (systematic sampling), so that
        every epoch has ``size`` images.

        Args:
            seed: Of the run.
            epoch: From 0.
            epochs: Of the whole training.

        Returns:
            int64 [size], indices of images.

        Example:
            >>> twice = Sampling(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
            >>> np.bincount(twice.order(seed=0, epoch=0, epochs=1))
            array([1, 2])
        """
        share = epoch / (epochs - 1) if epochs > 1 else 0.0
        rates = (1 - share) * self.first + share * self.last
        draws = np.random.default_rng([seed, epoch])
        shuffled = draws.permutation(len(rates))
        edges = np.cumsum(rates[shuffled])
        marks = (np.arange(self.size) + draws.random()) * (edges[-1] / self.size)
        drawn = np.minimum(np.searchsorted(edges, marks, side="right"), len(rates) - 1)
        return draws.permutation(shuffled[drawn])

    def subset(self, chosen: np.ndarray) -> Sampling:
        """The sampling of some of the images."""
        return Sampling(self.first[chosen], self.last[chosen])


def occurrences(order: np.ndarray) -> np.ndarray:
    """How often each item has come before.

    Example:
        >>> occurrences(np.array([7, 3, 7, 7])).tolist()
        [0, 0, 1, 2]
    """
    by_item = np.argsort(order, kind="stable")
    ordered = order[by_item]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1 if len(ordered) else 0))
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    result = np.empty(len(order), np.int64)
    result[by_item] = ranks
    return result


def make_sampling(
    labels: np.ndarray,
    weights: np.ndarray,
    how: Literal["none", "oversample", "balanced", "dynamic"],
) -> Sampling | None:
    """The sampling that ``data.sampling`` and the weights of ``data.extra`` ask for.

    ``balanced`` and ``oversample`` give every class the same number of images in an epoch: the first by its mean over
    the classes, the second by that of the largest class, so that no image is left out. Unlabeled images come as their
    weights say.

    Args:
        labels: int [N].
        weights: float [N]: how often each image comes by itself.
        how: ``data.sampling``.

    Returns:
        None where every image comes once in every epoch.

    Example:
        >>> make_sampling(np.array([0, 0, 0, 1]), np.ones(4), "oversample").last
        array([1., 1., 1., 3.])
    """
    if how == "none":
        return None if (weights == 1).all() else Sampling(weights, weights)
    labelled = labels >= 0
    counts = np.bincount(labels[labelled], weights[labelled])
    level = (
        counts.max(initial=0) if how == "oversample" else counts[counts > 0].mean() if labelled.any() else 0
    )
    even = weights.astype(np.float64).copy()
    even[labelled] *= level / counts[labels[labelled]]
    return Sampling(weights if how == "dynamic" else even, even)

"""Classification scores from logits. numpy only: the figures of every model kind come from this one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecls.errors import EdgeclsError, UsageError

RESAMPLES = 2000
MAX_CONFUSION = 2000  # classes; a matrix of more would not fit a JSON file anyone can read


def evaluate(
    logits: ArrayLike, labels: ArrayLike, classes: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """Score logits against labels, as one model's entry of ``eval.json``.

    Args:
        logits: ``[N, C]`` scores of any monotone scale (logits or probabilities).
        labels: ``[N]`` class indices, 0 to C-1.
        classes: C class names, in the order of the columns.
        seed: Seed of the bootstrap.

    Returns:
        ``count``; ``top1`` and ``top5`` (the share whose label is among the min(5, C) highest scores, the lower
        index winning a tie as in argmax); ``balanced_accuracy``, the mean recall of the classes that occur, with
        ``balanced_accuracy_ci95``, its 95 % percentile interval over resamples within each class; ``confusion``,
        counts as [true][predicted], or None beyond 2000 classes; ``per_class``, a list of {class, count, recall, precision}, where recall is
        None for a class that does not occur and precision None for one that is never predicted.

    Raises:
        UsageError: Shapes do not fit each other, there are no images, or a label is outside the classes.
        EdgeclsError: A score is not a finite number: such a model must not get an accuracy.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or scores.shape[1] != len(classes):
        raise UsageError(
            f"logits {scores.shape}, labels {truth.shape} and {len(classes)} classes do not fit each other",
            fix="pass logits [N, C], labels [N] and C class names",
        )
    if not len(truth):
        raise UsageError("there are no labelled images to evaluate", fix="give a split with images")
    truth = truth.astype(np.int64)
    if truth.min() < 0 or truth.max() >= len(classes):
        raise UsageError(
            f"labels reach from {truth.min()} to {truth.max()}, but there are {len(classes)} classes",
            fix=f"labels are 0 to {len(classes) - 1}",
        )
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise EdgeclsError(
            f"the model's output is not finite for {bad} of {len(scores)} images",
            fix="it diverged or was converted wrongly; train or export it again",
        )

    count = len(classes)
    guess = scores.argmax(axis=1)
    hits, seen, predicted = (
        np.bincount(found, minlength=count) for found in (truth[truth == guess], truth, guess)
    )
    present = seen > 0
    low, high = _balanced_interval(hits[present], seen[present], seed)
    return {
        "count": len(truth),
        "top1": float(hits.sum() / len(truth)),
        "top5": float((_rank(scores, truth) < min(5, count)).mean()),
        "balanced_accuracy": float((hits[present] / seen[present]).mean()),
        "balanced_accuracy_ci95": [low, high],
        "confusion": _confusion(truth, guess, count),
        "per_class": [
            {
                "class": name,
                "count": int(seen[i]),
                "recall": float(hits[i] / seen[i]) if seen[i] else None,
                "precision": float(hits[i] / predicted[i]) if predicted[i] else None,
            }
            for i, name in enumerate(classes)
        ],
    }


def softmax(logits: ArrayLike) -> NDArray[np.float32]:
    """Probabilities from logits along the last axis, safe for large values."""
    x = np.asarray(logits, np.float32)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _confusion(truth: NDArray[np.int64], guess: NDArray[np.int64], count: int) -> list[list[int]] | None:
    if count > MAX_CONFUSION:
        return None
    return np.bincount(truth * count + guess, minlength=count * count).reshape(count, count).tolist()


def _rank(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes come before the true one."""
    own = scores[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < truth[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def _balanced_interval(hits: NDArray[np.int64], seen: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Percentile bootstrap, stratified by class: drawing n images of a class again with replacement gives a
    binomial number of hits, so the resamples need no images."""
    rng, shares = np.random.default_rng(seed), hits / seen
    means = [(rng.binomial(seen, shares) / seen).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)

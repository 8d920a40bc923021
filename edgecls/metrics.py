"""Classification scores from logits. numpy only: the figures of every model kind come from this one place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecls.errors import EdgeclsError, UsageError

MAX_CONFUSION = 200  # classes; a matrix of 1000 makes a JSON file of 8 MB, for each model
CONFUSED = 100  # pairs of classes
TOP = 5
_Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
_BLOCK = 4_000_000  # scores that are looked at together, so that memory does not grow with images x classes


def evaluate(logits: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Score logits against labels, as one model's entry of ``eval.json``.

    Args:
        logits: ``[N, C]`` scores of any monotone scale (logits or probabilities).
        labels: ``[N]`` class indices, 0 to C-1.
        classes: C class names, in the order of the columns.

    Returns:
        A mapping with these keys. Shares are 0 to 1, and every ``_ci95`` is a 95 % interval ``[low, high]``.

        - ``count``: images.
        - ``top1``, ``top1_ci95``: the share whose label has the highest score; on a tie the lower index wins.
        - ``top5``: the share whose label is among the five highest scores; None with five classes or fewer, where
          it is 1 whatever the network answers.
        - ``balanced_accuracy``, ``balanced_accuracy_ci95``: the mean recall of the classes that occur
          (see ``balanced_interval``).
        - ``predicted_classes``: how many different classes the network answered.
        - ``confusion``: counts as ``[true][predicted]``, or None beyond 200 classes.
        - ``confused``: the most frequent mistakes, at most 100, as ``[true, predicted, count]``.
        - ``per_class``: a list of ``{class, count, recall, recall_ci95, precision}``. Recall and its interval are
          None for a class that does not occur, precision is None for a class that is never predicted.

    Raises:
        UsageError: Shapes do not fit each other, there are no images, or a label is outside the classes.
        EdgeclsError: A score is not a finite number: such a model must not get an accuracy.

    Example:
        >>> scores = evaluate([[2.0, 0.5], [0.1, 0.9], [1.0, 0.2]], [0, 1, 1], ["cat", "dog"])
        >>> scores["balanced_accuracy"], scores["predicted_classes"]
        (0.75, 2)
    """
    scores, truth = _checked(logits, labels, classes)
    count = len(classes)
    guess = scores.argmax(axis=1)
    hits, seen, predicted = (
        np.bincount(indices, minlength=count) for indices in (truth[truth == guess], truth, guess)
    )
    present = seen > 0
    right = int(hits.sum())
    return {
        "count": len(truth),
        "top1": right / len(truth),
        "top1_ci95": list(wilson(right, len(truth))),
        "top5": _top(scores, truth, TOP) if count > TOP else None,
        "balanced_accuracy": float((hits[present] / seen[present]).mean()),
        "balanced_accuracy_ci95": list(balanced_interval(hits[present], seen[present])),
        "predicted_classes": int((predicted > 0).sum()),
        "confusion": _confusion(truth, guess, count),
        "confused": _confused(truth, guess, count),
        "per_class": [
            {
                "class": name,
                "count": int(seen[i]),
                "recall": float(hits[i] / seen[i]) if seen[i] else None,
                "recall_ci95": list(wilson(int(hits[i]), int(seen[i]))) if seen[i] else None,
                "precision": float(hits[i] / predicted[i]) if predicted[i] else None,
            }
            for i, name in enumerate(classes)
        ],
    }


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927).

    Unlike an interval by bootstrap or by the estimated standard deviation it keeps a width when all or none hit.

    Args:
        hits: How many of ``n`` hit, 0 to n.
        n: Number of trials, above 0; an effective number need not be whole.

    Raises:
        ValueError: ``n`` is not above 0, or ``hits`` is not within 0 to n.

    Example:
        >>> [round(end, 3) for end in wilson(10, 10)]
        [0.722, 1.0]
    """
    if not (n > 0 and 0 <= hits <= n):
        raise ValueError(f"{hits} hits of {n}")
    share, z2 = hits / n, _Z95 * _Z95
    middle = (hits + z2 / 2) / (n + z2)
    half = _Z95 / (n + z2) * math.sqrt(n * share * (1 - share) + z2 / 4)
    # At the ends the formula is exact but for rounding.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == n else min(1.0, middle + half)
    return low, high


def balanced_interval(hits: ArrayLike, seen: ArrayLike) -> tuple[float, float]:
    """95 % interval of the balanced accuracy: Wilson's interval with an effective number of images.

    Balanced accuracy is a mean of weighted images: each image of a class with n images weighs 1/n. Kish's effective
    sample size of such weights, ``(sum w)^2 / sum w^2 = K^2 / sum(1/n)`` for K classes, takes the place of the
    number of trials in Wilson's formula (as for weighted surveys: Franco et al., J. Surv. Stat. Methodol. 7, 2019).
    The interval keeps a width when every class has recall 1, and when a class has one image.

    With classes of equal size it is not too narrow, and it is wider than needed where recalls differ much. In
    simulations it holds the truth in 92 to 99 of 100 test sets; in 84 if one of two classes has five images and a far
    lower recall than the other.

    Args:
        hits: Right answers of each class that occurs, ``[K]``.
        seen: Images of each of these classes, ``[K]``, all above 0.

    Example:
        >>> [round(end, 3) for end in balanced_interval([10, 10], [10, 10])]
        [0.839, 1.0]
    """
    right, images = np.asarray(hits, np.float64), np.asarray(seen, np.float64)
    effective = len(images) ** 2 / float((1 / images).sum())
    recall = min(1.0, float((right / images).mean()))
    return wilson(recall * effective, effective)


def difference_interval(
    new: float, new_ci95: Sequence[float], old: float, old_ci95: Sequence[float]
) -> tuple[float, float]:
    """95 % interval of the difference of two shares, new - old (R. G. Newcombe, Stat. Med. 17, 1998, method 10).

    It takes the shares as independent. Of two models on the same images they usually rise and fall together; then
    the interval is wider than needed.

    Args:
        new: A share, 0 to 1.
        new_ci95: Its Wilson interval, (low, high).
        old: The share it is compared with.
        old_ci95: Its Wilson interval.

    Example:
        >>> [round(end, 4) for end in difference_interval(56 / 70, wilson(56, 70), 48 / 80, wilson(48, 80))]
        [0.0524, 0.3339]
    """
    below = math.hypot(new - new_ci95[0], old_ci95[1] - old)
    above = math.hypot(new_ci95[1] - new, old - old_ci95[0])
    return max(-1.0, new - old - below), min(1.0, new - old + above)


def paired(first: ArrayLike, second: ArrayLike) -> dict[str, Any]:
    """Whether two models differ that answered the same images: only images that one alone has right tell.

    The test is McNemar's, exact (Psychometrika 12, 1947). The interval is Wald's with half an image added to each of the
    four cells (A. Agresti and Y. Min, Stat. Med. 24, 2005).

    Args:
        first: Whether the first model is right on each image, ``[N]``.
        second: The same of the second one.

    Returns:
        ``{"images", "first_only", "second_only", "difference", "difference_ci95", "p"}``: counts of images that one
        alone has right; the top-1 of the second minus that of the first with its 95 % interval, as shares; and the
        probability of so uneven counts where the models are equally good.

    Example:
        >>> result = paired([1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1])
        >>> result["first_only"], result["second_only"], result["p"]
        (4, 1, 0.375)
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise UsageError(f"answers of shapes {a.shape} and {b.shape} are not those of the same images")
    lost, won, count = int((a & ~b).sum()), int((~a & b).sum()), len(a)
    few, differing = min(lost, won), lost + won
    # Integers of any length: no share of 2^-n is lost to rounding.
    tail = sum(math.comb(differing, k) for k in range(few + 1))
    p = min(1.0, 2 * tail / 2**differing)
    apart, total = won - lost, count + 2
    spread = math.sqrt(differing + 1 - apart**2 / total) / total
    ends = [max(-1.0, apart / total - _Z95 * spread), min(1.0, apart / total + _Z95 * spread)]
    return {
        "images": count,
        "first_only": lost,
        "second_only": won,
        "difference": apart / count,
        "difference_ci95": ends,
        "p": p,
    }


def calibration_error(probabilities: ArrayLike, right: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (ECE): how far a model's confidence is from its hit rate (C. Guo et al., ICML 2017).

    Args:
        probabilities: Of the answered class, 0 to 1, ``[N]``.
        right: Whether the answer is right, ``[N]``.
        bins: Equal parts of 0 to 1 that images are gathered in.

    Returns:
        Mean of ``|confidence - hit rate|`` over the bins, by their images: 0 where 80 % of all answers given with
        80 % are right.

    Example:
        >>> round(calibration_error([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]), 3)
        0.15
    """
    confidence, hits = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, confidence - hits, bins)
    return float(np.abs(gaps).sum() / len(confidence))


def softmax(logits: ArrayLike) -> NDArray[np.float32]:
    """Probabilities from logits along the last axis, safe for large values."""
    x = np.asarray(logits, np.float32)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _checked(
    logits: ArrayLike, labels: ArrayLike, classes: Sequence[str]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Scores and labels as arrays that fit each other; see ``evaluate`` for the errors."""
    scores, truth = np.asarray(logits), np.asarray(labels)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or scores.shape[1] != len(classes):
        raise UsageError(
            f"logits {scores.shape}, labels {truth.shape} and {len(classes)} classes do not fit each other",
            fix="pass logits [N, C], labels [N] and C class names",
        )
    if not len(truth):
        raise UsageError("there are no labeled images to evaluate", fix="give a split with images")
    truth = truth.astype(np.int64)
    if truth.min() < 0 or truth.max() >= len(classes):
        raise UsageError(
            f"labels reach from {truth.min()} to {truth.max()}, but there are {len(classes)} classes",
            fix=f"labels are 0 to {len(classes) - 1}",
        )
    bad = sum(int((~np.isfinite(scores[rows])).any(axis=1).sum()) for rows in _blocks(scores))
    if bad:
        raise EdgeclsError(
            f"the model's output is not finite for {bad} of {len(scores)} images",
            fix="it diverged or was converted wrongly; train or export it again",
        )
    return scores, truth


def _blocks(scores: NDArray[Any]) -> Iterator[slice]:
    """Slices of rows, each of some million scores."""
    step = max(1, _BLOCK // max(1, scores.shape[1]))
    return (slice(start, start + step) for start in range(0, len(scores), step))


def _confusion(truth: NDArray[np.int64], guess: NDArray[np.int64], count: int) -> list[list[int]] | None:
    if count > MAX_CONFUSION:
        return None
    return np.bincount(truth * count + guess, minlength=count * count).reshape(count, count).tolist()


def _confused(truth: NDArray[np.int64], guess: NDArray[np.int64], count: int) -> list[list[int]]:
    """The most frequent mistakes; equally frequent ones in the order of the classes."""
    wrong = truth != guess
    pairs, counts = np.unique(truth[wrong] * count + guess[wrong], return_counts=True)
    first = np.argsort(-counts, kind="stable")[:CONFUSED]
    return [[int(pairs[i] // count), int(pairs[i] % count), int(counts[i])] for i in first]


def _top(scores: NDArray[np.floating[Any]], truth: NDArray[np.int64], most: int) -> float:
    """The share of images whose label is among the ``most`` highest scores, the lower index winning a tie."""
    found = sum(int((_rank(scores[rows], truth[rows]) < most).sum()) for rows in _blocks(scores))
    return found / len(truth)


def _rank(scores: NDArray[np.floating[Any]], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes come before the true one, for each image."""
    true_score = scores[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < truth[:, None]
    return ((scores > true_score) | ((scores == true_score) & earlier)).sum(axis=1)

"""Scores from logits: against scikit-learn's figures, published intervals and simulated test sets."""

import json
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from edgecls import metrics
from edgecls.errors import EdgeclsError, UsageError
from edgecls.metrics import (
    balanced_interval,
    calibration_error,
    difference_interval,
    evaluate,
    paired,
    softmax,
    wilson,
)

CLASSES = ["ant", "bee", "cat"]


def test_scores_equal_scikit_learn():
    # accuracy_score, balanced_accuracy_score, confusion_matrix, precision_score and recall_score (average=None)
    # of scikit-learn 1.9.1 on these labels and predictions.
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    guesses = np.array([0, 0, 0, 1, 2, 1, 1, 0, 2, 0])
    scores = evaluate(np.eye(3)[guesses], labels, CLASSES)
    assert (scores["count"], scores["top1"], scores["top5"]) == (10, pytest.approx(0.6), None)
    assert scores["balanced_accuracy"] == pytest.approx(0.5888888888888889)
    assert scores["confusion"] == [[3, 1, 1], [1, 2, 0], [1, 0, 1]]
    assert scores["confused"] == [[0, 1, 1], [0, 2, 1], [1, 0, 1], [2, 0, 1]]
    assert [c["precision"] for c in scores["per_class"]] == pytest.approx([0.6, 2 / 3, 0.5])
    assert [c["recall"] for c in scores["per_class"]] == pytest.approx([0.6, 2 / 3, 0.5])
    assert [(c["class"], c["count"]) for c in scores["per_class"]] == [("ant", 5), ("bee", 3), ("cat", 2)]
    json.dumps(scores, allow_nan=False)


def test_top5_is_that_of_a_stable_sort(monkeypatch):
    rng = np.random.default_rng(5)
    logits, labels = rng.normal(size=(300, 7)).round(1), rng.integers(0, 7, 300)  # rounded: ties occur
    logits[np.arange(300), labels] += 0.7
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    plain = np.mean([label in row for label, row in zip(labels, best, strict=True)])
    assert evaluate(logits, labels, list("abcdefg"))["top5"] == plain
    monkeypatch.setattr(metrics, "_BLOCK", 50)  # 7 rows at a time
    assert evaluate(logits, labels, list("abcdefg"))["top5"] == plain


def test_top5_of_five_classes_is_no_figure():
    labels = np.arange(5)
    assert evaluate(np.eye(5), labels, list("abcde"))["top5"] is None
    assert evaluate(np.eye(6)[:5], labels, list("abcdef"))["top5"] == 1.0


def test_absent_and_never_predicted_classes_have_no_figure():
    scores = evaluate([[1, 0, 0], [1, 0, 0], [0.5, 1, 0]], [0, 1, 1], CLASSES)
    assert scores["balanced_accuracy"] == 0.75  # classes that occur: recalls 1 and 1/2
    assert [c["recall"] for c in scores["per_class"]] == [1.0, 0.5, None]
    assert [c["precision"] for c in scores["per_class"]] == [0.5, 1.0, None]


@pytest.mark.parametrize(
    ("logits", "labels", "error"),
    [
        (np.zeros((2, 3)), [0], UsageError),
        (np.zeros((2, 4)), [0, 1], UsageError),
        (np.zeros((0, 3)), [], UsageError),
        (np.zeros((2, 3)), [0, 3], UsageError),
        (np.zeros((2, 3)), [0, -1], UsageError),
        (np.array([[0, 1, 2], [np.nan, 5, 1]]), [0, 1], EdgeclsError),
        (np.array([[0, 1, 2], [np.inf, 5, 1]]), [0, 1], EdgeclsError),
    ],
)
def test_what_cannot_be_scored_is_refused(logits, labels, error):
    with pytest.raises(error) as caught:
        evaluate(logits, labels, CLASSES)
    assert "\n" not in str(caught.value)


def test_softmax_of_huge_logits():
    assert softmax([[1000.0, 1000.0, -1000.0]]).tolist() == [[0.5, 0.5, 0.0]]


# Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_intervals(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=6e-5)
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=6e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 2), (-1, 2), (float("nan"), 2)])
def test_wilson_of_no_proportion_is_refused(hits, n):
    with pytest.raises(ValueError, match="hits of"):
        wilson(hits, n)


# Newcombe, "Interval estimation for the difference between independent proportions", Stat. Med. 17 (1998), table II,
# method 10.
@pytest.mark.parametrize(
    ("new", "old", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_difference_equals_published_intervals(new, old, low, high):
    shares = [hits / n for hits, n in (new, old)]
    found = difference_interval(shares[0], wilson(*new), shares[1], wilson(*old))
    assert found == pytest.approx((low, high), abs=6e-5)
    back = difference_interval(shares[1], wilson(*old), shares[0], wilson(*new))
    assert back == pytest.approx((-high, -low), abs=6e-5)


def test_perfect_recall_is_not_certain():
    scores = evaluate(np.eye(3)[[0] * 10 + [1] * 10 + [2] * 10], [0] * 10 + [1] * 10 + [2] * 10, CLASSES)
    for row in scores["per_class"]:
        assert row["recall"] == 1.0 and row["recall_ci95"] == pytest.approx([0.722, 1.0], abs=5e-4)
    for key in ("balanced_accuracy", "top1"):
        low, high = scores[f"{key}_ci95"]
        assert scores[key] == high == 1.0 and 0.85 < low < 0.9, key
    assert wilson(27, 27)[1] == 1.0  # exactly, whatever is rounded


def test_one_answer_for_everything_is_seen():
    scores = evaluate(np.tile([0.1, 0.9, 0.2], (30, 1)), np.repeat([0, 1, 2], 10), CLASSES)
    assert (scores["predicted_classes"], scores["balanced_accuracy"]) == (1, pytest.approx(1 / 3))
    low, high = scores["balanced_accuracy_ci95"]
    assert low < 1 / 3 < high


@pytest.mark.parametrize(
    ("images", "recalls"),
    [
        ([10, 10], [0.98, 0.98]),
        ([10] * 5, [0.9] * 5),
        ([50] * 5, [0.5, 0.7, 0.8, 0.9, 1.0]),
        ([3] * 100, [0.9] * 100),
        ([1] * 50, [0.8] * 50),
        ([5, 12, 30, 80, 200], [0.9] * 5),
        ([200, 80, 30, 12, 5], [0.6, 0.7, 0.8, 0.9, 0.99]),
    ],
)
def test_the_interval_of_balanced_accuracy_covers_the_truth(images, recalls):
    rng, truth = np.random.default_rng(7), np.mean(recalls)
    hits = rng.binomial(images, recalls, size=(2000, len(images)))
    ends = np.array([balanced_interval(row, images) for row in hits])
    covered = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert covered > 0.915
    assert (ends[:, 1] > ends[:, 0]).all()


def test_one_class_has_wilsons_own_interval():
    assert balanced_interval([9], [12]) == pytest.approx(wilson(9, 12))


def test_many_classes_have_their_mistakes_and_no_matrix():
    classes = [str(i) for i in range(300)]
    labels = np.repeat(np.arange(300), 3)
    guesses = np.where(labels >= 100, labels, labels + 200)
    guesses[labels == 299] = 7
    guesses[0] = 5
    scores = evaluate(np.eye(300)[guesses], labels, classes)
    assert scores["confusion"] is None and len(scores["confused"]) == 100
    assert scores["confused"][:2] == [[1, 201, 3], [2, 202, 3]] and [299, 7, 3] in scores["confused"]
    assert len(json.dumps(scores)) < 60_000


def test_ten_thousand_classes_fit_into_memory():
    classes = [str(i) for i in range(10_000)]
    rng = np.random.default_rng(0)
    logits, labels = rng.random((1500, 10_000), np.float32), rng.integers(0, 10_000, 1500)
    tracemalloc.start()
    try:
        scores = evaluate(logits, labels, classes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert scores["confusion"] is None and len(scores["per_class"]) == 10_000
    assert scores["top5"] == pytest.approx(5 / 10_000, abs=3e-3)
    assert peak < logits.nbytes / 2  # no copy of the scores


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (4, 1), (1, 4), (30, 30), (700, 600)])
def test_the_paired_test_is_the_exact_binomial_one(lost, won):
    first = np.r_[np.ones(lost), np.zeros(won), np.ones(20), np.zeros(10)]
    second = np.r_[np.zeros(lost), np.ones(won), np.ones(20), np.zeros(10)]
    result = paired(first, second)
    expect = scipy.stats.binomtest(won, lost + won).pvalue if lost + won else 1.0
    assert result["p"] == pytest.approx(expect, rel=1e-9)
    assert (result["first_only"], result["second_only"], result["images"]) == (lost, won, len(first))
    assert result["difference"] == pytest.approx(second.mean() - first.mean())


def test_the_paired_interval_covers_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1500):
        first = rng.random(150) < 0.8
        second = np.where(rng.random(150) < 0.2, rng.random(150) < 0.6, first)  # 0.76 on average
        low, high = paired(first, second)["difference_ci95"]
        covered += low <= 0.8 * 0.8 + 0.2 * 0.6 - 0.8 <= high
    assert covered / 1500 > 0.94


def test_answers_of_other_images_are_no_pair():
    with pytest.raises(UsageError, match="same images"):
        paired([True, False], [True])


def test_the_calibration_error_against_a_loop():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1.0, 500)
    right = rng.random(500) < confidence**2
    expect = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            expect += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert calibration_error(confidence, right) == pytest.approx(expect)
    assert calibration_error([1.0, 1.0], [1, 1]) == 0

"""Results as text: what is missing never stops them, and nothing in them misleads."""

import numpy as np
import pytest

from edgecls.cli import show
from edgecls.metrics import evaluate

CLASSES = ["ant", "bee", "cat", "dog", "elk", "fox"]


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def scored(guesses, labels, classes=CLASSES) -> dict:
    return evaluate(np.eye(len(classes))[guesses], labels, classes)


def test_scores_have_intervals_and_fit_the_terminal():
    labels = np.repeat(range(6), 10)
    result = {"test": {kind: scored(labels, labels) for kind in ("teacher", "float", "fp32", "qat", "int8")}}
    text = show.show_scores({**result, "drop": 0.012, "run": "runs/a/b", "report": "runs/a/b/report.html"})
    assert "% of 60 images" in text and "94.0 - 100.0" in text and "top-5" in text
    assert "int8 loses 1.20 points of balanced accuracy (95 %: -6.0 to +6.0)" in text
    assert "run: runs/a/b" in text and max(map(len, text.splitlines())) <= 80


def test_a_certain_loss_and_a_gain_are_said_so():
    labels = np.repeat(range(6), 50)
    good, bad = scored(labels, labels), scored((labels + (np.arange(300) % 2)) % 6, labels)
    text = show.show_scores({"test": {"float": good, "int8": bad}, "drop": 0.5})
    assert text.endswith("int8 loses 50.00 points of balanced accuracy (95 %: -55.6 to -44.2)")
    text = show.show_scores({"test": {"float": bad, "int8": good}, "drop": -0.5})
    assert text.endswith("int8 gains 50.00 points of balanced accuracy (95 %: +44.2 to +55.6)")


def test_nothing_is_lost_by_a_network_that_answers_one_class():
    labels = np.repeat(range(6), 10)
    dead = scored(np.zeros(60, int), labels) | {"warnings": ["predicts 1 of 6 classes, whatever it sees"]}
    text = show.show_scores({"test": {"float": dead, "int8": dead}, "drop": 0.0})
    assert "loses" not in text
    assert "warning: float predicts 1 of 6 classes" in text and "warning: int8 predicts 1 of 6" in text


def test_scores_without_test_images_or_int8():
    assert show.show_scores({"test": {}, "drop": None, "run": "r", "report": "p"}) == "run: r\nreport: p"
    one = scored([0], [0])
    text = show.show_scores({"test": {"float": one}, "drop": None})
    assert "% of 1 image\n" in text and "loses" not in text


def test_top5_is_left_out_and_why():
    text = show.show_scores({"test": {"float": scored([0, 1], [0, 1], CLASSES[:5])}})
    assert "top-5 is left out: with five classes or fewer it is always 100 %" in text
    assert "top-5" not in text.splitlines()[1]


def evaluated(scores: dict, classes) -> dict:
    return {"model": "runs/a/b/float.keras", "split": "test", "classes": classes, "metrics": scores}


def test_an_evaluation():
    labels = [0, 0, 1, 2]
    scores = scored([0, 1, 1, 2], labels) | {"warnings": ["predicts only 3 of 9 classes"]}
    text = show.show_eval(evaluated(scores, CLASSES))
    assert "% of 4 images" in text and "warning: predicts only 3 of 9 classes" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["ant", "2", "50.0", "9.5", "-", "90.5", "100.0"] in lines and ["dog", "0", "-", "-", "-"] in lines
    assert ["ant", "bee", "1"] in lines


def test_an_evaluation_of_more_classes_than_a_matrix_can_have():
    classes = [f"class {i}" for i in range(2100)]
    scores = evaluate(np.eye(2100, dtype=np.float32)[:4], [0, 1, 2, 4], classes)
    lines = show.show_eval(evaluated(scores, classes)).splitlines()
    assert "the 4 of 2100 classes with the lowest recall" in lines
    assert lines[-1].split() == ["class", "4", "class", "3", "1"] and lines[-3] == "confused most"


def test_float_operators_are_named_where_there_should_be_none():
    about = {"bytes": 1_500_000, "ops": {"CONV_2D": 3, "ADD": 1}, "float_ops": ["ADD", "CONV_2D"]}
    files = {"model_fp32.tflite": about, "model_int8.tflite": about | {"float_ops": ["ADD"], "partitions": 2}}
    text = show.show_verify({"images": 2, "rungs": [], "files": files})
    lines = [line.split() for line in text.splitlines()]
    assert ["model_fp32.tflite", "1.50", "4", "all", "-"] in lines
    assert ["model_int8.tflite", "1.50", "4", "ADD", "2"] in lines


def test_a_ladder_without_files_counts_in_the_singular():
    rungs = [
        {"name": "qat = int8", "max_steps": 1.0, "top1_agreement": 1.0, "ok": True},
        {"name": "other", "max_steps": 1.5, "ok": False},
        {"name": "float", "of_range": 2e-6},
    ]
    text = show.show_verify({"images": 1, "rungs": rungs, "warnings": ["one op is outside"]})
    assert "parity on 1 image\n" in text and "1 step " in text and "1.5 steps" in text and "FAILED" in text
    assert "warning: one op is outside" in text
    assert "int8" in show.show_quantize({"verify": {"images": 2, "rungs": rungs}, "test": {}, "drop": None})
    assert show.show_quantize({"verify": None, "test": {}, "drop": None, "run": "r"}) == "run: r"

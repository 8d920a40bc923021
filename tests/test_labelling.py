"""Which label is which class: where numbers start, what many classes cost, label maps."""

from collections import Counter

import pytest
from photos import folder

from edgecls.data.labelling import cost, numbering, parse_names
from edgecls.data.sources import load_dataset
from edgecls.errors import UsageError
from edgecls.recipe import Data


def number(words, classes=None):
    return numbering(Counter(words), classes, numbers_allowed=True)


@pytest.mark.parametrize(
    ("words", "classes", "names", "first", "said"),
    [
        (["0", "1", "2"], None, ["0", "1", "2"], ("0", 0), []),
        (["1", "2", "3"], None, ["1", "2", "3"], ("1", 0), ["labels run from 1 to 3: class 0 is called 1"]),
        (
            ["500", "501"],
            None,
            ["500", "501"],
            ("500", 0),
            ["labels run from 500 to 501: class 0 is called 500"],
        ),
        (["1", "2"], 2, ["1", "2"], ("1", 0), ["labels run from 1 to 2"]),
        (["1", "2"], ["cat", "dog"], ["cat", "dog"], ("1", 0), ["labels run from 1 to 2: 1 is cat"]),
        (
            ["1", "2"],
            3,
            ["0", "1", "2"],
            ("1", 1),
            ["3 classes, because data.classes says so: 1 class has no images (0)"],
        ),
        (["2", "7"], 10, list("0123456789"), ("2", 2), ["8 classes have no images"]),
        (["0.0", "1.0"], None, ["0", "1"], ("1.0", 1), []),
        (["-1", "0", "1"], None, ["0", "1"], ("-1", -1), []),
        (["-1", "0", "1"], ["-1", "0", "1"], ["-1", "0", "1"], ("-1", 0), []),
        (["b", "a", "-1"], None, ["a", "b"], ("b", 1), []),
        (["7", "0"], ["7", "0"], ["7", "0"], ("7", 0), []),  # names that are numbers
    ],
)
def test_numbers_may_start_anywhere(words, classes, names, first, said):
    found = number(words, classes)
    assert found.classes == names and found.index[first[0]] == first[1]
    assert len(found.notes) == len(said) and all(
        text in note for text, note in zip(said, found.notes, strict=True)
    )


@pytest.mark.parametrize(
    ("words", "classes", "message"),
    [
        (
            ["0", "1", "300000"],
            None,
            r"label 300000 would make 300,001 classes, only 3 of them with images: the classifier"
            r" alone has 384 million weights \(1,536 MB\).*set data.classes: 300001",
        ),
        (["1700000000", "1700000001"], None, "label 1700000001 is too large for a class number"),
        (["0.25", "0.5", "1"], None, r"labels such as 0\.25 are no class numbers"),
        (["a", "b"], 3, "2 classes found, 3 expected"),
    ],
)
def test_numbers_that_cannot_be_classes(words, classes, message):
    with pytest.raises(UsageError, match=message):
        number(words, classes)


def test_many_classes_are_allowed_if_asked_for_and_said():
    found = number(["0", "300000"], 300_001)
    assert len(found.classes) == 300_001 and found.index["300000"] == 300_000
    assert "299,999 classes have no images, " + cost(300_001) in found.notes[0]
    assert cost(1000) == "the classifier alone has 1 million weights (5 MB) with 1,280 features"


def test_a_few_words_among_numbers_are_mistakes_and_many_are_names():
    found = number(["0"] * 10 + ["1"] * 9 + ["cat"])
    assert found.classes == ["0", "1"] and found.refused == {"cat"}
    assert number(["0", "1", "cat"]).classes == ["0", "1", "cat"]


def test_label_maps():
    assert parse_names(["0 cat", "1 dog", "2 guinea pig", ""]) == ["cat", "dog", "guinea pig"]
    assert parse_names(["2,b", "1,a"]) == ["a", "b"] and parse_names(["1: b", "0: a"]) == ["a", "b"]
    for names in (["cat", "dog"], ["0 cat", "5 dog"], ["3 cat", "4 dog"], ["0", "1"], ["0 cat", "0 dog"]):
        assert parse_names(names) == names


def test_a_label_map_names_the_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    folder(tmp_path, {"cat": 4, "dog": 4})
    rows = [f"{name}/00{i}.png {label}" for label, name in enumerate(("cat", "dog")) for i in range(4)]
    (tmp_path / "list.txt").write_text("\n".join(rows))
    (tmp_path / "map.txt").write_text("\ufeff1 dog\r\n0 cat\r\n")
    found = load_dataset(
        Data(source="list", path=str(tmp_path / "list.txt"), labels=str(tmp_path / "map.txt"))
    )
    assert found.classes == ["cat", "dog"]
    for name, label in zip(found.train.names, found.train.labels, strict=True):
        assert name.startswith(found.classes[label])

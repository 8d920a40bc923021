"""Sources, checks and splits, on small synthetic photographs."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photos import folder, picture

from edgecls.data import images, readers
from edgecls.data.pipeline import batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sampling import class_weights, stratified
from edgecls.data.sources import load_dataset
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.recipe import Data

SMALL = Preprocess(16, 18)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    return folder(tmp_path / "photos", {"cat": 20, "dog": 12})


def data(path, **keys):
    return Data(path=str(path), **keys)


def names(dataset):
    return {purpose: getattr(dataset, purpose).names for purpose in ("train", "val", "test")}


# Sources ---------------------------------------------------------------------------------------------------------


def test_folder(photos):
    found = load_dataset(data(photos))
    assert found.classes == ["cat", "dog"] and not found.bad and found.duplicates == 0
    described = found.describe()["splits"]
    assert [described[s]["per_class"] for s in ("test", "val", "train")] == [[5, 3], [2, 1], [13, 8]]
    every = [name for split in names(found).values() for name in split]
    assert len(every) == len(set(every)) == 32 and "cat/007.png" in every
    for name, label in zip(found.train.names, found.train.labels, strict=True):
        assert found.classes[label] == name.split("/")[0]
    json.dumps(found.describe())


def test_folder_with_its_own_splits(tmp_path):
    for purpose, start in (("train", 0), ("validation", 100), ("test", 200)):
        folder(tmp_path / "d" / purpose, {"a": 3, "b": 4}, start=start)
    found = load_dataset(data(tmp_path / "d"))
    assert [len(s) for s in (found.train, found.val, found.test)] == [7, 7, 7]
    assert "validation" in found.val.files[0]
    other = folder(tmp_path / "e", {"a": 2, "b": 2}, start=300)
    assert len(load_dataset(data(tmp_path / "d" / "train", test_path=str(other), val_fraction=0.0)).test) == 4


def test_test_split_depends_on_the_data_alone(photos, tmp_path):
    found = load_dataset(data(photos))
    moved = photos.rename(tmp_path / "elsewhere")
    assert names(load_dataset(data(moved))) == names(found)
    assert load_dataset(data(moved, val_fraction=0.3)).test.names == found.test.names
    (moved / "cat" / found.train.names[0].split("/")[1]).unlink()
    fewer = load_dataset(data(moved)).test.names
    assert len(set(fewer) & set(found.test.names)) >= len(found.test.names) - 1


def test_copies_of_a_file_stay_on_one_side(photos):
    for i in range(6):
        for k in range(3):
            (photos / "dog" / f"copy{i}{k}.png").write_bytes((photos / "dog" / f"{i:03}.png").read_bytes())
    found = load_dataset(data(photos, test_fraction=0.4, val_fraction=0.3))
    assert found.duplicates == 18
    contents = [{Path(f).read_bytes() for f in s.files} for s in (found.train, found.val, found.test)]
    assert sum(map(len, contents)) == len(set().union(*contents)) == 32


def test_list_file(photos, tmp_path):
    picture(photos / "a name with spaces.png", 900)
    picture(photos / "no_label.png", 901)
    lines = [f"cat/{i:03}.png 0" for i in range(6)] + [f"dog/{i:03}.png\t1" for i in range(6)]
    lines += ["", "a name with spaces.png 1", "no_label.png", "dog/009.png -1"]
    (photos / "all.txt").write_text("\n".join(lines), "utf-8")
    found = load_dataset(data(photos / "all.txt", source="list", classes=["cat", "dog"]))
    both = dict(zip(found.train.names, found.train.labels, strict=True))
    both |= dict(zip(found.test.names, found.test.labels, strict=True))
    assert both["no_label.png"] == both["dog/009.png"] == -1 and both["cat/000.png"] == 0
    assert sum(len(s) for s in (found.train, found.val, found.test)) == 15
    assert -1 not in found.test.labels and -1 not in found.val.labels
    assert found.describe()["splits"]["train"]["unlabelled"] == 2
    by_number = load_dataset(data(photos / "all.txt", source="list"))
    assert by_number.classes == ["0", "1"]


def test_list_file_with_names_and_label_file(photos):
    rows = [f"cat/{i:03}.png {'kitten' if i % 2 else 'Cat'}" for i in range(8)]
    (photos / "all.txt").write_text("\n".join(rows), "utf-8")
    assert load_dataset(data(photos / "all.txt", source="list")).classes == ["Cat", "kitten"]
    (photos / "labels.txt").write_text("kitten\nCat\n", "utf-8")
    found = load_dataset(data(photos / "all.txt", source="list", labels=str(photos / "labels.txt")))
    assert found.classes == ["kitten", "Cat"]


def test_unlabelled_folder_is_all_for_training(tmp_path):
    for i in range(5):
        picture(tmp_path / "d" / f"{i}.jpg", i)
    for classes in (7, ["a", "b"]):
        found = load_dataset(data(tmp_path / "d", classes=classes))
        assert len(found.train) == 5 and set(found.train.labels) == {-1} and len(found.test) == 0
        assert len(found.classes) == (7 if classes == 7 else 2)
    assert list(batches(found.test, SMALL, 4)) == []
    with pytest.raises(UsageError, match=r"data\.classes"):
        load_dataset(data(tmp_path / "d"))


def test_everything_unlabelled_trains(tmp_path):
    for i in range(8):
        picture(tmp_path / "d" / f"{i % 6}_{i}.jpg", i % 6)  # two copies
    (tmp_path / "d" / "list.txt").write_text("".join(f"{i % 6}_{i}.jpg -1\n" for i in range(8)))
    (tmp_path / "val").mkdir()
    picture(tmp_path / "val" / "0.jpg", 50)
    for path, source in ((tmp_path / "d", "folder"), (tmp_path / "d" / "list.txt", "list")):
        for val_path in (None, str(tmp_path / "val")) if source == "folder" else (None,):
            found = load_dataset(data(path, source=source, classes=["a", "b", "c"], val_path=val_path))
            splits = json.loads(json.dumps(found.describe()))["splits"]
            assert splits["train"]["unlabelled"] == splits["train"]["count"] == 8 and found.duplicates == 2
            assert [splits[s]["per_class"] for s in splits] == [[0, 0, 0]] * 3
            assert splits["test"]["count"] == 0 and splits["val"]["count"] == (val_path is not None)
        ((x, y),) = batches(found.train, SMALL, 8, training=True)
        assert x.shape == (8, 16, 16, 3) and y.numpy().tolist() == [-1] * 8
    for fraction in (0.0, 0.5):
        assert not stratified(np.full(5, -1), list("abcde"), fraction, "salt").any()
        assert stratified(np.zeros(0, np.int64), [], fraction, "salt").shape == (0,)
    assert class_weights(np.full(5, -1), 3).tolist() == [0, 0, 0]


def idx(path, array, zipped):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.with_name(path.name + ".gz" * zipped).write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, zipped):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 28, 28)), np.arange(40) % 4
    for prefix, chosen in (("train", slice(0, 30)), ("t10k", slice(30, 40))):
        idx(tmp_path / f"{prefix}-images-idx3-ubyte", pixels[chosen], zipped)
        idx(tmp_path / f"{prefix}-labels-idx1-ubyte", labels[chosen], zipped)
    found = load_dataset(data(tmp_path, source="idx", val_fraction=0.2))
    assert found.classes == ["0", "1", "2", "3"] and len(found.test) == 10
    assert [len(found.train), len(found.val)] == [24, 6] or len(found.train) + len(found.val) == 30
    assert np.array_equal(found.test.images[..., 0], pixels[30:]) and np.array_equal(
        found.test.labels, labels[30:]
    )
    ((x, y),) = batches(found.test, SMALL, 10)
    assert x.shape == (10, 16, 16, 3) and np.array_equal(y, labels[30:])
    assert np.array_equal(x[3], SMALL.array(found.test.images[3]))
    single = tmp_path / ("train-images-idx3-ubyte" + ".gz" * zipped)
    assert len(load_dataset(data(single, source="idx")).classes) == 4
    single.write_bytes(single.read_bytes()[:-50])
    with pytest.raises(EdgeclsError, match="damaged"):
        load_dataset(data(single, source="idx"))


def test_elpv():
    pytest.importorskip("elpv_dataset", reason="needs edgecls[demo]")
    found = load_dataset(Data(source="elpv"))
    splits = found.describe()["splits"]
    assert np.sum([splits[s]["per_class"] for s in splits], axis=0).tolist() == [1803, 821]
    assert splits["test"]["per_class"] == [451, 205] and found.duplicates == 0
    # The published figures belong to exactly these photographs.
    names_hash = hashlib.sha256("\n".join(found.test.names).encode()).hexdigest()
    assert names_hash.startswith("2f3173037ef9f2ef") and splits["test"]["sha256"].startswith(
        "feff2a0b720e1091"
    )


def test_elpv_without_its_package(monkeypatch):
    monkeypatch.setattr(readers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"edgecls\[demo\]"):
        load_dataset(Data(source="elpv"))


# What goes wrong -------------------------------------------------------------------------------------------------


def spoil(root):
    (root / "cat" / "000.png").write_bytes(b"this is text")
    torn = picture(root / "dog" / "torn.jpg", 5000)
    torn.write_bytes(torn.read_bytes()[:300])
    return root


def test_bad_images_are_named_counted_and_dropped(photos):
    found = load_dataset(data(spoil(photos), max_bad_fraction=0.1))
    assert [name for name, _ in found.bad] == ["cat/000.png", "dog/torn.jpg"]
    assert found.bad[0][1] == "not an image" and "damaged" in found.bad[1][1]
    assert sum(len(s) for s in (found.train, found.val, found.test)) == 31


def test_too_many_bad_images_stop(photos):
    with pytest.raises(
        EdgeclsError, match=r"2 of 33 images cannot be used.*cat/000\.png: not an image"
    ) as caught:
        load_dataset(data(spoil(photos)))
    assert caught.value.exit_code == 1 and "dog/torn.jpg" in str(caught.value)


WRONG = {
    "no folder": (lambda p: data(p / "none"), MissingError, "no such data folder.*none"),
    "empty folder": (lambda p: data(p / "empty"), MissingError, "no images found"),
    "file as folder": (lambda p: data(p / "l.txt"), UsageError, "not a folder.*data.source: list"),
    "empty class": (lambda p: data(p / "holes"), UsageError, "no images in the class folder 'void'"),
    "one class": (lambda p: data(p / "one"), UsageError, "two classes or more are needed, found only 'cat'"),
    "one photo": (lambda p: data(p / "few"), UsageError, r"too few images of a class: dog \(1\)"),
    "class count": (lambda p: data(p / "photos", classes=3), UsageError, "2 classes found, 3 expected"),
    "unknown class": (
        lambda p: data(p / "photos", classes=["cat", "cow"]),
        UsageError,
        "label 'dog' is not among",
    ),
    "label beyond": (
        lambda p: data(p / "l.txt", source="list", classes=2),
        UsageError,
        r"label '2'.*l\.txt:3",
    ),
    "negative label": (
        lambda p: data(p / "n.txt", source="list", classes=2),
        UsageError,
        r"label '-3'.*n\.txt:2",
    ),
    "date as label": (
        lambda p: data(p / "d.txt", source="list"),
        UsageError,
        "label 20260116 is too large for a class number",
    ),
    "one label": (lambda p: data(p / "o.txt", source="list", classes=2), UsageError, "found only '0'"),
    "folder as list": (lambda p: data(p / "photos", source="list"), UsageError, "without a list file"),
    "not IDX": (
        lambda p: data(p / "l.txt", source="idx", labels=str(p / "l.txt")),
        UsageError,
        "not an IDX file",
    ),
    "no IDX": (lambda p: data(p / "photos", source="idx"), MissingError, "no train-images-idx3-ubyte"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_one_line_that_says_where(case, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "one", {"cat": 3})
    folder(tmp_path / "few", {"cat": 3, "dog": 1})
    folder(tmp_path / "holes", {"cat": 3, "dog": 2})
    (tmp_path / "holes" / "void").mkdir()
    (tmp_path / "l.txt").write_text("photos/cat/000.png 0\nphotos/dog/000.png 1\nphotos/dog/001.png 2\n")
    (tmp_path / "n.txt").write_text("photos/cat/000.png 0\nphotos/dog/000.png -3\n")
    (tmp_path / "d.txt").write_text("photos/cat/000.png 20260115\nphotos/dog/000.png 20260116\n")
    (tmp_path / "o.txt").write_text("photos/cat/000.png 0\nphotos/cat/001.png 0\n")
    cfg, kind, text = WRONG[case]
    with pytest.raises(kind, match=text) as caught:
        load_dataset(cfg(tmp_path))
    assert "\n" not in str(caught.value)


def test_second_check_reads_nothing(photos, monkeypatch):
    calls = []
    first = load_dataset(
        data(spoil(photos), max_bad_fraction=1.0), lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (33, 33)
    real, seen = images.inspect, []
    monkeypatch.setattr(images, "inspect", lambda path: seen.append(path) or real(path))
    again = load_dataset(data(photos, max_bad_fraction=1.0))
    assert not seen and names(again) == names(first) and again.bad == first.bad
    picture(photos / "cat" / "000.png", 77)
    repaired = load_dataset(data(photos, max_bad_fraction=1.0))
    assert [Path(s).name for s in seen] == ["000.png"] and len(repaired.bad) == 1


def test_damaged_or_unwritable_cache_is_no_harm(photos, tmp_path, monkeypatch):
    load_dataset(data(photos))
    (cache,) = (tmp_path / "cache" / "scan").glob("*.json")
    cache.write_text('{"version": 1, "files": ')
    assert len(load_dataset(data(photos)).train) == 21
    monkeypatch.setenv("EDGECLS_CACHE", str(cache))  # a file where a folder is needed
    assert len(load_dataset(data(photos)).train) == 21


def test_sources_do_not_import_tensorflow():
    code = "import sys, edgecls.data.sources; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Splits and weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_stratified_shares(fraction):
    rng = np.random.default_rng(1)
    labels = np.concatenate([rng.permutation(np.repeat([0, 1, 2, 3], [200, 51, 2, 1])), [-1] * 9])
    chosen = stratified(labels, [f"n{i}" for i in range(len(labels))], fraction, "salt")
    for kind, count in ((0, 200), (1, 51), (2, 2), (3, 1), (-1, 9)):
        share = chosen[labels == kind].sum()
        if kind == -1 or count == 1 or fraction == 0:
            assert share == 0
        else:
            assert share == min(max(1, round(fraction * count)), count - 1)


def test_class_weights_balance():
    labels = np.array([0] * 6 + [1] * 3 + [-1] * 5)
    weights = class_weights(labels, 3)
    assert weights.dtype == np.float32 and np.allclose(weights, [9 / 12, 9 / 6, 0])
    assert np.isclose(weights[labels[:9]].mean(), 1)

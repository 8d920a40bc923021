"""Folders as people have them: splits by any usual name, files of the system, formats that are not read."""

import os
from collections import Counter
from pathlib import Path

import pytest
from photos import folder, picture

from edgecls.data.listing import list_files, list_folders, purpose_of
from edgecls.data.sources import load_dataset, load_for_scoring
from edgecls.errors import MissingError, UsageError
from edgecls.recipe import Data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


def split_folders(root, names, counts=(5, 4, 3)):
    for number, (name, count) in enumerate(zip(names, counts, strict=False)):
        folder(root / name, {"cat": count, "dog": count}, start=100 * number)
    return root


def load(root, **keys):
    return load_dataset(Data(path=str(root), **keys))


SPELLINGS = {
    "train": [
        "train",
        "Training",
        "TRAIN",
        "Train",
        "train_data",
        "training-set",
        "TrainSet",
        "train_images",
        "train2017",
        "train-2012",
        "trn",
    ],
    "val": [
        "val",
        "Val",
        "valid",
        "validation",
        "Validation_set",
        "dev",
        "validate",
        "val-data",
        "VALIDATE",
        "eval",
        "evaluation",
        "val_2017",
    ],
    "test": ["test", "Testing", "TEST", "Test", "test_data", "test set", "testset images", "images_test"],
    None: [
        "trains",
        "tests",
        "cat",
        "test2",
        "contrast",
        "data",
        "developer",
        "value",
        "train_test",
        "train12017",
        "2017",
        "latest",
    ],
}


def test_purposes_are_known_by_their_usual_names():
    for purpose, names in SPELLINGS.items():
        assert [name for name in names if purpose_of(name) != purpose] == []


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("Train", "Val"),
        ("train_data", "test_data"),
        *(("train", name) for name in ("dev", "validate", "Test", "Validation", "testing")),
        ("Train", "Val", "Test"),
    ],
    ids="+".join,
)
def test_splits_by_any_usual_name(tmp_path, names):
    found = load(split_folders(tmp_path / "d", names))
    assert found.classes == ["cat", "dog"]
    for purpose, split in (("train", found.train), ("val", found.val), ("test", found.test)):
        own = [name for name in names if purpose_of(name) == purpose]
        assert not own or {file.split("/d/")[1].split("/")[0] for file in split.files} == set(own)
    assert sum(map(len, (found.train, found.val, found.test))) == (18 if len(names) == 2 else 24)
    said = f"folders taken for splits: {names[0]} to train"
    assert any(note.startswith(said) for note in found.notes) == (
        set(names) - {"train", "val", "test"} != set()
    )


def test_archives_are_refused_with_what_to_do(tmp_path):
    for name in ("photos.zip", "photos.tar.gz", "Photos.TGZ"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        path = str(tmp_path / name)
        folder(tmp_path / "d", {"cat": 6, "dog": 6})
        for try_it in (
            lambda path=path: load(path),
            lambda path=path: load(path, source="list"),
            lambda path=path: load(tmp_path / "d", extra=[{"path": path}]),
            lambda path=path: load_for_scoring(Path(path), ["cat", "dog"]),
        ):
            with pytest.raises(UsageError, match=r"archives are not read.*unpack it and name the folder"):
                try_it()


def test_the_fewest_images_are_still_of_two_classes(tmp_path):
    root = folder(tmp_path / "d", {"cat": 9, "dog": 9, "eel": 9})
    found = load(root, max_images=8, test_fraction=0, val_fraction=0)
    assert found.train.names[0].startswith("cat/") and found.train.names[-1].startswith("eel/")
    assert len(found.train) == 8 and found.train.labels.tolist() == [0] * 4 + [2] * 4


def test_a_class_called_train(tmp_path):
    folder(tmp_path / "d", {"bus": 4, "train": 4})
    folder(tmp_path / "d" / "train", {"steam": 4}, start=50)
    found = load(tmp_path / "d")
    assert found.classes == ["bus", "train"] and sum(map(len, (found.train, found.val, found.test))) == 12


def test_what_lies_beside_the_splits_is_said(tmp_path):
    split_folders(tmp_path / "d", ("train", "test"))
    folder(tmp_path / "d", {"spare": 2, "val": 2}, start=700)
    found = load(tmp_path / "d")
    assert "not used, beside the splits: spare" in found.notes
    assert "not used, no class folders inside: val" in found.notes and len(found.val) == 2  # split off


REFUSED = {
    "two to test": (
        ("train", "test", "Testing"),
        UsageError,
        "Testing and test are both folders to test.*data.test_path",
    ),
    "none to train": (("val", "test"), UsageError, "no folder to train from beside val and test"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_splits_that_cannot_be_meant(tmp_path, case):
    names, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        load(split_folders(tmp_path / "d", names))


def test_splits_without_classes_are_refused(tmp_path):
    folder(tmp_path / "d", {"Train": 4, "Test": 3})
    with pytest.raises(
        UsageError, match="the folders Train, Test are splits, but have no class folders inside"
    ):
        load(tmp_path / "d")


def test_a_class_that_is_written_in_two_ways(tmp_path):
    split_folders(tmp_path / "d", ("train", "test"))
    (tmp_path / "d" / "test" / "cat").rename(tmp_path / "d" / "test" / "Cat")
    with pytest.raises(UsageError, match="class 'Cat' is called 'cat' in the training images"):
        load(tmp_path / "d")
    (tmp_path / "d" / "test" / "Cat").rename(tmp_path / "d" / "test" / "cow")
    assert "no training images of cow" in load(tmp_path / "d").notes


def test_folders_around_the_class_folders(tmp_path):
    folder(tmp_path / "d" / "archive", {"cat": 3, "dog": 3})
    with pytest.raises(
        UsageError, match=r"the only folder, 'archive', has the folders.*set data.path: .*d/archive"
    ):
        load(tmp_path / "d")


def test_files_of_the_system_are_no_images_and_no_class(tmp_path):
    root = folder(tmp_path / "d", {"cat": 5, "dog": 5})
    for number, name in enumerate(
        ("@eaDir", "#recycle", "$RECYCLE.BIN", ".hidden", "__MACOSX", "lost+found")
    ):
        picture(root / name / "SYNOPHOTO_THUMB_M.jpg", 100 + number)
        picture(root / "cat" / name / "000.png" / "SYNOFILE_THUMB_XL.jpg", 200 + number)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
        (root / "cat" / name).write_bytes(b"\0\1\2")
        (root / name).write_bytes(b"\0\1\2")
    found = load(root)
    assert found.classes == ["cat", "dog"] and not found.bad
    assert sum(map(len, (found.train, found.val, found.test))) == 10


def test_formats_that_are_not_read_are_counted(tmp_path):
    root = folder(tmp_path / "d", {"cat": 5, "dog": 5})
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/3.avif", "dog/clips/4.MOV", "dog/notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    os.mkfifo(root / "dog" / "pipe.jpg")
    assert list_files(root).unread == Counter({".heic": 2, ".avif": 1, ".mov": 1, "pipe or device": 1})
    said = "not read: 2 .heic (convert them to JPEG or PNG)"
    assert said in load(root).notes or any(
        note.startswith("not read: 2 .heic, ") for note in load(root).notes
    )
    (root / "bird").mkdir()
    (root / "bird" / "1.heic").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"no images in the class folder 'bird', not read: 1 \.heic"):
        load(root)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "1.heic").write_bytes(b"x")
    with pytest.raises(MissingError, match=r"no images found.*not read: 1 \.heic"):
        load(tmp_path / "flat")


def test_a_link_to_the_folder_above_counts_no_photo_twice(tmp_path):
    root = folder(tmp_path / "d", {"cat": 6, "dog": 5})
    (root / "cat" / "up").symlink_to("..")
    found = load(root)
    assert sum(map(len, (found.train, found.val, found.test))) == 11 and found.duplicates == 0
    assert [path.name for path in list_folders(root / "cat")] == []


def test_a_class_folder_may_be_called_by_a_number(tmp_path):
    found = load(folder(tmp_path / "d", {"-1": 4, "0": 4, "1": 4}))
    assert found.classes == ["-1", "0", "1"] and min(found.train.labels) == 0
    found = load(folder(tmp_path / "e", {"-1": 4, "1": 4}))
    assert found.classes == ["-1", "1"]
    score = load_for_scoring(tmp_path / "e", ["1", "-1"])
    assert score.labels.tolist() == [1] * 4 + [0] * 4


def test_names_that_look_alike_are_said(tmp_path):
    found = load(folder(tmp_path / "d", {"Cat": 3, "cat": 3, "dog": 3}))
    assert "the classes 'Cat', 'cat' differ only in case or spaces" in found.notes

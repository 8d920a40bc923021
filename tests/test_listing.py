"""Which files of a folder are photos, and what becomes of the ones that cannot be read."""

import os
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from photos import folder, picture
from PIL import Image

from edgecls.data import images
from edgecls.data.images import read_all
from edgecls.data.listing import list_folders, list_photos
from edgecls.data.pipeline import batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sources import load_dataset, load_for_scoring
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.recipe import Data

GBK = os.fsdecode("猫狗.png".encode("gbk"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    return folder(tmp_path / "photos", {"cat": 6, "dog": 5})


def listed(root):
    return [path.relative_to(root).as_posix() for path in list_photos(root)]


# Listing ---------------------------------------------------------------------------------------------------------


def test_links_in_a_circle_list_a_photo_once(photos):
    plain = listed(photos)
    (photos / "cat" / "up").symlink_to("..")
    (photos / "cat" / "itself").symlink_to(".")
    (photos / "cat" / "absolute").symlink_to(photos.parent)
    (photos / "loop").symlink_to(".")
    (photos / "dog" / "000link.png").symlink_to("000link.png")
    assert listed(photos / "cat") == [f"{i:03}.png" for i in range(6)]
    assert [p.name for p in list_folders(photos)] == ["cat", "dog"]
    assert sorted(listed(photos)) == sorted([*plain, "dog/000link.png"])
    found = load_dataset(Data(path=str(photos), max_bad_fraction=0.5))
    assert found.classes == ["cat", "dog"] and [name for name, _ in found.bad] == ["dog/000link.png"]
    assert sum(len(s) for s in (found.train, found.val, found.test)) == 11 and found.duplicates == 0


def test_links_are_followed_and_a_folder_is_visited_once(photos, tmp_path):
    folder(tmp_path / "elsewhere", {"more": 2}, start=50)
    (photos / "cat" / "a").symlink_to(tmp_path / "elsewhere")
    (photos / "cat" / "b").symlink_to(tmp_path / "elsewhere" / "more")
    assert listed(photos / "cat")[6:] == ["a/more/000.png", "a/more/001.png"]
    (photos / "bird").symlink_to(tmp_path / "elsewhere" / "more")  # each class has its own visit
    assert listed(photos / "bird") == ["000.png", "001.png"]
    (tmp_path / "elsewhere" / "more" / "up").symlink_to("..")  # above the real folder
    assert listed(photos / "bird") == ["000.png", "001.png"]


def test_only_photos_are_listed(photos, monkeypatch):
    cat = photos / "cat"
    (cat / "._000.png").write_bytes(b"\0\5\26\7")  # what macOS leaves on foreign disks
    picture(cat / ".hidden" / "0.png", 70)
    picture(cat / "__MACOSX" / "0.png", 71)
    (cat / "notes.txt").write_text("no photo")
    (cat / "folder.jpg").mkdir()
    picture(cat / "folder.jpg" / "A.JPEG", 72)
    os.mkfifo(cat / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(cat)  # the path of a socket must be short
        server.bind("socket.jpg")
        assert listed(cat) == [f"{i:03}.png" for i in range(6)] + ["folder.jpg/A.JPEG"]
    (cat / "gone.png").symlink_to("nowhere.png")
    assert "gone.png" in listed(cat)


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "list.txt").write_text("pipe.jpg 0\n")
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(images.inspect(tmp_path / "pipe.jpg")), daemon=True
    )
    thread.start()
    thread.join(10)
    assert answers == ["not a file"] and images.inspect("/dev/zero") == "not a file"
    with pytest.raises(EdgeclsError, match="cannot read the image: not a file"):
        Preprocess(16).load("/dev/null")


def test_photos_beside_the_class_folders_are_named(photos):
    picture(photos / "loose.png", 95)
    (photos / "._loose.png").touch()
    found = load_dataset(Data(path=str(photos)))  # they are no damaged files: the limit of 1 % is for those
    assert found.bad == [("loose.png", "in no class folder")]
    assert load_for_scoring(photos, ["cat", "dog"]).bad == found.bad


# Reading ---------------------------------------------------------------------------------------------------------


def test_read_all_names_what_cannot_be_read(photos):
    torn = picture(photos / "dog" / "torn.jpg", 80)
    torn.write_bytes(torn.read_bytes()[:300])
    (photos / "dog" / "empty.png").touch()
    preprocess = Preprocess(16, 18)
    paths, pixels, skipped = read_all([*list_photos(photos / "dog"), "none.png"], preprocess.array)
    assert paths == [str(photos / "dog" / f"{i:03}.png") for i in range(5)]
    assert np.array_equal(pixels, [preprocess.load(path) for path in paths])
    reasons = {Path(path).name: reason for path, reason in skipped}
    assert list(reasons) == ["empty.png", "torn.jpg", "none.png"]
    assert reasons["empty.png"] == "empty file" and reasons["none.png"] == "no such file"
    assert reasons["torn.jpg"].startswith("damaged image: ")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_threads_leave_the_warning_filters_alone(photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # each photo has 480 pixels: Pillow warns
    files, changed = list_photos(photos) * 40, []
    expected = list(warnings.filters)
    real = warnings.catch_warnings.__enter__
    monkeypatch.setattr(warnings.catch_warnings, "__enter__", lambda self: changed.append(self) or real(self))
    with ThreadPoolExecutor(8) as pool:
        sizes = {len(pixels) for pixels in pool.map(images.read_photo, files)}
    assert sizes == {20} and warnings.filters == expected and not changed


# File names ------------------------------------------------------------------------------------------------------


def test_names_that_are_not_utf8_or_have_line_breaks(photos):
    for number, name in enumerate((GBK, "two\nlines.png", "a\u2028b.png", "esc\x1b[31m.png")):
        picture(photos / "cat" / "x.png", 60 + number).rename(photos / "cat" / name)
    (photos / "dog" / os.fsdecode(b"bad\xff.png")).write_bytes(b"no image")
    found = load_dataset(Data(path=str(photos), max_bad_fraction=0.5, cache=False))
    assert found.bad == [(r"dog/bad\udcff.png", "not an image")]
    every = [name for split in (found.train, found.val, found.test) for name in split.names]
    assert len(every) == 15 and r"cat/two\nlines.png" in every and r"cat/esc\x1b[31m.png" in every
    assert all(name.encode("utf-8").decode().isprintable() for name in every)
    for split in (found.train, found.val, found.test):
        for cache in (False, True):  # TensorFlow opens the file by its bytes
            x = np.concatenate([x for x, _ in batches(split, Preprocess(16, 18), 4, cache=cache)])
            assert np.array_equal(x, [Preprocess(16, 18).load(f) for f in split.files])
    again = load_dataset(Data(path=str(photos), max_bad_fraction=0.5))  # through the cache of the check
    assert again.describe() == found.describe()


@pytest.mark.parametrize("name", [b"kat\xff", b"a\nb", "a\u2028b".encode(), "a\x85b".encode(), b"a\x1bb"])
def test_class_folders_with_names_for_no_text_file(photos, name):
    (photos / "dog").rename(photos / os.fsdecode(name))
    with pytest.raises(UsageError, match=r"class name '.*' (is not UTF-8|has a (line|control))") as caught:
        load_dataset(Data(path=str(photos)))
    str(caught.value).encode("utf-8")
    assert len(str(caught.value).splitlines()) == 1


def test_list_file_with_bytes_and_separators_in_names(photos):
    for number, name in enumerate((GBK, "a\u2028b.png")):
        picture(photos / "x.png", 60 + number).rename(photos / name)
    rows = [f"cat/{i:03}.png cat" for i in range(6)] + [f"dog/{i:03}.png dog" for i in range(5)]
    rows += [f"{GBK} cat", "a\u2028b.png dog"]
    path = photos / "all.txt"
    path.write_bytes(os.fsencode("\r\n".join(rows)))
    found = load_dataset(Data(path=str(path), source="list"))
    assert not found.bad and sum(len(s) for s in (found.train, found.val, found.test)) == 13
    path.write_bytes(path.read_bytes() + b"\ncat/000.png k\xffter")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_dataset(Data(path=str(path), source="list"))
    path.write_text("cat/000.png 0\n", "utf-16-le")
    with pytest.raises(UsageError, match="not a UTF-8 text file"):
        load_dataset(Data(path=str(path), source="list"))


# Scoring ---------------------------------------------------------------------------------------------------------

MODEL = ["ant", "dog", "cat"]


def test_scoring_takes_class_folders_by_the_models_names(photos):
    picture(photos / "cat" / "torn.png", 90).write_bytes(b"torn")
    found = load_for_scoring(photos, MODEL)
    assert found.labels.tolist() == [2] * 6 + [1] * 5 and not found.in_memory
    assert found.bad == [("cat/torn.png", "not an image")] and found.subset(slice(3)).bad == []


def test_scoring_takes_the_split_that_is_asked_for(photos, tmp_path):
    root = tmp_path / "root"
    folder(root / "train", {"cat": 4, "dog": 4}, start=100)
    folder(root / "testing", {"cat": 1, "dog": 2}, start=200)
    for split, count in (("test", 3), ("train", 8)):
        found = load_for_scoring(root, MODEL, split)
        assert len(found) == count and f"/{split}" in found.files[0]
    with pytest.raises(UsageError, match=r"has no val split.*--split: train, test"):
        load_for_scoring(root, MODEL, "val")


def test_scoring_takes_list_files(photos):
    path = photos / "list.txt"
    path.write_text("cat/000.png cat\ndog/001.png dog\ncat/001.png -1\n")
    assert load_for_scoring(path, MODEL).labels.tolist() == [2, 1, -1]
    path.write_text("cat/000.png 2\ndog/001.png 1\n")
    assert load_for_scoring(path, MODEL).labels.tolist() == [2, 1]
    assert load_for_scoring(path, ["2", "0", "1"]).labels.tolist() == [0, 2]  # classes called by numbers
    twice = ["crane", "cat", "crane"]  # ImageNet has a bird and a machine of this name
    assert load_for_scoring(path, twice).labels.tolist() == [2, 1]
    path.write_text("cat/000.png crane\n")
    with pytest.raises(UsageError, match="two classes called 'crane'"):
        load_for_scoring(path, twice)


def test_what_cannot_be_scored_is_one_line(photos, tmp_path):
    picture(tmp_path / "flat" / "0.png", 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad" / "cat").mkdir(parents=True)
    (tmp_path / "bad" / "cat" / "0.png").write_bytes(b"bad")
    (tmp_path / "none.txt").write_text("photos/cat/000.png\n")
    for path, classes, kind, text in (
        (
            photos,
            ["cat", "cow"],
            UsageError,
            r"label 'dog' is not among the 2 classes \(cat, cow\) \(.*/dog\)",
        ),
        (tmp_path / "flat", MODEL, UsageError, "no photo has a label"),
        (tmp_path / "none.txt", MODEL, UsageError, "no photo has a label"),
        (tmp_path / "empty", MODEL, MissingError, "no images found"),
        (tmp_path / "nowhere", MODEL, MissingError, "no such folder or list file"),
        (tmp_path / "bad", MODEL, EdgeclsError, "no labeled photo can be used.*cat/0.png: not an image"),
    ):
        with pytest.raises(kind, match=text) as caught:
            load_for_scoring(path, classes)
        assert "\n" not in str(caught.value)


def test_thousands_of_classes(tmp_path):
    names = [f"species {i:04}" for i in range(3000)]
    data = picture(tmp_path / "0.png", 0).read_bytes()
    for name in names:
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.png").write_bytes(data)
    found = load_for_scoring(tmp_path / "photos", names)
    assert np.array_equal(found.labels, np.arange(3000))
    dataset = load_dataset(Data(path=str(tmp_path / "photos"), test_fraction=0.0, val_fraction=0.0))
    assert dataset.classes == names and len(dataset.describe()["splits"]["train"]["per_class"]) == 3000

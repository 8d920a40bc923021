"""Copies and near-copies: found, kept in one split, left out, counted; further sources beside the main one."""

import json

import numpy as np
import pytest
from photos import folder, picture
from PIL import Image, ImageEnhance

from edgecls.data import near_duplicates
from edgecls.data.copies import Copies
from edgecls.data.sampling import UNLABELLED, stratified
from edgecls.data.sources import load_dataset
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.recipe import Data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """Twelve photos of each of two classes, 60 x 50 pixels, and three near-copies of each dog."""
    for i in range(12):
        picture(tmp_path / "photos" / "cat" / f"{i:03}.png", i, (60, 50))
        near(picture(tmp_path / "photos" / "dog" / f"{i:03}.png", 50 + i, (60, 50)))
    return tmp_path / "photos"


def near(path):
    photo = Image.open(path)
    photo.save(path.with_name(path.stem + "j.jpg"), quality=60)
    photo.resize((45, 38)).save(path.with_name(path.stem + "small.png"))
    ImageEnhance.Brightness(photo).enhance(0.8).save(path.with_name(path.stem + "dark.png"))


def load(path, **keys):
    return load_dataset(Data(path=str(path), **keys))


def stems(split):
    return {name[:7] for name in split.names}


def test_near_copies_are_found_and_counted(photos):
    found = load(photos)
    counts = found.near_duplicates
    assert counts["pairs"] == 12 * 6 and counts["in_two_splits"] > 10 and found.duplicates == 0
    assert any("72 pairs of images are almost the same" in note and "group" in note for note in found.notes)
    assert json.loads(json.dumps(found.describe()))["near_duplicates"] == counts
    assert load(photos, near_duplicates="off").near_duplicates is None
    plain = load(photos, near_duplicates="off")
    assert plain.test.sha256 == found.test.sha256  # to warn changes nothing


def test_near_copies_are_kept_in_one_split(photos):
    found = load(photos, near_duplicates="group", val_fraction=0.2)
    splits = (found.train, found.val, found.test)
    assert found.near_duplicates == {"pairs": 72, "in_two_splits": 0}
    assert sum(map(len, splits)) == 60 and all(map(len, splits))
    assert sum(len(stems(split)) for split in splits) == 24 == len(set.union(*map(stems, splits)))


def test_near_copies_are_dropped(photos):
    found = load(photos, near_duplicates="drop")
    assert found.near_duplicates == {"pairs": 0, "in_two_splits": 0} and len(found.bad) == 36
    assert ("dog/000dark.png", "near-copy of dog/000.png") in found.bad
    assert sum(map(len, (found.train, found.val, found.test))) == 24


def test_an_image_that_is_listed_again_is_dropped_once(photos):
    lines = [f"{path.relative_to(photos)} {path.parent.name}\n" for path in images_of(photos)]
    (photos / "list.txt").write_text("".join([*lines, lines[0]]))
    found = load(photos / "list.txt", source="list", near_duplicates="drop")
    assert [pair for pair in found.bad if pair[0].startswith("cat")] == [("cat/000.png", "listed again")]
    assert sum(map(len, (found.train, found.val, found.test))) == 24


def test_the_split_depends_on_the_photos_not_on_their_order(photos, tmp_path):
    lines = [f"{path.relative_to(photos)} {path.parent.name}\n" for path in images_of(photos)]
    splits = []
    for order in (lines, lines[::-1], sorted(lines, key=lambda line: line[::-1])):
        (photos / "list.txt").write_text("".join(order))
        for how in ("off", "group", "drop"):
            found = load(photos / "list.txt", source="list", near_duplicates=how)
            splits.append([how, *(sorted(s.names) for s in (found.train, found.val, found.test))])
    assert splits[:3] == splits[3:6] == splits[6:]


def images_of(root):
    return sorted(path for path in root.rglob("*") if path.suffix in (".png", ".jpg"))


def test_given_splits_tell_of_copies_and_drop_takes_them_from_the_training_images(tmp_path):
    root = tmp_path / "d"
    folder(root / "train", {"a": 6, "b": 6})
    folder(root / "test", {"a": 4, "b": 4}, start=100)
    (root / "train" / "a" / "copy.png").write_bytes((root / "test" / "a" / "000.png").read_bytes())
    photo = picture(root / "test" / "b" / "000.png", 200, (60, 50))
    Image.open(photo).resize((48, 40)).save(root / "train" / "b" / "near.jpg", quality=95)
    found = load(root)
    exact = "1 image is in two splits (test and train 1), such as a/000.png (test) and a/copy.png (train): "
    assert any(note.startswith(exact) for note in found.notes)
    assert any(
        "1 pair of images is almost the same, 1 in two splits (test and train 1)" in n for n in found.notes
    )
    found = load(root, near_duplicates="drop")
    assert dict(found.bad) == {"a/copy.png": "near-copy of a/000.png", "b/near.jpg": "near-copy of b/000.png"}
    assert len(found.test) == 8 and len(found.train) + len(found.val) == 12


@pytest.mark.parametrize("limit", ["CHECKED_FILES", "LISTED_FILES"])
def test_a_file_in_two_lists_is_found_although_long_lists_are_not_read(photos, monkeypatch, limit):
    monkeypatch.setattr("edgecls.data.split.CHECKED_FILES", 40)
    if limit == "LISTED_FILES":
        monkeypatch.setattr("edgecls.data.split.LISTED_FILES", 41)
    names = [path.relative_to(photos) for path in images_of(photos)]
    lists = {"path": names[:50], "val_path": [*names[50:], names[7]], "test_path": names[7:9]}
    for key, chosen in lists.items():
        (photos / f"{key}.txt").write_text("".join(f"{name} {name.parent}\n" for name in chosen))
    keys = {"source": "list", **{key: str(photos / f"{key}.txt") for key in lists}}
    found = load_dataset(Data(**keys, near_duplicates="off"))
    assert not found.train.checked and found.duplicates == 3
    exact = (
        f"4 images are in two splits (test and val 1, test and train 2, val and train 1), such as {names[7]} (test)"
        f" and {names[7]} (val): "
    )
    assert any(note.startswith(exact) for note in found.notes), found.notes
    dropped = load_dataset(Data(**keys, near_duplicates="drop"))
    assert dropped.duplicates == 0
    assert len(dropped.test) == 2 and not {*map(str, names[7:9])} & {*dropped.train.names, *dropped.val.names}


def test_different_photos_are_no_near_copies(tmp_path):
    """Nor are flat ones, photos that are mirrored, or cropped."""
    for i in range(40):
        picture(tmp_path / "d" / "a" / f"{i}.png", i, (60, 50))
    for name, value in (("white", 255), ("gray", 128), ("black", 0)):
        Image.new("RGB", (60, 50), (value,) * 3).save(tmp_path / "d" / "a" / f"{name}.png")
    first = Image.open(tmp_path / "d" / "a" / "0.png")
    first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "d" / "a" / "mirrored.png")
    first.crop((0, 0, 40, 50)).save(tmp_path / "d" / "a" / "cropped.png")
    rng = np.random.default_rng(0)
    thumbnails = thumbnails_of(sorted((tmp_path / "d" / "a").iterdir()))
    assert len(near_duplicates.find(thumbnails)) == 0
    noisy = np.clip(thumbnails[:3].astype(int) + rng.integers(-2, 3, thumbnails[:3].shape), 0, 255).astype(
        np.uint8
    )
    assert near_duplicates.find(np.concatenate([thumbnails, noisy])).tolist() == [
        [i, len(thumbnails) + i] for i in range(3)
    ]


def thumbnails_of(files):
    from edgecls.data.rows import Part
    from edgecls.data.split import check

    part = Part([file.name for file in files], np.zeros(len(files), np.int64), [str(file) for file in files])
    return near_duplicates.read_thumbnails([check(part, "test", None)], "test")


def test_photos_without_contrast_have_no_near_copies(tmp_path):
    for name in "ab":
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (40, 40), 20 * i + 90 * (name == "b")).save(
                tmp_path / "d" / name / f"{name}{i}.png"
            )
    for how in ("warn", "group", "drop"):
        assert load(tmp_path / "d", near_duplicates=how).near_duplicates == {"pairs": 0, "in_two_splits": 0}
    assert near_duplicates.find(np.zeros((0, 1105), np.uint8)).shape == (0, 2)


def test_find_agrees_with_comparing_every_pair():
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (40, 32, 32)).astype(np.float32)
    views = np.concatenate([base, base[:20] + rng.normal(0, 12, (20, 32, 32)), base[:10] * 0.6 + 30])
    small = np.stack(
        [
            np.asarray(
                Image.fromarray(np.clip(v, 0, 255).astype(np.uint8)).resize((9, 9), Image.Resampling.BOX)
            )
            for v in views
        ]
    )
    thumbnails = np.concatenate(
        [np.clip(views, 0, 255).reshape(70, -1), small.reshape(70, -1)], axis=1
    ).astype(np.uint8)
    expected = []
    for i in range(70):
        for j in range(i + 1, 70):
            a, b = (thumbnails[k, :1024].astype(float) for k in (i, j))
            bits = [
                np.concatenate(
                    [(np.diff(s, axis=1)[:-1] > 0).ravel(), (np.diff(s, axis=0)[:, :-1] > 0).ravel()]
                )
                for s in (thumbnails[k, 1024:].reshape(9, 9).astype(int) for k in (i, j))
            ]
            if (bits[0] != bits[1]).sum() <= 15 and np.corrcoef(a, b)[0, 1] >= 0.994:
                expected.append([i, j])
    assert near_duplicates.find(thumbnails).tolist() == expected and len(expected) >= 10


def test_thumbnails_are_read_once(photos, monkeypatch):
    first = load(photos)
    seen = []
    monkeypatch.setattr(near_duplicates, "_thumbnail", lambda item: seen.append(item))
    assert load(photos).near_duplicates == first.near_duplicates and not seen


def test_many_images_are_not_looked_at_unless_asked_for(photos, monkeypatch):
    monkeypatch.setattr("edgecls.data.copies.MOST_LOOKED_AT", 20)
    found = load(photos)
    assert found.near_duplicates is None and any(
        "nobody looked for near-copies among 60" in n for n in found.notes
    )
    assert load(photos, near_duplicates="group").near_duplicates["in_two_splits"] == 0


def test_groups_with_two_labels_are_split_by_both():
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), ["x", "a", "b", "x", "c", "d"]
    chosen = stratified(labels, groups, 0.34, "salt")
    assert chosen[0] == chosen[3] and [chosen[labels == k].sum() for k in (0, 1)] == [1, 1]


# Extra sources ---------------------------------------------------------------------------------------------------


def test_extra_sources_train_and_are_in_no_other_split(photos, tmp_path):
    folder(tmp_path / "more", {"dog": 5}, start=300)
    folder(tmp_path / "wild", {"x": 4, "y/z": 4}, start=400)
    plain = load(photos)
    extra = [
        {"path": str(tmp_path / "more"), "weight": 2.0},
        {"path": str(tmp_path / "wild"), "labels": False, "weight": 0.5},
    ]
    found = load(photos, extra=extra)
    assert found.test.sha256 == plain.test.sha256 and found.val.sha256 == plain.val.sha256
    assert found.classes == ["cat", "dog"] and len(found.train) == len(plain.train) + 13
    assert found.train.labels[-13:].tolist() == [1] * 5 + [UNLABELLED] * 8
    assert found.train.names[-13] == "extra 1/dog/000.png" and found.train.names[-1] == "extra 2/y/z/003.png"
    assert found.train.epoch_size == len(plain.train) + 2 * 5 + 4
    assert found.train.sampling.first[-13:].tolist() == [2.0] * 5 + [0.5] * 8
    assert found.train.sha256 != load(photos, extra=[{**extra[0], "weight": 3.0}, extra[1]]).train.sha256
    assert any("extra 1: 5 images from" in note and "weight 2" in note for note in found.notes)


def test_extra_sources_may_be_checked_when_their_images_are_met(photos, tmp_path, monkeypatch):
    folder(tmp_path / "more", {"dog": 30, "cat": 35}, start=300)
    plain = load(photos)
    monkeypatch.setattr("edgecls.data.split.CHECKED_FILES", 62)  # more than the main source has
    found = load(photos, extra=[{"path": str(tmp_path / "more")}], near_duplicates="off")
    assert found.test.sha256 == plain.test.sha256 and found.val.checked and found.test.checked
    assert not found.train.checked and len(found.train) == len(plain.train) + 65
    assert found.train.bad_allowed == int(0.01 * len(found.train))
    assert any("more than 62: each is checked when it is met first" in note for note in found.notes)


def test_extra_images_that_are_test_images_are_left_out(photos, tmp_path):
    test = load(photos).test
    for number, file in enumerate(test.files[:3]):
        copy = tmp_path / "wild" / f"{number}{file[-4:]}"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(open(file, "rb").read())  # noqa: PTH123, SIM115
    near_copy = Image.open(test.files[0]).convert("RGB").resize((50, 42))
    near_copy.save(tmp_path / "wild" / "near.jpg", quality=90)
    folder(tmp_path / "wild", {"more": 4}, start=500)
    extra = [{"path": str(tmp_path / "wild"), "labels": False}]
    for how, left in (("warn", 5), ("off", 5)):
        found = load(photos, extra=extra, near_duplicates=how)
        assert sum(name.startswith("extra 1/") for name in found.train.names) == left
        assert [reason for _, reason in found.bad] == ["copy of a test image"] * 3
    found = load(photos, extra=extra, near_duplicates="group")
    held = [stem for split in (found.val, found.test) for stem in stems(split)]
    kept = [name for name in found.train.names if name.startswith("extra 1/")]
    assert len(kept) + len(found.bad) == 8 and found.near_duplicates["in_two_splits"] == 0 and held


def test_wrong_extra_sources_are_one_line(photos, tmp_path):
    folder(tmp_path / "cows", {"cow": 2}, start=600)
    (tmp_path / "void").mkdir()
    folder(tmp_path / "torn", {"dog": 2}, start=610)
    (tmp_path / "torn" / "dog" / "000.png").write_bytes(b"torn")
    for name, kind, message in (
        ("cows", UsageError, r"label 'cow' is not among the 2 classes.*set labels: false"),
        ("void", MissingError, "no images found"),
        ("none", MissingError, "no such file or folder of data.extra"),
        ("torn", EdgeclsError, "1 of 2 images cannot be used: extra 1/dog/000.png: not an image"),
    ):
        with pytest.raises(kind, match=message) as caught:
            load(photos, extra=[{"path": str(tmp_path / name)}])
        assert "\n" not in str(caught.value)


def test_elpv_has_near_copies_in_two_splits():
    """The figures of docs/data.md, from scripts/near_copies.py."""
    pytest.importorskip("elpv_dataset", reason="needs edgecls[demo]")
    found = load_dataset(Data(source="elpv"))
    assert found.near_duplicates["pairs"] > 150 and found.near_duplicates["in_two_splits"] > 20
    splits = {"train": found.train, "val": found.val, "test": found.test}
    copies = Copies(splits, "elpv", "warn")
    assert len(np.unique(copies.pairs)) >= 217

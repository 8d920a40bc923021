"""TFRecord files: what TensorFlow writes is read, what we write TensorFlow reads, damage is named."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photos import folder, picture

from edgecls.data import images
from edgecls.data.members import file_of, span_of
from edgecls.data.sources import load_dataset, load_for_scoring
from edgecls.data.tfrecord import masked_crc, read_tfrecords, tfrecord_files, write_tfrecords
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.recipe import Augment, Data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for number in range(12):
        picture(root / "cat" / f"{number:03}.jpg", number)
        picture(root / "dog" / f"{number:03}.png", 50 + number)
    return root


def files_of(photos):
    return sorted(path for path in photos.rglob("*.*"))


def examples(photos, **names):
    for path in files_of(photos):
        features = {
            "image": path.read_bytes(),
            "label": int(path.parent.name == "dog"),
            "name": path.name.encode(),
        }
        yield {names.get(key, key): value for key, value in features.items()}


@pytest.fixture
def shards(photos, tmp_path):
    write_tfrecords(tmp_path / "records" / "train", examples(photos), shards=3)
    return tmp_path / "records"


def load(path, **keys):
    return load_dataset(Data(source="tfrecord", path=str(path), **keys))


def test_our_files_give_the_photos_that_were_written(photos, shards):
    found = load(shards, test_fraction=0.25)
    assert found.classes == ["0", "1"] and not found.bad
    assert [len(split) for split in (found.train, found.val, found.test)] == [16, 2, 6]
    written = {path.read_bytes(): int(path.parent.name == "dog") for path in files_of(photos)}
    for split in (found.train, found.val, found.test):
        for file, label in zip(split.files, split.labels, strict=True):
            assert written.pop(images.read_file(file)) == label
            assert Path(file_of(file)).parent == shards and span_of(file)[0] > 12
    assert not written
    names = {"0": "cat", "1": "dog"}
    assert load(shards, classes=list(names.values())).classes == ["cat", "dog"]


def test_windows_of_jpegs_are_decoded_alone(shards, monkeypatch):
    from edgecls.data.pipeline import batches
    from edgecls.data.preprocess import Preprocess

    keys = {"training": True, "augment": Augment(crop_scale=[0.2, 0.8]), "drop_remainder": False}
    train, whole, decode = load(shards).train, [], images.decoding.decode
    wanted = [pixels.numpy() for pixels, _ in batches(train, Preprocess(16), 4, **keys)]
    monkeypatch.setattr(images.decoding, "decode", lambda data: whole.append(data) or decode(data))
    found = [pixels.numpy() for pixels, _ in batches(train, Preprocess(16), 4, cache=False, **keys)]
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert 0 < len(whole) < len(train) and all(data.startswith(b"\x89PNG") for data in whole)


def test_tensorflow_reads_our_files_and_we_read_its(photos, shards, tmp_path):
    import tensorflow as tf

    from edgecls.data.pipeline import batches
    from edgecls.data.preprocess import Preprocess

    kinds = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    records = tf.data.TFRecordDataset([str(file) for file in tfrecord_files(shards)])
    read = [tf.io.parse_single_example(record, kinds) for record in records]
    ours = read_tfrecords(shards)
    assert [r["image"].numpy() for r in read] == [images.read_file(file) for file in ours.files]
    assert [str(int(r["label"])) for r in read] == ours.labels
    with tf.io.TFRecordWriter(str(tmp_path / "tf.tfrecord")) as writer:
        for row in examples(photos):
            features = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[row["image"]])),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[row["label"] + 1])
                ),
                "image/filename": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[b"%d" % row["label"] + row["name"]])
                ),
                "image/height": tf.train.Feature(int64_list=tf.train.Int64List(value=[20, -5, 2**40])),
                "boxes": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, 1.0])),
                "empty": tf.train.Feature(),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    found = load(tmp_path / "tf.tfrecord")
    assert found.classes == ["1", "2"] and "labels run from 1 to 2: class 0 is called 1" in found.notes
    assert sorted(found.test.names)[0].startswith("0") and len(set(found.train.names)) == len(found.train)
    preprocess = Preprocess(16, 18)
    pixels = np.concatenate([x for x, _ in batches(found.test, preprocess, 4)])
    assert np.array_equal(pixels, [preprocess.array(images.read_photo(file)) for file in found.test.files])
    assert len(list(batches(found.train, preprocess, 4, training=True, cache=False))) == len(found.train) // 4
    assert len(load_for_scoring(tmp_path / "tf.tfrecord", ["1", "2"])) == 24


def test_shards_by_purpose_and_patterns(photos, tmp_path):
    root = tmp_path / "records"
    for name, count in (("train", 3), ("validation", 2)):
        write_tfrecords(root / name, examples(photos), shards=count)
    found = load(root, test_fraction=0.25)
    assert len(found.val) == 24 and len(found.train) + len(found.test) == 24
    assert len(tfrecord_files(root / "train-*")) == 3
    assert len(load(root / "train-*").train) == 16
    with pytest.raises(MissingError, match="no TFRecord files"):
        load(root / "tr_*")


def test_features_are_chosen_by_name(photos, tmp_path):
    write_tfrecords(tmp_path / "a", examples(photos, image="photo", label="kind"), shards=1)
    with pytest.raises(
        UsageError, match=r"no record has an image.*data\.image_column; there are: kind, name, photo"
    ):
        load(tmp_path / "a-*")
    found = load(tmp_path / "a-*", image_column="photo", label_column="kind")
    assert found.classes == ["0", "1"] and len(found.test) == 6
    what = r"no record has the feature sort.*data\.label_column; there are: kind, name, photo"
    with pytest.raises(UsageError, match=what):
        load(tmp_path / "a-*", image_column="photo", label_column="sort")
    with pytest.raises(
        UsageError, match=r"no image has a label.*there are: kind, name, photo.*data\.classes"
    ):
        load(tmp_path / "a-*", image_column="photo")


def feature(kind, values):
    """A feature in protobuf's wire format: ``kind`` 2 floats, 3 integers below 128, both packed."""
    data = struct.pack(f"<{len(values)}f", *values) if kind == 2 else bytes(values)
    return delimited(kind, delimited(1, data))


def delimited(number, data):
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + size + data


def other_writer(path, photos, label):
    """Records of TensorFlow, whose numbers are packed; ``label`` gives the feature of class 0 or 1."""
    rows = [(file.read_bytes(), label(int(file.parent.name == "dog"))) for file in files_of(photos)]
    features = [
        {b"image/encoded": delimited(1, delimited(1, image)), b"image/class/label": value}
        for image, value in rows
    ]
    entries = [
        b"".join(delimited(1, delimited(1, key) + delimited(2, value)) for key, value in row.items())
        for row in features
    ]
    path.write_bytes(b"".join(record(delimited(1, entry)) for entry in entries))
    return path


def test_labels_of_other_writers_are_read_or_refused(photos, tmp_path):
    path = tmp_path / "x.tfrecord"
    for label in (lambda i: feature(3, [i]), lambda i: feature(2, [float(i)])):
        rows = read_tfrecords(other_writer(path, photos, label))
        assert [float(word) for word in rows.labels] == [0.0] * 12 + [1.0] * 12 and not rows.notes
        assert load(path).classes == ["0", "1"]
    with pytest.raises(UsageError, match=r"labels such as 0\.25 are no class numbers"):
        load(other_writer(path, photos, lambda i: feature(2, [i / 4 + 0.25])))
    for kind in (2, 3):  # the first value of a vector with a 1 would be a wrong class
        with pytest.raises(
            EdgeclsError, match=r"24 of 24 images cannot be used.*its label has several values"
        ):
            load(other_writer(path, photos, lambda i, kind=kind: feature(kind, [1 - i, i])))


def test_records_without_a_label_are_counted(photos, tmp_path):
    rows = list(examples(photos))
    del rows[3]["label"]
    write_tfrecords(tmp_path / "a", rows, shards=1)
    found = load(tmp_path / "a-*", test_fraction=0, val_fraction=0)
    assert (found.train.labels < 0).sum() == 1
    assert any(note.startswith("1 record has no label; data.label_column") for note in found.notes)


def damaged(shards, change):
    (file,) = write_tfrecords(shards / "x", [{"image": b"abc", "label": 0}], 1)
    file.unlink()
    path = sorted(shards.iterdir())[0]
    data = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(data, record_starts(data))))
    return path.name


def record_starts(data):
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        at += 16 + int.from_bytes(data[at : at + 8], "little")
    return starts


def flip(data, at):
    data[at] ^= 1
    return data


DAMAGE = {
    "checksum": (lambda data, starts: flip(data, starts[2] + 40), "broken checksum", 2, 1),
    "length": (
        lambda data, starts: flip(data, starts[5]),
        "damaged length, the rest of the file cannot be read",
        5,
        3,
    ),
    "cut": (
        lambda data, starts: data[: starts[7] + 100],
        "the file ends within it, the rest of the file cannot be read",
        7,
        1,
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_records_are_named_and_counted(shards, case):
    change, reason, number, lost = DAMAGE[case]
    name = damaged(shards, change)
    found = load(shards, max_bad_fraction=0.1)
    assert found.bad == [(f"{name}/{number}", reason)]
    assert sum(map(len, (found.train, found.val, found.test))) == 24 - lost
    with pytest.raises(EdgeclsError, match=f"cannot be used, more than.*{name}/{number}: {reason}"):
        load(shards)


def test_records_without_the_features_are_named(photos, tmp_path):
    rows = list(examples(photos))
    del rows[3]["image"]
    rows[5]["image"] = b"no image"
    write_tfrecords(tmp_path / "a", rows, shards=1)
    bad = dict(load(tmp_path / "a-*", max_bad_fraction=0.1).bad)
    assert list(bad.values()) == ["no feature with an image", "not an image"]
    assert read_tfrecords(tmp_path / "a-*").labels[0] == "0"


def test_files_that_are_no_records_are_refused(photos, tmp_path):
    (tmp_path / "text.tfrecord").write_text("cat/000.png 0\n" * 9)
    (tmp_path / "zipped.tfrecord").write_bytes(b"\x1f\x8b" + bytes(50))
    (tmp_path / "empty.tfrecord").touch()
    for name, kind, message in (
        ("text", UsageError, "not a TFRecord file"),
        ("zipped", UsageError, "gzipped files are not read"),
        ("empty", EdgeclsError, "no record can be read: empty.tfrecord/0: empty file"),
    ):
        with pytest.raises(kind, match=message):
            load(tmp_path / f"{name}.tfrecord")
    (junk,) = write_tfrecords(tmp_path / "junk", [], 1)
    junk.write_bytes(junk.read_bytes() + b"".join(record(bytes(range(1, 90))) for _ in range(2)))
    with pytest.raises(EdgeclsError, match=r"no tf\.train\.Example"):
        load(junk)


def record(data):
    length = len(data).to_bytes(8, "little")
    return length + masked_crc(length).to_bytes(4, "little") + data + masked_crc(data).to_bytes(4, "little")


def test_the_script_writes_what_a_recipe_reads(tmp_path):
    root = tmp_path / "d"
    folder(root / "train", {"cat": 6, "dog": 6})
    folder(root / "test", {"cat": 2, "dog": 2}, start=50)
    script = Path(__file__).parents[1] / "scripts" / "make_tfrecord.py"
    command = [sys.executable, str(script), str(root), str(tmp_path / "out"), "--shards", "2"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "12 images to train-*" in said and (tmp_path / "out" / "labels.txt").read_text() == "cat\ndog\n"
    found = load(tmp_path / "out", labels=str(tmp_path / "out" / "labels.txt"))
    assert found.classes == ["cat", "dog"] and len(found.test) == 4
    assert sorted(found.test.names) == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png"]
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 2 and "is not empty" in again.stderr

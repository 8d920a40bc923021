"""The tf.data pipeline: the one preprocessing, reproducible epochs, on photos of many formats."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from photos import folder, picture, split_of

import edgecls
from edgecls.augment import Mixer
from edgecls.augment.mix import Mixup
from edgecls.augment.registry import Moment
from edgecls.data import images, pipeline, reading, sources
from edgecls.data import split as split_module
from edgecls.data.pipeline import Batches, batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sources import load_dataset
from edgecls.errors import EdgeclsError, UsageError
from edgecls.recipe import Augment, Data

SMALL = Preprocess(16, 18)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    return folder(tmp_path / "photos", {"cat": 20, "dog": 12})


def data(path, **keys):
    return Data(path=str(path), **keys)


def everything(dataset, **keys):
    return [(x.numpy(), y.numpy()) for x, y in batches(dataset, SMALL, **{"batch_size": 4, **keys})]


@pytest.fixture
def mixed(tmp_path):
    """Photos of many formats and sizes."""
    options = [
        (".jpg", (40, 30), "RGB"), (".jpg", (30, 50), "L"), (".png", (33, 21), "RGBA"), (".png", (20, 20), "L"),
        (".gif", (25, 35), "P"), (".bmp", (41, 22), "RGB"), (".jpg", (24, 24), "CMYK"), (".webp", (31, 31), "RGB"),
    ]  # fmt: skip
    for i in range(24):
        suffix, size, mode = options[i % 8]
        picture(tmp_path / "mixed" / "ab"[i % 3 == 0] / f"{i}{suffix}", i, size, mode)
    return load_dataset(data(tmp_path / "mixed", test_fraction=0.3)).train


@pytest.mark.parametrize("cache", [True, False])
def test_evaluation_batches_are_the_one_preprocessing(mixed, cache):
    out = everything(mixed, cache=cache, batch_size=5)
    x, y = (np.concatenate(part) for part in zip(*out, strict=True))
    assert x.dtype == np.float32 and y.dtype == np.int32 and x.shape == (len(mixed), 16, 16, 3)
    assert np.array_equal(y, mixed.labels)
    assert np.array_equal(x, np.stack([SMALL.load(f) for f in mixed.files]))


@pytest.mark.parametrize("cache", [True, False])
def test_plain_training_is_a_shuffle_of_evaluation(mixed, cache):
    settings = Augment(crop_scale=None, flip="none")
    out = everything(mixed, cache=cache, training=True, augment=settings, drop_remainder=False, seed=3)
    x = np.concatenate([batch for batch, _ in out])
    plain = np.concatenate([batch for batch, _ in everything(mixed)])
    order = [int(np.flatnonzero((plain == image).all((1, 2, 3)))[0]) for image in x]
    assert sorted(order) == list(range(len(mixed))) and order != sorted(order)
    labels = np.concatenate([y for _, y in out])
    assert np.array_equal(labels, mixed.labels[order])


ALL = Augment(crop_scale=[0.3, 1.0], flip="both", rotate90=True)


@pytest.mark.parametrize("cache", [True, False])
def test_an_epoch_is_fixed_by_seed_and_number(mixed, cache):
    def epoch(split, **keys):
        out = everything(split, cache=cache, training=True, augment=ALL, **keys)
        return np.concatenate([x.reshape(len(x), -1) for x, _ in out])

    first = epoch(mixed, seed=5, epoch=2)
    assert np.array_equal(first, epoch(mixed.subset(slice(None)), seed=5, epoch=2))  # as after a restart
    assert len(first) == len(mixed) // 4 * 4
    assert first.min() >= 0 and first.max() <= 255 and np.array_equal(first, first.round())
    for other in ({"seed": 5, "epoch": 3}, {"seed": 6, "epoch": 2}):
        assert not np.array_equal(first, epoch(mixed, **other))


@pytest.mark.parametrize("training", [True, False])
def test_cached_and_uncached_batches_are_equal(mixed, training):
    keys = {"training": training, "augment": ALL, "seed": 1}
    pairs = zip(everything(mixed, **keys), everything(mixed, cache=False, **keys), strict=True)
    assert all(np.array_equal(a, b) and np.array_equal(y, z) for (a, y), (b, z) in pairs)


@pytest.mark.parametrize("settings", [
    {"flip": "both", "mixup": {}}, {"flip": "none", "crop_scale": [0.2, 0.8]}, {"crop_scale": None, "mixup": {}}
])  # fmt: skip
def test_apply_is_what_training_does(settings):
    """``edgecls.augment.apply`` on the images of a batch, in the order of the split."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8), np.arange(8) % 4 - 1
    split = split_of(images, labels)
    keys = {"crop_scale": None} | settings
    moment = {"seed": 3, "epoch": 1, "epochs": 2, "classes": 3}
    data = batches(split, Preprocess(16, 16), 8, training=True, augment=Augment(**keys), **moment)
    ((x, y),) = data.as_numpy_iterator()
    order = np.random.default_rng([3, 1]).permutation(8)
    unmixed = {key: value for key, value in ({"flip": "horizontal"} | keys).items() if key != "mixup"}
    pixels, targets = edgecls.augment.apply(images, labels, unmixed, **moment)
    mixer = Mixer(Augment(**keys), 3, Moment(1, 2))
    pixels, targets = mixer(pixels[order], targets[order], 0)
    assert np.array_equal(x, pixels) and np.array_equal(y, targets)
    assert x.dtype == y.dtype == np.float32 and (y.sum(1) < 1).any()  # unlabeled images have no target


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_repeated_images_come_in_one_batch_with_changes_of_their_own(repeats):
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] + np.zeros((12, 16, 16, 3), np.uint8)
    images[:, :4, :4] = 200  # a corner, so that a mirrored image is another one
    split, keys = split_of(images, np.arange(12)), {"training": True}
    keys["augment"] = Augment(crop_scale=None, flip="both", repeats=repeats)
    epochs = [
        [(x.numpy(), y.numpy()) for x, y in batches(split, Preprocess(16, 16), 6, epoch=e, **keys)]
        for e in range(3)
    ]
    for steps in epochs:
        assert len(steps) == 2, "an epoch is as long as ever"
        for x, y in steps:
            assert np.unique(y, return_counts=True)[1].tolist() == [repeats] * (6 // repeats)
            assert (x[:, 8, 8, 0] == y).all()
    views = {
        (int(y), x.tobytes()) for steps in epochs for xs, ys in steps for x, y in zip(xs, ys, strict=True)
    }
    assert len(views) > len({y for y, _ in views}), "each view of an image is drawn alike"
    assert len({steps[0][1].tobytes() for steps in epochs}) == 3


def same(a, b):
    return all(np.array_equal(x, z) and np.array_equal(y, w) for (x, y), (z, w) in zip(a, b, strict=True))


@pytest.mark.parametrize("cache", [True, False])
def test_an_epoch_goes_on_from_its_middle(mixed, cache):
    keys = {"training": True, "augment": ALL, "seed": 4, "cache": cache, "classes": 2, "epochs": 3}
    keys["augment"] = ALL.model_copy(update={"mixup": Mixup(alpha=0.4)})
    whole = everything(mixed, **keys, epoch=1)
    assert same(whole[2:], everything(mixed, **keys, epoch=1, start=2)) and len(whole) == 3


def test_epochs_follow_each_other_and_any_can_be_begun(mixed):
    keys = {"training": True, "augment": ALL, "seed": 4}
    feed = Batches(mixed, SMALL, 4, **keys)

    def epoch(*at):
        return [(x.numpy(), y.numpy()) for x, y in feed.epoch(*at)]

    wanted = [everything(mixed, **keys, epoch=i) for i in range(3)]
    assert len(feed) == len(wanted[0])
    assert same(epoch(0), wanted[0]) and same(epoch(1), wanted[1])
    next(feed.epoch(2))  # given up after a batch
    assert same(epoch(2), wanted[2]) and same(epoch(0), wanted[0]) and same(epoch(1, 3), wanted[1][3:])
    again = Batches(mixed, SMALL, 5)
    passes = [[x.numpy() for x, _ in again] for _ in range(3)]
    assert all(np.array_equal(a, b) for two in passes[1:] for a, b in zip(passes[0], two, strict=True))


def test_a_program_ends_in_the_middle_of_an_epoch():
    code = """
import numpy as np
from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.split import Split
images = np.zeros((64, 99, 99, 3), np.uint8)
names = [str(i) for i in range(64)]
split = Split(names, np.zeros(64, np.int64), names, np.tile(np.int32([99, 99, 3]), (64, 1)), images=images)
feed = Batches(split, Preprocess(64), 4, training=True)
epoch = feed.epoch(0)
next(epoch)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "terminate" not in ended.stderr, ended.stderr


def test_the_number_of_threads_and_the_size_of_groups_change_nothing(mixed, monkeypatch):
    keys = {"training": True, "augment": ALL, "seed": 4, "cache": False, "batch_size": 6}
    wanted = everything(mixed, **keys)
    monkeypatch.setattr(images, "threads", lambda: 7)
    assert same(everything(mixed, **keys), wanted)
    monkeypatch.setattr(pipeline, "_GROUP", 1)
    assert same(everything(mixed, **keys), wanted)


def test_an_order_may_name_an_image_several_times(mixed):
    def order(epoch):
        return np.array([[3, 0], [3, 1], [5, 0], [3, 0]])

    ((x, y),) = everything(mixed, training=True, augment=ALL, order=order)
    ((same_x, _),) = everything(mixed, training=True, augment=ALL, order=lambda epoch: order(epoch)[:, 0])
    assert np.array_equal(same_x[:3], x[:3]) and not any(np.array_equal(same_x[3], other) for other in x)
    assert np.array_equal(x[0], x[3]) and not np.array_equal(x[0], x[1]) and y[0] == y[1] == mixed.labels[3]


def test_evaluation_ignores_augmentation_and_keeps_the_last_batch(mixed):
    with_it = everything(mixed, augment=ALL, batch_size=5)
    assert all(
        np.array_equal(a, b) for (a, _), (b, _) in zip(with_it, everything(mixed, batch_size=5), strict=True)
    )
    assert sum(len(y) for _, y in with_it) == len(mixed)


def test_too_small_for_one_batch(mixed):
    with pytest.raises(UsageError, match="do not fill one batch of 64"):
        batches(mixed, SMALL, 64, training=True)


def test_large_splits_are_not_kept_in_memory(photos, monkeypatch):
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 1000)
    found = load_dataset(data(photos))
    assert not found.train.in_memory and not load_dataset(data(photos, cache=False)).train.in_memory
    monkeypatch.setattr(reading, "_decode_all", lambda split: pytest.fail("decoded everything"))
    assert len(everything(found.train)) == 6


def test_a_photo_that_changes_under_way_is_named(photos):
    train = load_dataset(data(photos)).train
    Path(train.files[2]).write_bytes(b"gone")
    with pytest.raises(EdgeclsError, match=Path(train.files[2]).name):
        everything(train)
    with pytest.raises(EdgeclsError, match=Path(train.files[2]).name):
        list(Batches(train, SMALL, 4, cache=False))


def test_a_jpeg_that_vanishes_under_way_is_named(tmp_path):
    train = load_dataset(data(folder(tmp_path / "p", {"cat": 9, "dog": 9}, ".jpg"), val_fraction=0)).train
    Path(train.files[2]).unlink()
    with pytest.raises(EdgeclsError, match=Path(train.files[2]).name):
        list(Batches(train, SMALL, 4, cache=False))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_autotuned(mixed, training):
    # The autotuner's thread makes an iterator wait when it is deleted, up to 2 s an epoch.
    dataset = batches(mixed, SMALL, 4, training=training)
    assert dataset.options().autotune.enabled is False
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    nodes = {node.name: node for node in graph.node}
    (parallel_map,) = (node for node in graph.node if node.op == "ParallelMapDatasetV2")
    calls = nodes[parallel_map.input[-1].split(":")[0]]
    assert tf.make_ndarray(calls.attr["value"].tensor) == images.threads() + 1


def test_nothing_is_mapped_anew_in_each_epoch(mixed):
    # TensorFlow optimizes a function again with each iterator that calls it, and ``flat_map`` makes one an epoch.
    graph = tf.compat.v1.GraphDef.FromString(batches(mixed, SMALL, 4)._as_serialized_graph().numpy())
    inside = {node.op for function in graph.library.function for node in function.node_def}
    assert "TensorSliceDataset" in inside and not any("Map" in op for op in inside)


def test_static_shapes(mixed):
    pixels, labels = batches(mixed, SMALL, 4, training=True).element_spec
    assert pixels == tf.TensorSpec([4, 16, 16, 3], tf.float32) and labels == tf.TensorSpec([4], tf.int32)


@pytest.mark.parametrize("settings", [{}, {"mixup": Mixup()}])
def test_batches_may_stay_bytes(mixed, settings):
    keys = {"training": True, "augment": ALL.model_copy(update=settings), "classes": 2, "epochs": 2}
    floats, stay = (everything(mixed, **keys, cast=cast) for cast in (True, False))
    assert same(floats, stay) and stay[0][0].dtype == (np.float32 if settings else np.uint8)


def test_subset(photos):
    train = load_dataset(data(photos)).train
    for index in (np.array([3, 1]), slice(2, 5), train.labels == 1):
        part, chosen = train.subset(index), np.arange(len(train))[index]
        assert part.names == [train.names[i] for i in chosen] and len(part) == len(chosen)
        assert part.store is not train.store
    (x, _), *_ = everything(train.subset(np.array([3, 1])))
    assert np.array_equal(x[1], SMALL.load(train.files[1]))


# Images that are checked when they are met ------------------------------------------------------------------------


@pytest.fixture
def torn(tmp_path, monkeypatch):
    """A large folder, three of its files torn, one in a class of two images."""
    monkeypatch.setattr(split_module, "CHECKED_FILES", 20)
    root = folder(tmp_path / "large", {"cat": 30, "dog": 30}, ".jpg")
    for name in ("cat/003.jpg", "cat/004.jpg", "dog/029.jpg"):
        (root / name).write_bytes((root / name).read_bytes()[:400])
    return root


def test_a_large_split_is_checked_when_it_is_met(torn, monkeypatch):
    calls, inspect = [], images.inspect
    monkeypatch.setattr(images, "inspect", lambda path: calls.append(path) or inspect(path))
    found = load_dataset(data(torn, max_bad_fraction=0.2))
    assert not found.train.checked and found.val.checked and found.test.checked
    assert len(calls) == sum(len(s) for s in (found.val, found.test)) + len(found.bad)
    assert any("checked when it is met first" in note for note in found.notes)
    keys = {"training": True, "augment": ALL, "batch_size": 5, "drop_remainder": False}
    first, second = (everything(found.train, **keys, epoch=epoch) for epoch in (0, 0))
    assert same(first, second)
    again = load_dataset(data(torn, max_bad_fraction=0.2)).train
    assert same(first, everything(again, **keys)) and again.sha256 == found.train.sha256
    names = {"cat/003.jpg", "cat/004.jpg", "dog/029.jpg"}
    assert {name for name, _ in found.bad} | {name for name, _ in again.bad} == names
    assert all("damaged" in reason for _, reason in again.bad)
    assert sum(len(y) for _, y in first) == len(again)  # others took their places


def test_a_checked_split_gives_the_same_pixels(torn, monkeypatch):
    for name in ("cat/003.jpg", "cat/004.jpg", "dog/029.jpg"):
        (torn / name).unlink()
    keys = {"training": True, "augment": ALL, "cache": False}
    unchecked = load_dataset(data(torn, max_bad_fraction=0.2)).train
    batches_of_unchecked = [everything(unchecked, **keys) for _ in range(2)]
    monkeypatch.setattr(split_module, "CHECKED_FILES", 1000)
    checked = load_dataset(data(torn, max_bad_fraction=0.2)).train
    assert checked.checked and checked.names == unchecked.names
    assert all(same(everything(checked, **keys), each) for each in batches_of_unchecked)


WAYS_TO_GO_BAD = {
    "no such file": lambda path: path.unlink(),
    "empty file": lambda path: path.write_bytes(b""),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:400]),
    "not a file": lambda path: (path.unlink(), path.mkdir()),
    "was changed": lambda path: picture(path, 1, (90, 20), "RGB"),
    "not an image": lambda path: path.write_bytes(b"gone"),
    "cannot be read": lambda path: (path.unlink(), path.symlink_to(path)),  # its open fails, also for root
}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_photos_that_go_bad_in_a_training_are_named_and_replaced(tmp_path, monkeypatch, checked, cache):
    monkeypatch.setattr(split_module, "CHECKED_FILES", 1000 if checked else 10)
    root = folder(tmp_path / "large", {"cat": 30, "dog": 30}, ".jpg")
    train = load_dataset(data(root, max_bad_fraction=0.25)).train
    assert train.checked == checked and train.bad_allowed >= len(WAYS_TO_GO_BAD)
    keys = {"training": True, "augment": ALL, "cache": cache, "drop_remainder": False}
    feed = Batches(train, SMALL, 4, **keys)
    whole = [x.numpy() for x, _ in feed.epoch(0)]
    feed.close()
    for file, spoil in zip(train.files[2::4], WAYS_TO_GO_BAD.values(), strict=False):
        spoil(Path(file))
    again = [(x.numpy(), y.numpy()) for x, y in feed.epoch(0)]
    assert sum(len(y) for _, y in again) == len(train), "others take their places"
    if checked and cache:  # all are in memory
        assert all(np.array_equal(x, y) for x, (y, _) in zip(whole, again, strict=True)) and not train.bad
        return
    named = dict(train.bad)
    assert set(named) == {train.names[2 + 4 * i] for i in range(len(WAYS_TO_GO_BAD))}
    assert all(why in named[train.names[2 + 4 * i]] for i, why in enumerate(WAYS_TO_GO_BAD)), named
    assert same(again, [(x.numpy(), y.numpy()) for x, y in feed.epoch(0)])


def test_one_bad_jpeg_does_not_slow_the_others(tmp_path, monkeypatch):
    """Windows of them are decoded alone as before: Pillow, which decodes in whole, is not asked again."""
    root = folder(tmp_path / "p", {"cat": 30, "dog": 30}, ".jpg")
    train = load_dataset(data(root, max_bad_fraction=0.25)).train
    feed = Batches(train, SMALL, 4, training=True, augment=ALL, cache=False)
    WAYS_TO_GO_BAD["damaged"](Path(train.files[5]))
    list(feed.epoch(0))
    assert [name for name, _ in train.bad] == [train.names[5]]
    monkeypatch.setattr(reading.decoding, "decode", lambda content: pytest.fail("decoded in whole"))
    assert len(list(feed.epoch(1))) == len(feed)


def test_photos_that_went_bad_before_they_are_kept_in_memory_are_replaced(tmp_path):
    root = folder(tmp_path / "p", {"cat": 30, "dog": 30}, ".jpg")
    train = load_dataset(data(root, max_bad_fraction=0.25)).train
    fresh = train.subset(slice(None))
    WAYS_TO_GO_BAD["damaged"](Path(train.files[5]))
    keys = {"training": True, "augment": ALL, "drop_remainder": False}
    assert same(everything(train, **keys), everything(train, **keys))
    assert [name for name, _ in train.bad] == [train.names[5]] and "damaged" in train.bad[0][1]
    assert same(
        everything(train, **keys),
        [(x.numpy(), y.numpy()) for x, y in Batches(fresh, SMALL, 4, cache=False, **keys)],
    )


def test_too_many_bad_images_end_the_run_when_they_are_met(torn):
    train = load_dataset(data(torn, max_bad_fraction=0.2)).train
    with pytest.raises(EdgeclsError, match=r"of \d+ images cannot be used, more than data.max_bad_fraction"):
        for name in train.files[:12]:
            Path(name).write_bytes(b"gone")
        list(Batches(train, SMALL, 4))


def test_missing_files_of_a_large_list_are_named_at_the_start(torn):
    lines = [f"cat/{i:03}.jpg 0\ndog/{i:03}.jpg 1" for i in range(30)]
    (torn / "dog" / "folder.jpg").mkdir()
    (torn / "dog" / "empty.jpg").touch()
    lines += ["cat/none.jpg 0", "dog/folder.jpg 1", "dog/empty.jpg 1"]
    (torn / "all.txt").write_text("\n".join(lines))
    found = load_dataset(data(torn / "all.txt", source="list", max_bad_fraction=0.2))
    reasons = dict(found.bad)
    assert reasons["cat/none.jpg"] == "no such file" and reasons["dog/folder.jpg"] == "not a file"
    assert reasons["dog/empty.jpg"] == "empty file"


def test_files_of_a_huge_list_are_not_even_looked_for(torn, monkeypatch):
    monkeypatch.setattr(split_module, "LISTED_FILES", 50)
    monkeypatch.setattr(images, "glance", lambda path: pytest.fail("looked for a file"))
    lines = [f"cat/{i:03}.jpg 0\ndog/{i:03}.jpg 1" for i in range(1, 30)] + ["cat/none.jpg 0"]
    (torn / "train.txt").write_text("\n".join(lines))
    (torn / "val.txt").write_text("cat/000.jpg 0\ndog/000.jpg 1")
    paths = {f"{purpose}_path": str(torn / "val.txt") for purpose in ("val", "test")}
    found = load_dataset(data(torn / "train.txt", source="list", max_bad_fraction=0.2, **paths))
    assert any("whether a file is there" in note for note in found.notes) and not found.train.bad
    everything(found.train, training=True, drop_remainder=False)
    assert dict(found.train.bad)["cat/none.jpg"] == "no such file" and len(found.train.bad) == 4

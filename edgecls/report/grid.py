"""A labeled grid of images as one picture: a column for each kind, a caption below each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 128  # side of an image in the grid, pixels
COLUMNS = 8  # side by side at most; more go below
_GAP, _MARGIN = 10, 20  # between tiles, around the grid; pixels
_LINE, _TITLE = 16, 24  # heights of a line of a caption and of a title, pixels
_PAPER, _INK, _SOFT, _RULE = "#ffffff", "#1f2328", "#656d76", "#d1d9e0"


@dataclass(frozen=True)
class Column:
    """One kind of images.

    Attributes:
        title: Stands above them.
        images: uint8 [N, S, S, 3].
        captions: The lines below each of the N images.
    """

    title: str
    images: np.ndarray
    captions: Sequence[Sequence[str]]


def draw(columns: Sequence[Column], heading: str, note: str = "") -> Image.Image:
    """Draw columns of equally many images, at most ``COLUMNS`` of them side by side.

    Args:
        columns: What to draw, from the left.
        heading: The picture's title.
        note: A line below it.

    Example:
        >>> gray = np.full((2, 64, 64, 3), 128, np.uint8)
        >>> draw([Column("original", gray, [["cat"], ["dog"]])], "photos").size
        (168, 410)
    """
    large, bold, plain = (_font(*kind) for kind in (("-Bold", 18), ("-Bold", 13), ("", 12)))
    side_by_side = math.ceil(
        len(columns) / math.ceil(len(columns) / COLUMNS)
    )  # bands of about the same length
    bands = [columns[i : i + side_by_side] for i in range(0, len(columns), side_by_side)]
    top = _MARGIN + 28 + (26 if note else 0)
    wide = len(bands[0]) * (TILE + _GAP) - _GAP
    width = max(wide, math.ceil(large.getlength(heading)), math.ceil(plain.getlength(note)))
    height = top + sum(map(_height, bands)) + _MARGIN
    picture = Image.new("RGB", (width + 2 * _MARGIN, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_MARGIN, _MARGIN - 4), heading, _INK, large)
    pen.text((_MARGIN, _MARGIN + 24), note, _SOFT, plain)
    for band in bands:
        for c, column in enumerate(band):
            x, y = _MARGIN + c * (TILE + _GAP), top
            pen.text((x, y), _fitted(column.title, bold), _INK, bold)
            y += _TITLE
            for image, caption in zip(column.images, column.captions, strict=True):
                _paste(picture, image, (x, y))
                for k, line in enumerate(caption):
                    pen.text((x, y + TILE + 3 + k * _LINE), _fitted(line, plain), _SOFT, plain)
                y += _row_height(band)
        top += _height(band)
    return picture


def _row_height(band: Sequence[Column]) -> int:
    """Pixels from an image to the one below."""
    return TILE + _GAP + _LINE * max(len(caption) for column in band for caption in column.captions)


def _height(band: Sequence[Column]) -> int:
    """Pixels of the columns that are side by side, with their titles."""
    return _TITLE + len(band[0].images) * _row_height(band) + _GAP


def _paste(picture: Image.Image, image: np.ndarray, corner: tuple[int, int]) -> None:
    """Put an image at the tile with this corner, framed; small ones are enlarged in whole pixels."""
    method = Image.Resampling.LANCZOS if len(image) > TILE else Image.Resampling.NEAREST
    picture.paste(Image.fromarray(image).resize((TILE, TILE), method), corner)
    x, y = corner
    ImageDraw.Draw(picture).rectangle((x - 1, y - 1, x + TILE, y + TILE), outline=_RULE)


def _fitted(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text, shortened to the width of a tile."""
    if font.getlength(text) <= TILE:
        return text
    while text and font.getlength(text + "…") > TILE:
        text = text[:-1]
    return text.rstrip() + "…"


def _font(style: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib and knows most alphabets."""
    import matplotlib

    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{style}.ttf")), size
    )

"""Ranges of pixels that networks take which do not normalize pixels themselves, by name."""

from __future__ import annotations

PIXELS: dict[str, tuple[list[float], list[float]]] = {
    "0..255": ([0.0] * 3, [1 / 255] * 3),
    "0..1": ([0.0] * 3, [1.0] * 3),
    "-1..1": ([127.5 / 255] * 3, [127.5 / 255] * 3),
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
"""To the mean and the deviation that lead to them, of pixel / 255 for red, green and blue."""

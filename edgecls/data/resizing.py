"""Exact names of the ways to resize. Libraries mean different things by "bilinear". No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INTERPOLATIONS = {
    ("bilinear", False): "bilinear, half-pixel centers, no anti-aliasing; OpenCV INTER_LINEAR; "
    "PIL's resize(BILINEAR) anti-aliases and differs",
    ("bilinear", True): "bilinear, half-pixel centers, anti-aliasing; PIL resize(BILINEAR); "
    "OpenCV's INTER_LINEAR does not anti-alias and differs",
    ("bicubic", False): "bicubic (Keys, a = -0.5), half-pixel centers, no anti-aliasing; "
    "OpenCV's INTER_CUBIC has a = -0.75 and differs",
    ("bicubic", True): "bicubic (Keys, a = -0.5), half-pixel centers, anti-aliasing; PIL resize(BICUBIC)",
    ("area", False): "mean of the covered area; OpenCV INTER_AREA where it makes a photo smaller",
    ("area", True): "mean of the covered area; OpenCV INTER_AREA where it makes a photo smaller",
}
"""(interpolation, antialias) to its exact name, and the calls of libraries that do it or seem to."""


def describe_interpolation(settings: Mapping[str, Any]) -> str:
    """The exact name of the interpolation of ``Preprocess.to_dict()``; the plain name where it is none of ours.

    Example:
        >>> describe_interpolation({"interpolation": "bicubic", "antialias": True})
        'bicubic (Keys, a = -0.5), half-pixel centers, anti-aliasing; PIL resize(BICUBIC)'
    """
    name = str(settings.get("interpolation", "bilinear"))
    return INTERPOLATIONS.get((name, bool(settings.get("antialias"))), name)


def describe_preprocess(settings: Mapping[str, Any]) -> str:
    """How a photo becomes the pixels of a network, in one sentence.

    Args:
        settings: ``Preprocess.to_dict()``, or the content of a run's ``preprocess.json``.

    Example:
        >>> print(describe_preprocess({"size": 224, "resize_short": 256, "interpolation": "area"}))
        resize the short side to 256 pixels (mean of the covered area; OpenCV INTER_AREA where it makes a photo \
smaller), round to 8 bits, cut the center of 224 x 224 pixels
    """
    size = settings.get("size")
    return (
        f"resize the short side to {settings.get('resize_short')} pixels ({describe_interpolation(settings)}), "
        f"round to 8 bits, cut the center of {size} x {size} pixels"
    )

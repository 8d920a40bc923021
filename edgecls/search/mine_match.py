"""Whether two photos show the same picture: points of interest decide, as in the manual of SSLD. No TensorFlow.

SIFT finds points in both photos (D. Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004). Points
with one clear counterpart give a similarity transformation (shift, scale, rotation) by RANSAC. Two photos may share
points and still be different: a logo, a time stamp. So one photo is laid over the other by that transformation, and
where both are, their pixels must correlate.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

LONG_SIDE = 256
"""Pixels to which the longer side of a photo is reduced before points are looked for."""
MOST_POINTS = 400
LEAST_POINTS = 12
"""Pairs of points that must agree on one transformation."""
RATIO = 0.75
"""A point has a counterpart if the nearest one is by this factor nearer than the second."""
LEAST_OVERLAP = 0.5
"""Share of the smaller photo that must lie on the other one."""
LEAST_CORRELATION = 0.85
"""Correlation of the pixels where both are."""

_ERROR = 3.0  # pixels by which a point may miss its counterpart
_SCALES = (0.25, 4.0)  # a transformation beyond is an accident


class Picture(NamedTuple):
    """A photo in gray and its points.

    Attributes:
        gray: uint8 [H, W], longer side at most ``LONG_SIDE``.
        points: float32 [K, 2], x and y.
        descriptors: uint8 [K, 128].
    """

    gray: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray


def picture(photo: np.ndarray) -> Picture:
    """Find the points of a photo.

    Args:
        photo: uint8 [H, W, 1 or 3], RGB.
    """
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) if photo.shape[2] == 3 else photo[..., 0]
    scale = LONG_SIDE / max(gray.shape)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in gray.shape[::-1])
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    found, descriptors = cv2.SIFT.create(nfeatures=MOST_POINTS).detectAndCompute(gray, None)
    points = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    return Picture(np.ascontiguousarray(gray), points, descriptors.astype(np.uint8))


def same(left: Picture, right: Picture) -> bool | None:
    """Whether two photos are copies of one picture, resized, cropped, recompressed or of another brightness.

    Returns:
        None: one of them has too few points to say.

    Example:
        >>> grass = np.random.default_rng(0).integers(0, 256, (200, 200, 1), dtype=np.uint8)
        >>> same(picture(grass), picture(grass[20:, 10:190]))
        True
    """
    if min(len(left.points), len(right.points)) < LEAST_POINTS:
        return None
    nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(
        left.descriptors.astype(np.float32), right.descriptors.astype(np.float32), k=2
    )
    clear = [pair[0] for pair in nearest if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance]
    if len(clear) < LEAST_POINTS:
        return False
    transformation, agree = cv2.estimateAffinePartial2D(
        left.points[[match.queryIdx for match in clear]],
        right.points[[match.trainIdx for match in clear]],
        method=cv2.RANSAC,
        ransacReprojThreshold=_ERROR,
    )
    if transformation is None or int(agree.sum()) < LEAST_POINTS:
        return False
    return _overlay(left.gray, right.gray, transformation)


def _overlay(left: np.ndarray, right: np.ndarray, transformation: np.ndarray) -> bool:
    """Whether the left photo, laid over the right one, covers enough of it or lies on it, and is like it there."""
    scale = float(np.hypot(*transformation[:, 0]))
    if not _SCALES[0] <= scale <= _SCALES[1]:
        return False
    size = right.shape[::-1]
    laid = cv2.warpAffine(left, transformation, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.full_like(left, 255), transformation, size, flags=cv2.INTER_NEAREST) > 0
    if inside.sum() < LEAST_OVERLAP * min(right.size, left.size * scale**2):
        return False
    a, b = (cv2.blur(image, (5, 5))[inside].astype(np.float32) for image in (laid, right))
    if min(a.std(), b.std()) < 1:
        return False
    return bool(np.corrcoef(a, b)[0, 1] >= LEAST_CORRELATION)

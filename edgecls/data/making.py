"""A group of images, read, cropped, resized and changed: what the pipeline does in Python. No TensorFlow graph here.

``Maker.plan`` finds the photos and draws their windows, then the pipeline decodes windows of JPEGs, then
``Maker.finish`` makes images of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from edgecls.augment.compose import Chain, Mixer
from edgecls.data.preprocess import Preprocess
from edgecls.data.reading import Photos

Stages = Callable[[int], tuple[Chain, Mixer]]
"""Number of an epoch to the changes of its images and of its batches."""

_LEAST = np.float32(1e-30)  # probability: its logarithm is still a number
_MARGIN = (
    2  # pixels that are decoded around a window: color is interpolated across the border of what is decoded
)
_ONE_PIXEL = np.array(cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))[1].tobytes(), object)
"""A JPEG to decode in place of a photo that is none: a branch in the graph would cost more."""
_FIRST_PIXEL = (0, 0, 1, 1)  # as a window


class Maker:
    """Makes the images of a split.

    Args:
        photos: The split's photos.
        preprocess: How the network sees a photo.
        stages: The random changes of an epoch.
    """

    def __init__(self, photos: Photos, preprocess: Preprocess, stages: Stages) -> None:
        self._photos, self._preprocess, self._stages = photos, preprocess, stages
        cv2.setNumThreads(1)  # images are made in parallel, each by one thread

    def plan(self, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Find the photos of a group and draw their windows.

        Args:
            epoch: Number of the epoch.
            rows: int32 [N, 2] of a photo (-1: none) and the number of its view.

        Returns:
            ``used``: ``rows`` with the photos that are used. ``windows``: int32 [N, 2, 4], what is to be decoded of each
            photo (top, left, height, width), and of that what is kept. Then for each photo the bytes of the JPEG that is
            to be decoded, of one pixel where the photo is decoded already; each by itself, because TensorFlow would copy
            it to take it out of an array. Then for each photo what is decoded already, uint8 [H, W, 1 or 3], or an empty
            array.
        """
        chain, _ = self._stages(int(epoch))
        used, jpegs = rows.copy(), [_ONE_PIXEL] * len(rows)
        windows: list[Sequence[Sequence[int]]] = []
        decoded: list[np.ndarray] = []
        for k, (index, view) in enumerate(rows.tolist()):
            if index < 0:
                decoded.append(np.zeros((1, 1, 1), np.uint8))
                windows.append((_FIRST_PIXEL, _FIRST_PIXEL))
                continue
            index, height, width, pixels, jpeg = self._photos.find(index)
            used[k, 0] = index
            whole = [0, 0, height, width]
            window = chain.window(height, width, index, view).tolist() if chain.crops else whole
            if pixels is None:
                decoded.append(np.zeros((0, 0, 3), np.uint8))
                windows.append(_with_margin(window, height, width))
                jpegs[k] = np.array(jpeg, object)
            else:
                decoded.append(_cut(pixels, window))
                windows.append((_FIRST_PIXEL, (0, 0, *window[2:])))
        return used, np.array(windows, np.int32), *jpegs, *decoded

    def finish(self, epoch: int, used: np.ndarray, windows: np.ndarray, *decoded: np.ndarray) -> np.ndarray:
        """Make a group of images: uint8 [N, size, size, 3].

        Args:
            epoch: Number of the epoch.
            used: As ``plan`` returns it.
            windows: As ``plan`` returns it.
            *decoded: The photos as ``plan`` returns them, then ``jpegs`` decoded in ``windows[:, 0]``.
        """
        chain, _ = self._stages(int(epoch))
        size = self._preprocess.size
        images, kept = np.empty((len(used), size, size, 3), np.uint8), windows[:, 1].tolist()
        for k, (index, view) in enumerate(used.tolist()):
            if index < 0:
                continue
            photo = decoded[k] if decoded[k].size else decoded[len(used) + k]
            window, image = _cut(photo, kept[k]), images[k]
            if chain.crops:
                self._preprocess.resize_window(window, image)
            else:
                image[:] = self._preprocess.array(window)
            changed = chain.change(image, index, view)
            if changed is not image:
                image[:] = changed
        return images

    def make(self, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both steps at once, where no JPEG is to be decoded: ``used`` and the images."""
        used, windows, *found = self.plan(epoch, rows)
        return used, self.finish(epoch, used, windows, *found[len(rows) :])

    def mix(
        self,
        share: tuple[int, int],
        epoch: int,
        step: int,
        pixels: np.ndarray,
        targets: np.ndarray,
        *answers: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Mix a batch, or a worker's share of it.

        Args:
            share: See ``Mixer``.
            epoch: Number of the epoch.
            step: Number of the batch in it.
            pixels: uint8 [B, size, size, 3].
            targets: float32 [B, classes].
            *answers: Log-probabilities, float32 [B, classes]. Their probabilities are mixed in the same shares.

        Returns:
            The same, float32.
        """
        _, mixer = self._stages(int(epoch))
        classes = targets.shape[1]
        beside = np.concatenate([targets, *map(np.exp, answers)], axis=1)
        pixels, beside = mixer(pixels, beside, int(step), share)
        probabilities = np.split(beside[:, classes:], len(answers), axis=1) if answers else []
        return pixels, beside[:, :classes], *(np.log(np.maximum(p, _LEAST)) for p in probabilities)


def _with_margin(window: Sequence[int], height: int, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The window with a margin, inside the photo, and the window within that."""
    top, left, rows, columns = window
    above, before = max(top - _MARGIN, 0), max(left - _MARGIN, 0)
    below, after = min(top + rows + _MARGIN, height), min(left + columns + _MARGIN, width)
    return (above, before, below - above, after - before), (top - above, left - before, rows, columns)


def _cut(photo: np.ndarray, window: Sequence[int]) -> np.ndarray:
    top, left, height, width = window
    return photo[top : top + height, left : left + width]

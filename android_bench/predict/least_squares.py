"""Least squares with coefficients that cannot be negative, in numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nonnegative(matrix: Array, target: Array) -> Array:
    """The ``x >= 0`` that makes ``|matrix @ x - target|`` least, by the active-set method of Lawson and Hanson
    (Solving Least Squares Problems, 1974, chapter 23).

    Args:
        matrix: [rows, columns]. Columns of about the same length keep the result exact.
        target: [rows].

    Returns:
        [columns].

    Example:
        >>> nonnegative(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([2.0, -1.0])).tolist()
        [2.0, 0.0]
    """
    columns = matrix.shape[1]
    gram, moment = matrix.T @ matrix, matrix.T @ target
    tolerance = 1e-10 * max(1.0, float(np.abs(moment).max(initial=0.0)))
    x, free = np.zeros(columns), np.zeros(columns, bool)
    for _ in range(3 * columns):
        gradient = moment - gram @ x
        gradient[free] = -np.inf
        if free.all() or gradient.max() <= tolerance:
            break
        free[int(gradient.argmax())] = True
        while True:
            best = np.zeros(columns)
            best[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            wrong = free & (best <= 0)
            if not wrong.any():
                break
            # Go towards it until the first coefficient is zero, and leave that one out.
            step = (x[wrong] / np.maximum(x[wrong] - best[wrong], 1e-300)).min()
            x = x + step * (best - x)
            free &= x > 1e-12 * max(1.0, float(x.max()))
            x[~free] = 0.0
        x = best
    return x

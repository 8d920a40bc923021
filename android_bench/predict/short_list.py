"""Which few networks tell most about a device: the list of ``edgecls bench --calibrate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from android_bench.predict.latency import Array, terms
from android_bench.predict.operations import Operation

_NOISE = 0.3  # ridge of the design: how much of what the list cannot tell is left to the prior


def most_telling(
    networks: Mapping[str, Sequence[Operation]], coefficients: Array, count: int, longest_ms: float
) -> list[str]:
    """Choose networks so that the others can be predicted from them as surely as possible.

    One after the other, the network is taken that makes the mean variance of the predictions of all others least
    (A-optimal design, Fedorov, 1972). What a network tells is its terms in proportion to its time.

    Args:
        networks: Operations of the candidates by name.
        coefficients: Of a device that is known: what share of the time each term has.
        count: How many to choose.
        longest_ms: Leave out those that take longer on that device.

    Returns:
        Their names, the most telling one first.

    Example:
        >>> from android_bench.predict.operations import parse
        >>> nets = {"a": parse("add 8x8x8+8x8x8>8x8x8"), "b": parse("pointwise 8x8x8>8x8x8")}
        >>> sorted(most_telling(nets, np.ones(8), 2, 100.0))
        ['a', 'b']
    """
    rows = {name: terms(operations) for name, operations in networks.items()}
    times = {name: float(row @ coefficients) for name, row in rows.items()}
    names = [name for name in rows if 0 < times[name] <= longest_ms]
    known = np.array([rows[name] / times[name] for name in names])
    known = known / np.maximum(np.sqrt((known**2).mean(axis=0)), 1e-12)
    information = _NOISE * np.eye(known.shape[1])
    chosen: list[int] = []
    while len(chosen) < min(count, len(names)):
        best = min(
            (i for i in range(len(names)) if i not in chosen),
            key=lambda i: _mean_variance(known, information + np.outer(known[i], known[i])),
        )
        chosen.append(best)
        information = information + np.outer(known[best], known[best])
    return [names[i] for i in chosen]


def _mean_variance(rows: Array, information: Array) -> float:
    return float(np.mean(np.einsum("ij,ij->i", rows, np.linalg.solve(information, rows.T).T)))

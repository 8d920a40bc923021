"""The latency of a network that was never measured, from its operations and the networks that a device has run.

The model is a sum with coefficients that cannot be negative, fitted to relative errors:

    time on one thread = sum over MACs of each kind, values moved and weights read, each times a coefficient,
                         plus a fixed time for each convolution and for each other operation
    time on T threads  = efficiency * (the first line) + fixed times of their own

So an operation may be bound by arithmetic or by memory, and small ones by what a call costs. The fixed times do not
shrink with threads: they hold what it takes to hand work to threads and to wait for the slowest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from android_bench.errors import BenchError
from android_bench.measure.stats import t_quantile
from android_bench.predict.least_squares import Array, nonnegative
from android_bench.predict.operations import CONVOLUTIONS, Operation

TERMS = (
    "MACs of convolutions larger than 1x1",
    "MACs of 1x1 convolutions and dense layers",
    "MACs of depthwise convolutions",
    "values that convolutions read and write",
    "weights",
    "values that other operations read and write",
    "convolutions",
    "other operations",
)
"""What is summed, in millions; the last two are counts."""
_MACS = {"conv": 0, "grouped": 0, "pointwise": 1, "dense": 1, "matmul": 1, "depthwise": 2}
_VARIABLE = 6  # the terms before the counts
_RIDGE = 0.04  # pulls coefficients that few networks tell about towards the prior; of little weight with many networks
_LEANS = (_RIDGE, 0.4, 4.0, 40.0)  # of these, a device with a prior takes what predicts its own networks best
_MANY = 16  # of so many networks, those that are left out hardly change how much to lean; to ask anew takes seconds
_LEVEL = 0.95
_LEAST = 4  # networks that a device must have measured
_FAMILIES = 3  # so many make leaving a family out mean something
_OUTSIDE = 2.0  # a term may be so many times as large, in proportion to the time, as in any fitted network
_LONGEST, _SHORTEST = 4.0, 1 / 4.0  # and the time so many times the longest and the shortest measured one
_UNKNOWN = 0.02  # share of the values moved that operations of an unknown kind may move

RUNTIME_REACH = math.log(2.1)
"""Two runtimes on one chip: nn-Meter's predictors of TFLite 2.1 answer 1.8 to 2.1 times what Paddle-Lite takes."""
INT8_SPEED = 4.0
"""int8 moves a quarter of the bytes, and an instruction for int8 makes four times as many products as one for fp32.
No int8 network is faster than that, and none need be faster than fp32."""


class OutsideError(BenchError):
    """A network is too unlike those that the device has measured (exit code 1)."""


@dataclass(frozen=True)
class Measured:
    """A network that a device has run.

    Attributes:
        name: What it is called.
        series: What it is akin to: the family of networks, for leaving whole families out.
        operations: What it executes.
        ms: Median latency by number of threads, milliseconds.
    """

    name: str
    series: str
    operations: tuple[Operation, ...]
    ms: dict[int, float]


@dataclass(frozen=True)
class Prediction:
    """A latency with its 95 % interval, milliseconds.

    Example:
        >>> Prediction(10.0, (9.0, 11.1)).widened(math.log(2.0)).interval[1] > 20
        True
    """

    ms: float
    interval: tuple[float, float]

    @property
    def reach(self) -> float:
        """Half the interval's width, as a logarithm."""
        return math.log(self.interval[1] / self.interval[0]) / 2

    def widened(self, reach: float) -> Prediction:
        """The same, less sure by something independent that reaches so far (95 %, a logarithm)."""
        return _prediction(self.ms, math.hypot(self.reach, reach))


def _prediction(ms: float, reach: float) -> Prediction:
    return Prediction(ms, (ms * math.exp(-reach), ms * math.exp(reach)))


def terms(operations: Sequence[Operation]) -> Array:
    """The sums of ``TERMS`` over operations.

    Example:
        >>> from android_bench.predict.operations import parse
        >>> terms(parse("pointwise 10x10x8>10x10x16;add 10x10x16+10x10x16>10x10x16")).round(6).tolist()
        [0.0, 0.0128, 0.0, 0.0024, 0.000144, 0.0048, 1.0, 1.0]
    """
    sums = np.zeros(len(TERMS))
    once = {id(o): o for o in operations}  # most stand several times in the list
    for key, count in Counter(map(id, operations)).items():
        operation = once[key]
        if operation.kind in _MACS:
            sums[_MACS[operation.kind]] += count * operation.macs / 1e6
        linear = operation.kind in CONVOLUTIONS
        sums[3 if linear else 5] += count * operation.moved / 1e6
        sums[4] += count * operation.weights / 1e6
        sums[6 if linear else 7] += count
    return sums


def fit(matrix: Array, times: Array, prior: Array | None = None, ridge: float = _RIDGE) -> Array:
    """Coefficients that make the relative errors least.

    Args:
        matrix: Terms of each network, [networks, terms].
        times: What each took.
        prior: Coefficients to lean on; none: zeros.
        ridge: How much, in networks.
    """
    relative = matrix / times[:, None]
    scale = np.sqrt((relative**2).mean(axis=0))
    scale[scale == 0] = 1.0
    lean = math.sqrt(ridge) * np.eye(matrix.shape[1])
    towards = math.sqrt(ridge) * scale * (0.0 if prior is None else prior)
    rows = np.vstack([relative / scale, lean])
    return nonnegative(rows, np.concatenate([np.ones(len(times)), towards])) / scale


class Predictor:
    """Predicts latencies on one device, for one precision.

    Args:
        measured: Networks that the device has run.
        prior: Coefficients of another device, up to a factor: what is known of phones before this one is measured. How much
            to lean on them, the measured networks decide: as much as predicts each one well from the others.

    Example:
        >>> from android_bench.predict.operations import parse
        >>> nets = [parse(f"conv3x3 {s}x{s}x8>{s}x{s}x8") for s in (8, 16, 32, 64)]
        >>> known = [Measured(f"n{len(n)}{i}", "a", tuple(n), {1: 0.01 + n[0].macs / 1e6}) for i, n in enumerate(nets)]
        >>> round(Predictor(known).predict(parse("conv3x3 48x48x8>48x48x8"), 1).ms, 1)
        1.3

    Raises:
        BenchError: Fewer than four networks.
    """

    def __init__(self, measured: Sequence[Measured], prior: Array | None = None) -> None:
        counts = sorted({t for m in measured for t in m.ms})
        self.threads = [t for t in counts if sum(t in m.ms for m in measured) >= _LEAST]
        if not self.threads:
            raise BenchError(
                f"a prediction needs {_LEAST} measured networks, there are {len(measured)}",
                fix="measure more: edgecls bench --calibrate --device NAME",
            )
        # The thread count that is fitted in full; the others are told by it.
        self.base = max(self.threads, key=lambda t: (sum(t in m.ms for m in measured), -t))
        self.measured = [m for m in measured if self.base in m.ms]
        self._prior, self._everything = prior, np.ones(len(self.measured), bool)
        self._spreads: dict[int, float] = {}
        self._leans: dict[bytes, float] = {}
        self._matrix = np.array([terms(m.operations) for m in self.measured])
        self._kinds = {o.kind for m in self.measured for o in m.operations}

    @cached_property
    def coefficients(self) -> Array:
        """Milliseconds for one unit of each of ``TERMS``, with ``base`` threads."""
        return self._coefficients(self._everything)

    def predict(self, operations: Sequence[Operation], threads: int, *, check: bool = True) -> Prediction:
        """The latency of a network.

        Args:
            operations: What it executes.
            threads: Number of threads.
            check: Refuse what is too unlike the measured networks.

        Raises:
            OutsideError: It is.
            BenchError: Nothing was measured with so many threads.
        """
        self._require(threads)
        row = terms(operations)
        ms = float(self._times(row[None], threads, self._everything)[0])
        if check and (reason := self._outside(operations, row, ms, threads)):
            raise OutsideError(reason, fix="measure it: edgecls bench --zoo NAME --device NAME")
        return _prediction(ms, self.spread(threads) * math.sqrt(1 + self._leverage(row)))

    def predict_int8(
        self, operations: Sequence[Operation], threads: int, *, check: bool = True
    ) -> Prediction:
        """The latency of a network in int8 where only fp32 was measured: between what int8 can at most save and nothing.

        Arguments and errors are those of ``predict``, with the operations of the float network.
        """
        whole = self.predict(operations, threads, check=check)
        row = terms(operations)
        row[_VARIABLE:] = 0
        variable = float(self._times(row[None], threads, self._everything)[0])
        least = whole.ms - variable * (1 - 1 / INT8_SPEED)
        middle = _prediction(math.sqrt(least * whole.ms), whole.reach)
        return middle.widened(math.log(whole.ms / least) / 2)

    def left_out(self, threads: int, group: Callable[[Measured], str]) -> Array:
        """Logarithms of predicted / measured, each predicted without its group.

        Args:
            threads: Number of threads.
            group: The name of a network's group, for example ``lambda m: m.series``.

        Returns:
            One for each network that was measured with so many threads, in their order.
        """
        self._require(threads)
        labels = np.array([group(m) for m in self.measured])
        errors: dict[int, float] = {}
        for label in dict.fromkeys(labels):
            rest = labels != label
            predicted = self._times(self._matrix[~rest], threads, rest)
            errors |= dict(zip(np.flatnonzero(~rest).tolist(), predicted.tolist(), strict=True))
        return np.array(
            [math.log(errors[i] / m.ms[threads]) for i, m in enumerate(self.measured) if threads in m.ms]
        )

    def spread(self, threads: int) -> float:
        """How far predictions reach (95 %, a logarithm) for a network like the measured ones.

        From leaving each network out; where there are families enough, from leaving each family out, if that is more:
        the next network may be of a family that nobody measured.
        """
        if threads not in self._spreads:
            errors = [self.left_out(threads, lambda m: m.name)]
            if len({m.series for m in self.measured}) >= _FAMILIES:
                errors.append(self.left_out(threads, lambda m: m.series))
            rms = max(float(np.sqrt(np.mean(e**2))) for e in errors)
            self._spreads[threads] = rms * t_quantile(0.5 + _LEVEL / 2, len(errors[0]) - 1)
        return self._spreads[threads]

    def _require(self, threads: int) -> None:
        if threads not in self.threads:
            raise BenchError(
                f"not measured with {threads} threads, only with {', '.join(map(str, self.threads))}",
                fix=f"bench the device with --threads {threads}",
            )

    def _coefficients(self, mask: np.ndarray) -> Array:
        return self._fit(mask, self._lean(mask))

    def _fit(self, mask: np.ndarray, lean: float) -> Array:
        times = self._base_times[mask]
        prior = self._prior
        if prior is not None:
            prior = prior * fit((self._matrix[mask] @ prior)[:, None], times, ridge=0.0)[0]
        return fit(self._matrix[mask], times, prior, lean)

    def _lean(self, mask: np.ndarray) -> float:
        """How much to lean on the prior, as seen from the networks that the mask chooses.

        The most that is not surely worse than the best (the rule of one standard error, Breiman et al., Classification and
        Regression Trees, 1984): a few networks can make a wild fit look good by chance.
        """
        if self._prior is None:
            return _RIDGE
        if len(self.measured) > _MANY:
            mask = self._everything
        key = mask.tobytes()
        if key not in self._leans:
            errors = {lean: self._errors(mask, lean) for lean in _LEANS}
            least = min(errors.values(), key=np.mean)
            enough = least.mean() + least.std() / math.sqrt(len(least))
            self._leans[key] = max(lean for lean, found in errors.items() if found.mean() <= enough)
        return self._leans[key]

    def _errors(self, mask: np.ndarray, lean: float) -> Array:
        """Squared logarithms of predicted / measured on the base's threads, each network predicted from the others."""
        predicted = []
        for i in np.flatnonzero(mask):
            rest = mask.copy()
            rest[i] = False
            predicted.append(float(self._matrix[i] @ self._fit(rest, lean)))
        return np.log(np.maximum(predicted, 1e-9) / self._base_times[mask]) ** 2

    @cached_property
    def _base_times(self) -> Array:
        return np.array([m.ms[self.base] for m in self.measured])

    def _times(self, rows: Array, threads: int, mask: np.ndarray) -> Array:
        """Predicted times of networks, from those measured networks that the mask chooses."""
        coefficients = self._coefficients(mask)
        if threads == self.base:
            return rows @ coefficients
        known = mask & np.array([threads in m.ms for m in self.measured])
        times = np.array([m.ms.get(threads, np.nan) for m in self.measured])[known]
        condensed = _condense(self._matrix[known], coefficients)
        return _condense(rows, coefficients) @ fit(condensed, times, ridge=0.0)

    def _leverage(self, row: Array) -> float:
        """The variance that the fit adds to a prediction: how far a network lies from the middle of the measured ones."""
        known = self._relative
        scale = np.sqrt((known**2).mean(axis=0))
        scale[scale == 0] = 1.0
        known, own = known / scale, row / float(row @ self.coefficients) / scale
        return float(
            own @ np.linalg.solve(known.T @ known + self._lean(self._everything) * np.eye(len(own)), own)
        )

    @property
    def _relative(self) -> Array:
        """Terms in proportion to the time on the base's threads."""
        return self._matrix / self._base_times[:, None]

    def _outside(self, operations: Sequence[Operation], row: Array, ms: float, threads: int) -> str:
        """Why a network is too unlike the measured ones; "" if it is not."""
        moved = sum(o.moved for o in operations)
        unknown = [o for o in operations if o.kind not in self._kinds]
        if sum(o.moved for o in unknown) > _UNKNOWN * moved:
            return f"no measured network has operations of the kind {', '.join(sorted({o.kind for o in unknown}))}"
        times = [m.ms[threads] for m in self.measured if threads in m.ms]
        if not min(times) * _SHORTEST <= ms <= max(times) * _LONGEST:
            return f"about {ms:.3g} ms is far from the measured {min(times):.3g} to {max(times):.3g} ms"
        own = row / float(row @ self.coefficients)
        excess = own / np.maximum(self._relative.max(axis=0), 1e-9)
        worst = int(excess.argmax())
        if excess[worst] > _OUTSIDE:
            return f"in proportion to its time it has {excess[worst]:.1f} times the {TERMS[worst]} of any measured network"
        return ""


def _condense(matrix: Array, coefficients: Array) -> Array:
    """Each network's variable part on the base's threads, and its two counts."""
    variable = matrix[:, :_VARIABLE] @ coefficients[:_VARIABLE]
    return np.column_stack([variable, matrix[:, _VARIABLE:]])

"""What a server has done, in the text format of Prometheus.

A few lines of our own: the format is lines of text (https://prometheus.io/docs/instrumenting/exposition_formats/), and
only one thread counts.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping

# Seconds: from a small network in int8 to a long queue.
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """Counts of requests by status, images, reloads, and how long answers took.

    Example:
        >>> counters = Counters()
        >>> counters.request(200, seconds=0.004, images=1)
        >>> "edgecls_images_total 1" in counters.text({})
        True
    """

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.reloads: Counter[str] = Counter({"ok": 0, "failed": 0})
        self.images = 0
        self._within = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def request(self, status: int, seconds: float, images: int) -> None:
        """Count a request for predictions; its time only if it was answered with some."""
        self.statuses[status] += 1
        self.images += images
        if status == 200:
            self._within[bisect.bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def text(self, gauges: Mapping[str, tuple[float, str]]) -> str:
        """All metrics.

        Args:
            gauges: Value and help text of what goes up and down, by name without the prefix.
        """
        lines = _head("requests_total", "counter", "Requests for predictions by the status of the answer.")
        lines += [f'edgecls_requests_total{{status="{s}"}} {n}' for s, n in sorted(self.statuses.items())]
        lines += [*_head("images_total", "counter", "Images that were classified.")]
        lines += [f"edgecls_images_total {self.images}"]
        lines += _head("reloads_total", "counter", "Times the model was loaded anew.")
        lines += [f'edgecls_reloads_total{{result="{r}"}} {n}' for r, n in self.reloads.items()]
        lines += self._histogram()
        for name, (value, about) in gauges.items():
            lines += [*_head(name, "gauge", about), f"edgecls_{name} {value:.15g}"]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> list[str]:
        lines = _head("request_seconds", "histogram", "From the headers of a request to its answer.")
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._within, strict=True):
            total += count
            lines.append(f'edgecls_request_seconds_bucket{{le="{bound}"}} {total}')
        return [
            *lines,
            f"edgecls_request_seconds_sum {self._seconds:.6f}",
            f"edgecls_request_seconds_count {total}",
        ]


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP edgecls_{name} {about}", f"# TYPE edgecls_{name} {kind}"]

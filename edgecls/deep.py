"""Networks that are deeper than Python's limit of nested calls. No TensorFlow here."""

from __future__ import annotations

import sys

CALLS = 10_000


def allow_deep_networks() -> None:
    """Let Keras build and load networks of some thousand layers in a row.

    It walks a network by calls that are nested once or more for each layer of the longest path, and Python ends at 1,000 of
    them: EfficientNetV2L is just below, its int8 twin above. A higher limit that was set before stays.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), CALLS))

"""The library that TensorFlow computes with on x86 processors. No TensorFlow here."""

from __future__ import annotations

import os
import platform

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"


def prefer_onednn() -> None:
    """Let TensorFlow use oneDNN, which trains networks for phones far faster than its own kernels do.

    By itself it does so only on processors with int8 instructions. It reads the variable when it is imported, so this
    comes before. What the user has set stays.

    Source: ``IsMklEnabled`` of https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/port.h.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault(VARIABLE, "1")

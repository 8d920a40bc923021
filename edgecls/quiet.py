"""Importing TensorFlow without the messages of its libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def import_tensorflow() -> None:
    """Import TensorFlow silently.

    While they are loaded, its libraries write about CPU features and missing GPUs to stderr, before any setting can stop
    them. Between these messages a one-line error would be overlooked. An import that fails raises as usual.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with _stderr_discarded():
            import tensorflow as tf
        # Remarks on how we call the converter and tf.function do not help who trains a network.
        tf.get_logger().setLevel(logging.ERROR)
        logging.getLogger("absl").setLevel(logging.ERROR)
        # The ranges of an int8 network are in it: the converter need not find them.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")


@contextmanager
def _stderr_discarded() -> Iterator[None]:
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # closed: there is nothing to discard
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)

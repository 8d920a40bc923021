"""TensorFlow without its chatter."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_tensorflow() -> None:
    """Import TensorFlow silently.

    Its libraries write about CPU features and missing GPUs to the process's stderr while they are loaded, before any
    setting can stop them; one-line errors would drown in it. A failing import raises as usual.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with _stderr_discarded():
            import tensorflow as tf
        # Remarks on how the converter and tf.function are called: for us, not for who trains a network.
        tf.get_logger().setLevel(logging.ERROR)
        logging.getLogger("absl").setLevel(logging.ERROR)


@contextmanager
def _stderr_discarded() -> Iterator[None]:
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)

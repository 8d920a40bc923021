"""Networks deeper than Python's limit of nested calls are built and loaded."""

import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

from edgecls.deep import allow_deep_networks

LAYERS, LIMIT = 450, 400  # Python's own limit is 1,000, and so many layers take long


@pytest.fixture(autouse=True)
def _the_limit_as_before() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def test_a_network_of_more_layers_in_a_row_than_python_nests_calls(tmp_path: Path) -> None:
    pixels = x = keras.Input((2,))
    for _ in range(LAYERS):
        x = keras.layers.ReLU()(x)
    sys.setrecursionlimit(LIMIT)
    with pytest.raises(RecursionError):
        keras.Model(pixels, x)
    allow_deep_networks()
    keras.Model(pixels, x).save(tmp_path / "deep.keras")
    assert len(keras.models.load_model(tmp_path / "deep.keras").layers) == LAYERS + 1


def test_the_limit_is_never_lowered() -> None:
    sys.setrecursionlimit(50_000)
    allow_deep_networks()
    assert sys.getrecursionlimit() == 50_000

"""What several test files need."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny network in fp32 and int8, one whose outputs are NaN, and a torn file."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("models")
    image = keras.Input((32, 32, 3), batch_size=1)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, activation="relu")(x))
    net = keras.Model(image, keras.layers.Dense(4)(x))

    def convert(model: Any, name: str, int8: bool = False) -> Path:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if int8:
            photos = np.random.default_rng(0).random((4, 1, 32, 32, 3), np.float32)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([photo] for photo in photos)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        path = folder / f"{name}.tflite"
        path.write_bytes(converter.convert())
        return path

    fp32 = convert(net, "fp32")
    negative = keras.layers.Lambda(lambda t: tf.math.log(-1.0 - t))(image)
    torn = folder / "torn.tflite"
    torn.write_bytes(fp32.read_bytes()[:2000])
    return {
        "fp32": fp32,
        "int8": convert(net, "int8", int8=True),
        "nan": convert(keras.Model(image, negative), "nan"),
        "torn": torn,
    }

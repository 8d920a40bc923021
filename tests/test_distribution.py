"""Two devices learn what one learns from the same batches."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: devices can be split only before TensorFlow has used them.
PROGRAM = """
import tempfile
from pathlib import Path
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from edgecls.recipe import Train
from edgecls.train import checkpoint
from edgecls.train.optimizers import Sgd
from edgecls.train.loop import Trainer
from edgecls.train.objective import Objective

rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 6)).astype(np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, 32)]
config = Train(epochs=1, batch_size=8, optimizer=Sgd(lr=0.1, weight_decay=0.01, clip_norm=0.5), ema_decay=0.9, accumulate=2)

def train(strategy, config=config, scale=None):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)])
        trainer = Trainer(model, Objective(), config, 4)
        if scale:
            trainer._loss_scale.variables[0].assign(scale)
        values = trainer.run_epoch(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), lambda step: None)
    # A checkpoint has every variable: mirrored ones, and scalars such as the loss scale among them.
    saved = [checkpoint.value_of(v) for v in trainer.variables]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "last.npz", trainer.variables, {"epochs": 1})
        for variable in trainer.variables:
            variable.assign(tf.zeros(variable.shape, variable.dtype))
        assert checkpoint.restore(Path(folder) / "last.npz", trainer.variables) == {"epochs": 1}
    for before, variable in zip(saved, trainer.variables, strict=True):
        assert np.array_equal(before, checkpoint.value_of(variable))
    return values, [np.asarray(v) for v in model.weights], trainer.strategy.num_replicas_in_sync

one, weights, replicas = train(tf.distribute.get_strategy())
both, mirrored, two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
assert (replicas, two) == (1, 2)
for a, b in zip(weights, mirrored, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
for key in ("loss", "accuracy", "lr", "gradient_norm"):
    np.testing.assert_allclose(one[key], both[key], rtol=1e-5, err_msg=key)

# With a loss scale of 2^40 every gradient overflows, on both devices, and no weight moves.
half, mirrors = config.model_copy(update={"precision": "mixed_float16"}), ["CPU:0", "CPU:1"]
for scale, atol in ((None, 2e-3), (2.0**40, 0.0)):
    _, weights, _ = train(tf.distribute.get_strategy(), half, scale)
    _, mirrored, _ = train(tf.distribute.MirroredStrategy(mirrors), half, scale)
    for a, b in zip(weights, mirrored, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)
"""


def test_two_devices_learn_what_one_learns() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

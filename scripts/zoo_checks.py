"""What is measured of a network of the zoo, for ``verify_zoo.py``: each check gives some cells of the network's row."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

# The reference allows this many times the difference between float32 and float64, which it measured for random pixels
# (``seed0``). Deep networks with random weights amplify rounding more on other inputs; there it is measured here.
ROUNDINGS = 20
CHAOS = 0.05  # of the logits' std; where float32 needs more room than this, a comparison tells nothing


def fingerprint(model: Any) -> str:
    """A digest of what the checks' results depend on: the network's configuration, our layers in it, and the checks.

    Text that changes nothing does not count: comments, docstrings, and in which module something stands.
    """
    import keras

    config = _without_modules(keras.saving.serialize_keras_object(model)["config"])
    kinds = {kind for layer in model.layers for kind in type(layer).__mro__ if "edgecls" in kind.__module__}
    checks = (
        same_structure,
        fill_weights,
        same_logits,
        rounding,
        same_keras_file,
        same_tflite_file,
        gradients,
        failures,
    )
    code = "".join(sorted(_code(part) for part in (*kinds, *checks)))
    return hashlib.sha256((json.dumps(config, sort_keys=True, default=str) + code).encode()).hexdigest()[:16]


def _without_modules(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_modules(value) for key, value in config.items() if key != "module"}
    return [_without_modules(value) for value in config] if isinstance(config, list | tuple) else config


def _code(part: Any) -> str:
    """The source of a class or a function without comments, docstrings and imports."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            node.body = [n for n in body if not isinstance(n, ast.Import | ast.ImportFrom)] or [ast.Pass()]
    return ast.unparse(tree)


def same_structure(model: Any, arch: dict[str, Any]) -> dict[str, Any]:
    """Parameters, MACs and state against the reference."""
    from edgecls.zoo import cost
    from edgecls.zoo.state import state_shapes

    shapes = {key: list(shape) for key, shape in state_shapes(model).items()}
    return {
        "params": cost.params(model),
        "macs": cost.macs(model),
        "state_entries": len(shapes),
        "params_equal": cost.params(model) == arch["trainable_params"],
        "macs_equal": cost.macs(model) == arch["macs"],
        "state_equal": shapes == {key: list(shape) for key, shape in arch["state"]},
    }


def fill_weights(model: Any, arch: dict[str, Any], reference: Path) -> None:
    """Give the network the weights for which the reference has logits."""
    sys.path.insert(0, str(reference))
    import fill

    import edgecls
    from edgecls.weights.load import from_paddle
    from edgecls.zoo.state import state_shapes

    shapes = state_shapes(model)
    arrays = {key: fill.fill(key, list(shape), arch["gain"]) for key, shape in shapes.items()}
    edgecls.load_weights(model, from_paddle(arrays, model.name), strict=True)


def same_logits(model: Any, arch: dict[str, Any], reference: Path) -> dict[str, Any]:
    """Largest difference of the logits to the reference's for each of its inputs, in their std."""
    import fill
    import numpy as np

    path = reference / "logits" / f"{arch['model']}.npz"
    row: dict[str, Any] = {"logits_difference": {}, "logits_allowed": {}}
    if not path.exists():
        return row
    expect, size = np.load(path), model.input_shape[1]
    tolerance = max(1e-4, ROUNDINGS * arch.get("fp32_vs_fp64_max_rel_to_std", 0.0))
    for key, image in (("seed0", fill.make_input(0, size)), ("blocks", fill.make_blocks(size))):
        images = np.asarray(image, "float32").transpose(0, 2, 3, 1)
        got = [logits(model, images[i : i + 1]) for i in range(len(expect[key]))]
        for head, values in enumerate(zip(*got, strict=True)):
            name = f"{key}_out{head}" if head else key
            difference = np.abs(np.concatenate(values) - expect[name]).max() / expect[name].std()
            row["logits_difference"][name] = float(difference)
            row["logits_allowed"][name] = tolerance
            if key != "seed0" and difference > tolerance:
                allowed = max(tolerance, ROUNDINGS * rounding(model, images[:1]))
                row["logits_allowed"][name] = allowed if allowed <= CHAOS else None
    return row


def logits(model: Any, images: Any) -> list[Any]:
    """Of each head, the deployed one first."""
    import numpy as np

    outputs = model(images, training=False)
    return [np.asarray(head) for head in (outputs if isinstance(outputs, list) else [outputs])]


def rounding(model: Any, images: Any) -> float:
    """Difference of the logits to those of the same network in float64, in their std."""
    import keras
    import numpy as np

    import edgecls

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    exact = edgecls.build_model(model.name, auxiliary=len(model.outputs) > 1)
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    exact.set_weights([value.astype("float64") for value in model.get_weights()])
    expect = logits(exact, images.astype("float64"))[0]
    return float(np.abs(logits(model, images)[0] - expect).max() / expect.std())


def same_keras_file(model: Any, folder: Path) -> dict[str, Any]:
    """Save, load, compare logits bit by bit."""
    import keras
    import numpy as np

    image = np.random.default_rng(0).standard_normal((1, *model.input_shape[1:]), "float32")
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    equal = np.array_equal(model(image, training=False), again(image, training=False))
    (folder / "model.keras").unlink()
    return {"keras_equal": bool(equal)}


def same_tflite_file(model: Any, folder: Path) -> dict[str, Any]:
    """The fp32 file as export writes it: difference to Keras in its logits' std, and what XNNPACK takes."""
    import keras
    import numpy as np

    import edgecls
    from edgecls.export import inspect as files
    from edgecls.export.tflite import MAX_BYTES, convert
    from edgecls.zoo.layers import Normalize

    if 4 * model.count_params() >= MAX_BYTES:  # there is no such file
        return {"tflite_difference": None}
    entry = edgecls.model_info(model.name)
    normalize = Normalize(entry.mean, entry.std)
    image = keras.Input(model.input_shape[1:])
    pixels = keras.Model(image, model(normalize(image)), name=model.name)
    path = folder / "model.tflite"
    path.write_bytes(convert(edgecls.fuse(pixels), "fp32"))
    # Of a photograph's contrast: more of it drives EfficientNetB6 with these weights into chaos.
    noise = np.random.default_rng(0).normal(127.5, 32, (1, *model.input_shape[1:]))
    photo = np.clip(noise.round(), 0, 255).astype(np.uint8)
    (expect,) = logits(pixels, photo.astype("float32"))
    difference = float(np.abs(files.Runner(path, threads=2)(photo) - expect).max() / expect.std())
    allowed = 1e-4
    if difference > allowed:
        allowed = max(allowed, ROUNDINGS * rounding(model, np.asarray(normalize(photo.astype("float32")))))
    about = files.describe(path)
    return {
        "tflite_difference": difference,
        "tflite_allowed": allowed,
        "tflite_bytes": about["bytes"],
        "partitions": about["partitions"],
        "undelegated": about["undelegated"],
    }


def gradients(name: str) -> dict[str, Any]:
    """Parameters of the network with 42 classes that get a finite gradient other than zero in one of three tries."""
    import keras
    import numpy as np
    import tensorflow as tf

    import edgecls

    # 96 pixels leave 3x3 maps at the end: on a single cell a small batch normalizes everything away.
    size = None if name.startswith(("ViT", "DeiT")) else 96
    idle: set[str] | None = None
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        model = edgecls.build_model(name, classes=42, input_size=size, auxiliary=True)
        images = np.random.default_rng(seed).standard_normal((4, *model.input_shape[1:]), "float32")
        with tf.GradientTape() as tape:
            heads = tf.stack(tf.nest.flatten(model(images, training=True)))
            loss = tf.reduce_mean(heads * tf.random.stateless_normal(heads.shape, (seed, 2)))
        found = tape.gradient(loss, model.trainable_variables)
        bad = {
            v.path
            for v, g in zip(model.trainable_variables, found, strict=True)
            if g is None or not np.isfinite(g).all() or not np.any(g)
        }
        idle = bad if idle is None else idle & bad
        if not idle:
            break
    return {"without_gradient": sorted(idle or ())}


def failures(row: dict[str, Any]) -> list[str]:
    """What does not hold, in words."""
    differences, limits = row["logits_difference"], row["logits_allowed"]
    checks = {
        "parameters": row["params_equal"],
        "MACs": row["macs_equal"],
        "state": row["state_equal"],
        **{
            f"logits of {key}": differences[key] <= limit
            for key, limit in limits.items()
            if limit is not None
        },
        "gradients": not row["without_gradient"],
        ".keras": row["keras_equal"],
        ".tflite": row["tflite_difference"] is None
        or row["tflite_difference"] <= row["tflite_allowed"] <= CHAOS,
        "one partition": row["tflite_difference"] is None or row["partitions"] == 1,
    }
    return [what for what, holds in checks.items() if not holds]

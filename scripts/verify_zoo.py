"""Prove every network of the zoo against the reference, each in its own process.

    python scripts/verify_zoo.py ../shared/reference [--names 'MobileNetV3*'] [--jobs 2]

Per network: parameters, MACs, state names and shapes, logits for the reference's weights and inputs, a gradient to
every parameter with 42 classes, the .keras file (saved, loaded, equal bits) and the fp32 .tflite file (its logits
against Keras', XNNPACK partitions, batch 1). Networks with parallel branches are fused for the file, as export does.

Rows are kept in ``runs/verify_zoo``; a second start does only what is missing or whose network has changed since.
Writes docs/zoo.json and docs/zoo.md from all rows. Exit code 1 when a network fails.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any

ROOT = Path(__file__).parents[1]
ROWS, DOCS = ROOT / "runs" / "verify_zoo", ROOT / "docs"
LARGE = 150e6  # parameters; such networks run alone, for memory
# The reference allows this many times the difference between float32 and float64, which it measured for random pixels
# (``seed0``). Deep networks with random weights amplify rounding more on other inputs; there it is measured here.
ROUNDINGS = 20
CHAOS = 0.05  # of the logits' std; where float32 needs more room than this, a comparison tells nothing
DIFFERS = 4  # exit code of a network that was measured and does not hold; any other says that it could not be


def main() -> int:
    """Run what is missing, then write the documents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="folder with arch/, logits/ and fill.py")
    parser.add_argument("--names", default="*", help="only these, a shell pattern")
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time")
    parser.add_argument("--fresh", action="store_true", help="forget rows of earlier runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return verify(options.one, options.reference)
    archs = {path.stem: json.loads(path.read_text()) for path in (options.reference / "arch").glob("*.json")}
    names = sorted(fnmatch.filter(archs, options.names), key=lambda name: archs[name]["trainable_params"])
    ROWS.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for name in names:
            row_file(name).unlink(missing_ok=True)
    run_all(names, archs, options)
    rows = [json.loads(path.read_text()) for path in sorted(ROWS.glob("*.json"))]
    rows = [row for row in rows if row["name"] in archs]
    write("zoo.json", json.dumps({"schema": "edgecls.zoo/1", "networks": rows}, indent=1) + "\n")
    write("zoo.md", document(rows))
    bad = [name for name in names if not json.loads(row_file(name).read_text()).get("ok")]
    print(
        f"{len(names) - len(bad)} of {len(names)} networks hold" + "".join(f"\n  not: {name}" for name in bad)
    )
    return 1 if bad else 0


def run_all(names: list[str], archs: dict[str, Any], options: argparse.Namespace) -> None:
    """Verify ``names``, small ones side by side and large ones alone."""
    slots = Semaphore(options.jobs)

    def run(name: str) -> None:
        weight = options.jobs if archs[name]["trainable_params"] > LARGE else 1
        for _ in range(weight):
            slots.acquire()
        try:
            command = [sys.executable, __file__, str(options.reference), "--one", name]
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        finally:
            for _ in range(weight):
                slots.release()
        if done.returncode not in (0, DIFFERS):
            save({"name": name, "ok": False, "failed": [why_it_ended(done)]})
        row = json.loads(row_file(name).read_text())
        print(f"{name}: {'ok' if row['ok'] else row['failed']}, {row.get('seconds', 0):.0f} s", flush=True)

    # Sorted by size: the large ones, which take every slot, come last and never wait for each other.
    small = [name for name in names if archs[name]["trainable_params"] <= LARGE]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, small))
    for name in names[len(small) :]:
        run(name)


def why_it_ended(process: subprocess.CompletedProcess[str]) -> str:
    """Of a process that has not measured its network."""
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"killed by {name}" + ", as when memory runs out" * (name == "SIGKILL")
    return f"exit code {process.returncode}: {(process.stderr.strip() or 'nothing said').splitlines()[-1]}"


def verify(name: str, reference: Path) -> int:
    """Measure one network and write its row; nothing to do when the row is there and the network is the same."""
    import keras

    import edgecls

    started = time.monotonic()
    arch = json.loads((reference / "arch" / f"{name}.json").read_text())
    training_form = edgecls.build_model(name, auxiliary=True)
    model = keras.Model(training_form.inputs, training_form.outputs[0], name=name)
    digest = fingerprint(training_form)
    if row_file(name).exists() and json.loads(row_file(name).read_text()).get("digest") == digest:
        return 0
    row: dict[str, Any] = {"name": name, "family": edgecls.model_info(name).family, "digest": digest}
    row |= {"input_size": model.input_shape[1]}
    row |= same_structure(training_form, arch)
    fill_weights(training_form, arch, reference)
    with tempfile.TemporaryDirectory() as folder:
        # First, as the converter takes ten times the weights' memory, and TensorFlow keeps some for each model it runs.
        row |= same_tflite_file(model, Path(folder))
        row |= same_logits(training_form, arch, reference)
        row |= same_keras_file(model, Path(folder))
    del model, training_form
    keras.backend.clear_session()
    gc.collect()
    row |= gradients(name)
    row["failed"] = failures(row)
    save(row | {"ok": not row["failed"], "seconds": round(time.monotonic() - started, 1)})
    return DIFFERS if row["failed"] else 0


def fingerprint(model: Any) -> str:
    """Its configuration and the code of our layer classes in it and of the checks."""
    import keras

    config = json.dumps(keras.saving.serialize_keras_object(model)["config"], sort_keys=True, default=str)
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
    code = "".join(sorted(inspect.getsource(part) for part in (*kinds, *checks)))
    return hashlib.sha256((config + code).encode()).hexdigest()[:16]


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
    from edgecls.zoo.blocks import Normalize

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
    difference = float(np.abs(files.runner(path, threads=2)(photo) - expect).max() / expect.std())
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

    # 96 pixels leave 3x3 maps at the end: on a single cell a small batch normalises everything away.
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


def document(rows: list[dict[str, Any]]) -> str:
    """The table of docs/zoo.md."""
    measured = [row for row in rows if "params" in row]
    compared = sum(bool(row["logits_difference"]) for row in measured)
    lines = [
        "# The zoo, proved",
        "",
        f"Written by `scripts/verify_zoo.py`; every figure is measured. {sum(row['ok'] for row in rows)} of "
        f"{len(rows)} networks hold; {compared} have the original's logits to compare with.",
        "",
        "- **logits**: largest difference to the original's for equal weights, in thousandths of their standard "
        "deviation, for random pixels and for blocks of two colors (and for auxiliary heads); beside it what is "
        f"allowed: 0.1, or {ROUNDINGS} times the network's own difference between float32 and float64. `chaos`: that is "
        f"more than {1e3 * CHAOS:.0f}, as random weights amplify rounding on this input; nothing is compared on it.",
        "- **gradient**: every parameter of the network with 42 classes gets one that is finite and not zero.",
        "- **.keras**: saved and loaded, it computes the same bits.",
        "- **.tflite**: fp32, batch 1, as `edgecls export` writes it: difference to Keras in the same unit, XNNPACK "
        "partitions, MB. The format ends at 2 GiB; a larger network has none.",
        "",
        "| network | input | parameters | MACs | state | logits | allowed | gradient | .keras | .tflite | parts | MB | holds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(measured, key=lambda row: (row["family"], row["name"])):
        tflite: tuple[Any, ...] = ("-", "-", "over 2147")
        if row["tflite_difference"] is not None:
            megabytes = f"{row['tflite_bytes'] / 1e6:.1f}"
            tflite = (f"{1e3 * row['tflite_difference']:.3f}", row["partitions"], megabytes)
        cells = (
            row["name"],
            row["input_size"],
            f"{row['params']:,}" + mark(row["params_equal"]),
            f"{row['macs']:,}" + mark(row["macs_equal"]),
            str(row["state_entries"]) + mark(row["state_equal"]),
            " / ".join(f"{1e3 * value:.3f}" for value in row["logits_difference"].values()) or "-",
            " / ".join("chaos" if v is None else f"{1e3 * v:.3f}" for v in row["logits_allowed"].values())
            or "-",
            "yes" if not row["without_gradient"] else f"not to {len(row['without_gradient'])}",
            "yes" if row["keras_equal"] else "**no**",
            *tflite,
            "yes" if row["ok"] else "**no**: " + ", ".join(row["failed"]),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [
        f"\n{row['name']} could not be measured: {', '.join(row['failed'])}"
        for row in rows
        if row not in measured
    ]
    return "\n".join(lines) + "\n"


def mark(equal: bool) -> str:
    """A figure that is not the original's stands out."""
    return "" if equal else " **(differs)**"


def row_file(name: str) -> Path:
    """Where the row of a network is kept."""
    return ROWS / f"{name}.json"


def save(row: dict[str, Any]) -> None:
    """Write a row and only then give it its name."""
    partial = row_file("." + row["name"])
    partial.write_text(json.dumps(row, indent=1) + "\n")
    partial.replace(row_file(row["name"]))


def write(name: str, text: str) -> None:
    """Write a document, likewise."""
    DOCS.mkdir(exist_ok=True)
    partial = DOCS / f".{name}"
    partial.write_text(text)
    partial.replace(DOCS / name)


if __name__ == "__main__":
    raise SystemExit(main())

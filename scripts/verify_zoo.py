"""Prove every network of the zoo against the reference, each in its own process.

    python scripts/verify_zoo.py ../shared/reference [--names 'MobileNetV3*'] [--jobs 2]

Per network: parameters, MACs, state names and shapes, logits for the reference's weights and inputs, a gradient to
every parameter with 42 classes, the .keras file (saved, loaded, equal bits) and the fp32 .tflite file (its logits
against Keras', XNNPACK partitions, batch 1). Networks with parallel branches are fused for the file, as export does.

Rows are kept in ``runs/verify_zoo``, and a first start takes those of docs/zoo.json. Only what is missing or whose
network has changed since is measured. Writes docs/zoo.json and docs/zoo.md from all rows. Exit code 1 when a network
fails. What is measured is in ``zoo_checks.py``.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
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

from zoo_checks import (
    CHAOS,
    ROUNDINGS,
    failures,
    fill_weights,
    fingerprint,
    gradients,
    same_keras_file,
    same_logits,
    same_structure,
    same_tflite_file,
)

ROOT = Path(__file__).parents[1]
ROWS, DOCS = ROOT / "runs" / "verify_zoo", ROOT / "docs"
LARGE = 150e6  # parameters; such networks run alone, for memory
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
    if not ROWS.exists():
        ROWS.mkdir(parents=True)
        for row in json.loads((DOCS / "zoo.json").read_text())["networks"]:
            save(row)
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

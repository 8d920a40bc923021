"""int8 of every network of the zoo and of keras.applications' convolutional ones, at reduced input: docs/int8.md.

    python scripts/verify_int8.py                    # what is missing or was made by other code: a small one of each family first
    python scripts/verify_int8.py 'MobileNetV3*'     # names that fit
    python scripts/verify_int8.py --table            # only write the page again

For each network with random weights: float operations in the file, delegate partitions, the largest distance to the QAT
twin in steps, over how many steps a logit spreads between the images (else equality would prove nothing), sizes. A killed
run goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TABLE, PAGE = ROOT / "docs" / "int8.json", ROOT / "docs" / "int8.md"
APPLICATIONS = {  # and their parameters in millions, as keras.io has them: small ones come first
    "DenseNet121": 8.1,
    "DenseNet169": 14.3,
    "DenseNet201": 20.2,
    "EfficientNetB0": 5.3,
    "EfficientNetB1": 7.9,
    "EfficientNetB2": 9.2,
    "EfficientNetB3": 12.3,
    "EfficientNetB4": 19.5,
    "EfficientNetB5": 30.6,
    "EfficientNetB6": 43.3,
    "EfficientNetB7": 66.7,
    "EfficientNetV2B0": 7.2,
    "EfficientNetV2B1": 8.2,
    "EfficientNetV2B2": 10.2,
    "EfficientNetV2B3": 14.5,
    "EfficientNetV2L": 119.0,
    "EfficientNetV2M": 54.4,
    "EfficientNetV2S": 21.6,
    "InceptionResNetV2": 55.9,
    "InceptionV3": 23.9,
    "MobileNet": 4.3,
    "MobileNetV2": 3.5,
    "MobileNetV3Large": 5.4,
    "MobileNetV3Small": 2.9,
    "NASNetLarge": 88.9,
    "NASNetMobile": 5.3,
    "ResNet101": 44.7,
    "ResNet101V2": 44.7,
    "ResNet152": 60.4,
    "ResNet152V2": 60.4,
    "ResNet50": 25.6,
    "ResNet50V2": 25.6,
    "VGG16": 138.4,
    "VGG19": 143.7,
    "Xception": 22.9,
}
PREFIX = "keras.applications."
SIZES = (64, 96, 128, 224)  # the first that a network takes
IMAGES, CLASSES = 8, 1000
LARGE, LARGEST_RATIO = 2_000_000, 0.27  # parameters above which a file must be that small against float
LEAST_SPREAD = 10  # steps
TIME_LIMIT = 3600  # seconds a network


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(check(options.one)))
        return
    rows = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    code = fingerprint()
    wanted = [name for name in names() if any(fnmatchcase(name, pattern) for pattern in options.patterns)]
    todo = [] if options.table else [name for name in wanted if rows.get(name, {}).get("code") != code]
    todo = in_turn(todo)
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, row in zip(todo, pool.map(in_a_process, todo), strict=True):
            rows[name] = row | {"code": code}
            print(name, json.dumps(row), flush=True)
            write(rows)
    write(rows)


def names() -> list[str]:
    """All networks, those of the zoo first."""
    import edgecls

    return [*edgecls.list_models(), *(PREFIX + name for name in APPLICATIONS)]


def size_of(name: str) -> float:
    """Parameters in millions."""
    import edgecls

    if name.startswith(PREFIX):
        return APPLICATIONS[name.removeprefix(PREFIX)]
    return edgecls.model_info(name).params / 1e6


def in_turn(wanted: list[str]) -> list[str]:
    """The smallest network of each family, then the others, small ones first."""
    seen: Counter[str] = Counter()
    rank = {}
    for name in sorted(wanted, key=size_of):
        rank[name] = seen[family(name)] > 0
        seen[family(name)] += 1
    return sorted(wanted, key=lambda name: (rank[name], size_of(name)))


def family(name: str) -> str:
    """The family in the zoo; of keras.applications, the name without numbers."""
    import edgecls

    return name.rstrip("0123456789") if name.startswith(PREFIX) else edgecls.model_info(name).family


def fingerprint() -> str:
    """A hash of the code that the figures depend on."""
    files = [ROOT / "edgecls" / "export" / f"{part}.py" for part in ("tflite", "heads", "metadata")]
    for package in ("quantize", "zoo"):
        files += sorted((ROOT / "edgecls" / package).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def in_a_process(name: str) -> dict[str, Any]:
    """The row of a network; the converter leaks memory, so each has a process of its own."""
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {TIME_LIMIT} s"}
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 and lines else {"error": _last(done.stderr)}


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:300]


def check(name: str) -> dict[str, Any]:
    """Quantize, export and compare one network."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    import edgecls
    from edgecls.errors import EdgeclsError
    from edgecls.export import inspect, verify
    from edgecls.reparam import fuse

    start = time.monotonic()
    keras.utils.set_random_seed(0)
    model, size = build(name)
    model = fuse(model)
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8)
    pixels = noise.astype(np.float32)
    settle(model, pixels)
    row: dict[str, Any] = {"params": model.count_params(), "size": size}
    try:
        twin = edgecls.quantize_model(model)
    except EdgeclsError as error:
        return row | {"error": str(error)}
    edgecls.calibrate(twin, [pixels])
    with tempfile.TemporaryDirectory() as folder:
        int8 = edgecls.export_tflite(twin, Path(folder) / "int8.tflite")
        fp32 = edgecls.export_tflite(model, Path(folder) / "fp32.tflite")
        rung = verify.ladder(noise, qat_model=twin, int8=int8)["rungs"][0]
        file, ratio = inspect.describe(int8), int8.stat().st_size / fp32.stat().st_size
        spread = np.ptp(inspect.Runner(int8)(noise), axis=0).max() / inspect.output_step(int8)
    return row | {
        "float_ops": file["float_ops"],
        "partitions": file["partitions"],
        "undelegated": file["undelegated"],
        "steps": rung["max_steps"],
        "spread": round(float(spread)),
        "size_ratio": round(ratio, 3),
        "seconds": round(time.monotonic() - start),
    }


def build(name: str) -> tuple[Any, int]:
    """The network at the smallest input that it takes."""
    import keras

    import edgecls

    errors = []
    for size in SIZES:
        try:
            if name.startswith(PREFIX):
                make = getattr(keras.applications, name.removeprefix(PREFIX))
                return make(input_shape=(size, size, 3), weights=None, classes=CLASSES), size
            return edgecls.build_model(name, CLASSES, size, include_preprocessing=True), size
        except ValueError as error:  # too small
            errors.append(error)
    raise errors[-1]


def settle(model: Any, pixels: Any) -> None:
    """Make running statistics those of the images, so that values have a healthy size everywhere."""
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(pixels, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def write(rows: dict[str, Any]) -> None:
    """The table as JSON and as a page, in the catalog's order."""
    ordered = {name: rows[name] for name in names() if name in rows}
    for path, text in (
        (TABLE, json.dumps(ordered, indent=1) + "\n"),
        (PAGE, "\n".join(page(ordered, len(names()))) + "\n"),
    ):
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def page(rows: dict[str, Any], all_names: int) -> Iterator[str]:
    """The lines of docs/int8.md; ``all_names`` networks could be in it."""
    good = [name for name, row in rows.items() if not faults(row)]
    yield "# Networks in int8"
    yield ""
    yield "Written by `scripts/verify_int8.py`: random weights, small images, ai-edge-litert with XNNPACK on this kind of"
    yield "computer. Each file is compared with its QAT twin; a step is one of the int8 logits. The one operation outside"
    yield "of the delegate is the QUANTIZE of uint8 pixels. The spread is how many steps a logit differs between the images."
    yield ""
    if len(rows) < all_names:
        yield f"**This table is partial: {len(rows)} of {all_names} networks have been tried so far.**"
        yield ""
    yield f"{len(good)} of {len(rows)} networks that were tried hold: no float operation but a softmax at the end, one"
    yield f"partition, at most 1 step of a spread of {LEAST_SPREAD} or more, and from {LARGE // 1_000_000} million parameters on at most"
    yield f"{LARGEST_RATIO} of the float file."
    yield ""
    yield "| network | parameters | pixels | float operations | partitions | steps | spread | int8 / fp32 | holds |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, row in rows.items():
        if "error" in row:
            yield f"| {name} | {row.get('params', '')} | {row.get('size', '')} | {row['error']} | | | | | no |"
            continue
        floats = ", ".join(row["float_ops"]) or "none"
        cells = [name, row["params"], row["size"], floats]
        cells += [row[key] for key in ("partitions", "steps", "spread", "size_ratio")]
        wrong = faults(row)
        yield f"| {' | '.join(map(str, cells))} | {'no: ' + ', '.join(wrong) if wrong else 'yes'} |"


def faults(row: dict[str, Any]) -> list[str]:
    """In what a network is not what the contract says."""
    if "error" in row:
        return [row["error"]]
    outside = sorted({*row["undelegated"]} - {"QUANTIZE"})
    checks = {
        "float operations": bool(row["float_ops"]),
        "partitions": row["partitions"] != 1,
        f"outside of the delegate: {', '.join(outside)}": bool(outside),
        "steps": row["steps"] >= 1.5,
        "spread": row["spread"] < LEAST_SPREAD,
        "size": row["params"] >= LARGE and row["size_ratio"] > LARGEST_RATIO,
    }
    return [fault for fault, found in checks.items() if found]


if __name__ == "__main__":
    main()

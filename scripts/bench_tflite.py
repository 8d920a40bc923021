"""Latency of our files beside those that TensorFlow's converter makes of the same networks of ``keras.applications``.

    python scripts/bench_tflite.py [--networks MobileNetV3Small,MobileNetV3Large] [--threads 1,2] [--size 224]

All files take turns in one session of ``android_bench`` on this computer. Weights are random: latency does not depend on
them. Stock int8 is what TensorFlow's guide to post-training quantization makes: full integer, calibrated on noise.
Prints a table of ratios; ``--json`` writes the figures too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

PAIRS = {  # keras.applications: the same network in our zoo
    "MobileNetV3Small": "MobileNetV3_small_x1_0",
    "MobileNetV3Large": "MobileNetV3_large_x1_0",
    "MobileNetV2": "MobileNetV2",
    "ResNet50": "ResNet50",
    "EfficientNetB0": "EfficientNetB0",
    "DenseNet121": "DenseNet121",
    "InceptionV3": "InceptionV3",
}
PRECISIONS = ("fp32", "int8")
_CALIBRATION = 4  # images of noise


def write_stock(name: str, size: int, folder: Path) -> None:
    """``stock_<name>_<precision>.tflite`` from TensorFlow's converter."""
    import keras
    import numpy as np
    import tensorflow as tf

    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    images = np.random.default_rng(0).uniform(0, 255, (_CALIBRATION, 1, size, size, 3)).astype(np.float32)
    for precision in PRECISIONS:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        (folder / f"stock_{name}_{precision}.tflite").write_bytes(converter.convert())


def table(results: list[dict[str, Any]]) -> str:
    """Milliseconds and the ratio ours / stock, by network, precision and threads."""
    ms = {(r["model"], r["threads"]): r for r in results}
    rows = [
        "| network | precision | threads | ours, ms | stock, ms | ours / stock |",
        "|---|---|---|---|---|---|",
    ]
    for (model, threads), ours in ms.items():
        if not model.startswith("ours_"):
            continue
        stock = ms[model.replace("ours_", "stock_"), threads]
        network, precision = model.removeprefix("ours_").removesuffix(".tflite").rsplit("_", 1)
        if "failed" in (ours["status"], stock["status"]):
            rows.append(f"| {network} | {precision} | {threads} | failed | | |")
            continue
        ratio = ours["median_ms"] / stock["median_ms"]
        unsure = " (unsure)" if "unsure" in (ours["status"], stock["status"]) else ""
        rows.append(
            f"| {network} | {precision} | {threads} | {ours['median_ms']:.2f} | {stock['median_ms']:.2f} |"
            f" {ratio:.2f}{unsure} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(PAIRS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    from android_bench import bench
    from edgecls.environment import cpu_flags, cpu_model, int8_instructions
    from edgecls.export.fresh import write_fresh
    from edgecls.quiet import import_tensorflow

    import_tensorflow()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in args.networks.split(","):
            print(f"making the files of {network}", flush=True)
            write_stock(network, args.size, folder)
            failed = write_fresh(PAIRS[network], folder, PRECISIONS, args.size)
            for precision in PRECISIONS:
                if precision in failed:
                    print(f"{network} {precision}: {failed[precision]}", flush=True)
                    (folder / f"stock_{network}_{precision}.tflite").unlink()
                else:
                    ours = folder / f"{PAIRS[network]}_{precision}.tflite"
                    ours.rename(folder / f"ours_{network}_{precision}.tflite")
        document = bench([folder], "host", args.threads)
    fast = int8_instructions(cpu_flags()) or "no int8 instructions"
    print(f"\n{cpu_model()}, {fast}, {args.size} pixels\n\n{table(document['results'])}")
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Latency of our files beside those that TensorFlow's converter makes of the same network.

    python scripts/bench_tflite.py [--networks 'keras MobileNetV2' 'zoo MobileNetV2'] [--threads 1,2] [--write]

Networks are those of ``keras.applications``, in float and int8, and the zoo's, in float alone. The two files of a network
take turns, inference by inference, so that what slows the computer slows both; a ratio is the median of ten blocks', told
with the least and the largest. Weights are random: latency does not depend on them. Stock int8 is what TensorFlow's guide to
post-training quantization makes: full integer, calibrated on noise. Ours take pixels as bytes and normalize, the stock
float ones take float pixels.

``--write`` puts the table into docs/quantize.md, which has one of computers with int8 instructions and one of others. The
exit code is 1 if all blocks' ratios are above what they may be. About 15 minutes for all networks on two cores, most of them for making the files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import marked
import numpy as np

PAGE = Path(__file__).parents[1] / "docs" / "quantize.md"
BEGIN = "<!-- speed {}: scripts/bench_tflite.py --write -->"  # a table for each kind of computer
END = "<!-- end of speed -->"
APPLICATIONS = (
    "MobileNetV3Small", "MobileNetV3Large", "MobileNetV2", "ResNet50", "EfficientNetB0", "DenseNet121", "InceptionV3"
)  # fmt: skip
ZOO = ("MobileNetV3_small_x1_0", "MobileNetV3_large_x1_0", "MobileNetV2", "ResNet50", "EfficientNetB0")
MOST = {"MobileNetV3Small": (0.50, 0.35), "MobileNetV3Large": (0.60, 0.40)}
"""Most that the ratio of int8 may be, without and with VNNI; 1 for all others."""
INT8, NO_INT8 = "with int8 instructions", "no int8 instructions"
CALIBRATION = 4  # images of noise
BLOCKS, ROUNDS = 10, 10
NETWORKS = (*(f"keras {name}" for name in APPLICATIONS), *(f"zoo {name}" for name in ZOO))


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", default=NETWORKS, choices=NETWORKS, metavar="'keras NAME' | 'zoo NAME'"
    )
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--write", action="store_true", help="put the table into docs/quantize.md")
    options = parser.parse_args()

    from edgecls.quiet import import_tensorflow

    import_tensorflow()
    about, kind = computer()
    rows = [
        f"{about}, {options.size} pixels:",
        "",
        "| network | precision | threads | ours, ms | stock, ms | ours / stock | from, to |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    good, threads = True, [int(count) for count in options.threads.split(",")]
    for network in options.networks:
        for row, least, precision in measured(network, threads, options.size):
            print(row, flush=True)
            rows.append(row)
            name = network.partition(" ")[2]
            most = MOST[name][kind == INT8] if precision == "int8" and name in MOST else 1.0
            good &= least <= most
    text = "\n".join(rows)
    print(f"\n{text}")
    if options.write:
        marked.rewrite(PAGE, BEGIN.format(kind), END, text)
    return 0 if good else 1


def computer() -> tuple[str, str]:
    """What this computer is, and its kind: of those with int8 instructions or of the others."""
    from edgecls.environment import cpu_flags, cpu_model, int8_instructions

    fast = int8_instructions(cpu_flags())
    return f"{cpu_model()}, {fast or NO_INT8}", INT8 if fast else NO_INT8


def measured(network: str, threads: Sequence[int], size: int) -> Iterator[tuple[str, float, str]]:
    """For each precision and number of threads: a row, the least ratio of a block, the precision."""
    kind, _, name = network.partition(" ")
    for precision in ("fp32", "int8") if kind == "keras" else ("fp32",):
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(kind, name, precision, size, Path(folder))
            for count in threads:
                ours, stock = (np.median(times, axis=1) for times in by_turns(files, count))
                blocks = ours / stock
                yield (
                    f"| {network} | {precision} | {count} | {np.median(ours):.2f} | {np.median(stock):.2f} "
                    f"| {np.median(blocks):.2f} | {blocks.min():.2f} to {blocks.max():.2f} |",
                    float(blocks.min()),
                    precision,
                )


def by_turns(files: Sequence[Path], threads: int) -> np.ndarray:
    """Latencies of files that take turns, ms: [files, blocks, rounds]. Before each that counts is one that does not."""
    from ai_edge_litert.interpreter import Interpreter

    rng, interpreters = np.random.default_rng(0), []
    for file in files:
        interpreter = Interpreter(str(file), num_threads=threads)
        interpreter.allocate_tensors()
        (pixels,) = interpreter.get_input_details()
        noise = rng.integers(0, 256, pixels["shape"]).astype(pixels["dtype"])
        interpreter.set_tensor(pixels["index"], noise)
        interpreters.append(interpreter)
    times = np.empty((len(files), BLOCKS, ROUNDS))
    for block, turn in np.ndindex(BLOCKS, ROUNDS):
        for index, interpreter in enumerate(interpreters):
            interpreter.invoke()
            started = time.perf_counter()
            interpreter.invoke()
            times[index, block, turn] = 1000 * (time.perf_counter() - started)
    return times


def write_files(kind: str, name: str, precision: str, size: int, folder: Path) -> list[Path]:
    """Our file of a network, and the stock one."""
    import keras
    import tensorflow as tf

    import edgecls
    from edgecls.reparam import fuse

    keras.utils.set_random_seed(0)
    if kind == "zoo":
        model = fuse(edgecls.build_model(name, input_size=size, include_preprocessing=True))
    else:
        model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (CALIBRATION, 1, size, size, 3)).astype(np.float32)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    ours = model
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in pixels)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        ours = edgecls.quantize_model(model)
        edgecls.calibrate(ours, list(pixels), "minmax")
    files = [folder / "ours.tflite", folder / "stock.tflite"]
    edgecls.export_tflite(ours, files[0])
    files[1].write_bytes(converter.convert())
    keras.backend.clear_session()
    return files


if __name__ == "__main__":
    raise SystemExit(main())

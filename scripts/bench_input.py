"""What taking pixels as bytes costs a file: cast and normalization in fp32, the QUANTIZE of bytes in int8.

    python scripts/bench_input.py [--threads 1,2] [--write]

A file takes turns, inference by inference, with itself less all that stands before its first convolution. The share is
what the second saves, the median of ten blocks, told with the least and the largest. MobileNetV3-Small at 224 pixels with
ImageNet's mean and deviation, random weights. ``--write`` puts the table into docs/quantize.md, which has one of computers
with int8 instructions and one of others.

The exit code is 1 if all blocks' shares are above what they may be: 3 % in fp32, 6 % in int8.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import bench_tflite
import marked
import numpy as np

BEGIN = "<!-- input {}: scripts/bench_input.py --write -->"
END = "<!-- end of input -->"
NETWORK, SIZE = "MobileNetV3_small_x1_0", 224
FIRST = {"CONV_2D", "PAD"}  # padding is a part of the convolution in XNNPACK
MOST = {"fp32": 0.03, "int8": 0.06}


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--write", action="store_true", help="put the table into docs/quantize.md")
    options = parser.parse_args()

    from edgecls.quiet import import_tensorflow

    import_tensorflow()
    about, kind = bench_tflite.computer()
    rows = [
        f"{about}, {NETWORK}, {SIZE} pixels:",
        "",
        "| precision | threads | before the first convolution | file, ms | without, ms | share | from, to |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    good = True
    for row, least, precision in measured([int(count) for count in options.threads.split(",")]):
        rows.append(row)
        good &= least <= MOST[precision]
    text = "\n".join(rows)
    print(text)
    if options.write:
        marked.rewrite(bench_tflite.PAGE, BEGIN.format(kind), END, text)
    return 0 if good else 1


def measured(threads: Sequence[int]) -> Iterator[tuple[str, float, str]]:
    """For each precision and number of threads: a row, the least share of a block, the precision."""
    with tempfile.TemporaryDirectory() as folder:
        for precision, file in write_files(Path(folder)).items():
            content, operators = without_input(file.read_bytes())
            bare = file.with_suffix(".bare.tflite")
            bare.write_bytes(content)
            for count in threads:
                whole, without = np.median(bench_tflite.by_turns([file, bare], count), axis=2)
                shares = 1 - without / whole
                yield (
                    f"| {precision} | {count} | {', '.join(operators)} | {np.median(whole):.2f} | {np.median(without):.2f} "
                    f"| {np.median(shares):.1%} | {shares.min():.1%} to {shares.max():.1%} |",
                    float(shares.min()),
                    precision,
                )


def write_files(folder: Path) -> dict[str, Path]:
    """The network's file in each precision."""
    import keras

    import edgecls

    keras.utils.set_random_seed(0)
    model = edgecls.build_model(NETWORK, input_size=SIZE, include_preprocessing=True)
    twin = edgecls.quantize_model(model)
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.float32)
    edgecls.calibrate(twin, [pixels], "minmax")
    networks = {"fp32": model, "int8": twin}
    return {name: edgecls.export_tflite(networks[name], folder / f"{name}.tflite") for name in MOST}


def without_input(content: bytes) -> tuple[bytes, Sequence[str]]:
    """A file that begins with its first convolution, and the names of the operators that it has lost."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    from edgecls.export import flatbuffer

    names = {code: name for name, code in vars(BuiltinOperator).items() if not name.startswith("_")}
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    kinds = [names[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in graph.operators]
    first = next(i for i, kind in enumerate(kinds) if kind in FIRST)
    graph.inputs = graph.operators[first].inputs[:1]
    graph.operators = graph.operators[first:]
    model.signatureDefs = []
    return flatbuffer.pack(model, 2 * len(content)), kinds[:first]


if __name__ == "__main__":
    raise SystemExit(main())

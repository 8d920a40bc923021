"""Peak memory of whole commands: `edgecls train` and `edgecls quantize` with photographs that a camera could have made.

    python scripts/bench_memory.py [--write]

Each command runs for one epoch in a process of its own, on 180 photographs of 640 x 480 pixels in two classes (noise: only
their size counts) and with batches of 32. What is told is the most memory that the process had at a time, as the system
counts it. ``--write`` puts the table into docs/time_and_memory.md. About ten minutes on two cores; it may run beside other
work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import marked
import numpy as np
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "time_and_memory.md"
MARKS = "<!-- memory of commands: scripts/bench_memory.py --write -->", "<!-- end of memory of commands -->"
PHOTOS, SIZE = 180, (480, 640)
NETWORKS = ("MobileNetV3_small_x1_0", "EfficientNetLite0", "MobileNetV3_large_x1_0")
QUANTIZED = "EfficientNetLite0"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{PAGE.name}")
    options = parser.parse_args()
    rows = ["| network, 224 pixels | MiB |", "|---|--:|"]
    with tempfile.TemporaryDirectory(prefix="bench_memory_") as name:
        folder = Path(name)
        make_photos(folder / "photos")
        for network in NETWORKS:
            rows.append(f"| {network} | {train(folder, network):,.0f} |")
            print(rows[-1], flush=True)
        rows.append(f"| {QUANTIZED}, `edgecls quantize` | {quantize(folder, QUANTIZED):,.0f} |")
    text = "\n".join(rows)
    print(text)
    if options.write:
        marked.rewrite(PAGE, *MARKS, text)


def make_photos(folder: Path) -> None:
    """Write the photographs."""
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        file = folder / f"{number % 2}" / f"{number:03}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(file, quality=90)


def train(folder: Path, network: str) -> float:
    """Peak of a training of one epoch, MiB."""
    keys = {
        "name": network,
        "data.path": folder / "photos",
        "train.epochs": 1,
        "train.batch_size": 32,
        "model.name": network,
        "model.weights": "null",
    }
    return peak_mib(["train", "base", *(f"-o{key}={value}" for key, value in keys.items())], folder)


def quantize(folder: Path, network: str) -> float:
    """Peak of an epoch of quantization-aware training of what ``train`` made, MiB."""
    return peak_mib(["quantize", f"runs/{network}", "-oquantize.train.epochs=1"], folder)


def peak_mib(arguments: list[str], folder: Path) -> float:
    """The most memory that a command has at a time, MiB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecls", *arguments], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"bench_memory: edgecls {' '.join(arguments)} failed")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()

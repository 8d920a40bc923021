"""How long a data set of 1.3 million listed images takes to load, and what memory it needs.

    python scripts/bench_lists.py

Writes lists as people have them: as many training images as ImageNet-1k has, and 50,000 images each to validate and to
test with. Each form of list is loaded twice with ``load_dataset``, in processes of their own, as every command does it
before its work begins; the faster one counts. The validation and test images are there and were decoded by a load that is
not measured; of the training images only some are there, because a list of so many is not looked up. Fails if a form
takes more than 5 seconds of processor time (on an idle computer that is about the time it takes), or more memory than its
limit.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

LINES = 1_300_000
HELD_OUT = 50_000
CLASSES = 1000
LIMIT_S = 5.0
LIMIT_MIB = 700
FORMS = {  # a line, and the header
    "path label": ("{path} {number}\n", ""),
    "CSV with a header": ("{number},{path}\n", "label,path\n"),
    "tabs, names": ("{path}\tclass {number}\n", ""),
}


def main() -> None:
    result, failed = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["EDGECLS_CACHE"] = str(folder / "cache")
        _make_images(folder)
        for number, (form, (line, header)) in enumerate(FORMS.items()):
            for purpose, count in (("train", LINES), ("val", HELD_OUT), ("test", HELD_OUT)):
                rows = (line.format(path=_image(purpose, i), number=i % CLASSES) for i in range(count))
                (folder / f"{purpose}.txt").write_text(header + "".join(rows))
            if number == 0:
                _load(folder)  # decodes the images of val and test
            loads = [_load(folder) for _ in range(2)]
            row = result[form] = min(loads, key=lambda load: load["processor_seconds"])
            if row["processor_seconds"] > LIMIT_S:
                failed.append(f"{form}: more than {LIMIT_S:g} s of processor time")
            if row["MiB"] > LIMIT_MIB:
                failed.append(f"{form}: more than {LIMIT_MIB} MiB")
    print(json.dumps(result, indent=2))
    sys.exit("\n".join(failed) or 0)


def _load(folder: Path) -> dict[str, float]:
    """``measure`` in a process of its own."""
    command = [sys.executable, __file__, str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _image(purpose: str, i: int) -> str:
    return f"{purpose}/n{i % CLASSES:08}/n{i % CLASSES:08}_{i}.JPEG"


def _make_images(folder: Path) -> None:
    """Different small photos to validate and test with, and a sample of the training images."""
    rng = np.random.default_rng(0)
    for purpose in ("train", "val", "test"):
        for i in range(CLASSES):
            (folder / _image(purpose, i)).parent.mkdir(parents=True)
    for purpose in ("val", "test"):
        for i in range(HELD_OUT):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            cv2.imencode(".jpg", pixels)[1].tofile(folder / _image(purpose, i))
    for i in range(0, LINES, 200):
        (folder / _image("train", i)).touch()


def measure(folder: Path) -> dict[str, float]:
    """Seconds and MiB to load the lists of a folder."""
    from edgecls.data.sources import load_dataset
    from edgecls.recipe import Data

    before = peak_mib()
    started, busy = time.perf_counter(), time.process_time()
    paths = {"path": "train.txt", "val_path": "val.txt", "test_path": "test.txt"}
    data = load_dataset(Data(source="list", **{key: str(folder / name) for key, name in paths.items()}))
    row = {
        "images": LINES + 2 * HELD_OUT,
        "processor_seconds": round(time.process_time() - busy, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "MiB": round(peak_mib() - before),
    }
    assert [len(data.train), len(data.val), len(data.test)] == [LINES, HELD_OUT, HELD_OUT]
    assert len(data.classes) == CLASSES and not data.bad
    return row


def peak_mib() -> float:
    """The most memory this program has had; ``ru_maxrss`` would begin with that of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]))))
    else:
        main()

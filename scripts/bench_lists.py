"""How long a list of 1.3 million images takes to load, and what memory it needs.

    python scripts/bench_lists.py

Writes lists as people have them for as many images as ImageNet-1k has, reads each in a process of its own, and fails if
one takes more than five seconds. Only some of the images are there: a reader looks at a sample.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 5.0
LINES = 1_300_000
FORMS = {
    "path label": ("train/n{:08}/n{:08}_{}.JPEG {}\n", ""),
    "CSV with a header": ("{3},train/n{0:08}/n{1:08}_{2}.JPEG\n", "label,path\n"),
    "tabs, names": ("train/n{:08}/n{:08}_{}.JPEG\tclass {}\n", ""),
}


def main() -> None:
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(0, LINES, 200):  # so that a sample of the paths is there
            image = folder / _image(i)
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
        for form, (line, header) in FORMS.items():
            path = folder / "list.txt"
            path.write_text(header + "".join(_format(line, i) for i in range(LINES)))
            output = subprocess.run(
                [sys.executable, __file__, str(path)], check=True, capture_output=True, text=True
            )
            result[form] = json.loads(output.stdout)
    print(json.dumps(result, indent=2))
    slow = [form for form, row in result.items() if row["seconds"] > LIMIT_S]
    sys.exit(f"more than {LIMIT_S:g} s: {', '.join(slow)}" if slow else 0)


def _format(line: str, i: int) -> str:
    return line.format(i % 1000, i % 1000, i, i % 1000)


def _image(i: int) -> str:
    return f"train/n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG"


def measure(path: Path) -> dict[str, float]:
    """Seconds and MiB to read a list and number its labels."""
    from edgecls.data.readers import read
    from edgecls.recipe import Data

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    contents = read(Data(source="list", path=str(path)))
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(contents.parts["train"].names) == LINES and len(contents.classes) == 1000
    return {"images": LINES, "seconds": round(seconds, 2), "MiB": round((after - before) / 1024)}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]))))
    else:
        main()

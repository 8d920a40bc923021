"""How long a list of 1.3 million images takes to load, and what memory it needs.

    python scripts/bench_lists.py

Writes lists as people have them for as many images as ImageNet-1k has, and reads each in a process of its own. Fails if
one takes more than its limit of processor time (one thread reads, so on an idle computer that is the time it takes), or
more memory than its limit. Only some of the images are there: a reader looks at a sample.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINES = 1_300_000
LIMIT_MIB = 500
FORMS = {  # a line, the header, and the most seconds
    "path label": ("{path} {number}\n", "", 2.5),
    "CSV with a header": ("{number},{path}\n", "label,path\n", 4.0),
    "tabs, names": ("{path}\tclass {number}\n", "", 4.0),
}


def main() -> None:
    result, failed = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(0, LINES, 200):  # so that a sample of the paths is there
            image = folder / _image(i)
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
        for form, (line, header, limit_s) in FORMS.items():
            path = folder / "list.txt"
            path.write_text(
                header + "".join(line.format(path=_image(i), number=i % 1000) for i in range(LINES))
            )
            output = subprocess.run(
                [sys.executable, __file__, str(path)], check=True, capture_output=True, text=True
            )
            row = result[form] = json.loads(output.stdout)
            if row["processor_seconds"] > limit_s:
                failed.append(f"{form}: more than {limit_s:g} s of processor time")
            if row["MiB"] > LIMIT_MIB:
                failed.append(f"{form}: more than {LIMIT_MIB} MiB")
    print(json.dumps(result, indent=2))
    sys.exit("\n".join(failed) or 0)


def _image(i: int) -> str:
    return f"train/n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG"


def measure(path: Path) -> dict[str, float]:
    """Seconds and MiB to read a list and number its labels."""
    from edgecls.data.readers import read
    from edgecls.recipe import Data

    before = peak_mib()
    started, busy = time.perf_counter(), time.process_time()
    contents = read(Data(source="list", path=str(path)))
    row = {
        "images": LINES,
        "processor_seconds": round(time.process_time() - busy, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "MiB": round(peak_mib() - before),
    }
    assert len(contents.parts["train"].names) == LINES and len(contents.classes) == 1000
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

"""How long does it take to read a program's output, and how much memory? Outputs of 1 to 16 MiB, the most that is read.

    python scripts/bench_output.py

Exit code 1 when the time grows faster than the output (more than twice, per MiB, from 2 to 16 MiB), or when the 16 MiB
take more than 30 s or four times their size in memory. A few seconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIZES_MIB = (1, 2, 4, 8, 16)
MOST_S, MOST_TIMES = 30.0, 4.0
# Each size in a process of its own, as the peak of memory never falls.
CODE = """
import resource, sys, time
from pathlib import Path
from android_bench.output.parse import parse
sample = Path(sys.argv[1]).read_text()
noise = "INFO: [litert.cc:12] a delegate, a count=1 and memory of 5 MB in a line that says nothing\\n"
text = noise * (int(float(sys.argv[2]) * 2**20 - len(sample)) // len(noise)) + sample
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, begin = peak(), time.process_time()
parse(text)
print(time.process_time() - begin, peak() - before)
"""


def read(mib: float) -> tuple[float, float]:
    """CPU seconds and MiB of memory to read an output of this size."""
    sample = next((ROOT / "tests/data/bench").glob("01_*.txt"))
    command = [sys.executable, "-c", CODE, str(sample), str(mib)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def main() -> int:
    taken = {mib: read(mib - 0.01) for mib in SIZES_MIB}
    for mib, (seconds, memory) in taken.items():
        print(
            f"{mib:3d} MiB: {seconds:6.2f} s, {seconds / mib:.3f} s a MiB, {memory:6.1f} MiB of memory beside it"
        )
    growth = (taken[16][0] / 16) / (taken[2][0] / 2)
    print(f"the time of a MiB grows {growth:.2f} times from 2 to 16 MiB")
    return int(growth > 2 or taken[16][0] > MOST_S or taken[16][1] > MOST_TIMES * 16)


if __name__ == "__main__":
    sys.exit(main())

"""Memory that is freed stays with the process, so that the next arrays cost no page faults."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's memory")

CODE = """
import resource
from edgecls.allocator import keep_freed_memory
kept = keep_freed_memory()
def use():
    blocks = [b"x" * (8 * 2**20 + k) for k in range(4)]
for _ in range(3):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**variables):
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment | variables, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def test_freed_blocks_are_used_again():
    kept, faults = run()
    assert kept and faults < 100, "of 40,960 pages"


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_what_the_user_has_set_stays(name):
    kept, faults = run(**{name: "131072"})
    assert not kept and faults > 30_000, "by default blocks are given back"

"""TFLite files of the zoo's networks with random weights, to measure latency. They are made once and cached.

Each network is made and converted in a process of its own, so that one that takes all memory or hangs ends by itself. The files
are in ``<cache>/zoo/<hash>/``, where the hash is of the code that makes them: new code makes new files.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import edgecls
from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.files import cache_dir, hash_json, sha256
from edgecls.zoo import catalog

_CODE = ("zoo", "export", "quantize", "graph.py", "reparam.py")
_TIMEOUT_S = 3600.0


def zoo_files(
    patterns: Sequence[str], precisions: Sequence[str], threads: Sequence[int], console: Console
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Find the files of all networks that match, and make those that are missing.

    Args:
        patterns: Shell patterns of catalog names. Some names are the same network with other weights (``_ssld``). They
            are equally fast, so only the first of them is taken.
        precisions: ``fp32`` and ``int8``. The ranges of int8 are calibrated on noise, which is good for latency and
            useless for accuracy. If empty: fp32, and int8 of the networks that can be quantized.
        threads: Thread counts to report for a network that fails.
        console: Shows progress and reasons of failures.

    Example:
        >>> files, failed = zoo_files(["MobileNetV3_small*"], ["int8"], [1], Console())  # doctest: +SKIP

    Returns:
        The files, and one ``failed`` result of bench.json for each network, precision and thread count without a file.

    Raises:
        UsageError: A pattern matches no network.
    """
    chosen, wanted_precisions = choose(patterns), precisions or ("fp32", "int8")
    required = precisions or ("fp32",)
    folder = files_folder()
    files, failed = [], []
    with console.progress() as progress:
        task = progress.add_task("converting the zoo", total=len(chosen), text="")
        for name in chosen:
            wanted = {precision: folder / f"{name}_{precision}.tflite" for precision in wanted_precisions}
            missing = [precision for precision, path in wanted.items() if not path.is_file()]
            conversion = _convert(name, missing, folder) if missing else Conversion()
            for precision, path in wanted.items():
                if path.is_file():
                    files.append(path)
                    continue
                reason = conversion.reasons.get(precision) or conversion.ended
                console.log(f"{path.name}: {reason}")
                if precision in required:
                    failed += [_failed(path.name, count, f"not converted: {reason}") for count in threads]
            progress.advance(task)
    return files, failed


def choose(patterns: Sequence[str]) -> list[str]:
    """Find the names that match any of the patterns; one name for each network and input size.

    Example:
        >>> choose(["ResNet18_vd*"])
        ['ResNet18_vd']

    Raises:
        UsageError: A pattern matches no network.
    """
    found: dict[tuple[str, int], str] = {}
    for pattern in patterns:
        names = catalog.names(pattern)
        if not names:
            raise UsageError(f"no network is called like {pattern!r}", fix="edgecls models lists the names")
        for name in names:
            entry = catalog.get(name)
            found.setdefault((entry.architecture, entry.input_size), name)
    return list(found.values())


def files_folder() -> Path:
    """Where the files of this code are: ``<cache>/zoo/<hash>``."""
    return cache_dir() / "zoo" / _fingerprint()


def _fingerprint() -> str:
    """Hash the code and the versions that the files depend on."""
    root = Path(edgecls.__file__).parent
    sources = [
        p for name in _CODE for p in [root / name, *(root / name).rglob("*")] if p.suffix in (".py", ".csv")
    ]
    code = {p.relative_to(root).as_posix(): sha256(p) for p in sorted(sources) if p.is_file()}
    versions = [importlib.metadata.version(package) for package in ("tensorflow", "keras")]
    return hash_json([code, versions])[:16]


@dataclass(frozen=True)
class Conversion:
    """How the process ended that converted a network.

    Args:
        reasons: Each precision that could not be converted, with the reason.
        ended: How the process ended, where it could not give reasons.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    ended: str = "the converter died"


def _convert(name: str, precisions: Sequence[str], folder: Path) -> Conversion:
    """Convert a network in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "edgecls.export.fresh", name, str(folder), *precisions]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Conversion(ended=f"not done after {_TIMEOUT_S:.0f} s")
    reasons = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    if done.returncode == 0 or reasons:
        return Conversion(reasons)
    last_line = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Conversion(ended=f"the converter died ({how}): {last_line}")


def _failed(model: str, threads: int, reason: str) -> dict[str, Any]:
    from android_bench.measure.session import failed_row

    return failed_row({"model": model, "sha256": "", "bytes": 0}, threads, reason)

"""TFLite files of the zoo's networks with fresh weights, for measuring latency: made once, kept in the cache.

Each network is converted in a process of its own, because the converter does not give its memory back. The files stand
under ``<cache>/zoo/<hash of the code that makes them>/``: other code, other files.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
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
    """The files of all networks that match, made where they are missing.

    Args:
        patterns: Shell patterns of catalog names. Of names that are one network with other weights (``_ssld``), only
            the first is taken: they are equally fast.
        precisions: ``fp32``, ``int8`` (calibrated on noise: good for latency, useless for accuracy); none: fp32, and
            int8 of the networks that can be quantized.
        threads: Thread counts that a failed network is reported with.

    Returns:
        The files, and a ``failed`` result of bench.json for each network, precision and thread count without one.

    Raises:
        UsageError: A pattern matches no network.
    """
    chosen, wanted_precisions = choose(patterns), precisions or ("fp32", "int8")
    required = precisions or ("fp32",)
    folder = cache_dir() / "zoo" / _fingerprint()
    files, failed = [], []
    with console.progress() as progress:
        task = progress.add_task("converting the zoo", total=len(chosen), text="")
        for name in chosen:
            wanted = {precision: folder / f"{name}_{precision}.tflite" for precision in wanted_precisions}
            missing = [precision for precision, path in wanted.items() if not path.is_file()]
            said = _convert(name, missing, folder) if missing else {}
            for precision, path in wanted.items():
                if path.is_file():
                    files.append(path)
                    continue
                why = said.get(precision) or said.get("", "the converter died")
                console.log(f"{path.name}: {why}")
                if precision in required:
                    failed += [_failed(path.name, count, f"not converted: {why}") for count in threads]
            progress.advance(task)
    return files, failed


def choose(patterns: Sequence[str]) -> list[str]:
    """Names that match any of the patterns, one for each network and input size."""
    found: dict[tuple[str, int], str] = {}
    for pattern in patterns:
        names = catalog.names(pattern)
        if not names:
            raise UsageError(f"no network is called like {pattern!r}", fix="edgecls models lists the names")
        for name in names:
            entry = catalog.get(name)
            found.setdefault((entry.architecture, entry.input_size), name)
    return list(found.values())


def _fingerprint() -> str:
    """Hash of the code and of the versions that the files depend on."""
    root = Path(edgecls.__file__).parent
    sources = [
        p for name in _CODE for p in [root / name, *(root / name).rglob("*")] if p.suffix in (".py", ".csv")
    ]
    code = {p.relative_to(root).as_posix(): sha256(p) for p in sorted(sources) if p.is_file()}
    versions = [importlib.metadata.version(package) for package in ("tensorflow", "keras")]
    return hash_json([code, versions])[:16]


def _convert(name: str, precisions: Sequence[str], folder: Path) -> dict[str, str]:
    """Makes the files; why not, by precision ("": of all)."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "edgecls.export.fresh", name, str(folder), *precisions]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"": f"not done after {_TIMEOUT_S:.0f} s"}
    said = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    if done.returncode and not said:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return {"": f"the converter died ({how}): {last}"}
    return said


def _failed(model: str, threads: int, why: str) -> dict[str, Any]:
    from android_bench.session import failed_row

    return failed_row({"model": model, "sha256": "", "bytes": 0}, threads, why)

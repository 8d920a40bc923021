"""What an int8 file promises, as rungs that fail with a reason: every operation in int8, one partition, few other answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from edgecls.export.reasons import PIXELS

MAX_PARTITIONS = 1
PIXELS_QUANTIZE = 1  # the operation that makes uint8 pixels int8


def gates(
    result: Mapping[str, Any], max_partitions: int = MAX_PARTITIONS, max_drop: float | None = None
) -> list[dict[str, Any]]:
    """Judge what is in verify.json.

    Args:
        result: From ``verify.ladder``. What its ``in_float`` names may be in float, and nothing else.
        max_partitions: Parts of an int8 file that XNNPACK may run.
        max_drop: Percent of the images on which a rounded file may answer otherwise than the float network; None: any.

    Returns:
        Rungs: ``name``, ``ok``, and ``reasons`` if it does not hold.

    Example:
        >>> file = {"float_ops": ["ADD"], "partitions": 1, "quantized": True, "outside": []}
        >>> [rung["reasons"] for rung in gates({"rungs": [], "files": {"a.tflite": file}}) if not rung["ok"]]
        [['ADD computes in float']]
    """
    found = [
        _rung(name, reasons)
        for file, about in result["files"].items()
        if about.get("quantized")
        for name, reasons in _of_file(file, about, max_partitions)
    ]
    for rung in result["rungs"]:
        if max_drop is not None and " ~ " in rung["name"] and rung.get("top1_agreement") is not None:
            drop = 100 * (1 - rung["top1_agreement"])
            over = [f"{drop:.1f} % of the answers differ"] if drop > max_drop + 1e-9 else []
            found.append(_rung(f"{rung['name']}: at most {max_drop:g} % differ", over))
    return found


def _of_file(file: str, about: Mapping[str, Any], most: int) -> Iterator[tuple[str, list[str]]]:
    kept = about.get("kept_float")
    kinds = Counter(reason.split(",")[0] for reason in about.get("in_float", {}).values())
    but = " but " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()) if kinds else ""
    strange = [] if kept else [f"{op} computes in float" for op in about["float_ops"]]
    back, planned = about.get("ops", {}).get("QUANTIZE", 0) - PIXELS_QUANTIZE, about.get("returns", 0)
    if kinds and back > planned:
        strange = [f"{back} results come back from float, and the network has {planned} such places"]
    yield f"{file}: every operation in int8{but}", strange
    outside = [
        f"{op['op']} {op['name']} is outside of the delegate, {op['reason']}"
        for op in about.get("outside", ())
        if op["reason"] != PIXELS
    ]
    parts = about["partitions"]
    many = [f"{parts} partitions", *outside] if parts > most else []
    yield f"{file}: {most} {'partition' if most == 1 else 'partitions'}", many


def _rung(name: str, reasons: list[str]) -> dict[str, Any]:
    return {"name": name, "ok": not reasons, **({"reasons": reasons} if reasons else {})}

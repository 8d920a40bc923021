"""int8 of every network of the zoo and of keras.applications' convolutional ones, at reduced input: docs/int8.md.

    python scripts/verify_int8.py                    # what is missing or was made by other code: a small one of each family first
    python scripts/verify_int8.py 'MobileNetV3*'     # names that fit
    python scripts/verify_int8.py --table            # only write the page again

For each network with random weights: float operations in the file, delegate partitions, the largest distance to the QAT
twin in steps, over how many steps a logit spreads between the images (else equality would prove nothing), sizes. A killed
run goes on where it was. A row is made again when code that it depends on changes (see ``int8_rows.Fingerprint``), and
one that failed in every run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any

import marked
from int8_rows import PREFIX, ROOT, Fingerprint, forks, in_process

from edgecls.files import write_text

TABLE, PAGE = ROOT / "docs" / "int8.json", ROOT / "docs" / "int8.md"
BEGIN, END = "<!-- networks: begin, written by scripts/verify_int8.py -->", "<!-- networks: end -->"
APPLICATIONS = {  # and their parameters in millions, as keras.io has them: small ones come first
    "ConvNeXtBase": 88.5,
    "ConvNeXtLarge": 197.7,
    "ConvNeXtSmall": 50.2,
    "ConvNeXtTiny": 28.6,
    "ConvNeXtXLarge": 350.1,
    "DenseNet121": 8.1,
    "DenseNet169": 14.3,
    "DenseNet201": 20.2,
    "EfficientNetB0": 5.3,
    "EfficientNetB1": 7.9,
    "EfficientNetB2": 9.2,
    "EfficientNetB3": 12.3,
    "EfficientNetB4": 19.5,
    "EfficientNetB5": 30.6,
    "EfficientNetB6": 43.3,
    "EfficientNetB7": 66.7,
    "EfficientNetV2B0": 7.2,
    "EfficientNetV2B1": 8.2,
    "EfficientNetV2B2": 10.2,
    "EfficientNetV2B3": 14.5,
    "EfficientNetV2L": 119.0,
    "EfficientNetV2M": 54.4,
    "EfficientNetV2S": 21.6,
    "InceptionResNetV2": 55.9,
    "InceptionV3": 23.9,
    "MobileNet": 4.3,
    "MobileNetV2": 3.5,
    "MobileNetV3Large": 5.4,
    "MobileNetV3Small": 2.9,
    "NASNetLarge": 88.9,
    "NASNetMobile": 5.3,
    "ResNet101": 44.7,
    "ResNet101V2": 44.7,
    "ResNet152": 60.4,
    "ResNet152V2": 60.4,
    "ResNet50": 25.6,
    "ResNet50V2": 25.6,
    "VGG16": 138.4,
    "VGG19": 143.7,
    "Xception": 22.9,
}
LARGE, LARGEST_RATIO = 2_000_000, 0.27  # parameters above which a file must be that small against float
LEAST_SPREAD = 10  # steps
TIME_LIMIT = 3600  # seconds a network


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    code = Fingerprint()
    wanted = [name for name in names() if any(fnmatchcase(name, pattern) for pattern in options.patterns)]
    todo = [] if options.table else [name for name in in_turn(wanted) if not is_done(name, rows, code)]
    todo.sort(key=rows.__contains__)  # new rows before those that other code has made
    context = forks()
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, row in zip(
            todo, pool.map(lambda name: in_process(context, name, TIME_LIMIT), todo), strict=True
        ):
            rows[name] = row | {"code": code.of(row, builder(name))}
            print(name, json.dumps(row), flush=True)
            write(rows, code)
    write(rows, code)


def is_fresh(name: str, rows: dict[str, Any], code: Fingerprint) -> bool:
    """Whether the code as it is has made a network's row."""
    return name in rows and rows[name].get("code") == code.of(rows[name], builder(name))


def is_done(name: str, rows: dict[str, Any], code: Fingerprint) -> bool:
    """Whether a network need not be tried: what stopped one that failed may lie outside of the code of its row."""
    return is_fresh(name, rows, code) and "error" not in rows[name]


def builder(name: str) -> str:
    """The module of the zoo that builds a network; empty for those of keras.applications."""
    from edgecls.zoo.families import module_name

    return "" if name.startswith(PREFIX) else module_name(family(name))


def names() -> list[str]:
    """All networks, those of the zoo first."""
    import edgecls

    return [*edgecls.list_models(), *(PREFIX + name for name in APPLICATIONS)]


def size_of(name: str) -> float:
    """Parameters in millions."""
    import edgecls

    if name.startswith(PREFIX):
        return APPLICATIONS[name.removeprefix(PREFIX)]
    return edgecls.model_info(name).params / 1e6


def in_turn(wanted: list[str]) -> list[str]:
    """The smallest network of each family, then the others, small ones first."""
    seen: Counter[str] = Counter()
    rank = {}
    for name in sorted(wanted, key=size_of):
        rank[name] = seen[family(name)] > 0
        seen[family(name)] += 1
    return sorted(wanted, key=lambda name: (rank[name], size_of(name)))


def family(name: str) -> str:
    """The family in the zoo; of keras.applications, the name without numbers."""
    import edgecls

    return name.rstrip("0123456789") if name.startswith(PREFIX) else edgecls.model_info(name).family


def write(rows: dict[str, Any], code: Fingerprint) -> None:
    """The table as JSON and as a page, in the catalog's order."""
    ordered = {name: rows[name] for name in names() if name in rows}
    old = sum(not is_fresh(name, ordered, code) for name in ordered)
    write_text(TABLE, json.dumps(ordered, indent=1) + "\n")
    marked.rewrite(PAGE, BEGIN, END, "\n".join(page(ordered, old)))


def page(rows: dict[str, Any], old: int) -> Iterator[str]:
    """The lines of the table's part of docs/int8.md; ``old`` rows were made by other code than that of today."""
    all_names = len(names())
    good = [name for name, row in rows.items() if not faults(row)]
    if len(rows) < all_names:
        yield f"**This table is partial: {len(rows)} of {all_names} networks have been tried so far.**"
        yield ""
    if old:
        yield f"Code that {old} of these rows depend on has changed since; the next run of the script tries those again."
        yield ""
    yield f"{len(good)} of {len(rows)} networks that were tried hold: no float operation but a softmax at the end (and in"
    yield "transformers and ConvNeXt the layers named here, which have no int8 kernel: there 4 steps may differ), one"
    yield f"partition, at most 1 step of a spread of {LEAST_SPREAD} or more, and from {LARGE // 1_000_000} million parameters on at most"
    yield f"{LARGEST_RATIO} of the float file. Where the size does not hold, the network has many channels for its weights: each has a"
    yield "bias and two scales in the file."
    yield ""
    yield "| network | parameters | pixels | float operations | partitions | steps | spread | int8 / fp32 | holds |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, row in rows.items():
        if "error" in row:
            yield f"| {name} | {row.get('params', '')} | {row.get('size', '')} | {row['error']} | | | | | no |"
            continue
        floats = ", ".join(row.get("in_float") or row["float_ops"]) or "none"
        cells = [name, row["params"], row["size"], floats]
        cells += [row[key] for key in ("partitions", "steps", "spread", "size_ratio")]
        wrong = faults(row)
        yield f"| {' | '.join(map(str, cells))} | {'no: ' + ', '.join(wrong) if wrong else 'yes'} |"


def faults(row: dict[str, Any]) -> list[str]:
    """In what a network is not what the contract says."""
    if "error" in row:
        return [row["error"]]
    outside = sorted({*row["undelegated"]} - {"QUANTIZE"})
    beside = (
        f", {row['channels_ratio']} of it biases, scales and zero points" if "channels_ratio" in row else ""
    )
    checks = {
        "partitions": row["partitions"] != 1,
        f"outside of the delegate: {', '.join(outside)}": bool(outside),
        "steps": row["steps"] >= row.get("most_steps", 1) + 0.5,
        "spread": row["spread"] < LEAST_SPREAD,
        f"size{beside}": row["params"] >= LARGE and row["size_ratio"] > LARGEST_RATIO,
    }
    reasons = row.get("reasons", [f"{op} computes in float" for op in row["float_ops"]])
    return [*reasons, *(fault for fault, found in checks.items() if found)]


if __name__ == "__main__":
    main()

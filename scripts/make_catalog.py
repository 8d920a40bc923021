"""Write edgecls/zoo/models.csv from the families' files.

    python scripts/make_catalog.py [REFERENCE_DIR]

What is published of a network (evaluation, accuracy, latency, weights) comes from its family's file. A name that the
file says nothing of keeps what models.csv has; with REFERENCE_DIR (tables/*.csv, arch/*.json, semantics.csv) it
is read anew from there, and the network's parameters and MACs are checked against it. Costs are counted from the
networks.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from edgecls.zoo import catalog
from edgecls.zoo.entry import IMAGENET_MEAN, IMAGENET_STD, Entry, Published
from edgecls.zoo.families import family_module


def main() -> int:
    """Write the table and report its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "reference", type=Path, nargs="?", help="folder with tables/, arch/ and semantics.csv"
    )
    reference = parser.parse_args().reference
    from edgecls.zoo.rows import family_entries

    entries: list[Entry] = []
    for family in catalog.families():
        names = [name for name in catalog.names() if catalog.get(name).family == family]
        others = {name: catalog.get(name).published for name in names}
        if reference:
            others = reference_names(reference, list(family_module(family).MODELS))
        for entry in family_entries(family, others).values():
            if reference:
                check_costs(entry, reference)
            print(entry.name, entry.params, entry.macs, file=sys.stderr)
            entries.append(entry)
    partial = catalog.TABLE.with_name("." + catalog.TABLE.name)
    catalog.write_table(partial, entries)
    partial.replace(catalog.TABLE)
    print(f"{len(entries)} networks in {catalog.TABLE}")
    return 0


def reference_names(reference: Path, architectures: list[str]) -> dict[str, Published]:
    """What the reference publishes of every name that is one of these networks."""
    with (reference / "tables" / "models.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    with (reference / "semantics.csv").open(newline="", encoding="utf-8") as file:
        semantics = {row["model"]: row for row in csv.DictReader(file)}
    found = {}
    for architecture in architectures:
        if (reference / "arch" / f"{architecture}.json").exists():
            # A network without a row was run in its 2020 form only, and has no dropout.
            dropout = semantics.get(architecture, {}).get("dropout(name: p, mode)", "")
            rows = [row for row in table if row["architecture"] == architecture]
            for row in rows or [unpublished(architecture, table)]:
                found[row["model"]] = read_row(reference, row, architecture, dropout)
    return found


def read_row(reference: Path, row: dict[str, str], architecture: str, dropout: str) -> Published:
    """What is published of one name, from its row and from its run."""
    path = reference / "arch" / f"{row['model']}.json"
    run = json.loads((path if path.exists() else path.with_stem(architecture)).read_text())
    rate = re.search(r"p=([\d.]+)", dropout)
    with (reference / "tables" / "weights.csv").open(newline="", encoding="utf-8") as file:
        weights = {r["tag"]: r["url"] for r in csv.DictReader(file) if r["model"] == row["model"]}
    norms = [(run.get(f"eval_v{version}") or {}).get("norm") for version in (1, 2)]
    norm: dict[str, Any] = norms[0] or norms[1] or {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    latency = {threads: row[f"sd855_ms_fp32_thread{threads}"] for threads in catalog.THREADS}
    return Published(
        architecture=architecture,
        input_size=run["input_size"],
        resize_short=max(run["resize_short"], run["input_size"]),
        interpolation="bicubic" if run["interpolation"] in ("bicubic", 2) else "bilinear",
        mean=tuple(norm["mean"]),
        std=tuple(norm["std"]),
        dropout=float(rate[1]) if rate else 0.0,
        scales_at_inference="downscale_in_infer" in dropout,
        top1=accuracy(row["top1"] or row["top1_v2"]),
        top5=accuracy(row["top5"] or row["top5_v2"]),
        sd855_ms={threads: float(ms) for threads, ms in latency.items() if ms},
        storage_mb=float(row["storage_mb"]) if row["storage_mb"] else None,
        source=row["source"] or row["source_v2"],
        weights=weights,
    )


def unpublished(architecture: str, table: list[dict[str, str]]) -> dict[str, str]:
    """A row for a network without one: the figures of its 2020 form, where that is what it is, else none."""
    rows = {row["model"]: row for row in table}
    return {
        **rows.get(architecture.removesuffix("_v1"), dict.fromkeys(table[0], "")),
        "model": architecture,
    }


def accuracy(text: str) -> float | None:
    """A published accuracy as a fraction; some tables have percent."""
    if not text:
        return None
    return round(float(text) / 100, 4) if float(text) > 1 else float(text)


def check_costs(entry: Entry, reference: Path) -> None:
    """Raises AssertionError if the reference has other parameters or MACs."""
    path = reference / "arch" / f"{entry.name}.json"
    path = path if path.exists() else path.with_stem(entry.architecture)
    if path.exists():
        run = json.loads(path.read_text())
        expect = run["trainable_params"], run["macs"]
        assert (entry.params, entry.macs) == expect, f"{entry.name}: {entry.params, entry.macs} != {expect}"


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())

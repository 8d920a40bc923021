"""Copy what the zoo's tests compare with from the reference folder to tests/data.

    python scripts/make_test_data.py REFERENCE_DIR

Writes zoo_reference.json (parameters, MACs, gain, tolerance and a hash of all state names and shapes for every
network that has a builder here), zoo_logits.npz (the original's logits for one image, of each family's smallest
network that has them and of ``ALSO``) and zoo_names.txt (all networks of the reference and all names of 2020).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np

from edgecls.zoo import catalog
from edgecls.zoo.families import family_module

DATA = Path(__file__).parents[1] / "tests" / "data"

# With parts that the smallest lacks.
ALSO = (
    *("ResNet18_vd", "ShuffleNetV2_swish", "EfficientNetB0", "VGG11"),
    *("ResNet50_vc", "InceptionV3", "InceptionV4", "ResNet50_ACNet"),
    *("DeiT_tiny_distilled_patch16_224", "ViT_small_patch16_224"),
)


def heads(published: np.lib.npyio.NpzFile) -> np.ndarray:
    """The logits of the first image, or one row a classifier where there are several."""
    rows = [published[key][0] for key in sorted(published) if re.fullmatch(r"seed0(_out\d)?", key)]
    return np.stack(rows) if len(rows) > 1 else rows[0]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="folder with arch/ and logits/")
    reference = parser.parse_args().reference
    facts, logits = {}, {}
    for family in catalog.families():
        published = {}
        for name in family_module(family).MODELS:
            path = reference / "arch" / f"{name}.json"
            if not path.exists():
                continue
            arch = json.loads(path.read_text())
            names = "\n".join(sorted(f"{key} {list(shape)}" for key, shape in arch["state"]))
            facts[name] = {
                "params": arch["trainable_params"],
                "macs": arch["macs"],
                "gain": arch["gain"],
                "tolerance": max(1e-4, 20 * arch.get("fp32_vs_fp64_max_rel_to_std", 0.0)),
                "state_sha256": hashlib.sha256(names.encode()).hexdigest(),
            }
            if (path := reference / "logits" / f"{name}.npz").exists():
                published[name] = path
        kept = {min(published, key=lambda name: facts[name]["macs"]), *ALSO} if published else ()
        logits |= {name: heads(np.load(published[name])) for name in published if name in kept}
    with (reference / "tables" / "models.csv").open(newline="", encoding="utf-8") as file:
        names = {row["model"] for row in csv.DictReader(file) if row["origin"] == "seed"}
    names |= {path.stem for path in (reference / "arch").glob("*.json")}
    DATA.mkdir(exist_ok=True)
    (DATA / "zoo_names.txt").write_text("".join(f"{name}\n" for name in sorted(names)))
    (DATA / "zoo_reference.json").write_text(json.dumps(facts, indent=1) + "\n")
    np.savez_compressed(DATA / "zoo_logits.npz", **logits)
    print(f"{len(facts)} networks, {len(logits)} with logits, in {DATA}")


if __name__ == "__main__":
    main()

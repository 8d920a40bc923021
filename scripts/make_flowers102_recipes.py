"""Write recipes/flowers102/*.yaml, the six trainings of PaddleClas' tour of 30 minutes, from its tables.

    python scripts/make_flowers102_recipes.py REFERENCE_DIR

Values are of tables/recipes.csv (family quick_start), expected accuracies of tables/quick_start_flowers102.csv. As there,
the 1,020 official training images train, and the 1,020 official validation images are the test.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from make_imagenet_recipes import Row, augmentation, comment, dump, read, training

from edgecls.files import write_text

FOLDER = Path(__file__).parents[1] / "recipes" / "flowers102"
COMMON = "flowers102/common"
DISTILLED = "R50_vd_distill_MV3_large_x1_0"  # student and teacher: those of two other rows
STUDENT, TEACHER = "MobileNetV3_large_x1_0", "ResNet50_vd_ssld_finetune"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="folder with tables/")
    tables = parser.parse_args().reference / "tables"
    rows = {row["config"]: row for row in read(tables / "recipes.csv") if row["family"] == "quick_start"}
    figures = read(tables / "quick_start_flowers102.csv")
    for figure in figures:
        name = figure["config_yaml"].removesuffix(".yaml")
        write_text(FOLDER / f"{name}.yaml", recipe(name, rows, figure))
    print(f"{len(figures)} recipes in {FOLDER}")


def recipe(name: str, rows: dict[str, Row], figure: Row) -> str:
    """The text of one recipe."""
    row = rows[name]
    values: dict[str, Any] = {"base": COMMON, "name": f"flowers102_{name}"}
    if name == DISTILLED:
        # The teacher learns from the labeled images; the student then from all that are not the test.
        extra = {"source": "list", "path": "data/flowers102/test_list.txt", "labels": False}
        values |= {
            "model": network(STUDENT, "finetune"),
            "teacher": network("ResNet50_vd", TEACHER) | {"train": fine_tuning(rows[TEACHER])},
            "distill": {"loss": "js"},
            "phases": [{"name": "distill", "data": {"extra": [extra]}}],
        }
    else:
        values["model"] = network(row["architecture"], name)
    if augment := augmentation(row):
        values["augment"] = augment
    values["train"] = fine_tuning(row)
    about = (
        f"After {row['source']}. Published top-1 on the official validation images: {figure['top1_acc(fraction)']}"
        f" ({figure['source']}). Not trained by us: the photographs and some weights have to be downloaded."
    )
    command = f"edgecls train flowers102/{name}"
    return f"{comment(command, about)}\n{dump(values)}"


def network(architecture: str, configuration: str) -> dict[str, Any]:
    """A network with the weights that its configuration starts from."""
    name = f"{architecture}_ssld" if "_ssld" in configuration else architecture
    return {"name": name} | ({"weights": "imagenet"} if "finetune" in configuration else {})


def fine_tuning(row: Row) -> dict[str, Any]:
    """The ``train`` section, with the learning rates by stage."""
    arch = json.loads(row["arch_params"] or "{}")
    return training(row) | {key: arch[key] for key in ("lr_mult_list",) if key in arch}


if __name__ == "__main__":
    main()

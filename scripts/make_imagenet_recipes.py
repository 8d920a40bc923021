"""Write recipes/imagenet/*.yaml from the table of the published trainings.

    python scripts/make_imagenet_recipes.py REFERENCE_DIR

One recipe for each network whose training is published (tables/recipes.csv), the 2020 one where there are two, one for
each augmentation that was published with ResNet50, one for each published distillation of one phase, and one for each
network that SSLD trained in two phases (tables/ssld_bigdata_distill.csv, ssld_finetune.csv), with Fix as a third.
"""

from __future__ import annotations

import argparse
import ast
import csv
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from edgecls.files import write_text
from edgecls.zoo import catalog

FOLDER = Path(__file__).parents[1] / "recipes" / "imagenet"
CARDS = 4  # a batch size of the later configurations is that of one of four cards
WIDTH = 118
COMMON = "imagenet/common"
Row = dict[str, str]

DISTILLED = {  # configuration: student and teacher
    "R50_vd_distill_MV3_large_x1_0": ("MobileNetV3_large_x1_0", "ResNet50_vd"),
    "ResX101_32x16d_wsl_distill_R50_vd": ("ResNet50_vd", "ResNeXt101_32x16d_wsl"),
}
NEVER_FIRED = ("ResNet50_HideAndSeek", "ResNet50_GridMask")
AUGMENTED = "DataAugment"  # family of the trainings of ResNet50 with one augmentation each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Path, help="folder with tables/")
    tables = parser.parse_args().reference / "tables"
    figures = {name_of_method(row["augmentation"]): row for row in read(tables / "augmentation_resnet50.csv")}
    written = {COMMON.partition("/")[2]}
    for row in sorted(read(tables / "recipes.csv"), key=lambda row: row["version"]):  # 2020's first
        name = name_of(row)
        if name and name not in written:
            write_text(FOLDER / f"{name}.yaml", recipe(name, row, figures))
            written.add(name)
    fine = {row["student_model"]: row for row in read(tables / "ssld_finetune.csv")}
    for row in read(tables / "ssld_bigdata_distill.csv"):
        name = f"{row['student_model']}_ssld"
        write_text(FOLDER / f"{name}.yaml", ssld(name, row, fine[row["student_model"]]))
        written.add(name)
    steps = {row["step"].partition(" ")[0]: row for row in read(tables / "ssld_ablation_steps.csv")}
    for name, text in (("ResNet50_vd_ssld_v2", v2(steps)), ("Fix_ResNet50_vd_ssld_v2", fix(steps))):
        write_text(FOLDER / f"{name}.yaml", text)
        written.add(name)
    for path in FOLDER.glob("*.yaml"):
        if path.stem not in written:
            path.unlink()
    print(f"{len(written) - 1} recipes in {FOLDER}")


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def name_of(row: Row) -> str:
    """The file of a row; empty for a network that is not in the zoo and for what one phase cannot do."""
    if row["family"] == AUGMENTED:
        return row["config"]
    if row["family"] == "quick_start":  # Flowers102
        return ""
    if row["config"] in DISTILLED:
        return "_by_".join(DISTILLED[row["config"]])
    names = catalog.names()
    return next((name for name in (row["config"], row["architecture"]) if name in names), "")


def recipe(name: str, row: Row, figures: dict[str, Row]) -> str:
    """The text of one recipe."""
    student = DISTILLED[row["config"]][0] if row["config"] in DISTILLED else row["architecture"]
    network = name if name in catalog.names() else student
    values: dict[str, Any] = {"base": COMMON, "name": name, "model": model(network, row)}
    if row["config"] in DISTILLED:
        teacher = {"name": DISTILLED[row["config"]][1], "weights": "imagenet"}
        values |= {"teacher": teacher, "distill": {"loss": "js"}}
    if augment := augmentation(row):
        values["augment"] = augment
    values["train"] = training(row)
    return f"{header(name, network, row, figures)}\n{dump(values)}"


def dump(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=WIDTH)


def comment(command: str, about: str) -> str:
    """The comment before a recipe: its command, and what it is in lines of a length."""
    return "\n".join(f"# {line}".rstrip() for line in [command, "", *textwrap.wrap(about, WIDTH - 2)])


LARGE = {"name": "large", "data": {"extra": [{"path": "imagenet/unlabeled", "labels": False}]}}
"""SSLD's first phase: ImageNet and about 4 million images without labels, which `edgecls mine` chooses."""

FIX = {
    "name": "fix",
    "model": {"input_size": 320, "resize_short": 320},
    "augment": {"crop_scale": None, "flip": "none", "autoaugment": None},
    "distill": None,
    "train": {
        "freeze": "backbone",
        "epochs": 10,
        "batch_size": 512,
        "optimizer": {"name": "sgd", "lr": 0.001},
        "schedule": {"name": "cosine", "warmup_epochs": 0.0},
    },
}
"""The classifier alone, on the pixels of the evaluation (Touvron et al. 2019, arXiv:1906.06423)."""


def ssld(name: str, large: Row, fine: Row) -> str:
    """The two phases of one student. Its teacher is the one that the publisher names for its size."""
    student = large["student_model"]
    teacher = "ResNet50_vd_ssld" if student.startswith("MobileNet") else "ResNeXt101_32x16d_wsl"
    values = {
        "base": COMMON,
        "name": name,
        "model": {"name": student},
        "teacher": {"name": teacher, "weights": "imagenet"},
        "distill": {"loss": "js"},
        "train": {
            "optimizer": {"name": "sgd", "weight_decay": float(large["l2_decay"])},
            "schedule": {"name": "cosine", "warmup_epochs": 5.0},
        },
        "phases": [LARGE | {"train": phase(large)}, {"name": "finetune", "train": phase(fine)}],
    }
    about = (
        f"SSLD in two phases. Published top-1: {large['top1_pct']} after the first ({large['source']}), {fine['top1_pct']}"
        f" after the second ({fine['source']}). Not trained by us. No labels, no label smoothing, no AutoAugment. The"
        " unlabeled images are yours to bring: about 4 million of ImageNet-22k there, chosen with edgecls mine."
        " For another batch change the learning rate in proportion."
    )
    return f"{comment(f'edgecls train imagenet/{name}', about)}\n{dump(values)}"


def phase(row: Row) -> dict[str, Any]:
    """``train`` of a phase; the publisher writes ``batch/cards``."""
    batch = int(row["batch_size/gpu_cards"].partition("/")[0])
    return {
        "epochs": int(row["epochs"]),
        "batch_size": batch,
        "optimizer": {"lr": float(row["base_lr"])},
    }


def v2(steps: dict[str, Row]) -> str:
    """ResNet50_vd_ssld_v2: what its row of the steps says that it changes."""
    row = steps["AutoAugment"]
    values = {
        "base": "imagenet/ResNet50_vd_ssld",
        "name": "ResNet50_vd_ssld_v2",
        "augment": {"autoaugment": {"flavor": "paddle"}},
        "train": {"optimizer": {"weight_decay": 2e-5}},
    }
    about = (
        f"SSLD with AutoAugment and less weight decay, in both phases. Published top-1: {row['student_top1_after_pct']}%,"
        f" {row['student_top1_before_pct']}% without ({row['source']}). Not trained by us."
    )
    return f"{comment('edgecls train imagenet/ResNet50_vd_ssld_v2', about)}\n{dump(values)}"


def fix(steps: dict[str, Row]) -> str:
    """Fix_ResNet50_vd_ssld_v2: a third phase."""
    row = steps["Fix"]
    first = yaml.safe_load((FOLDER / "ResNet50_vd_ssld.yaml").read_text(encoding="utf-8"))["phases"]
    values = {
        "base": "imagenet/ResNet50_vd_ssld_v2",
        "name": "Fix_ResNet50_vd_ssld_v2",
        "phases": [*first, FIX],
    }
    about = (
        f"Fix after SSLD: the classifier alone, at 320 pixels, on the pixels of the evaluation. Published top-1:"
        f" {row['student_top1_after_pct']}%, {row['student_top1_before_pct']}% before ({row['source']}). Epochs, batch and"
        " learning rate of that phase are not published; these are ours. Not trained by us."
    )
    return f"{comment('edgecls train imagenet/Fix_ResNet50_vd_ssld_v2', about)}\n{dump(values)}"


def header(name: str, network: str, row: Row, figures: dict[str, Row]) -> str:
    """The comment before a recipe: its command, its origin and what to expect."""
    expected = ""
    if row["family"] == AUGMENTED:
        figure = figures[name_of_method(name.removeprefix("ResNet50_"))]
        expected = f"Published top-1: {figure['top1_acc(fraction)']} ({figure['source']})."
        if name in NEVER_FIRED:
            expected += (
                " That training changed hardly an image, by a fault of the publisher's code; this one does."
            )
    elif row["config"] not in DISTILLED and catalog.get(network).top1:
        entry = catalog.get(network)
        expected = f"Published top-1: {entry.top1:.4g} ({entry.source})."
    about = (
        f"After {row['source']}. {expected + ' ' * bool(expected)}Not trained by us. The global batch is {batch(row)}; for another one change"
        " the learning rate in proportion. Scales and offsets do not decay here."
    )
    return comment(f"edgecls train imagenet/{name}", about)


def name_of_method(text: str) -> str:
    """``"HideAndSeek"`` and ``"hide and seek"`` as one word."""
    word = re.sub(r"[^a-z]", "", text.lower())
    return {"standardtransform": "baseline", "randomaugment": "randaugment"}.get(word, word)


def model(network: str, row: Row) -> dict[str, Any]:
    size = int(row["train_crop_px"])
    return {"name": network} | ({"input_size": size} if size != catalog.get(network).input_size else {})


def batch(row: Row) -> int:
    return int(row["batch_size"]) * (CARDS if row["batch_size_scope"] == "per card" else 1)


def training(row: Row) -> dict[str, Any]:
    """The ``train`` section."""
    values: dict[str, Any] = {
        "epochs": int(row["epochs"]),
        "batch_size": batch(row),
        "optimizer": optimizer(row),
        "schedule": schedule(row),
    }
    smoothing = float(row["label_smoothing"] or 0)
    if smoothing > 0:
        values["label_smoothing"] = smoothing
    if row["ema"] == "True":
        values["ema_decay"] = float(row["ema_decay"])
    return values


def optimizer(row: Row) -> dict[str, Any]:
    name = {"Momentum": "sgd", "RMSProp": "rmsprop", "AdamW": "adamw"}[row["optimizer"]]
    return {"name": name, "lr": float(row["lr"]), "weight_decay": float(row["l2_decay"])}


def schedule(row: Row) -> dict[str, Any]:
    if row["lr_schedule"] in ("Piecewise", "MultiStepDecay"):
        return {"name": "piecewise", "boundaries": [float(b) for b in ast.literal_eval(row["decay_epochs"])]}
    if row["lr_schedule"] == "ExponentialWarmup":
        return {"name": "exponential", "warmup_epochs": 5.0}
    warmup = float(row["warmup_epochs"] or (5 if row["lr_schedule"] == "CosineWarmup" else 0))
    return {"name": "cosine"} | ({"warmup_epochs": warmup} if warmup else {})


def augmentation(row: Row) -> dict[str, Any]:
    """The keys of ``augment`` besides crop and mirror."""
    return dict(operations(row["train_extra_ops"], row["mix_ops"])) | crop(row)


def crop(row: Row) -> dict[str, Any]:
    scale = next(value for key, value in row.items() if key.startswith("train_crop_scale"))
    return {"crop_scale": ast.literal_eval(scale)} if scale else {}


def operations(extra: str, mixing: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """The publisher's operations by our names, with our names of their options."""
    for text in filter(None, extra.split("; ")):
        name, _, options = text.partition("{")
        given = ast.literal_eval(f"{{{options}") if options else {}
        if name == "AutoAugment":
            yield "autoaugment", {"flavor": "paddle"}
        elif name == "RandAugment":
            yield "randaugment", {"flavor": "paddle", **given}
        elif name == "TimmAutoAugment":
            magnitude = int(re.search(r"-m(\d+)", given["config_str"])[1])  # type: ignore[index]
            yield "randaugment", {"magnitude": float(magnitude)}
        elif name == "Cutout":
            yield "cutout", {"n_holes": given["n_holes"], "length": float(given["length"])}
        elif name == "RandomErasing":
            yield "random_erasing", {"probability": given["EPSILON"]}
        elif name == "HideAndSeek":
            yield "hide_and_seek", {}
        elif name == "GridMask":
            yield "gridmask", {"mode": given["mode"]}
        else:
            raise ValueError(f"unknown operation {name}")
    if mixing.startswith("OpSampler"):  # one of the two for each image
        yield "mixup", {"alpha": 0.8, "probability": 0.5}
        yield "cutmix", {"alpha": 1.0, "probability": 0.5}
    elif mixing:
        name = "mixup" if mixing.startswith("Mixup") else "cutmix"
        yield name, {"alpha": float(re.search(r"'alpha': ([\d.]+)", mixing)[1])}  # type: ignore[index]


if __name__ == "__main__":
    main()

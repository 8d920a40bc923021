"""``edgecls train --smoke``: any recipe in a minute, on drawn images and with random weights where its own are absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_run import RECIPE, edgecls, photos, succeed

from edgecls.console import Console
from edgecls.data.sources import load_dataset
from edgecls.recipe import RANDOM, load_recipe
from edgecls.workflow import smoke

LARGE = """
name: large
model: {name: MobileNetV1_x0_25, input_size: 224, resize_short: 256}
teacher: {name: MobileNetV1_x0_25, weights: imagenet}
distill: {}
data: {source: list, path: nowhere/train.txt, test_path: nowhere/val.txt, class_weights: balanced}
train: {epochs: 300, batch_size: 4096, accumulate: 16}
phases:
- {name: large, data: {class_weights: none, extra: [{path: nowhere/more, labels: false}]}}
- {name: fine, model: {input_size: 320, resize_short: 320}, train: {epochs: 30, optimizer: {lr: 0.001}}}
"""
SMALL = ("-o", "model.name=MobileNetV1_x0_25", "-o", "teacher.name=MobileNetV1_x0_25")
QUIET = Console(quiet=True)


def test_a_recipe_is_shrunk_and_nothing_else_of_it_changes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(LARGE)
    recipe = load_recipe("r.yaml")
    small = smoke.shrink(recipe, QUIET)
    assert small.name == "large.smoke" and small.model.weights is None
    assert small.teacher is not None and small.teacher.weights == RANDOM
    large, fine = (part.recipe for part in small.parts)
    assert [(r.model.input_size, r.model.resize_short) for r in (large, fine)] == [(64, 73), (96, 96)]
    for each, was in zip((large, fine), (part.recipe for part in recipe.parts), strict=True):
        assert (each.train.epochs, each.train.batch_size, each.train.accumulate) == (1, 8, 2)
        changed = {"epochs", "batch_size", "accumulate"}
        assert each.train.model_dump(exclude=changed) == was.train.model_dump(exclude=changed)
        assert (each.augment, each.distill) == (was.augment, was.distill)
    assert (large.data.class_weights, fine.data.class_weights) == ("none", "balanced")
    assert [extra.labels for extra in large.data.extra] == [False] and not fine.data.extra
    data = load_dataset(large.data)
    assert len(data.classes) == smoke.CLASSES and (data.train.labels < 0).any() and len(data.test)


def test_of_a_recipes_own_images_a_few_are_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", count=40)
    Path("r.yaml").write_text(RECIPE)
    small = smoke.shrink(load_recipe("r.yaml"), QUIET)
    assert small.data.path == str(tmp_path / "photos")
    assert small.model.input_size == 32, "a size is never made larger"
    data = load_dataset(small.data)
    splits = (data.train, data.val, data.test)
    assert sum(map(len, splits)) == smoke.IMAGES and not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "changes", "stages"),
    [
        ("imagenet/MobileNetV1_ssld", (), ["student.large", "student.finetune"]),
        (
            "flowers102/R50_vd_distill_MV3_large_x1_0",
            ("-o", "teacher.train.lr_mult_list=[0.1, 0.1, 0.2, 0.2, 0.3, 0.3]"),
            ["teacher", "student.distill"],
        ),
    ],
)
def test_recipes_run(
    tmp_path: Path,
    recipe: str,
    changes: tuple[str, ...],
    stages: list[str],
) -> None:
    text = succeed(tmp_path, "train", recipe, *SMALL, *changes, "--smoke")
    assert "images are drawn in their place" in text and "its figures mean nothing" in text
    (run,) = {
        path.parent for path in tmp_path.glob("runs/smoke/*/*/recipe.yaml") if "latest" not in str(path)
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == stages
    assert (run / "float.keras").exists() and (run / "report.html").exists()
    assert not (tmp_path / "runs/latest").exists()
    assert json.loads(succeed(tmp_path, "runs", "--json").splitlines()[0])["runs"] == []
    done = edgecls(tmp_path, "train", recipe, "--smoke", "--run", "there")
    assert done.returncode == 2 and "--run" in done.stderr

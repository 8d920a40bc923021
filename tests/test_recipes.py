"""The recipes that come with the package: all of them resolve, and those of SSLD have the published values."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecls.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[1] / "recipes"
PUBLISHED = [name for name in recipe_names() if "/" in name and not name.endswith("/common")]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_resolves(name: str) -> None:
    needed = ["data.path=photos"] if name == "base" else []
    recipe = load_recipe(name, needed)
    assert recipe.parts[-1].network == "float.keras"
    text = (ROOT / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# edgecls train ")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_is_short_and_says_where_it_comes_from(name: str) -> None:
    lines = (ROOT / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# edgecls train {name}"
    assert "@" in "".join(lines[:8]), "the source, with its commit"
    assert len([line for line in lines if not line.startswith("#")]) <= 30


# Cui et al. 2021 (arXiv:2103.05959) and the publisher's pages on distillation: student -> teacher, decay, and for
# each phase epochs, batch and learning rate
SSLD = {
    "MobileNetV1": ("ResNet50_vd_ssld", 3e-5, (360, 4096, 1.6), (30, 4096, 0.016)),
    "MobileNetV2": ("ResNet50_vd_ssld", 1e-5, (360, 3072, 0.54), (30, 3072, 0.0054)),
    "MobileNetV3_large_x1_0": ("ResNet50_vd_ssld", 1e-5, (360, 5760, 3.65625), (30, 2048, 0.008)),
    "MobileNetV3_small_x1_0": ("ResNet50_vd_ssld", 1e-5, (360, 5760, 3.65625), (30, 6400, 0.025)),
    "ResNet50_vd": ("ResNeXt101_32x16d_wsl", 7e-5, (360, 1024, 0.4), (60, 1024, 0.004)),
    "ResNet101_vd": ("ResNeXt101_32x16d_wsl", 7e-5, (360, 1024, 0.4), (30, 1024, 0.004)),
    "Res2Net200_vd_26w_4s": ("ResNeXt101_32x16d_wsl", 4e-5, (360, 1024, 0.4), (360, 1024, 0.004)),
}


@pytest.mark.parametrize("student", SSLD)
def test_ssld_is_as_it_was_published(student: str) -> None:
    teacher, decay, *phases = SSLD[student]
    parts = load_recipe(f"imagenet/{student}_ssld").parts
    assert [part.stage for part in parts] == ["student.large", "student.finetune"]
    for part, (epochs, batch, rate) in zip(parts, phases, strict=True):
        recipe, train = part.recipe, part.recipe.train
        assert recipe.model.name == student and recipe.model.weights is None
        assert recipe.teacher is not None and (recipe.teacher.name, recipe.teacher.weights) == (
            teacher,
            "imagenet",
        )
        assert (train.epochs, train.batch_size, train.optimizer.lr) == (epochs, batch, rate)
        assert (train.optimizer.name, train.optimizer.weight_decay) == ("sgd", decay)
        assert (train.schedule.name, train.schedule.warmup_epochs) == ("cosine", 5)
        assert recipe.distill is not None and (recipe.distill.loss.name, recipe.distill.hard_weight) == (
            "js",
            0,
        )
        assert recipe.distill.teacher_bn == "train" and train.label_smoothing == 0
        assert recipe.augment.autoaugment is None and recipe.augment.crop_scale == [0.08, 1.0]
    assert [extra.labels for extra in parts[0].recipe.data.extra] == [False] and not parts[
        1
    ].recipe.data.extra


def test_fix_is_a_third_phase() -> None:
    *before, fix = load_recipe("imagenet/Fix_ResNet50_vd_ssld_v2").parts
    v2 = load_recipe("imagenet/ResNet50_vd_ssld_v2").parts
    assert [part.recipe.train for part in before] == [part.recipe.train for part in v2]
    assert [part.recipe.augment for part in before] == [part.recipe.augment for part in v2]
    assert fix.recipe.train.optimizer.weight_decay == v2[0].recipe.train.optimizer.weight_decay == 2e-5
    assert (fix.recipe.model.input_size, fix.recipe.model.resize_short) == (320, 320)
    assert fix.recipe.distill is None and fix.recipe.train.freeze == ["backbone"]
    assert (fix.recipe.augment.crop_scale, fix.recipe.augment.flip) == (None, "none")
    assert v2[0].recipe.augment.autoaugment is not None and fix.recipe.augment.autoaugment is None


# https://github.com/PaddlePaddle/PaddleClas, docs/en/tutorials/quick_start_en.md, table at the end
TOUR = {
    "ResNet50_vd": "0.2735",
    "MobileNetV3_large_x1_0_finetune": "0.9000",
    "ResNet50_vd_finetune": "0.9402",
    "ResNet50_vd_ssld_finetune": "0.9500",
    "ResNet50_vd_ssld_random_erasing_finetune": "0.9627",
    "R50_vd_distill_MV3_large_x1_0": "0.9647",
}


@pytest.mark.parametrize("name", TOUR)
def test_the_tour_of_30_minutes(name: str) -> None:
    recipe = load_recipe(f"flowers102/{name}")
    assert TOUR[name] in (ROOT / f"flowers102/{name}.yaml").read_text(encoding="utf-8").replace("\n# ", " ")
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.data.classes) == (20, 32, 102)
    assert recipe.train.optimizer.lr == (
        0.0125 if name in ("ResNet50_vd", "R50_vd_distill_MV3_large_x1_0") else 0.00375
    )
    assert (recipe.model.weights is None) == (name == "ResNet50_vd")
    fine = recipe.teacher.train if recipe.teacher else recipe.train
    assert fine is not None
    assert fine.lr_mult_list == ([0.2, 0.2, 0.4, 0.4, 0.6] if "ssld" in name or recipe.teacher else None)

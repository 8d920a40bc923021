"""``model.only_new_classes``: the old classes' weights and logits stay, the new class is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import RECIPE, edgecls, photos, succeed

import edgecls as package
from edgecls.errors import UsageError
from edgecls.networks import Model
from edgecls.run import Run
from edgecls.workflow import new_classes

OLD, NEW = ["blue", "red"], "green"  # between the old ones in the order of the alphabet


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    """A folder, a run of two classes, and one that has learned a third beside them."""
    root = tmp_path_factory.mktemp("grown")
    photos(root / "photos")
    (root / "old.yaml").write_text(RECIPE.replace("name: tiny", "name: old"))
    succeed(root, "train", "old.yaml")
    old = Run.find(root / "runs" / "old")
    photos(root / "more", classes=(*OLD, NEW))
    text = RECIPE.replace("name: tiny", "name: grown").replace("path: photos", "path: more")
    given = f"resize_short: 32, weights: {old.file('float.keras')}, only_new_classes: true"
    text = text.replace("resize_short: 32", given)
    decay = "ema_decay: 0.9, label_smoothing: 0.1, optimizer: {name: adamw, weight_decay: 0.1, lr: 0.01}"
    text = text.replace(
        "epochs: 2, batch_size: 8, optimizer: {lr: 0.01}", f"epochs: 1, batch_size: 8, {decay}"
    )
    text += "phases:\n- {name: one}\n- {name: two, model: {input_size: 48, resize_short: 48}}\n"
    (root / "new.yaml").write_text(text)
    succeed(root, "train", "new.yaml")
    return root, old, Run.find(root / "runs" / "grown")


def test_old_weights_and_logits_stay_and_the_new_class_is_learned(grown: tuple[Path, Run, Run]) -> None:
    _, old, new = grown
    classes = new.file("labels.txt").read_text().split()
    kept = [classes.index(name) for name in OLD]
    assert classes == ["blue", NEW, "red"]
    before, one, after = (
        package.load_model(run.file(name))
        for run, name in ((old, "float.keras"), (new, "phases/one.keras"), (new, "float.keras"))
    )
    for layer in before.layers:
        values = zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        for value, now in values:
            np.testing.assert_array_equal(now[..., kept] if layer.name == "fc" else now, value, layer.name)
    heads = [model.get_layer("fc").get_weights()[0][..., 1] for model in (one, after)]
    assert not np.array_equal(*heads)
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 48, 48, 3)).astype(np.float32)
    features = [model.get_layer("fc").input for model in (before, after)]
    assert features[0].shape == features[1].shape
    logits = after(pixels, training=False).numpy()
    larger = package.build_model(
        "MobileNetV1_x0_25",
        classes=2,
        input_size=48,
        include_preprocessing=True,
        weights=str(old.file("float.keras")),
    )
    np.testing.assert_array_equal(logits[:, kept], larger(pixels, training=False).numpy())


def test_what_does_not_fit_is_told_before_anything_is_written(grown: tuple[Path, Run, Run]) -> None:
    root, _, _ = grown
    photos(root / "fewer", classes=(NEW, "red"))
    for change, line in {
        "data.path=photos": "the network knows all classes of the data (model.only_new_classes); add a class",
        "data.path=fewer": "the data has no class 'blue', which the network knows (model.only_new_classes)",
        "model.weights=null": "model: only_new_classes needs the network of the old ones",
    }.items():
        done = edgecls(root, "train", "new.yaml", "--fresh", "-o", change)
        assert done.returncode == 2 and line in done.stderr, done.stderr
    assert len(list((root / "runs" / "grown").iterdir())) == 1


def test_a_network_that_is_not_the_old_one_is_refused(grown: tuple[Path, Run, Run], tmp_path: Path) -> None:
    _, old, _ = grown
    section: Any = Model(
        name="MobileNetV1_x0_25", weights=str(old.file("float.keras")), only_new_classes=True
    )
    other = package.build_model("MobileNetV1_x0_25", classes=3, input_size=32, include_preprocessing=True)
    with pytest.raises(UsageError, match=r"layer '.*' is not as the network of the old classes has it"):
        new_classes.put_old(other, section, [0, 2])
    other.save(tmp_path / "unlabeled.keras")
    unlabeled: Any = Model(file=str(tmp_path / "unlabeled.keras"), only_new_classes=True)
    with pytest.raises(UsageError, match=r"nothing beside the network says which classes it knows"):
        new_classes.old_classes(unlabeled)


def test_a_finished_run_needs_its_first_weights_no_more(grown: tuple[Path, Run, Run]) -> None:
    root, old, _ = grown
    weights = old.file("float.keras")
    weights.rename(root / "away.keras")
    try:
        told = succeed(root, "train", "new.yaml")
        assert "student.one: done before, kept" in told and "student.two: done before, kept" in told
        assert "kept" in succeed(root, "train", "new.yaml", "--dry-run")
        anew = edgecls(root, "train", "new.yaml", "--fresh")
        assert anew.returncode == 2 and "no such weights file" in anew.stderr
    finally:
        (root / "away.keras").rename(weights)

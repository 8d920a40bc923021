"""Stages of networks: as their papers have them, of every family, and of copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import pytest

import edgecls
from edgecls.errors import UsageError
from edgecls.reparam import asymmetric, fuse
from edgecls.stage_layers import lr_groups_of
from edgecls.zoo import catalog, cost
from edgecls.zoo.blocks import Head
from edgecls.zoo.families import family_module

# Numbers of stages after the stem, from tables of the papers; blocks of one width where a paper has no stages.
STAGES = {
    "AlexNet": 2,
    "VGG": 5,
    "GoogLeNet": 3,
    "Inception": 3,
    "ResNe": 4,
    "SE": 4,
    "Res2Net": 4,
    "DPN": 4,
    "DenseNet": 4,
    "DarkNet53": 5,
    "SqueezeNet": 3,
    "HRNet": 4,
    "Xception": 3,
    "MobileNetV1": 5,
    "MobileNetV2": 7,
    "MobileNetV3_large": 6,
    "MobileNetV3_small": 5,
    "ShuffleNetV2": 3,
    "GhostNet": 5,
    "EfficientNet": 7,
    "PPLCNet_": 5,
    "PPLCNetV2": 4,
    "ESNet": 3,
    "RepVGG": 4,
    "ViT_small": 8,
    "ViT_base": 12,
    "DeiT": 12,
    "Fix_ResNe": 4,
}
SMALLEST = {
    family: min(
        (catalog.get(name) for name in catalog.names() if catalog.get(name).family == family),
        key=lambda entry: entry.params,
    ).name
    for family in catalog.families()
}


def check_stages(model: keras.Model, names: list[str]) -> dict[str, list[keras.Layer]]:
    """Every layer is in one stage, none takes its input from a later one, and the head holds the classifier alone."""
    stages = edgecls.stages(model)
    assert list(stages) == [*names, "head"]
    assert sorted(e.name for layers in stages.values() for e in layers) == sorted(
        e.name for e in model.layers
    )
    number = {layer.name: i for i, layers in enumerate(stages.values()) for layer in layers}
    for layer in model.layers:
        for tensor in keras.tree.flatten(layer.input) if number[layer.name] or layer.weights else []:
            assert number[tensor._keras_history.operation.name] <= number[layer.name], layer.name
    assert all(any(layer.weights for layer in layers) for layers in stages.values())
    for output in model.outputs:
        assert number[output._keras_history.operation.name] == len(names)
    return stages


def expected(name: str) -> list[str]:
    count = next(STAGES[start] for start in sorted(STAGES, key=len, reverse=True) if name.startswith(start))
    return [*(() if name.startswith("VGG") else ("stem",)), *map(str, range(1, count + 1))]


def test_every_network_has_the_stages_of_its_paper() -> None:
    for name in catalog.names():
        assert list(catalog.get(name).stages) == expected(name), name
        groups = [f"group{i}" for i in range(1, 6)] if name.startswith("MobileNetV3") else []
        assert list(catalog.get(name).lr_groups) == groups


@pytest.mark.parametrize("name", SMALLEST.values())
def test_the_table_has_what_the_builder_marks(name: str) -> None:
    entry, image = catalog.get(name), keras.Input((96, 96, 3), name="image")
    with cost.without_values():
        taps, logits = family_module(entry.family).build(
            entry.architecture, image, Head(7, 0.1, auxiliary=True)
        )
    assert (taps.stages, taps.lr_groups) == (entry.stages, entry.lr_groups)
    check_stages(keras.Model(image, logits, name=name), list(entry.stages))


def test_stages_of_resnet50_vd() -> None:
    stages = edgecls.stages(edgecls.build_model("ResNet50_vd", classes=2, input_size=64))
    convolutions = {
        stage: sum(isinstance(layer, keras.layers.Conv2D) for layer in layers)
        for stage, layers in stages.items()
    }
    # Three in a block, and one in the shortcut of each stage's first block.
    assert convolutions == {"stem": 3, "1": 10, "2": 13, "3": 19, "4": 10, "head": 0}
    assert [layer.name for layer in stages["head"]] == ["avg_pool", "flatten", "fc"]


@pytest.mark.parametrize(("size", "interval"), [("large", 3), ("small", 2)])
def test_paddles_groups_of_mobilenet_v3(size: str, interval: int) -> None:
    """Each group has as many blocks, the first one has the stem, the last one all the rest of the backbone."""
    groups = lr_groups_of(edgecls.build_model(f"MobileNetV3_{size}_x0_35", classes=2, input_size=32))
    for number, layers in enumerate(groups.values()):
        for layer in layers:
            if layer.name.startswith("blocks."):
                assert min(int(layer.name.split(".")[1]) // interval, 4) == number
    assert [next(k for k, v in groups.items() if name in [e.name for e in v]) for name in (
        "conv.conv", "last_second_conv.conv", "last_conv", "fc"
    )] == ["group1", "group5", "head", "head"]  # fmt: skip


def saved(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return edgecls.load_model(folder / "model.keras")


COPIES: list[tuple[str, Callable[[keras.Model, Path], keras.Model]]] = [
    ("MobileNetV3_small_x0_35", saved),
    ("RepVGG_A0", lambda model, folder: fuse(model)),
    ("PPLCNetV2_small", lambda model, folder: fuse(model)),
    ("MobileNetV1_x0_25", lambda model, folder: asymmetric(model)),
    *(
        (name, lambda model, folder: edgecls.quantize_model(model))
        for name in ("MobileNetV3_small_x0_35", "ResNet18_vd", "ShuffleNetV2_x0_25", "SqueezeNet1_1")
    ),
]


@pytest.mark.parametrize(("name", "copy"), COPIES)
def test_a_copy_has_the_stages_of_its_network(
    name: str, copy: Callable[[keras.Model, Path], keras.Model], tmp_path: Path
) -> None:
    model = edgecls.build_model(
        name, classes=3, input_size=96, embedding_dim=4, dropout=0.5, include_preprocessing=True
    )
    stage = {e.name: name for name, layers in edgecls.stages(model).items() for e in layers if e.weights}
    other = copy(model, tmp_path)
    copied = check_stages(other, list(catalog.get(name).stages)) if other.layers else {}
    common = {e.name: name for name, layers in copied.items() for e in layers if e.name in stage}
    assert common and all(stage[name] == number for name, number in common.items())


def test_a_network_of_the_user_has_a_stage_for_each_halving() -> None:
    x = image = keras.Input((64, 64, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    for width in (4, 8, 8, 16):
        x = keras.layers.Conv2D(width, 3, 2, padding="same", name=f"conv{width}_{x.shape[1]}")(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2, name="classifier")(x), name="mine")
    stages = check_stages(model, ["stem", "1", "2", "3"])
    weighted = {stage: [e.name for e in layers if e.weights] for stage, layers in stages.items()}
    assert weighted == {
        "stem": ["conv4_64"], "1": ["conv8_32"], "2": ["conv8_16"], "3": ["conv16_8"], "head": ["classifier"]
    }  # fmt: skip
    row = keras.Input((4,))
    flat = keras.Model(row, keras.layers.Dense(2)(row), name="flat")
    with pytest.raises(UsageError, match=r"cannot tell the stages of this network.*flat"):
        edgecls.stages(flat)

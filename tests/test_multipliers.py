"""Learning rates by stage, frozen stages: against independent formulas, on networks and in recipes."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_train_parts import optimized

import edgecls
from edgecls.errors import UsageError
from edgecls.recipe import Train, load_recipe
from edgecls.train.loop import Trainer, fit
from edgecls.train.multipliers import Optimizers, check_stages, frozen, lr_factors
from edgecls.train.objective import Objective
from edgecls.train.optimizers import OPTIMIZERS, AdamW, Optimizer, Sgd
from edgecls.train.step import decayed
from edgecls.zoo import catalog
from edgecls.zoo.layers import BatchNormalization

RNG = np.random.default_rng(11)
SIZE, CLASSES, BATCH = 32, 3, 4
PIXELS = RNG.integers(0, 256, (3 * BATCH, SIZE, SIZE, 3)).astype(np.float32)
TARGETS = np.eye(CLASSES, dtype=np.float32)[RNG.integers(0, CLASSES, 3 * BATCH)]


def network() -> keras.Model:
    """Stages stem, 1 and 2, each a convolution with batch normalization, and a head."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    for stage in range(3):
        x = keras.layers.Conv2D(4, 3, 2, padding="same", name=f"conv{stage}")(x)
        x = keras.layers.ReLU()(BatchNormalization(name=f"norm{stage}")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(CLASSES, name="fc")(x), name="tiny")


def epoch_batches(epoch: int, start: int = 0) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((PIXELS, TARGETS)).batch(BATCH).skip(start)


def trainer(model: keras.Model, **keys: object) -> Trainer:
    settings = {"epochs": 2, "batch_size": BATCH, "optimizer": Sgd(lr=0.01), "select": "last"} | keys
    return Trainer(model, Objective(), Train(**settings), 3)


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_a_factor_multiplies_the_whole_update_of_every_optimizer(kind: type[Optimizer]) -> None:
    """Also its weight decay: decoupled decay is part of the update, L2 part of the gradient."""
    w, g = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 3, 5))
    factors, config = [1.0, 0.1, 1.0], kind(lr=0.02, weight_decay=0.3)
    variables = [keras.Variable(x.astype(np.float32), name="kernel") for x in w]
    subject = Optimizers(config, lambda factor: 0.02 * factor, variables, factors)
    for step in range(3):
        gradients = [tf.constant(x, tf.float32) for x in g[:, step]]
        subject.apply(decayed(gradients, variables, config))
    assert int(subject.iterations) == 3
    for variable, start, gradients, factor in zip(variables, w, g, factors, strict=True):
        expected = optimized(config, start, gradients, 0.02 * factor)
        np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-5, atol=5e-6)


def test_factors_of_resnet_are_of_its_stages() -> None:
    model = edgecls.build_model("ResNet18_vd", classes=3, input_size=32)
    factors = lr_factors(model, [0.1, 0.2, 0.3, 0.4, 0.5])
    by_name = {v.path.split("/")[0]: f for v, f in zip(model.trainable_variables, factors, strict=True)}
    assert {name: by_name[f"{name}.conv"] for name in ("stem.0", "stem.2")} == {"stem.0": 0.1, "stem.2": 0.1}
    for block, factor in enumerate((0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5)):
        assert by_name[f"blocks.{block}.conv0.conv"] == by_name[f"blocks.{block}.conv1.bn"] == factor
    assert by_name["fc"] == 1.0
    assert lr_factors(model, [0.1, 0.2, 0.3, 0.4, 0.5, 2.0])[-1] == 2.0
    assert set(lr_factors(model, None)) == {1.0}


def test_five_factors_of_mobilenet_v3_are_paddles_groups_and_six_its_stages() -> None:
    model = edgecls.build_model("MobileNetV3_small_x0_35", classes=3, input_size=32)
    names = [v.path.split("/")[0] for v in model.trainable_variables]
    groups = dict(zip(names, lr_factors(model, [0.1, 0.2, 0.3, 0.4, 0.5]), strict=True))
    for block in range(11):
        assert groups[f"blocks.{block}.linear_conv.conv"] == [0.1, 0.2, 0.3, 0.4, 0.5][min(block // 2, 4)]
    assert (groups["conv.bn"], groups["last_second_conv.bn"], groups["fc"]) == (0.1, 0.5, 1.0)
    stages = dict(zip(names, lr_factors(model, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), strict=True))
    assert [stages[f"blocks.{block}.linear_conv.conv"] for block in range(11)] == (
        [0.1] + [0.2] * 2 + [0.3] * 3 + [0.4] * 2 + [0.5] * 3
    )


def test_a_training_with_factors_moves_each_stage_by_its_own_and_resumes_exactly(tmp_path: Path) -> None:
    """With plain gradient descent a step is the gradient times the learning rate."""

    def trained(epochs: int, **keys: object) -> keras.Model:
        model = network()
        subject = trainer(
            model, epochs=epochs, optimizer=Sgd(lr=0.01, momentum=0.0), schedule="constant", **keys
        )
        subject.run_epoch(epoch_batches(0).take(1), lambda step: None)
        subject.close()
        return model

    before, factors = network(), [0.0, 0.5, 1.0, 0.25]
    plain, scaled = trained(1), trained(1, lr_mult_list=factors)
    for start, full, part, factor in zip(
        *(m.trainable_variables for m in (before, plain, scaled)), lr_factors(before, factors), strict=True
    ):
        moved = factor * (full.numpy() - start.numpy())
        np.testing.assert_allclose(
            part.numpy(), start.numpy() + moved, rtol=1e-5, atol=1e-6, err_msg=start.path
        )

    options = {"lr_mult_list": factors, "optimizer": AdamW(lr=0.01)}
    whole, first, second = (trainer(network(), **options) for _ in range(3))
    fit(whole, epoch_batches, dict, tmp_path / "whole")
    first.config = first.config.model_copy(update={"epochs": 1})
    fit(first, epoch_batches, dict, tmp_path / "halves")
    fit(second, epoch_batches, dict, tmp_path / "halves")
    for a, b in zip(whole.variables, second.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_frozen_stages_keep_every_byte_and_their_statistics(tmp_path: Path) -> None:
    model, before = network(), network()
    subject = trainer(model, freeze=["stem", "1"], optimizer=AdamW(lr=0.01, weight_decay=0.1), ema_decay=0.9)
    assert len(subject.optimizer.variables) < 2 * len(before.trainable_variables)
    fit(subject, epoch_batches, dict, tmp_path)
    subject.close()
    assert [v.path for v in model.trainable_variables] == [v.path for v in before.trainable_variables]
    stages = edgecls.stages(model)
    still = {id(v) for stage in ("stem", "1") for layer in stages[stage] for v in layer.variables}
    for new, old in zip(model.variables, before.variables, strict=True):
        equal = np.array_equal(new.numpy(), old.numpy())
        assert equal == (id(new) in still), new.path


def test_what_is_below_the_first_trained_layer_has_no_gradient() -> None:
    """The step's graph has one backward convolution for each layer that trains, and none for the others."""

    def backward_kernels(**keys: object) -> int:
        subject = trainer(network(), **keys)
        step = subject._step.get_concrete_function(
            tf.TensorSpec((BATCH, SIZE, SIZE, 3), tf.float32), tf.TensorSpec((BATCH, CLASSES), tf.float32)
        )
        return sum("BackpropFilter" in op.type for op in step.graph.get_operations())

    assert [backward_kernels(freeze=freeze) for freeze in ([], ["stem", "1"], ["backbone"])] == [3, 1, 0]


def test_a_frozen_network_is_as_before_even_after_an_error() -> None:
    model = network()
    with pytest.raises(KeyError), frozen(model, ["backbone"]):
        assert [v.path for v in model.trainable_variables] == ["fc/kernel", "fc/bias"]
        raise KeyError
    assert len(model.trainable_variables) == len(network().trainable_variables)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lr_mult_list": [1.0] * 4}, "4 factors, but ResNet50_vd has the stages stem, 1, 2, 3, 4.*give 5 factors, 6"),
        ({"freeze": ["5"]}, "ResNet50_vd has no stage '5'.*name some of: stem, 1, 2, 3, 4, head, backbone"),
        ({"freeze": ["backbone", "head"]}, "every stage is frozen"),
    ],
)  # fmt: skip
def test_keys_that_do_not_fit_the_network_are_refused(keys: dict[str, list], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_stages(catalog.get("ResNet50_vd"), keys.get("lr_mult_list"), keys.get("freeze", []))


@pytest.mark.parametrize("section", ["train", "quantize.train", "teacher.train"])
def test_a_recipe_says_where_its_keys_do_not_fit(section: str) -> None:
    with pytest.raises(
        UsageError, match=rf"{section}.lr_mult_list: 3 factors, but .* has the stages stem, 1.*-o"
    ):
        load_recipe("mv3_ssld", [f"{section}.lr_mult_list=[1.0, 1.0, 1.0]"])
    with pytest.raises(UsageError, match=rf"{section}.freeze: .* has no stage 'neck'"):
        load_recipe("mv3_ssld", [f"{section}.freeze=[neck]"])
    recipe = load_recipe("mv3_ssld", [f"{section}.freeze=[stem, 1]"])
    for part in section.split("."):
        recipe = getattr(recipe, part)
    assert recipe.freeze == ["stem", "1"]
    assert load_recipe("mv3_ssld", ["train.freeze=backbone"]).train.freeze == ["backbone"]

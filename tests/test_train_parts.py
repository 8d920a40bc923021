"""Schedules, optimizers, losses and distances against closed forms in NumPy, over their registries."""

from __future__ import annotations

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgecls import _schema
from edgecls.errors import UsageError
from edgecls.recipe import QAT_OPTIMIZER, Recipe, load_recipe
from edgecls.train.distill import DISTANCES, Ce, Dist, Distance, Dkd, Js, Kl
from edgecls.train.losses import LOSSES, Bce, CrossEntropy, Focal, Loss, Ohem, smooth
from edgecls.train.optimizers import OPTIMIZERS, UNDECAYED, Adam, AdamW, Lamb, Lion, Optimizer, RmsProp, Sgd
from edgecls.train.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    Piecewise,
    Polynomial,
    Schedule,
    make_schedule,
)
from edgecls.train.step import Averages, accumulated, clipped, decayed

RNG = np.random.default_rng(3)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


# Schedules

RATES = [  # of 10 epochs of 8 steps, 2 of them warm-up: the share of the peak at a step
    (Constant(warmup_epochs=2), lambda s: 1.0),
    (Cosine(warmup_epochs=2, end=0.1), lambda s: 0.1 + 0.45 * (1 + math.cos(math.pi * (s - 16) / 64))),
    (Polynomial(warmup_epochs=2, power=2.0), lambda s: ((80 - s) / 64) ** 2),
    (Exponential(warmup_epochs=2, rate=0.9, every_epochs=0.5), lambda s: 0.9 ** ((s - 16) // 4)),
    (Exponential(warmup_epochs=2, rate=0.9, staircase=False), lambda s: 0.9 ** ((s - 16) / (2.4 * 8))),
    (Piecewise(warmup_epochs=2, boundaries=[3.0, 7.5]), lambda s: 0.1 ** ((s >= 24) + (s >= 60))),
]


@pytest.mark.parametrize(("config", "share"), RATES, ids=lambda x: getattr(x, "name", ""))
def test_a_schedule_is_its_closed_form_after_a_linear_warmup(config: Schedule, share) -> None:
    rate = make_schedule(config, 0.4, epochs=10, steps_per_epoch=8)
    expected = [0.4 * ((s + 1) / 16 if s < 16 else share(s)) for s in range(81)]
    np.testing.assert_allclose([rate(s) for s in range(81)], expected, rtol=2e-5, atol=1e-7)


def test_every_schedule_has_a_closed_form_here() -> None:
    assert {type(config) for config, _ in RATES} == set(SCHEDULES)


# Optimizers


def optimized(config: Optimizer, w: np.ndarray, gradients: np.ndarray, lr: float) -> np.ndarray:
    """The weights after a step with each of the gradients, as the papers have it, in float64."""
    m, v = np.zeros_like(w), np.full_like(w, getattr(config, "first_square", 0.0))
    velocity = np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        if config.decoupled:
            w = w - lr * config.weight_decay * w
        else:
            g = g + config.weight_decay * w
        match config:
            case Sgd():
                velocity = config.momentum * velocity + g
                w = w - lr * (g + config.momentum * velocity if config.nesterov else velocity)
            case RmsProp():
                v = config.rho * v + (1 - config.rho) * g * g
                velocity = config.momentum * velocity + lr * g / np.sqrt(v + config.epsilon)
                w = w - velocity
            case Lion():
                w = w - lr * np.sign(config.beta_1 * m + (1 - config.beta_1) * g)
                m = config.beta_2 * m + (1 - config.beta_2) * g
            case Adam() | AdamW() | Lamb():
                m = config.beta_1 * m + (1 - config.beta_1) * g
                v = config.beta_2 * v + (1 - config.beta_2) * g * g
                epsilon = 1e-6 if isinstance(config, Lamb) else 1e-7
                step = m / (1 - config.beta_1**t) / (np.sqrt(v / (1 - config.beta_2**t)) + epsilon)
                trust = np.linalg.norm(w) / np.linalg.norm(step) if isinstance(config, Lamb) else 1.0
                w = w - lr * trust * step
            case _:
                raise NotImplementedError
    return w


@pytest.mark.parametrize(
    "config",
    [*(kind(lr=0.1) for kind in OPTIMIZERS), Sgd(nesterov=True), RmsProp(first_square=0.0)],
    ids=repr,
)
def test_steps_of_an_optimizer_are_the_papers_ones(config: Optimizer) -> None:
    config = config.model_copy(update={"weight_decay": 0.3})
    w, g = RNG.normal(size=5), RNG.normal(size=(4, 5))
    variable = keras.Variable(w.astype(np.float32), name="kernel")
    optimizer = config.make(0.1, [variable])
    for gradient in g:
        optimizer.apply(decayed([tf.constant(gradient, tf.float32)], [variable], config), [variable])
    np.testing.assert_allclose(variable.numpy(), optimized(config, w, g, 0.1), rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["kernel", *UNDECAYED])
def test_every_optimizer_decays_weights_alone_and_once(kind: type[Optimizer], name: str) -> None:
    config = kind(lr=0.1, weight_decay=0.5)
    variable = keras.Variable(np.full(4, 2.0, np.float32), name=name)
    gradients = decayed([tf.zeros(4)], [variable], config)
    assert np.any(gradients[0]) == (name == "kernel" and not config.decoupled)
    config.make(0.1, [variable]).apply(gradients, [variable])
    moved = 2.0 - variable.numpy()
    if name != "kernel":
        np.testing.assert_array_equal(moved, 0.0)
    elif config.decoupled:
        np.testing.assert_allclose(moved, 0.1 * 0.5 * 2.0, rtol=1e-5)
    else:
        assert (moved > 0).all()


# The parts of a step


def test_clipping_keeps_the_direction() -> None:
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]
    scaled, norm = clipped(gradients, 1.0)
    for got, wanted in zip(scaled, ([0.6, 0.0], [[0.8]]), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert float(norm) == 5.0 and clipped(gradients, None)[0] is gradients


def test_averages_follow_with_a_growing_decay_and_swap_back() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    kernel = model.weights[0]
    kernel.assign([[0.0], [0.0]])
    averages = Averages(model, 0.5)
    expected = 0.0
    for step in range(20):
        kernel.assign(np.full((2, 1), step + 1.0, np.float32))
        averages.update(tf.constant(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
    averages.swap()
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-6)
    averages.swap()
    np.testing.assert_allclose(kernel.numpy(), 20.0)
    assert Averages(model, None).variables == []


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_add_up_to_the_whole_batch(parts: int) -> None:
    x, y = RNG.normal(size=(8, 3)).astype(np.float32), RNG.normal(size=8).astype(np.float32)
    w = tf.Variable(RNG.normal(size=3).astype(np.float32))

    def forward(x: tf.Tensor, y: tf.Tensor):
        with tf.GradientTape() as tape:
            errors = (tf.linalg.matvec(x, w) - y) ** 2
            loss = tf.reduce_sum(errors) / 8
        return tape.gradient(loss, [w]), {"errors": errors}

    whole, outputs = forward(tf.constant(x), tf.constant(y))
    got, joined = tf.function(lambda: accumulated(forward, [tf.constant(x), tf.constant(y)], parts))()
    np.testing.assert_allclose(got[0], whole[0], rtol=1e-5)
    np.testing.assert_allclose(joined["errors"], outputs["errors"], rtol=1e-6)


# Losses

LOGITS = RNG.normal(size=(6, 4)).astype(np.float32) * 2
HOT = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 1]]
HOT[5] = 0.0  # unlabeled


def values(loss: Loss) -> np.ndarray:
    probabilities = softmax(LOGITS.astype(np.float64))
    each = -(HOT * np.log(probabilities)).sum(-1)
    match loss:
        case Focal():
            return each * (1 - (HOT * probabilities).sum(-1)) ** loss.gamma
        case Bce():
            sigmoid = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
            binary = -(HOT * np.log(sigmoid) + (1 - HOT) * np.log(1 - sigmoid))
            return HOT.sum(-1) * binary.mean(-1)
        case Ohem():
            kept = each >= np.sort(each)[-round(loss.keep * 6)]
            return each * kept * 6 / kept.sum()
    return each


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_a_loss_is_its_formula_and_counts_unlabelled_images_as_nothing(kind: type[Loss]) -> None:
    got = kind()(tf.constant(LOGITS), tf.constant(HOT)).numpy()
    np.testing.assert_allclose(got, values(kind()), rtol=1e-4, atol=1e-6)
    assert got[5] == 0.0


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_equal_class_weights_are_a_factor(kind: type[Loss]) -> None:
    plain = kind()(tf.constant(LOGITS), tf.constant(HOT))
    weighted = kind()(tf.constant(LOGITS), tf.constant(HOT), tf.fill([4], 3.0))
    np.testing.assert_allclose(weighted, 3.0 * plain, rtol=1e-5)


def test_class_weights_count_by_the_smoothed_label() -> None:
    targets, weights = smooth(tf.one_hot([0, 1, -1], 2), 0.1), tf.constant([1.0, 5.0])
    losses = CrossEntropy()(tf.zeros((3, 2)), targets, weights)
    np.testing.assert_allclose(
        losses, np.log(2) * np.array([0.95 + 0.05 * 5, 0.05 + 0.95 * 5, 0.0]), rtol=1e-5
    )


def test_bce_with_a_threshold_takes_a_mixed_image_for_both_classes() -> None:
    mixed, both = tf.constant([[0.7, 0.3, 0.0, 0.0]]), tf.constant([[1.0, 1.0, 0.0, 0.0]])
    got, wanted = Bce(threshold=0.0)(LOGITS[:1], mixed), Bce()(LOGITS[:1], both) / 2  # of two labels, not one
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_smoothing_is_keras_and_leaves_unlabelled_images_alone() -> None:
    labels = np.array([0, 1, -1])
    targets = smooth(tf.one_hot(labels, 4), 0.1)
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, reduction="none")
    expected = keras_loss(keras.utils.to_categorical(labels[:2], 4), LOGITS[:2])
    np.testing.assert_allclose(CrossEntropy()(LOGITS[:2], targets[:2]), expected, rtol=1e-5)
    assert not np.any(targets[2])


# Distances

TEACHER, STUDENT = RNG.normal(size=(2, 6, 4)).astype(np.float64) * 2


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


def distance(kind: Distance, temperature: float) -> np.ndarray:
    p, q = softmax(TEACHER / temperature), softmax(STUDENT / temperature)
    labels = [0, 1, 2, 3, 0, int(TEACHER[5].argmax())]  # the last image has none
    match kind:
        case Js():
            return (kl(p, q) + kl(q, p)) / 2
        case Kl():
            return kl(p, q)
        case Ce():
            return -(p * np.log(q)).sum(-1)
        case Dist():
            rows = np.array([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
            columns = np.array([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
            return kind.inter * rows + kind.intra * columns.mean()
        case Dkd():
            result = []
            for a, b, label in zip(p, q, labels, strict=True):
                target = kl(np.array([a[label], 1 - a[label]]), np.array([b[label], 1 - b[label]]))
                others = np.arange(4) != label
                rest = kl(a[others] / a[others].sum(), b[others] / b[others].sum())
                result.append(kind.alpha * target + kind.beta * rest)
            return np.array(result)
    raise NotImplementedError


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("kind", DISTANCES, ids=lambda kind: kind.__name__)
def test_a_distance_is_its_formula_and_sends_no_gradient_into_the_teacher(kind, temperature) -> None:
    teacher, student = (tf.Variable(x.astype(np.float32)) for x in (TEACHER, STUDENT))
    with tf.GradientTape() as tape:
        got = kind()(teacher, student, tf.constant(HOT), temperature)
    np.testing.assert_allclose(got, temperature**2 * distance(kind(), temperature), rtol=2e-4, atol=1e-5)
    into_teacher, into_student = tape.gradient(got, [teacher, student])
    assert into_teacher is None and np.abs(into_student).max() > 0


@pytest.mark.parametrize("kind", [k for k in DISTANCES if k is not Ce], ids=lambda kind: kind.__name__)
def test_an_equal_student_is_at_no_distance(kind: type[Distance]) -> None:
    logits = tf.constant(TEACHER, tf.float32)
    np.testing.assert_allclose(kind()(logits, logits, tf.constant(HOT)), 0.0, atol=1e-5)


# In the recipe


@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        ("train.schedule", SCHEDULES),
        ("train.optimizer", OPTIMIZERS),
        ("train.loss", LOSSES),
        ("distill.loss", DISTANCES),
    ],
)
def test_a_recipe_takes_every_kind_by_its_bare_name(key: str, kinds) -> None:
    for kind in kinds:
        name = _schema.default_of(kind.model_fields["name"])
        recipe = load_recipe("mv3_ssld", [f"{key}={name}"])
        section, field = key.split(".")
        assert getattr(getattr(recipe, section), field) == kind()
        assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_another_name_starts_from_its_own_defaults_and_the_same_name_keeps_what_was_written() -> None:
    ours = load_recipe("mv3_ssld").train.optimizer
    kept = load_recipe("mv3_ssld", ["train.optimizer.name=adam", "train.optimizer.clip_norm=1.0"])
    assert kept.train.optimizer == ours.model_copy(update={"clip_norm": 1.0})
    assert load_recipe("mv3_ssld", ["train.optimizer.name=lion"]).train.optimizer == Lion()
    short = load_recipe("mv3_ssld", ["train.schedule=piecewise", "train.schedule.rate=0.2"])
    assert short.train.schedule == Piecewise(rate=0.2)
    over = load_recipe("mv3_ssld").override(["quantize.train.optimizer.name=sgd"])
    assert over.quantize.train.optimizer == QAT_OPTIMIZER  # the default of this place


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.optimizer.momentum=0.9", "unknown key 'train.optimizer.momentum'"),
        ("train.schedule={name: piecewise, boundaries: [9.0, 3.0]}", "boundaries must ascend"),
        ("train.loss=crossentropy", "'cross_entropy', 'bce', 'focal', 'ohem'"),
    ],
)
def test_what_a_kind_does_not_have_is_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe("mv3_ssld", [override])
    assert message in str(error.value)


def test_reading_a_recipe_imports_no_tensorflow() -> None:
    code = "import sys; from edgecls.recipe import load_recipe; load_recipe('base', ['data.path=/']); sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

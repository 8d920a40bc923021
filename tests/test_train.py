"""Checkpoints and the loop, against independent formulas and against themselves after a kill."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from photos import split_of

from edgecls.augment.mix import Mixup
from edgecls.data.pipeline import batches
from edgecls.data.preprocess import Preprocess
from edgecls.errors import EdgeclsError, UsageError
from edgecls.recipe import Augment, Train
from edgecls.train import checkpoint
from edgecls.train.callbacks import Callback
from edgecls.train.distill import Js, Kl
from edgecls.train.distribution import check_batch
from edgecls.train.loop import Trainer, fit
from edgecls.train.losses import CrossEntropy
from edgecls.train.objective import Mutual, Objective, Pair, as_teacher
from edgecls.train.optimizers import Sgd
from edgecls.train.teachers import Cached, Networks

RNG = np.random.default_rng(7)
CLASSES, IMAGES, BATCH, SIZE = 3, 24, 8, 8
PIXELS = RNG.integers(0, 256, (IMAGES, SIZE, SIZE, 3)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, IMAGES)
TARGETS = np.eye(CLASSES, dtype=np.float32)[LABELS]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def network(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(0.3)(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(CLASSES)(x), name="tiny")


def epoch_batches(epoch: int, start: int = 0) -> tf.data.Dataset:
    order = np.random.default_rng(epoch).permutation(IMAGES)[start * BATCH :]
    return tf.data.Dataset.from_tensor_slices((PIXELS[order], TARGETS[order])).batch(BATCH)


def trainer(**changes: object) -> Trainer:
    config = Train(epochs=4, batch_size=BATCH, optimizer=Sgd(lr=0.01), ema_decay=0.9, select="last")
    model = network()
    return Trainer(
        model,
        Objective(teacher=as_teacher(network(1))),
        config.model_copy(update=changes),
        IMAGES // BATCH,
    )


def scores() -> dict[str, float]:
    return {"balanced_accuracy": 0.5}


class Killed(Exception):
    pass


class Kill(Callback):
    """Ends a training in the middle of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def on_step(self, epoch: int, step: int) -> None:
        if (epoch, step) == self.at:
            raise Killed


class Heard(Callback):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.restarts: list[str] = []
        self.epochs: list[int] = []
        self.values: list[dict[str, float]] = []

    def on_start(self, epoch: int) -> None:
        self.starts.append(epoch)

    def on_restart(self, changes: str) -> None:
        self.restarts.append(changes)

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        self.epochs.append(epoch)
        self.values.append(values)


def test_a_killed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, resumed = trainer(), trainer()
    fit(whole, epoch_batches, scores, tmp_path / "whole", inputs={"seed": 0})
    with pytest.raises(Killed):
        fit(resumed, epoch_batches, scores, tmp_path / "killed", inputs={"seed": 0}, callbacks=[Kill(2, 2)])
    watcher, fresh = Heard(), trainer()
    fit(fresh, epoch_batches, scores, tmp_path / "killed", inputs={"seed": 0}, callbacks=[watcher])
    assert (watcher.starts, watcher.restarts, watcher.epochs) == ([2], [], [2, 3])
    for a, b in zip(whole.model.variables, fresh.model.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)
    with np.load(tmp_path / "whole/last.npz") as a, np.load(tmp_path / "killed/last.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in a.files if key != "meta")


def test_a_training_killed_in_mid_epoch_goes_on_from_its_last_step(tmp_path: Path) -> None:
    whole, heard = trainer(checkpoint_minutes=1e-9), Heard()
    fit(whole, epoch_batches, scores, tmp_path / "whole", callbacks=[heard])
    with pytest.raises(Killed):
        fit(
            trainer(checkpoint_minutes=1e-9),
            epoch_batches,
            scores,
            tmp_path / "killed",
            callbacks=[Kill(2, 2)],
        )
    asked: list[tuple[int, int]] = []

    def recorded(epoch: int, start: int) -> tf.data.Dataset:
        asked.append((epoch, start))
        return epoch_batches(epoch, start)

    fresh, watcher = trainer(checkpoint_minutes=1e-9), Heard()
    fit(fresh, recorded, scores, tmp_path / "killed", callbacks=[watcher])
    assert asked == [(2, 1), (3, 0)]  # the second step was killed before it was saved
    for key in ("loss", "accuracy", "gradient_norm"):
        assert [v[key] for v in watcher.values] == [v[key] for v in heard.values[2:]]
    for a, b in zip(whole.variables, fresh.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_checkpoint_of_other_inputs_is_not_continued(tmp_path: Path) -> None:
    fit(trainer(), epoch_batches, scores, tmp_path / "reused", inputs={"lr": 0.01})
    watcher, subject, fresh = Heard(), trainer(), trainer()
    fit(subject, epoch_batches, scores, tmp_path / "reused", inputs={"lr": 0.02}, callbacks=[watcher])
    assert (watcher.restarts, watcher.starts) == (["lr 0.01 -> 0.02"], [0])
    fit(fresh, epoch_batches, scores, tmp_path / "fresh", inputs={"lr": 0.02})
    for a, b in zip(subject.model.variables, fresh.model.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)


def test_without_validation_best_is_the_last_epoch(tmp_path: Path) -> None:
    subject = trainer(select="best", ema_decay=None)
    state = fit(subject, epoch_batches, dict, tmp_path)
    assert state == {"epochs": 4, "best_epoch": -1, "best_value": -1.0, "selected": "last"}
    with np.load(tmp_path / "last.npz") as file:
        np.testing.assert_array_equal(file["00000"], np.asarray(subject.model.variables[0]))
    assert not (tmp_path / "best.npz").exists()


def test_teacher_and_student_see_the_same_mixed_pixels() -> None:
    """The batches come mixed from the pipeline, so that nothing between it and the networks can differ."""
    seen: dict[str, list[np.ndarray]] = {"teacher": [], "student": []}

    def watched(name: str, model: keras.Model) -> keras.Model:
        def see(pixels: np.ndarray) -> np.ndarray:
            seen[name].append(pixels.copy())
            return pixels

        def watch(pixels: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(see, [pixels], tf.float32), pixels.shape)

        image = keras.Input((SIZE, SIZE, 3), batch_size=BATCH)
        watcher = keras.layers.Lambda(watch, output_shape=(SIZE, SIZE, 3))
        return keras.Model(image, model(watcher(image)))

    config = Train(epochs=1, batch_size=BATCH, optimizer=Sgd(lr=0.01))
    objective = Objective(teacher=as_teacher(watched("teacher", network(1))), hard_weight=1.0)
    subject = Trainer(watched("student", network()), objective, config, IMAGES // BATCH)
    split = split_of(PIXELS.astype(np.uint8), LABELS)
    settings = Augment(crop_scale=None, mixup=Mixup(alpha=1.0))
    data = batches(
        split, Preprocess(SIZE), BATCH, training=True, augment=settings, classes=CLASSES, drop_remainder=True
    )
    fed = [pixels.numpy() for pixels, _ in data]
    subject.run_epoch(data, lambda step: None)
    assert len(fed) == IMAGES // BATCH and not np.array_equal(fed[0], fed[0].round())
    for name in seen:
        steps = seen[name][-len(fed) :]
        assert all(np.array_equal(a, b) for a, b in zip(steps, fed, strict=True)), name


def test_unlabelled_images_count_for_no_class_in_the_accuracy() -> None:
    def accuracy(labels: list[int]) -> float | None:
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(CLASSES, kernel_initializer="zeros", use_bias=True)]
        )
        model.weights[1].assign([1.0, 0.0, 0.0])  # says class 0 to everything
        config = Train(epochs=1, batch_size=4, optimizer=Sgd(lr=1e-9))
        subject = Trainer(model, Objective(), config, 1)
        batch = tf.data.Dataset.from_tensors((np.ones((4, 2), np.float32), tf.one_hot(labels, CLASSES)))
        return subject.run_epoch(batch, lambda step: None).get("accuracy")

    assert accuracy([0, 1, -1, -1]) == pytest.approx(0.5)
    assert accuracy([-1, -1, -1, -1]) is None


def test_select_best_leaves_the_best_epochs_weights(tmp_path: Path) -> None:
    values, kept = iter([0.2, 0.9, 0.4, 0.3]), {}
    subject = trainer(select="best", ema_decay=None)

    def evaluate() -> dict[str, float]:
        score = next(values)
        kept[score] = [v.numpy().copy() for v in subject.model.weights]
        return {"balanced_accuracy": score}

    state = fit(subject, epoch_batches, evaluate, tmp_path)
    assert state == {"epochs": 4, "best_epoch": 1, "best_value": 0.9, "selected": "best"}
    for variable, best in zip(subject.model.weights, kept[0.9], strict=True):
        np.testing.assert_array_equal(np.asarray(variable), best)


def test_one_sgd_step_is_the_textbook_step() -> None:
    """Momentum SGD with coupled L2, recomputed with plain Keras on the same batch."""
    config = Train(epochs=1, batch_size=BATCH, optimizer=Sgd(lr=0.1, momentum=0.0, weight_decay=0.01))
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    )
    kernel, bias = (w.numpy() for w in model.weights)
    x, y = PIXELS[:BATCH] / 255, TARGETS[:BATCH]
    subject = Trainer(model, Objective(), config, 1)
    subject.run_epoch(tf.data.Dataset.from_tensors((x, y)), lambda step: None)
    flat = x.reshape(BATCH, -1)
    error = (softmax(flat @ kernel + bias) - y) / BATCH
    np.testing.assert_allclose(model.weights[0], kernel - 0.1 * (flat.T @ error + 0.01 * kernel), atol=1e-5)
    np.testing.assert_allclose(model.weights[1], bias - 0.1 * error.sum(0), atol=1e-5)


def test_a_diverging_loss_stops_with_one_line() -> None:
    subject = trainer(ema_decay=None)
    with pytest.raises(EdgeclsError, match=r"no longer finite: step 1, epoch 1, learning rate 0.01.*lr"):
        subject.run_epoch(
            tf.data.Dataset.from_tensors((PIXELS[:BATCH] * np.nan, TARGETS[:BATCH])), lambda step: None
        )


class _Cliff(Objective):
    """A finite loss whose gradient is not: the square root at zero."""

    def __call__(
        self, pixels: tf.Tensor, targets: tf.Tensor, logits: list[tf.Tensor], answers: None = None
    ) -> tf.Tensor:
        return tf.sqrt(tf.reduce_sum(0.0 * logits[0], axis=-1))


@pytest.mark.parametrize(("precision", "step"), [("float32", 1), ("mixed_float16", 2)])
def test_a_gradient_that_is_not_finite_stops_at_its_step(precision: str, step: int) -> None:
    """In float16 once the loss scale is 1: above that it may be the scale's doing."""
    config = Train(epochs=1, batch_size=BATCH, precision=precision)
    subject = Trainer(network(), _Cliff(), config, IMAGES // BATCH)
    for scale in subject._loss_scale.variables[:1]:
        scale.assign(2.0)
    with pytest.raises(EdgeclsError, match="the loss or its gradient is no longer finite: step 1, epoch 1"):
        subject.run_epoch(epoch_batches(0).take(step), lambda step: None)
    if step > 1:
        again = Trainer(network(), _Cliff(), config, IMAGES // BATCH)
        again.run_epoch(epoch_batches(0).take(1), lambda step: None)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The last update of an epoch has overflowed, and no loss has seen it yet."""
    model = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    )
    subject = Trainer(model, Objective(), Train(batch_size=BATCH, optimizer=Sgd(lr=3e38)), 1)
    batch = tf.data.Dataset.from_tensors((PIXELS[:BATCH], TARGETS[:BATCH]))
    with pytest.raises(EdgeclsError, match=r"the weights are no longer finite: step 1, epoch 1"):
        fit(subject, lambda epoch, start: batch, scores, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_trains_as_the_whole(parts: int) -> None:
    def trained(accumulate: int) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
        )
        config = Train(
            epochs=1, batch_size=BATCH, accumulate=accumulate, optimizer=Sgd(lr=1e-5, clip_norm=1.0)
        )
        Trainer(model, Objective(), config, IMAGES // BATCH).run_epoch(epoch_batches(0), lambda step: None)
        return model.get_weights()

    for whole, in_parts in zip(trained(1), trained(parts), strict=True):
        np.testing.assert_allclose(in_parts, whole, rtol=1e-5, atol=1e-7)


def test_bytes_train_as_the_same_floats() -> None:
    def trained(kind: tf.DType) -> list[np.ndarray]:
        subject = trainer()  # with a teacher
        batches = epoch_batches(0).map(lambda pixels, targets: (tf.cast(pixels, kind), targets))
        subject.run_epoch(batches, lambda step: None)
        return subject.model.get_weights()

    for floats, from_bytes in zip(trained(tf.float32), trained(tf.uint8), strict=True):
        np.testing.assert_array_equal(floats, from_bytes)


def test_devices_that_do_not_divide_the_batch_are_refused() -> None:
    config = Train(batch_size=8, accumulate=2)
    check_batch("train", config, 4)
    with pytest.raises(
        UsageError, match=r"batch of 8 cannot be divided into 6 .*\(phases\[1\].train.batch_size"
    ):
        check_batch("phases[1].train", config, 3)


def test_a_teacher_has_no_dropout_and_does_not_train() -> None:
    model = network()
    stored, of_batch = Networks([model]), Networks([model], batch_stats=True)
    assert not model.trainable_variables
    np.testing.assert_array_equal(stored(PIXELS), model(PIXELS, training=False))
    batch_stats = [np.asarray(of_batch(PIXELS)) for _ in range(2)]
    np.testing.assert_allclose(*batch_stats, atol=1e-5)
    assert np.abs(batch_stats[0] - stored(PIXELS)).max() > 1e-3


def test_several_teachers_answer_with_the_mean_of_their_probabilities() -> None:
    models = [network(seed) for seed in (1, 2, 3)]
    mean = np.mean([softmax(np.asarray(model(PIXELS, training=False))) for model in models], axis=0)
    np.testing.assert_allclose(softmax(np.asarray(Networks(models)(PIXELS))), mean, rtol=1e-4, atol=1e-6)


def test_known_answers_are_learned_as_those_of_the_network_that_gave_them() -> None:
    """A step with the answers in the batch moves the student as one in which the teacher gives them."""
    teacher = Networks([network(1)])
    answers = tf.nn.log_softmax(teacher(PIXELS))
    known = tf.data.Dataset.from_tensor_slices((PIXELS, TARGETS, answers)).batch(BATCH)
    live = trainer(accumulate=2)
    cached = Trainer(network(), Objective(teacher=Cached(None)), live.config, IMAGES // BATCH)
    live.run_epoch(known.map(lambda pixels, targets, _: (pixels, targets)), lambda step: None)
    cached.run_epoch(known, lambda step: None)
    for a, b in zip(live.model.get_weights(), cached.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_each_of_two_students_learns_labels_and_the_other(tmp_path: Path) -> None:
    """Deep mutual learning: the loss of each as in arXiv:1706.00384, equations 4 to 6."""
    pair, pixels = Pair(network(1), network(2)), PIXELS / 255
    objective = Mutual(Objective(distance=Kl(), hard_weight=1.0))
    targets = tf.constant(TARGETS)
    with tf.GradientTape(persistent=True) as tape:
        first, second = pair(pixels, training=False)
        losses = objective(pixels, targets, [first, second])
        p, q = softmax(first.numpy()), softmax(second.numpy())
        alone = tf.reduce_sum(
            CrossEntropy()(first, targets) - tf.reduce_sum(q * tf.nn.log_softmax(first), -1)
        )
    hard = -(TARGETS * (np.log(p) + np.log(q))).sum(-1)
    np.testing.assert_allclose(losses, hard + ((p - q) * (np.log(p) - np.log(q))).sum(-1), rtol=1e-4)
    weight = pair.first.trainable_weights[-1].value  # no gradient comes through what the other is taught
    np.testing.assert_allclose(tape.gradient(losses, weight), tape.gradient(alone, weight), atol=1e-4)
    config = trainer().config.model_copy(update={"bn_momentum": 0.5})
    subject = Trainer(pair, objective, config, IMAGES // BATCH)
    before = [[w.copy() for w in model.get_weights()] for model in (pair.first, pair.second)]
    state = fit(subject, epoch_batches, scores, tmp_path)
    assert state["epochs"] == config.epochs and pair.second.layers[2].momentum == 0.5
    for model, old in zip((pair.first, pair.second), before, strict=True):
        assert not any(np.array_equal(a, b) for a, b in zip(model.get_weights(), old, strict=True))
    resumed = Pair(network(3), network(4))
    assert fit(Trainer(resumed, objective, config, IMAGES // BATCH), epoch_batches, scores, tmp_path) == state
    for a, b in zip(resumed.get_weights(), pair.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoints_refuse_another_architecture_and_torn_files(tmp_path: Path) -> None:
    path = tmp_path / "last.npz"
    checkpoint.save(path, network().variables, {"epochs": 1})
    assert checkpoint.restore(path, network(5).variables) == {"epochs": 1}
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(UsageError, match="another architecture"):
        checkpoint.restore(path, other.variables)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cannot be read"):
        checkpoint.restore(path, network().variables)


def test_objective_adds_hard_and_soft_losses() -> None:
    logits, targets = RNG.normal(size=(4, CLASSES)).astype(np.float32), tf.constant(TARGETS[:4])
    teacher = as_teacher(network(2))
    both = Objective(teacher=teacher, soft_weight=2.0, hard_weight=0.5)(PIXELS[:4], targets, logits)
    soft = Js()(teacher(PIXELS[:4]), logits, targets)
    np.testing.assert_allclose(both, 2.0 * soft + 0.5 * CrossEntropy()(logits, targets), rtol=1e-5)
    np.testing.assert_allclose(Objective(teacher=teacher)(PIXELS[:4], targets, logits), soft, rtol=1e-6)


def test_distillation_weighs_an_image_by_what_the_teacher_says() -> None:
    logits, targets = RNG.normal(size=(4, CLASSES)).astype(np.float32), tf.zeros((4, CLASSES))
    teacher, weights = as_teacher(network(2)), np.array([1.0, 2.0, 5.0], np.float32)
    plain = Objective(teacher=teacher)(PIXELS[:4], targets, logits)
    weighted = Objective(class_weights=tf.constant(weights), teacher=teacher)(PIXELS[:4], targets, logits)
    expected = softmax(np.asarray(teacher(PIXELS[:4]))) @ weights
    np.testing.assert_allclose(weighted, plain * expected, rtol=1e-4)

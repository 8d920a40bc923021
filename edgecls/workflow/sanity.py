"""Signs that a network has not learned what its figures seem to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from edgecls.recipe import Train

_GAP = 0.3  # of accuracy between training and validation that more than overfitting explains
_FEW_STEPS = 3.0  # times 1 / (1 - momentum), after which running statistics have forgotten their first values


def warnings_of_scores(scores: Mapping[str, Any]) -> list[str]:
    """What to warn of, given one model's entry of ``eval.json``.

    Example:
        >>> warnings_of_scores({"predicted_classes": 1, "per_class": [{"count": 9}, {"count": 7}]})
        ['predicts 1 of 2 classes, whatever it sees']
    """
    present = sum(1 for row in scores["per_class"] if row["count"])
    predicted = scores["predicted_classes"]
    if predicted == 1 < present:
        return [f"predicts 1 of {present} classes, whatever it sees"]
    if predicted < present / 2:
        return [f"predicts only {predicted} of {present} classes"]
    return []


def warnings_of_schedule(train: Train) -> list[str]:
    """What to warn of before a training.

    Example:
        >>> from edgecls.recipe import Train
        >>> warnings_of_schedule(Train(epochs=2, schedule={"warmup_epochs": 5}, optimizer={"lr": 0.1}))
        ['the warm-up of 5 epochs does not end in 2: the learning rate does not reach 0.1']
    """
    warmup = train.schedule.warmup_epochs
    if warmup < train.epochs:
        return []
    lr = train.optimizer.lr
    return [
        f"the warm-up of {warmup:g} epochs does not end in {train.epochs}: the learning rate does not reach {lr:g}"
    ]


def warnings_of_training(
    epochs: Sequence[Mapping[str, Any]], steps_per_epoch: int, bn_momentum: float | None, section: str
) -> list[str]:
    """What to warn of, given a training's rows of ``metrics.jsonl``.

    Training normalizes by each batch's own statistics, validation by running ones. After few steps these still hold
    what they began with, so that a network which has learned its task seems to know nothing.

    Args:
        epochs: Rows of the training, in order.
        steps_per_epoch: Optimizer steps of an epoch.
        bn_momentum: Weight of the old running statistics at each step; None: the network has none.
        section: Where the training stands in the recipe.
    """
    last: Mapping[str, Any] = epochs[-1] if epochs else {}
    if bn_momentum is None or "accuracy" not in last or "val_top1" not in last:
        return []
    steps, gap = len(epochs) * steps_per_epoch, last["accuracy"] - last["val_top1"]
    if gap <= _GAP or steps >= _FEW_STEPS / (1 - bn_momentum):
        return []
    return [
        f"training accuracy {last['accuracy']:.2f}, validation {last['val_top1']:.2f}: after {steps} steps the running"
        f" statistics of batch normalization are not settled; lower {section}.bn_momentum ({bn_momentum:g} now)"
        " or train longer"
    ]


def bn_momentum(model: keras.Model) -> float | None:
    """Weight of the old running statistics in the model's batch normalizations; None without any that move."""
    import keras

    layers = [
        layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)
    ]
    moving = [layer.momentum for layer in layers if layer.trainable and not getattr(layer, "frozen", False)]
    return max(moving, default=None)

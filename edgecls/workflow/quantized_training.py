"""Training of an int8 twin to say what its float network says; ``quantize MODEL.keras --epochs`` has unlabeled photos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgecls.console import Console
from edgecls.errors import Interrupted
from edgecls.files import sha256
from edgecls.train.callbacks import Callback

if TYPE_CHECKING:
    import keras

    from edgecls.train.objective import Objective
    from edgecls.workflow.quantizing import Photos, Request
    from edgecls.workflow.user_models import UserModel

BATCH = 16
NO_HELP = "training did not help: the network is kept as it was calibrated"
_Result = TypeVar("_Result")


def train(
    request: Request,
    user: UserModel,
    twin: keras.Model,
    photos: Photos,
    kept: Sequence[str],
    console: Console,
) -> None:
    """Train the twin to say what the float network says; a killed training goes on from its last checkpoint."""
    import keras

    from edgecls.augment.settings import Augment
    from edgecls.data.pipeline import Batches
    from edgecls.data.rows import Part
    from edgecls.data.split import check
    from edgecls.export import heads
    from edgecls.quantize import freezing, lower
    from edgecls.quantize.twin import as_patterns
    from edgecls.recipe import QAT_OPTIMIZER, Train
    from edgecls.train.loop import Trainer, fit
    from edgecls.train.objective import Objective, as_teacher

    keras.utils.set_random_seed(request.seed)
    unlabeled = np.full(len(photos.files), -1)
    split = check(Part(photos.files, unlabeled, photos.files), str(request.data.absolute()), None)
    batch = min(BATCH, len(split))
    config = Train(epochs=request.epochs, batch_size=batch, optimizer=QAT_OPTIMIZER, select="last")
    float_logits, _ = heads.split(lower(user.network, keep_float=as_patterns(kept))[0])
    logits, _ = heads.split(twin)
    objective = Objective(teacher=as_teacher(float_logits))
    trainer = Trainer(logits, objective, config, len(split) // batch, section="qat")
    feed = Batches(
        split,
        user.preprocess,
        batch,
        training=True,
        augment=Augment(),
        seed=request.seed,
        epochs=request.epochs,
        classes=len(user.classes),
        cast=False,
    )
    folder = request.file(".qat")
    work = partial(
        fit,
        trainer,
        feed.epoch,
        dict,
        folder,
        inputs=_inputs(request, split.digests, kept),
        before_epoch=freezing(twin, 0, 0),
        callbacks=[_Epochs(console, request.epochs)],
    )
    try:
        unless_farther(logits, objective, photos.batches, work, console.log)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; run the same command to go on from {folder}") from None
    finally:
        feed.close()


def unless_farther(
    twin: keras.Model,
    objective: Objective,
    batches: Callable[[], Iterable[Any]],
    work: Callable[[], _Result],
    say: Callable[[str], None],
) -> tuple[_Result, bool]:
    """Train a twin; one that is then farther from its float network gets back what it was calibrated to.

    Args:
        twin: From images to logits.
        objective: Its distance from the float network, which is the teacher.
        batches: Gives images as a phone sees them, not changed at random: as for ``edgecls.calibrate``.
        work: The training.
        say: Is told the distances.

    Returns:
        What ``work`` returns, and whether the training was kept.
    """
    calibrated_to, before = twin.get_weights(), _distance(twin, objective, batches())
    result = work()
    after = _distance(twin, objective, batches())
    say(f"distance to the float network: {before:.3g}, after training {after:.3g}")
    helped = after < before
    if not helped:
        twin.set_weights(calibrated_to)
        say(NO_HELP)
    return result, helped


def _inputs(request: Request, digests: Iterable[str], kept: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    options = {key: str(value) for key, value in asdict(request).items() if key not in ("folder", "data")}
    return {
        "model": sha256(request.model),
        "photos": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "request": options,
        "kept": list(kept),
    }


def _distance(twin: keras.Model, objective: Objective, batches: Iterable[Any]) -> float:
    """The mean loss over the images."""
    from edgecls.quantize.calibrate import pixels_of

    labels = np.zeros((1, twin.output_shape[-1]), np.float32)  # of unlabeled images
    losses = [
        np.asarray(objective(pixels, labels, twin(pixels, training=False))) for pixels in pixels_of(batches)
    ]
    return float(np.concatenate(losses).mean())


class _Epochs(Callback):
    """Says how each epoch went."""

    def __init__(self, console: Console, epochs: int) -> None:
        self._console, self._epochs = console, epochs

    def on_restart(self, changes: str) -> None:
        self._console.log(f"the checkpoint is of other inputs ({changes}); trained anew")

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        self._console.log(f"epoch {epoch + 1} of {self._epochs}: loss {values['loss']:.4g}")

"""Training of an int8 twin to say what its float network says, on unlabeled photos: ``quantize MODEL.keras --epochs``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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
RATE = 1e-4  # a pretrained network with kept batch statistics diverges at 5e-4


def train(
    request: Request,
    user: UserModel,
    twin: keras.Model,
    photos: Photos,
    kept: Sequence[str],
    console: Console,
) -> None:
    """Train the twin to say what the float network says; a killed training goes on from its last checkpoint.

    A twin that is farther from the float network afterwards gets back what it was calibrated to.
    """
    import keras

    from edgecls.augment.settings import Augment
    from edgecls.data.pipeline import Batches
    from edgecls.data.rows import Part
    from edgecls.data.split import check
    from edgecls.export import heads
    from edgecls.quantize import freezing, lower
    from edgecls.quantize.twin import as_patterns
    from edgecls.recipe import Train
    from edgecls.train.loop import Trainer, fit
    from edgecls.train.objective import Objective, as_teacher
    from edgecls.train.optimizers import Sgd

    keras.utils.set_random_seed(request.seed)
    unlabeled = np.full(len(photos.files), -1)
    split = check(Part(photos.files, unlabeled, photos.files), str(request.data.absolute()), None)
    batch = min(BATCH, len(split))
    config = Train(epochs=request.epochs, batch_size=batch, optimizer=Sgd(lr=RATE), select="last")
    float_logits, _ = heads.split(lower(user.network, keep_float=as_patterns(kept))[0])
    logits, _ = heads.split(twin)
    objective = Objective(teacher=as_teacher(float_logits))
    trainer = Trainer(logits, objective, config, len(split) // batch, section="qat")
    calibrated_to, before = twin.get_weights(), _distance(logits, objective, photos)
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
    try:
        fit(
            trainer,
            feed.epoch,
            dict,
            folder,
            inputs=_inputs(request, split.digests, kept),
            before_epoch=freezing(twin, 0, 1),
            callbacks=[_Epochs(console, request.epochs)],
        )
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; run the same command to go on from {folder}") from None
    finally:
        feed.close()
    after = _distance(logits, objective, photos)
    console.log(f"distance to the float network on these photos: {before:.3g}, after training {after:.3g}")
    if not after < before:
        twin.set_weights(calibrated_to)
        console.log("training did not help: the network is kept as it was calibrated")


def _inputs(request: Request, digests: Iterable[str], kept: Sequence[str]) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    options = {key: str(value) for key, value in asdict(request).items() if key not in ("folder", "data")}
    return {
        "model": sha256(request.model),
        "photos": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "request": options,
        "kept": list(kept),
    }


def _distance(logits: keras.Model, objective: Objective, photos: Photos) -> float:
    """The mean loss over the photos as a phone sees them, not changed at random."""
    labels = np.zeros((1, logits.output_shape[-1]), np.float32)  # of unlabeled images
    losses = [
        np.asarray(objective(batch, labels, logits(batch, training=False))) for batch in photos.batches()
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

"""What a teacher says of fixed views of the images, computed once and kept on disk.

A folder of views has the files of ``edgecls.train.view_files`` and ``views.json``, which says what the answers were made
from.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edgecls.augment import OPERATIONS
from edgecls.data.pipeline import Batches
from edgecls.data.preprocess import Preprocess
from edgecls.data.sources import Dataset
from edgecls.data.split import Split
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import read_json, remove, write_json
from edgecls.recipe import Augment, Recipe
from edgecls.stamps import Fingerprint, changes, fingerprint
from edgecls.train.teachers import Networks
from edgecls.train.view_files import Views, Writer

SCHEMA = "edgecls.views/1"
BATCH = 64  # images that the teacher sees at a time
_DRAWS = 1  # raise it when the same recipe draws other pixels


def make_views(
    teachers: Networks,
    recipe: Recipe,
    data: Dataset,
    preprocess: Preprocess,
    folder: Path,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Views:
    """The teachers' answers to ``distill.views`` fixed views of each training image; only what is missing is computed.

    A training with fewer epochs than that has no use for the others, so they are left out.

    Args:
        teachers: Answer with their stored statistics, so that an answer depends on one image alone.
        recipe: Has ``distill``, ``augment`` and ``seed``.
        data: Its training images.
        preprocess: How the networks see a photo.
        folder: Where the answers are kept unless the recipe has ``distill.store``.
        say: Is told their size and what is done anew.
        progress: Called with (done, all) images while they are computed.

    Raises:
        UsageError: ``distill.store`` holds answers that were made from something else.
        MissingError: The disk is full or cannot be written. The answers so far are kept.
        EdgeclsError: An answer is not finite.
    """
    settings, split = recipe.distill, data.train
    assert settings is not None and settings.views is not None
    place = folder if settings.store is None else Path(settings.store)
    is_once = split.sampling is None and recipe.augment.repeats == 1  # an epoch has one view of an image
    count = min(settings.views, recipe.train.epochs) if is_once else settings.views
    views = Views(place, len(split), len(data.classes), count, settings.top_k)
    inputs = identity(teachers.models, split, preprocess, recipe.augment, recipe.seed, settings.top_k)
    with alone(place):
        prepare(views, inputs, is_ours=settings.store is None, say=say)
        missing = list(views.missing())
        state = f"{len(missing)} to compute" if missing else "all there"
        say(
            f"the teacher's answers: {len(split):,} images x {views.count} views x {views.row_bytes} bytes ="
            f" {_size(views.bytes)} in {place}, {state}"
        )
        feed = Batches(
            split,
            preprocess,
            BATCH,
            training=True,
            augment=recipe.augment,
            seed=recipe.seed,
            drop_remainder=False,
            cast=False,
            order=lambda epoch: np.arange(len(split)),
            views=views.count,
        )
        try:
            for number, view in enumerate(missing):
                before, total = number * len(split), len(missing) * len(split)
                for done in _compute(views.writer(view), teachers, feed, view):
                    progress(before + done, total)
        finally:
            feed.close()
    return views


def _compute(writer: Writer, teachers: Networks, feed: Batches, view: int) -> Iterator[int]:
    """Write the answers to one view, from where they end; gives how many there are."""
    forward = tf.function(
        lambda pixels: tf.nn.log_softmax(teachers(tf.cast(pixels, tf.float32))), reduce_retracing=True
    )
    first = writer.done // BATCH
    for step, (pixels, _) in enumerate(feed.epoch(view, first), first):
        logs = forward(pixels).numpy()
        if not np.isfinite(logs).all():
            raise EdgeclsError("the teacher's answers are not finite", fix="check its weights")
        writer.append(logs, step * BATCH)
        yield writer.done
    writer.finish()


def identity(
    teachers: Sequence[keras.Model],
    split: Split,
    preprocess: Preprocess,
    augment: Augment,
    seed: int,
    top_k: int | None = None,
) -> Fingerprint:
    """What the answers depend on: the teachers' weights, the images' bytes, and what draws the views.

    Labels, the number of views and what mixes images do not count.
    """
    mixing = {op.name for op in OPERATIONS.values() if op.where == "batch"}
    inputs: Mapping[str, Any] = {
        "teacher": [_digest_of_network(model) for model in teachers],
        "images": hashlib.sha256("\n".join(split.digests).encode("utf-8", "surrogateescape")).hexdigest(),
        "preprocess": preprocess.to_dict(),
        "augment": augment.model_dump(exclude=mixing | {"off_epochs", "repeats"}),
        "seed": seed,
        "top_k": top_k,
        "draws": _DRAWS,
    }
    return fingerprint(inputs)


def _digest_of_network(model: keras.Model) -> str:
    """SHA-256 of what a network computes: its layers, but for their names, and its weights."""
    digest = hashlib.sha256()
    for layer in model._flatten_layers(include_self=False):
        config = {} if isinstance(layer, keras.Model) else layer.get_config()
        config.pop("name", None)
        digest.update(json.dumps([type(layer).__name__, config], sort_keys=True, default=str).encode())
    for variable in model.variables:
        digest.update(np.asarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def prepare(views: Views, inputs: Fingerprint, is_ours: bool, say: Callable[[str], None]) -> None:
    """Make a folder ready for answers that are made from ``inputs``.

    Args:
        views: Whose folder.
        inputs: See ``identity``.
        is_ours: The folder is the run's: other answers in it are removed. Else they are refused.
        say: Is told what is found and what the answers will take.

    Raises:
        UsageError: The folder holds answers that were made from something else, or something that is no views.
        MissingError: The disk has no room for them.
    """
    manifest = views.folder / "views.json"
    found = _made_from(manifest)
    occupied = bool(_content(views.folder))
    if occupied and found is None and not is_ours:
        raise UsageError(
            "the folder for the teacher's answers holds something else",
            where=str(views.folder),
            fix="name a new folder as distill.store",
        )
    changed = changes(found, inputs) if found is not None else ""
    if changed and not is_ours:
        raise UsageError(
            f"the teacher's answers here were made from something else (changed: {changed})",
            where=str(views.folder),
            fix="name another folder as distill.store, or remove this one",
        )
    if occupied and (changed or found is None):
        why = f"changed: {changed}" if changed else f"{manifest.name} is missing or cannot be read"
        say(f"the teacher's answers are computed anew ({why})")
        for path in _content(views.folder):
            remove(path)
    for view in views.missing():
        if views.file(view).exists():
            say(f"view {view} of the teacher's answers is torn and is computed anew")
            views.file(view).unlink()
    write_json(manifest, {"schema": SCHEMA, "inputs": inputs})
    free = shutil.disk_usage(views.folder).free
    needed = len(list(views.missing())) * views.bytes // views.count
    if needed > free:
        raise MissingError(
            f"the teacher's answers take {_size(needed)}, the disk has {_size(free)}",
            where=str(views.folder),
            fix="set distill.store to a folder on another disk, lower distill.views, or set distill.top_k",
        )


def _made_from(manifest: Path) -> Fingerprint | None:
    """What the answers beside a manifest were made from; None: there is no manifest, or it tells nothing."""
    try:
        content = read_json(manifest)
    except EdgeclsError:
        return None
    return content.get("inputs") if isinstance(content, dict) and content.get("schema") == SCHEMA else None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process computes answers in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise MissingError(
            f"cannot write the teacher's answers: {error.strerror}", where=str(folder)
        ) from error
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"

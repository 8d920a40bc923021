"""What the stages share: the data and pixels of a recipe, saving and loading of networks, the stage itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.console import Console
from edgecls.files import atomic
from edgecls.quiet import import_tensorflow
from edgecls.recipe import Data, Recipe
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.zoo import catalog

if TYPE_CHECKING:
    import keras

    from edgecls.data.preprocess import Preprocess
    from edgecls.data.sources import Dataset, Split

BAD_NAMED = 3


def load_data(settings: Data, console: Console) -> Dataset:
    """A recipe's images, checked and split; bad files are named and counted."""
    import_tensorflow()
    from edgecls.data.sources import load_dataset

    with console.progress() as progress:
        task = progress.add_task("checking images", total=None, text="")
        data = load_dataset(settings, lambda done, total: progress.update(task, completed=done, total=total))
    if data.bad:
        first = "; ".join(f"{name}: {reason}" for name, reason in data.bad[:BAD_NAMED])
        console.log(f"{len(data.bad)} bad images left out, all named in split.json: {first}")
    return data


def spread(split: Split, count: int) -> Split:
    """At most ``count`` images, evenly over the classes and always the same."""
    order = np.argsort(split.labels, kind="stable")
    return split.subset(order[np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int))])


def recipe_preprocess(recipe: Recipe) -> Preprocess:
    """How the recipe's network sees a photo."""
    import_tensorflow()
    from edgecls.data.preprocess import Preprocess

    return Preprocess.from_recipe(catalog.get(recipe.model.name), recipe.model)


def save_network(model: keras.Model, path: Path) -> None:
    """Save as ``.keras``, whole or not at all, without classifiers that only training uses."""
    import keras

    if len(model.outputs) > 1:
        model = keras.Model(model.input, model.outputs[0], name=model.name)
    with atomic(path) as part:
        model.save(part)


def load_deployed(path: Path) -> keras.Model:
    """Load a network as it is deployed: sums of branches that it was trained with are one convolution each.

    Raises:
        EdgeclsError: As ``edgecls.load_model``.
    """
    network = load_model(path)
    from edgecls.reparam import fuse

    return fuse(network)


def run_stage(
    run: Run,
    console: Console,
    name: str,
    inputs: dict[str, Any],
    outputs: list[str],
    work: Callable[[], dict[str, Any]],
) -> None:
    """Do the work of a stage unless its stamp says that it was done from the same inputs.

    Args:
        work: Writes ``outputs`` and returns figures for the stamp.
    """
    stage = run.stage(name, inputs, outputs)
    if stage.done:
        console.log(f"{name}: done before, kept")
        return
    if stage.stamp:
        console.log(f"{name}: again ({stage.why})")
    import_tensorflow()
    import keras

    keras.utils.set_random_seed(run.recipe.seed)
    run.log("stage", stage=name)
    started = time.perf_counter()
    stage.finish(**work())
    console.say(f"{name}: {time.perf_counter() - started:.0f} s")

"""What the stages share: the data and pixels of a recipe, saving and loading of networks, the stage itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls import user_network
from edgecls.console import Console
from edgecls.errors import Interrupted, UsageError
from edgecls.files import atomic, read_json
from edgecls.quiet import import_tensorflow
from edgecls.recipe import Data, Recipe
from edgecls.run import Run
from edgecls.saving import load_model
from edgecls.stamps import Stage
from edgecls.text import plural
from edgecls.zoo import catalog

if TYPE_CHECKING:
    import keras

    from edgecls.data.preprocess import Preprocess
    from edgecls.data.sources import Dataset
    from edgecls.data.split import Split

BAD_NAMED = 3


def load_data(settings: Data, console: Console) -> Dataset:
    """A recipe's images, checked and split; bad files are named and counted."""
    import_tensorflow()
    from edgecls.data.sources import load_dataset

    with console.progress() as progress:
        task = progress.add_task("checking images", total=None, text="")
        data = load_dataset(settings, lambda done, total: progress.update(task, completed=done, total=total))
    say(data.notes, console)
    name_bad(data.bad, console)
    return data


def say(notes: Sequence[str], console: Console) -> None:
    """What was assumed of the data, a line each."""
    for note in notes:
        console.log(f"data: {note}")


def name_bad(bad: Sequence[tuple[str, str]], console: Console) -> None:
    """Say how many images cannot be read, and the first few of them with the reason."""
    if bad:
        shown = "; ".join(f"{name}: {reason}" for name, reason in bad[:BAD_NAMED])
        console.log(
            f"{plural(len(bad), 'bad image')} left out: {shown}" + ("; ..." if len(bad) > BAD_NAMED else "")
        )


def evenly(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most ``count`` images, evenly over the classes and always the same."""
    order = np.argsort(labels, kind="stable")
    return order[np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).astype(int))]


def spread(split: Split, count: int) -> Split:
    """At most ``count`` images of a split, chosen by ``evenly``."""
    return split.subset(evenly(split.labels, count))


def recipe_preprocess(recipe: Recipe) -> Preprocess:
    """How the recipe's network sees a photo."""
    import_tensorflow()
    from edgecls.data.preprocess import Preprocess

    if recipe.model.name is None:
        return user_network.preprocess_of(recipe.model, recipe.data.antialias)
    return Preprocess.from_recipe(catalog.get(recipe.model.name), recipe.model, recipe.data.antialias)


def run_preprocess(run: Run) -> Preprocess:
    """How the float network of a run sees a photo: as it was trained, whatever its recipe's files have become."""
    import_tensorflow()
    from edgecls.data.preprocess import Preprocess

    path = run.file("preprocess.json")
    return Preprocess.from_dict(read_json(path)) if path.is_file() else recipe_preprocess(run.recipe.final)


def save_network(model: keras.Model, path: Path, whole: bool = False) -> None:
    """Save as ``.keras``; classifiers that only training uses are left out, unless it goes on (``whole``)."""
    with atomic(path) as part:
        (model if whole else main_output(model)).save(part)


def main_output(model: keras.Model) -> keras.Model:
    """A network without classifiers that only training uses."""
    import keras

    return keras.Model(model.input, model.outputs[0], name=model.name) if len(model.outputs) > 1 else model


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

    What was made from the files that it replaces is moved aside (``Run.retire_stale``).

    Args:
        run: Gets the stamp.
        console: Is told what is done, and why.
        name: Of the stage.
        inputs: What the stage depends on, see ``Run.stage``.
        outputs: Files that the work writes, relative to the run.
        work: Writes ``outputs`` and returns figures for the stamp.

    Raises:
        Interrupted: Ctrl-C; the text says what was kept.
    """
    stage = run.stage(name, inputs, outputs)
    if stage.done:
        console.log(f"{name}: done before, kept")
        return
    if stage.stamp:
        console.log(f"{name}: again ({stage.why})")
    started = time.perf_counter()
    try:
        import_tensorflow()
        import keras

        keras.utils.set_random_seed(run.recipe.seed)
        run.log("stage", stage=name)
        stage.finish(**work())
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {_kept(stage)}") from None
    run.make_latest()
    stale, folder = run.retire_stale()
    if stale:
        console.log(f"{name}: what was made from its former files is in {folder} now: {', '.join(stale)}")
    console.say(f"{name}: {time.perf_counter() - started:.0f} s")


def take_over(
    run: Run, console: Console, name: str, inputs: dict[str, Any], outputs: list[str], others: Sequence[Run]
) -> None:
    """Take a stage that the run has not begun from another run, if one has finished it from equal inputs."""
    stage = run.stage(name, inputs, outputs)
    if stage.stamp or run.file("checkpoints", name, "last.npz").exists():
        return
    source = next((other for other in others if stage.take_from(other)), None)
    if source:
        console.log(f"{name}: taken from {source.path}, where it was done from the same inputs")
        run.make_latest()


def _kept(stage: Stage) -> str:
    """What an interrupted stage has saved, and what the same command will do."""
    from edgecls.train import checkpoint

    path = stage.run.file("checkpoints", stage.name, "last.npz")
    state: dict[str, Any] = {}
    with suppress(UsageError):
        state = checkpoint.read_state(path)
    if state.get("inputs") == stage.inputs:
        saved = f"checkpoint saved after {plural(state['epochs'], 'epoch')} of {stage.name}"
        return f"{saved}; run the same command to continue"
    return f"{stage.name} had saved nothing yet; run the same command to begin it again"


def download_weights(source: str, network: str, console: Console) -> None:
    """Have published weights on this computer, with a bar while they come; see ``weights.sources.locate``."""
    from edgecls.weights.sources import locate

    with console.progress() as progress:
        task: int | None = None

        def show(done: int, total: int | None) -> None:
            nonlocal task
            if task is None:
                task = progress.add_task("weights", text=f"downloading the weights of {network}")
            mib = 2**20
            progress.update(task, completed=done // mib, total=total and -(-total // mib))

        locate(source, network, show)

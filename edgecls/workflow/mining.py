"""``edgecls mine``: a recipe's evaluation images, its teacher and a folder of photos make a list for ``data.extra``."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecls.console import Console
from edgecls.errors import EdgeclsError, Interrupted, MissingError, UsageError
from edgecls.files import atomic, expand_user, hash_json, sha256, write_json
from edgecls.metrics import softmax
from edgecls.quiet import import_tensorflow
from edgecls.recipe import RANDOM, OtherTeacher, Recipe
from edgecls.run import Run
from edgecls.stamps import fingerprint
from edgecls.text import escape, plural
from edgecls.workflow.checking import weights_input
from edgecls.workflow.common import download_weights, load_data, name_bad, recipe_preprocess
from edgecls.workflow.stages import build_network, teacher_file

if TYPE_CHECKING:
    from edgecls.data.sources import Dataset
    from edgecls.search.mine import Drop, Evaluation, Teacher

STAGE = "teacher"  # of several teachers the first
TOP = 4000
"""Images of a class, as SSLD took of ImageNet-22k."""
REASONS = {
    "unreadable": "unreadable",
    "evaluation": "copies of evaluation images",
    "duplicate": "copies of another unlabeled image",
    "unsure": "with a smaller probability",
    "surplus": "beyond the top of their class",
}
"""Why images are left out, in the order in which they are."""


@dataclass(frozen=True)
class Mining:
    """What is searched, and how.

    Attributes:
        recipe: Gives evaluation images, classes, pixels and the teacher.
        unlabeled: Folder of photos, at any depth.
        save: The list file to write.
        top: Images of a class.
        min_probability: Least probability of an image.
        teacher: Run or model file that answers; None: the recipe's teacher.
    """

    recipe: Recipe
    unlabeled: Path
    save: Path
    top: int = TOP
    min_probability: float = 0.0
    teacher: str | None = None

    @property
    def dropped(self) -> Path:
        """The table of images that are not in the list."""
        return self.save.with_name(f"{self.save.stem}.dropped.csv")

    @property
    def summary(self) -> Path:
        """The result as JSON."""
        return self.save.with_suffix(".json")


@dataclass(frozen=True)
class Answers:
    """What the teacher said of each file.

    Attributes:
        classes: The number of the likeliest class, -1 where it was not asked, int32 [N].
        probabilities: The probability of that class, float32 [N].
    """

    classes: np.ndarray
    probabilities: np.ndarray

    def shown(self, number: int, names: Sequence[str]) -> tuple[str, str]:
        """Class and probability of a file as a table has them."""
        label = int(self.classes[number])
        return ("", "") if label < 0 else (names[label], f"{self.probabilities[number]:.6f}")


def mine(mining: Mining, console: Console) -> dict[str, Any]:
    """Choose unlabeled images for a distillation: no copies of evaluation images, the surest ones of each class.

    Args:
        mining: What is searched, and how.
        console: Is told what happens.

    Returns:
        Counts, files and the number of images of each class, as they are in the JSON beside the list.

    Raises:
        MissingError: There is no folder, photo, teacher or disk space.
        UsageError: The teacher has other classes than the recipe, or the list ends with .json.
        EdgeclsError: More than ``data.max_bad_fraction`` of the photos cannot be read.
        Interrupted: Ctrl-C; what was found out is kept.
    """
    if mining.save == mining.summary:
        raise UsageError("the counts get this name", where=f"--save {mining.save}", fix="end it with .csv")
    files = _photos(mining, console)
    try:
        return _mine(mining, files, console)
    except KeyboardInterrupt:
        text = "interrupted; what was found out is kept; run the same command to continue"
        raise Interrupted(text) from None


def _mine(mining: Mining, files: list[str], console: Console) -> dict[str, Any]:
    from edgecls.data.images import cache_file
    from edgecls.search import mine as search
    from edgecls.search.mine_store import open_store

    evaluation, data = _evaluation(mining.recipe, console)
    classes = data.classes
    teacher, called = _teacher(mining, data, console)
    store_file = cache_file(f"mine:{mining.unlabeled.resolve()}").with_suffix(".sqlite")
    with open_store(store_file) as store:
        with _bar(console, "reading") as progress:
            digests, drops = search.look(files, store, progress)
        _check_bad(mining, drops, files, console)
        with _bar(console, "looking for copies") as progress:
            drops |= search.Copies(files, digests, evaluation, store).find(progress)
        rest = [i for i in range(len(files)) if i not in drops]
        with _bar(console, "asking the teacher") as progress:
            kept = [files[i] for i in rest], [digests[i] for i in rest]
            numbers, probabilities, gone = search.score(*kept, teacher, store, progress)
    if gone:
        drops |= {rest[i]: drop for i, drop in gone.items()}
        unreadable = {i: drop for i, drop in drops.items() if drop.reason == "unreadable"}
        _check_bad(mining, unreadable, files, console)
    asked = np.array([rest[i] for i in range(len(rest)) if i not in gone], np.int64)
    answers = Answers(np.full(len(files), -1, np.int32), np.zeros(len(files), np.float32))
    answers.classes[rest], answers.probabilities[rest] = numbers, probabilities
    answers.classes[[rest[i] for i in gone]] = -1
    best, others = search.choose(
        answers.classes[asked], answers.probabilities[asked], mining.top, mining.min_probability
    )
    drops |= {int(asked[i]): drop for i, drop in others.items()}
    chosen = asked[best].tolist()
    return _write(mining, called, files, classes, chosen, answers, drops)


def _photos(mining: Mining, console: Console) -> list[str]:
    from edgecls.data.listing import list_files, said_of_unread

    folder = mining.unlabeled
    if not folder.is_dir():
        raise MissingError("no such folder", where=str(folder), fix="name a folder of photos: --unlabeled")
    listing = list_files(folder)
    said = said_of_unread(listing.unread)
    if said:
        console.log(f"data: {said}")
    if not listing.photos:
        fix = said or "photos end with .jpg, .png and so on"
        raise MissingError("no images found", where=str(folder), fix=fix)
    return [str(path.absolute()) for path in listing.photos]


@contextmanager
def _bar(console: Console, what: str) -> Any:
    """Progress of a step: a bar on a terminal, else a line at its end."""
    with console.progress() as bars:
        task = bars.add_task(what, total=None, text="")

        def show(done: int, total: int) -> None:
            last = {"text": plural(total, "image")} if done == total else {}
            bars.update(task, completed=done, total=total, **last)

        yield show


def _check_bad(mining: Mining, drops: dict[int, Drop], files: Sequence[str], console: Console) -> None:
    """Name and count the images that cannot be read; too many are an error."""
    limit = mining.recipe.data.max_bad_fraction
    bad = [(escape(files[i]), drop.detail) for i, drop in drops.items()]
    if len(bad) <= limit * len(files):
        name_bad(bad, console)
        return
    what = f"{len(bad)} of {len(files)} images cannot be used, more than data.max_bad_fraction {limit:g}:"
    raise EdgeclsError(
        f"{what} {bad[0][0]}: {bad[0][1]}",
        where=str(mining.unlabeled),
        fix="remove or repair them, or raise the limit",
    )


def _evaluation(recipe: Recipe, console: Console) -> tuple[Evaluation, Dataset]:
    """The validation and test images of the recipe and of all its phases, and its data.

    Its extra sources are left out: the list that is to be made may be one of them.
    """
    from edgecls.data import near_duplicates
    from edgecls.search.mine import Evaluation

    sections = [recipe.data, *(part.recipe.data for part in recipe.parts)]
    plain = [section.model_copy(update={"extra": []}) for section in sections]
    different = [section for i, section in enumerate(plain) if section not in plain[:i]]
    loaded = [load_data(section, console) for section in different]
    splits = {"val": loaded[0].val, "test": loaded[0].test}
    for number, data in enumerate(loaded[1:], 2):
        splits |= {f"val of data {number}": data.val, f"test of data {number}": data.test}
    with _bar(console, "evaluation images") as progress:
        name = f"mine:{recipe.data.path or recipe.data.source}"
        thumbnails = near_duplicates.read_thumbnails(list(splits.values()), name, progress)
    return Evaluation(splits, thumbnails), loaded[0]


# The teacher -----------------------------------------------------------------------------------------------------


def _teacher(mining: Mining, data: Dataset, console: Console) -> tuple[Teacher, str]:
    """Who answers, and what it is called: a file, or a network with its weights.

    Raises:
        UsageError: It has other classes.
        MissingError: The recipe's teacher is not trained yet.
    """
    recipe = mining.recipe
    own = None if mining.teacher else _trained_teacher(recipe)
    if path := mining.teacher or own:
        return _from_file(path, data.classes, unnamed=own is not None)
    section = recipe.teachers.get(STAGE)
    if section is None:
        raise UsageError(
            "the recipe has no teacher", where="teacher", fix="add one, or name a model: --teacher"
        )
    if section.train is not None or not _has_weights(section):
        fix = "train it with edgecls train RECIPE, or name a model: --teacher"
        raise MissingError("the recipe's teacher is not trained yet", where=f"runs/{recipe.name}", fix=fix)
    return _from_weights(section, recipe, data, console)


def _trained_teacher(recipe: Recipe) -> str | None:
    """The teacher in the newest run of the recipe, which may not have had its extra sources yet."""
    plain = recipe.model_copy(update={"data": recipe.data.model_copy(update={"extra": []})})
    for each in (recipe, plain):
        run = Run.matching(each)
        if run is not None and run.file(teacher_file(STAGE)).is_file():
            return str(run.file(teacher_file(STAGE)))
    return None


def _from_file(path: str, classes: list[str], unnamed: bool) -> tuple[Teacher, str]:
    """The teacher in a file; ``unnamed``: its classes may have numbers for names, until its run is finished."""
    from edgecls.infer.classifier import MODEL_SUFFIXES, Classifier
    from edgecls.search.mine import Teacher

    if path.endswith(MODEL_SUFFIXES):
        classifier = Classifier.load(expand_user(path))
    else:
        import_tensorflow()
        classifier = Classifier.load(expand_user(path), _who_answers(expand_user(path)))
    numbers = [str(i) for i in range(len(classes))]
    if classifier.classes != classes and not (unnamed and classifier.classes == numbers):
        others = set(classifier.classes) ^ set(classes)
        said = f"such as '{escape(min(others))}'" if others else "in another order"
        what = f"the teacher has other classes than the recipe, {said}: {len(classifier.classes)} and {len(classes)}"
        fix = "name a teacher that was trained on this recipe's classes"
        raise UsageError(what, where=str(classifier.path), fix=fix)
    preprocess = classifier.preprocess
    key = {"file": sha256(classifier.path), "pixels": preprocess.to_dict()}
    answer = _probabilities(classifier.logits)
    return Teacher(hash_json(key), preprocess.array, answer), str(classifier.path)


def _who_answers(run: Path) -> str:
    """A run's teacher, or its float network where it was trained without one."""
    with suppress(EdgeclsError):  # no run: told by who opens it
        if not Run.find(run).file(teacher_file(STAGE)).is_file():
            return "float"
    return STAGE


def _has_weights(section: OtherTeacher) -> bool:
    return section.file is not None or section.weights not in (None, RANDOM)


def _from_weights(
    section: OtherTeacher, recipe: Recipe, data: Dataset, console: Console
) -> tuple[Teacher, str]:
    """The recipe's teacher with the weights that the recipe names, as a training without ``teacher.train`` has it."""
    from edgecls.search.mine import Teacher

    if section.name is not None and section.weights is not None:
        download_weights(section.weights, section.name, console)
    inputs = {
        "teacher": section.model_dump(exclude={"weights", "file", "train", "others"}),
        "weights": weights_input(section),
    }
    model = build_network(section, recipe, data, console, is_trained=True)
    preprocess = recipe_preprocess(recipe)

    def logits(pixels: np.ndarray) -> np.ndarray:
        answers = model.predict_on_batch(pixels.astype(np.float32))
        return np.asarray(answers[0] if len(model.outputs) > 1 else answers)

    key = {"inputs": fingerprint(inputs), "classes": data.classes, "pixels": preprocess.to_dict()}
    return Teacher(
        hash_json(key), preprocess.array, _probabilities(logits)
    ), f"{section.title}: {section.weights or section.file}"


_BATCH = 32


def _probabilities(logits: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A model's probabilities, by batches that are all of one shape: a graph is traced once."""

    def answer(pixels: np.ndarray) -> np.ndarray:
        missing = -len(pixels) % _BATCH
        padded = np.concatenate([pixels, np.repeat(pixels[:1], missing, axis=0)])
        parts = [logits(padded[start : start + _BATCH]) for start in range(0, len(padded), _BATCH)]
        return softmax(np.concatenate(parts)[: len(pixels)])

    return answer


# The files -------------------------------------------------------------------------------------------------------


def _write(
    mining: Mining,
    teacher: str,
    files: Sequence[str],
    classes: Sequence[str],
    chosen: Sequence[int],
    answers: Answers,
    drops: dict[int, Drop],
) -> dict[str, Any]:
    """Write the two tables and the result; the list comes last, so that the others are there if it is.

    Raises:
        EdgeclsError: No image is left.
    """
    counts = Counter(drop.reason for drop in drops.values())
    per_class = np.bincount(answers.classes[list(chosen)], minlength=len(classes)).tolist()
    result = {
        "schema": "edgecls.mine/1",
        "recipe": mining.recipe.name,
        "unlabeled": str(mining.unlabeled),
        "teacher": teacher,
        "top": mining.top,
        "min_probability": mining.min_probability,
        "images": len(files),
        "chosen": len(chosen),
        "dropped": {reason: counts[reason] for reason in REASONS},
        "per_class": dict(zip(classes, per_class, strict=True)),
        "list": str(mining.save),
        "dropped_list": str(mining.dropped),
    }
    columns = ("image", "reason", "detail", "class", "probability")
    left_out = (
        (_place(files[i], mining), drops[i].reason, drops[i].detail, *answers.shown(i, classes))
        for i in sorted(drops)
    )
    _write_table(mining.dropped, columns, left_out)
    write_json(mining.summary, result)
    if not chosen:
        said = ", ".join(f"{counts[reason]:,} {text}" for reason, text in REASONS.items() if counts[reason])
        raise EdgeclsError(
            f"no image is left: {said}", where=str(mining.unlabeled), fix=f"see {mining.dropped}"
        )
    rows = ((_place(files[i], mining), *answers.shown(i, classes)) for i in chosen)
    _write_table(mining.save, ("image", "label", "probability"), rows)
    return result


def _place(file: str, mining: Mining) -> str:
    """A path as a list has it: below the list's folder relative, so that both can be moved together."""
    folder = f"{mining.save.absolute().parent}/"
    return file.removeprefix(folder)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Every field in quotes: a path may have commas, and spaces at its ends. A name need not be UTF-8."""
    with (
        atomic(path) as part,
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)

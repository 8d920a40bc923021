"""The model card of a run, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgecls.data.resizing import describe_interpolation
from edgecls.report.accuracy import TOP5_CLASSES, score_rows, worst_class
from edgecls.report.facts import Facts, RunLike, bad_images, split_counts, title_of
from edgecls.report.html import render, write_page
from edgecls.report.sections import absent, bench_rows, device, ladder, set_aside
from edgecls.report.units import points
from edgecls.report.values import at, mapping, number, texts
from edgecls.text import plural

_LICENSES = {
    "elpv": "CC BY-NC-SA 4.0 (ELPV solar cell photographs): no commercial use, credit the authors, share alike. "
    "Whoever publishes a model trained on them should consider whether these terms reach it.",
}


def write_card(run: RunLike) -> Path:
    """Write ``card.md``; a part that the run does not have yet names the command that makes it.

    Returns:
        Path of the card.

    Raises:
        MissingError: No space on the disk.

    Example:
        >>> write_card(Run.find("runs/latest"))   # doctest: +SKIP
        PosixPath('runs/mv3_ssld/20260102-030405/card.md')
    """
    return write_page(run.file("card.md"), card(run))


def card(run: RunLike) -> str:
    """The model card of a run as Markdown."""
    facts = Facts(run)
    source = str(at(facts.recipe, "data", "source") or "unknown")
    classes = texts(facts.split.get("classes")) or texts(facts.eval.get("classes"))
    checked = ladder(facts)
    text = render(
        "card.md",
        name=facts.name,
        time=facts.time,
        path=facts.command_path,
        model=facts.model,
        teacher=facts.teacher,
        commit=str(facts.env.get("commit") or "")[:12],
        classes=classes,
        source=source,
        license=_LICENSES.get(source, "that of your own images; state it here."),
        counts=split_counts(facts.split),
        bad=bad_images(facts.split),
        set_aside=set_aside(facts),
        training=_training(facts),
        warnings=facts.warnings(),
        outdated=[text for left_out in facts.outdated.values() for text in left_out],
        scores=score_rows(facts),
        top5=len(classes) >= TOP5_CLASSES,
        files=[_file(about) for about in checked["files"]],
        rungs=checked["rungs"],
        change=_change(facts),
        latencies=bench_rows(facts),
        device=device(facts),
        preparation=_preparation(facts.preprocess),
        side="size" if (side := number(facts.preprocess.get("size"))) is None else int(side),
        samples=run.file("export", "samples").is_dir(),
        output=_output(facts),
        worst=worst_class(facts),
        absent=absent(facts),
        quantize=facts.command("quantize"),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _change(facts: Facts) -> str:
    """What int8 changes of the balanced accuracy, with its interval."""
    drop, interval = facts.drop(), facts.change_interval()
    text = points(None if drop is None else -drop)
    return (
        text
        if interval is None
        else f"{text} (95 %: {points(100 * interval[0])} to {points(100 * interval[1])})"
    )


def _output(facts: Facts) -> str:
    """What the int8 file gives."""
    if facts.setting("export_int8", "output") == "uint8":
        return "uint8 logits (scale and zero point are the tensor's)"
    softmax = facts.setting("export_int8", "scores") == "softmax"
    return "float32 probabilities" if softmax else "float32 logits"


def _preparation(preprocess: Mapping[str, Any]) -> list[str]:
    """How a photo becomes the network's pixels, step by step; nothing if preprocess.json does not say."""
    size, short = (number(preprocess.get(key)) for key in ("size", "resize_short"))
    if size is None or short is None:
        return []
    return [
        "Decode to 8-bit RGB, turned upright as its EXIF orientation says.",
        f"Resize to a short side of {short:.0f} pixels: {describe_interpolation(preprocess)}. "
        "Round to whole numbers.",
        f"Cut {size:.0f} x {size:.0f} pixels out of the center.",
        "Give these values, 0 to 255, to the file: it normalizes inside.",
    ]


def _stages(facts: Facts) -> dict[str, tuple[str, str, str]]:
    """Stage -> its title in the card, where its network is in the recipe, where its settings are."""
    return {
        "teacher": ("Teacher", "teacher", "teacher.train"),
        **{stage: (_sentence(title_of(stage)), "model", "train") for stage in facts.trainings},
        "qat": ("Quantization-aware training", "model", "quantize.train"),
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _training(facts: Facts) -> list[str]:
    """What was trained and how, from the stamps of the stages; a stage that is not done is said to be."""
    if not facts.recipe:
        return []
    lines = []
    for stage, (title, section, settings) in _stages(facts).items():
        network = at(facts.recipe, section, "name")
        if stage != "teacher" or (network and not at(facts.recipe, "distill", "mutual")):
            done = stage in facts.stamps
            text = _phase(facts, stage, section, settings) if done else "not done yet"
            lines.append(f"{title}: {text}")
    for stage in facts.trainings:
        if mapping(facts.recipe_of(stage).get("distill")) and stage in facts.stamps:
            lines.append(_distillation(facts, stage))
    lines.append(f"Seed {facts.recipe.get('seed', 0)}; the whole recipe is recipe.yaml")
    return lines


def _distillation(facts: Facts, stage: str) -> str:
    named, bare, weight, labels = (
        facts.setting(stage, f"distill.{key}") for key in ("loss.name", "loss", "weight", "hard_weight")
    )
    loss = named or bare  # a recipe may give the bare name
    of = "two students" if facts.setting(stage, "distill.mutual") is True else "teacher and student"
    where = f" of the {title_of(stage)}" if len(facts.trainings) > 1 else ""
    return f"Distillation{where}: {loss} loss between {of}, weight {weight}, labels {labels}"


def _phase(facts: Facts, stage: str, section: str, settings: str) -> str:
    """The network, its first weights and the training of a finished stage."""
    text = f"{at(facts.recipe, section, 'name')}, starting from {_start(facts, stage, section)}"
    size = facts.setting(stage, "preprocess.size")
    if stage in facts.trainings and len(facts.trainings) > 1 and size:
        text += f", {size} pixels"
    figures = mapping(facts.stamps[stage].get("figures"))
    epochs = number(figures.get("epochs", facts.setting(stage, f"{settings}.epochs")))
    if not epochs:
        return f"{text}; not trained"
    batch, optimizer, rate, schedule = (
        facts.setting(stage, f"{settings}.{key}")
        for key in ("batch_size", "optimizer.name", "optimizer.lr", "schedule.name")
    )
    text += f"; {plural(int(epochs), 'epoch')}, batch {batch}, {optimizer} at {rate}, {schedule} schedule"
    best = number(figures.get("best_epoch"))
    if figures.get("selected") == "last":
        return f"{text}, weights of the last epoch"
    return text + (f", weights of epoch {best + 1:.0f}" if best is not None and best >= 0 else "")


def _start(facts: Facts, stage: str, section: str) -> str:
    """The weights that a stage's network begins with."""
    if stage == "qat":
        return "the float student"
    if stage in facts.trainings[1:]:
        return f"the {title_of(facts.trainings[facts.trainings.index(stage) - 1])}"
    weights = at(facts.recipe, section, "weights")
    return Path(str(weights)).name if weights else "random values"


def _file(about: dict[str, Any]) -> dict[str, Any]:
    """An exported file as a row of the card's table."""
    return {
        "name": about["name"],
        "size": about["size"],
        "partitions": "–" if about["partitions"] is None else about["partitions"],
        "float_ops": len(about["float_ops"]) if about["quantized"] else "all",
    }

"""``edgecls predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgecls.cli.common import cli_command, is_model, percent, run_or_file
from edgecls.cli.completers import complete_run
from edgecls.console import Console
from edgecls.data.listing import is_photo_name, list_photos
from edgecls.errors import EdgeclsError, UsageError
from edgecls.run import Run
from edgecls.text import escape, plural


@cli_command(
    "edgecls predict photo.jpg",
    "edgecls predict mv3_ssld photo.jpg photos/",
    "edgecls predict model_int8.tflite photos/ --top 1 --json",
)
@click.argument(
    "arguments", metavar="[RUN|FILE] PHOTO...", nargs=-1, required=True, shell_complete=complete_run
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name for each photo."
)
def command(console: Console, arguments: tuple[str, ...], top: int) -> None:
    """Classify photos, and all photos in folders, with a run a .keras or .tflite file, or a SavedModel.

    Without RUN or FILE the newest run is taken. A photo that cannot be read is named and left out; the command fails
    if none can be read.
    """
    target, photos = (arguments[0], arguments[1:]) if _is_model(arguments) else (None, arguments)
    path = run_or_file(target)
    if not photos:
        raise UsageError("no photos given", where=str(target), fix="add photos or folders of photos")
    files = [file for photo in photos for file in _files(Path(photo))]
    from edgecls import workflow

    with console.progress() as bars:
        task = bars.add_task("photos", total=len(files), text="")
        result = workflow.predict(path, files, top, lambda done: bars.update(task, completed=done))
    console.emit(result, _text)
    skipped = result.get("skipped", ())
    for file in skipped:
        console.log(f"skipped: {file['image']}: {file['why']}")
    if skipped:
        console.log(f"{len(skipped)} of {plural(len(files), 'photo')} could not be read")
    if not result["results"]:
        raise EdgeclsError(
            "no photo could be read", where=skipped[0]["image"], fix="give photos in other files"
        )


def _is_model(arguments: Sequence[str]) -> bool:
    """Whether the first argument is the run or the model file, not a photo.

    A folder of photos that is called as a run is taken for the run where other arguments follow.
    """
    path = Path(arguments[0])
    if is_model(path) and path.is_dir():
        return True
    if not path.is_dir():
        return not is_photo_name(path.name)
    try:
        run = Run.find(path).path
    except UsageError:
        return False
    return len(arguments) > 1 or run.is_relative_to(path.resolve())


def _files(path: Path) -> list[Path]:
    """The photo, or the photos in the folder."""
    if not path.exists():
        raise UsageError("no such photo or folder", where=str(path), fix="check the path")
    files = list_photos(path) if path.is_dir() else [path]
    if not files:
        raise UsageError("no photos in the folder", where=str(path), fix="name another folder")
    return files


def _text(result: Mapping[str, Any]) -> str:
    lines = []
    for photo in result["results"]:
        named = [f"{escape(p['class'])} {percent(p['probability'])} %" for p in photo["predictions"]]
        lines.append(f"{photo['image']}: {', '.join(named)}")
    return "\n".join(lines)

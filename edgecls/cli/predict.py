"""``edgecls predict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgecls.cli.common import cli_command, percent, run_or_file
from edgecls.cli.completers import complete_run
from edgecls.console import Console
from edgecls.errors import UsageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}


@cli_command("edgecls predict mv3_ssld photo.jpg", "edgecls predict model_int8.tflite photos/ --top 1 --json")
@click.argument("target", metavar="RUN|FILE", shell_complete=complete_run)
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name for each image."
)
def command(console: Console, target: str, images: tuple[Path, ...], top: int) -> None:
    """Classify photos, or all photos in folders, with a run or a .keras or .tflite file."""
    path = run_or_file(target)
    files = _photos(images)
    from edgecls import workflow

    console.emit(workflow.predict(path, files, top), _text)


def _photos(paths: tuple[Path, ...]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        )
        if not inside:
            raise UsageError("no photos in the folder", where=str(path))
        files += inside
    return files


def _text(result: Mapping[str, Any]) -> str:
    lines = []
    for image in result["results"]:
        named = [f"{p['class']} {percent(p['probability'])} %" for p in image["predictions"]]
        lines.append(f"{image['image']}: {', '.join(named)}")
    return "\n".join(lines)

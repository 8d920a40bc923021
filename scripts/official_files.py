"""What the scripts that prepare published data sets share: MATLAB files in, list files out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import write_text


def run(description: str, prepare: Callable[[Path], Iterable[str]]) -> None:
    """Call ``prepare`` with the folder of the command line and print its lines; an error is one line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder with the official files, unpacked")
    try:
        for line in prepare(parser.parse_args().folder):
            print(line)
    except EdgeclsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def read_mat(path: Path, *names: str) -> list[Any]:
    """Variables of a MATLAB file.

    Raises:
        MissingError: There is no such file, or scipy is not installed.
        UsageError: It is no MATLAB file, or has no such variable.
    """
    if not path.is_file():
        raise MissingError("no such file", where=str(path), fix="put the official files into this folder")
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError:
        raise MissingError("MATLAB files need scipy", where=str(path), fix="pip install scipy") from None
    try:
        variables = loadmat(path, squeeze_me=True)
    except Exception as error:  # scipy raises several types on other files
        raise UsageError(f"not a MATLAB file: {error}", where=str(path)) from None
    if missing := [name for name in names if name not in variables]:
        raise UsageError(f"no variable {missing[0]}", where=str(path), fix="take the official file")
    return [variables[name] for name in names]


def write_list(path: Path, images: Sequence[tuple[str, int]], root: Path) -> str:
    """Write ``path label`` lines and say so.

    Raises:
        MissingError: An image is not there.
    """
    gone = [name for name, _ in images if not (root / name).is_file()]
    if gone:
        what = f"{len(gone)} of {len(images)} images are not there, such as {gone[0]}"
        raise MissingError(what, where=str(root), fix="unpack the archive of the images here")
    write_text(path, "".join(f"{name} {label}\n" for name, label in images))
    return f"{path}: {len(images)} images of {len({label for _, label in images})} classes"

"""Archives of npm packages, by the user's own ``npm`` (so that its mirror and its proxy count), kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgecls.errors import MissingError
from edgecls.files import atomic, cache_dir, sha256
from edgecls.text import escape

_TIMEOUT_S = 600


def archive(name: str, version: str, digest: str) -> Path:
    """The ``.tgz`` of a package.

    Args:
        name: For example ``"@litertjs/core"``.
        version: The exact one.
        digest: SHA-256 of the archive, hexadecimal.

    Raises:
        MissingError: It is not in the cache, and npm is not installed or cannot fetch it; or it has another digest.

    Example:
        >>> archive("@litertjs/core", "2.5.3", "a97660...")  # doctest: +SKIP
        PosixPath('.../npm/litertjs-core-2.5.3.tgz')
    """
    path = cache_dir() / "npm" / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not path.is_file():
        _fetch(f"{name}@{version}", path)
    if (found := sha256(path)) != digest:
        raise MissingError(
            f"{name} {version} has hash {found}, not {digest}", where=str(path), fix="remove it and run again"
        )
    return path


def _fetch(package: str, path: Path) -> None:
    npm, fix = shutil.which("npm"), f"or download {package} from npm elsewhere and put the .tgz at {path}"
    if npm is None:
        raise MissingError(
            f"npm is not installed, and {package} comes from there", fix=f"install Node.js, {fix}"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--loglevel=error", "--ignore-scripts", "--pack-destination", folder, package]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
            reason = _reason(done.stderr) or f"it ended with {done.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"nothing came in {_TIMEOUT_S} s"
        found = Path(folder) / path.name
        if not found.is_file():
            raise MissingError(
                f"npm cannot fetch it: {reason}", where=package, fix=f"check the network, {fix}"
            )
        with atomic(path) as part:
            shutil.copyfile(found, part)


def _reason(stderr: str) -> str:
    """What npm says in words; before it come lines with codes."""
    lines = [line.removeprefix("npm error").strip() for line in stderr.splitlines()]
    words = [line for line in lines if line.partition(" ")[0] not in ("", "code", "errno", "syscall")]
    return escape(words[0])[:200] if words else ""

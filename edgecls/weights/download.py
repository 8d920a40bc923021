"""Downloading a large file whole: in pieces where the connection is cut, by one process at a time, never half-written."""

from __future__ import annotations

import contextlib
import email.message
import errno
import fcntl
import http.client
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from edgecls.errors import MissingError
from edgecls.files import sha256, write_json

Progress = Callable[[int, int | None], None]
"""Is called with the bytes that are there and the bytes there will be (None: the server does not say)."""

_TRIES = 5
_TIMEOUT_S = 60.0
_PAUSE_S = 1.0  # before the second try; doubled before each other one
_PIECE = 1 << 20
_FINAL = (
    ConnectionRefusedError,  # no server, or no proxy
    socket.gaierror,  # no such host, or no network
    ssl.SSLCertVerificationError,
    FileNotFoundError,  # under a file:// address
    PermissionError,
    IsADirectoryError,
)
"""What asking again does not mend."""
_TUNNEL = "Tunnel connection failed"  # http.client's words for a proxy that refuses


class _Cut(Exception):
    """The connection ended early; what has come is kept."""


def download(url: str, path: Path, digest: str = "", progress: Progress | None = None) -> None:
    """Download a file, unless another process has just done so.

    What has come when a connection is cut is kept beside ``path`` and goes on from there, also in a later call, if the
    server says that it still has the same file.

    Args:
        url: Its address.
        path: Where to put it. It is whole or absent.
        digest: SHA-256 of the content, hexadecimal; ``""``: not known.
        progress: Is told how far it is.

    Raises:
        MissingError: The file cannot be had, is a web page, has another hash, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.is_file():
                _fetch(url, path, digest, progress or (lambda done, total: None))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MissingError("no disk space left", where=str(path), fix="free some and run again") from None
        fix = "name another folder for the cache: EDGECLS_CACHE=FOLDER"
        raise MissingError(
            f"the weights cannot be kept: {error.strerror or error}", where=str(path), fix=fix
        ) from None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process downloads to ``path``."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(url: str, path: Path, digest: str, progress: Progress) -> None:
    part, about = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    reason: Exception = _Cut()
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))
        try:
            _receive(url, part, about, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:  # asking again will not help
                raise _unreachable(url, path, f"HTTP {error.code} {error.reason}") from None
            reason = error
        except urllib.error.URLError as error:
            if isinstance(error.reason, _FINAL) or _TUNNEL in str(error.reason):
                raise _unreachable(url, path, str(error.reason)) from None
            reason = error
        except (_Cut, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = error
    else:
        raise _unreachable(url, path, str(getattr(reason, "reason", reason)) or type(reason).__name__)
    got = sha256(part)
    about.unlink(missing_ok=True)
    if digest and got != digest:
        part.unlink()
        fix = "the file was published anew, or something on the way has changed it"
        raise MissingError(f"the download has hash {got}, not {digest}", where=url, fix=fix)
    part.replace(path)


def _receive(url: str, part: Path, about: Path, progress: Progress) -> None:
    """One connection: go on after what ``part`` has, if the server still has the same file."""
    kept = _kept(part, about)
    request = urllib.request.Request(url, headers={"User-Agent": "edgecls"})
    if kept:
        request.add_header("Range", f"bytes={part.stat().st_size}-")
        request.add_header("If-Range", kept)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the range is not there: the file has become shorter
            part.unlink(missing_ok=True)
            raise _Cut("the file has changed on the server") from None
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            fix = "open the address in a browser: a login page or a proxy may stand before it"
            raise MissingError("the server sent a web page in place of weights", where=url, fix=fix)
        goes_on = response.status == 206
        version = _version(response.headers)
        if version and not goes_on:
            write_json(about, {"version": version})
        done = part.stat().st_size if goes_on else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        with part.open("ab" if goes_on else "wb") as file:
            while piece := response.read(_PIECE):
                file.write(piece)
                done += len(piece)
                progress(done, total)
    if total is not None and done < total:
        raise _Cut(f"the connection ended after {done:,} of {total:,} bytes")


def _kept(part: Path, about: Path) -> str:
    """What the server called the file that ``part`` is the beginning of; ``""``: there is none to go on with."""
    try:
        return str(json.loads(about.read_text())["version"]) if part.stat().st_size else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _version(headers: email.message.Message) -> str:
    """What tells versions of a file apart, as ``If-Range`` takes it; weak tags do not count (RFC 9110, 13.1.5)."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _unreachable(url: str, path: Path, reason: str) -> MissingError:
    other = "correct" if os.environ.get("EDGECLS_MIRROR") else "name another host with"
    fixes = [f"download it elsewhere and put it at {path}, or {other} EDGECLS_MIRROR"]
    if "CERTIFICATE_VERIFY_FAILED" in reason:  # a company's proxy that reads along, mostly
        fixes.insert(0, "name a file with your network's certificates: SSL_CERT_FILE=FILE")
    if proxy := _proxy(url):
        reason += f", asking the proxy {proxy}"
    return MissingError(f"the weights cannot be downloaded: {reason}", where=url, fix="; or ".join(fixes))


def _proxy(url: str) -> str:
    """The proxy that ``https_proxy`` and the like name for an address, without a password; ``""``: none."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return ""
    return proxy.rpartition("@")[2]

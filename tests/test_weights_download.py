"""Published weights by name, from a server on this computer that does what servers and networks do."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import edgecls
from edgecls.errors import MissingError, UsageError
from edgecls.weights import download, load, sources
from edgecls.weights.readers import WeightsError
from edgecls.zoo import catalog

NETWORK = "ShuffleNetV2_x0_25"
BYTES = np.random.default_rng(0).bytes(3 << 20)


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every path; ``faults`` say what is wrong with the answers to come, one each.

    ``cut``: the connection ends in the middle. ``busy``: 503. ``gone``: 404. ``page``: a login page. ``moved``: a redirect.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.tag, self.faults = BYTES, '"1"', list[str]()
        self.asked: list[tuple[str, str]] = []  # path and range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault in ("busy", "gone"):
            self.send_error({"busy": 503, "gone": 404}[fault])
            return
        if fault == "moved":
            self.send_response(302)
            self.send_header("Location", f"{self.server.url}/elsewhere")
            self.end_headers()
            return
        data, status = self.server.content, 200
        if fault == "page":
            data = b"<html>Welcome to our hotel</html>"
        elif wanted and self.headers.get("If-Range") == self.server.tag:
            data, status = data[int(wanted.removeprefix("bytes=").removesuffix("-")) :], 206
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if fault == "page" else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", self.server.tag)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_PAUSE_S", 0.01)
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server stands in for the host of all published weights, and the cache is empty."""
    monkeypatch.setenv("EDGECLS_MIRROR", f"{server.url}/mirror/")
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    return server


def pdparams(model) -> bytes:
    return pickle.dumps(load.state(model), protocol=2)


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        ([], [""]),
        (["busy", "moved"], ["", "", ""]),
        (["cut"], ["", f"bytes={len(BYTES) // 2}-"]),
        (["cut", "busy"], ["", f"bytes={len(BYTES) // 2}-", f"bytes={len(BYTES) // 2}-"]),
    ],
)
def test_a_file_comes_whole_through_faults(server, tmp_path, faults, ranges) -> None:
    server.faults, steps = list(faults), []
    path = tmp_path / "cache/weights.bin"
    download.download(
        f"{server.url}/w.bin", path, hashlib.sha256(BYTES).hexdigest(), lambda *step: steps.append(step)
    )
    assert path.read_bytes() == BYTES
    assert [wanted for _, wanted in server.asked] == ranges
    assert steps[-1] == (len(BYTES), len(BYTES)) and steps == sorted(steps)
    assert {p.name for p in path.parent.iterdir()} == {"weights.bin", "weights.bin.lock"}


def test_a_file_that_changes_between_two_connections_starts_anew(server, tmp_path) -> None:
    server.faults = ["cut"] * 5
    with pytest.raises(
        MissingError, match=r"cannot be downloaded: the connection ended after .*EDGECLS_MIRROR"
    ):
        download.download(f"{server.url}/w.bin", tmp_path / "w.bin")
    assert not (tmp_path / "w.bin").exists() and (tmp_path / "w.bin.part").stat().st_size
    server.content, server.tag = BYTES[::-1], '"2"'
    download.download(f"{server.url}/w.bin", tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == BYTES[::-1]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "gone",
            r"HTTP 404 Not Found .*/w.bin\); download it elsewhere and put it at .*w.bin, or name another host",
        ),
        ("page", r"a web page in place of weights .*a login page or a proxy"),
    ],
)
def test_what_cannot_be_mended_is_said_at_once(server, tmp_path, fault, message) -> None:
    server.faults = [fault]
    with pytest.raises(MissingError, match=message) as error:
        download.download(f"{server.url}/w.bin", tmp_path / "w.bin")
    assert len(server.asked) == 1 and "\n" not in str(error.value)
    assert not (tmp_path / "w.bin").exists()


def test_other_content_and_no_server(server, tmp_path) -> None:
    with pytest.raises(
        MissingError, match=f"the download has hash {hashlib.sha256(BYTES).hexdigest()}, not 00"
    ):
        download.download(f"{server.url}/w.bin", tmp_path / "w.bin", "0" * 64)
    assert [p.name for p in tmp_path.iterdir()] == ["w.bin.lock"]
    with pytest.raises(MissingError, match="Connection refused"):
        download.download("http://127.0.0.1:9/w.bin", tmp_path / "w.bin")


@pytest.mark.parametrize("form", ["{}", "file://{}", "{} "])
def test_a_folder_is_a_mirror(tmp_path, monkeypatch, form) -> None:
    file = tmp_path / "a mirror" / "dygraph" / f"{NETWORK}_pretrained.pdparams"
    file.parent.mkdir(parents=True)
    file.write_bytes(BYTES)
    monkeypatch.setenv("EDGECLS_MIRROR", form.format(tmp_path / "a mirror"))
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    assert sources.locate("imagenet", NETWORK).read_bytes() == BYTES


@pytest.mark.parametrize(
    ("mirror", "error", "message"),
    [
        (
            "foo",
            UsageError,
            r"neither an address nor a folder \(EDGECLS_MIRROR=foo\); give https://host/folder",
        ),
        ("127.0.0.1:8000/x", UsageError, r"neither an address nor a folder"),
        ("file:///no/such/folder", MissingError, r"No such file or directory.*, or correct EDGECLS_MIRROR"),
        (
            "http://127.0.0.1:9/a b",
            MissingError,
            r"refused \(http://127.0.0.1:9/a%20b/dygraph/.*, or correct",
        ),
    ],
)
def test_a_wrong_mirror_is_said_at_once(monkeypatch, tmp_path, mirror, error, message) -> None:
    monkeypatch.setenv("EDGECLS_MIRROR", mirror)
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_PAUSE_S", 1e9)  # it would not wait for another try
    with pytest.raises(error, match=message) as told:
        sources.locate("imagenet", NETWORK)
    assert "\n" not in str(told.value)


def test_a_proxy_that_refuses_is_named_without_its_password(server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(download, "_PAUSE_S", 1e9)
    monkeypatch.setenv("no_proxy", "")
    refusing = f"127.0.0.1:{server.server_port}"
    for proxy, message in (
        (f"http://me:secret@{refusing}", f"501.*, asking the proxy {refusing} "),
        ("http://127.0.0.1:9", "refused, asking the proxy http://127.0.0.1:9 "),
    ):
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setattr(urllib.request, "_opener", None)  # which knows the proxies of its first use
        with pytest.raises(MissingError, match=message) as told:
            download.download("https://host.invalid/w.bin", tmp_path / "w.bin")
        assert "secret" not in str(told.value)


def test_a_cache_that_can_only_be_read(published, tmp_path, monkeypatch) -> None:
    model = edgecls.build_model(NETWORK, 7, 32)
    published.content = pdparams(model)
    sources.locate("imagenet", NETWORK)
    refusal = OSError(errno.EROFS, "Read-only file system")

    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(sources, "write_json", refuse)
    assert not edgecls.load_weights(model, "imagenet").differences()
    monkeypatch.setattr(download, "_fetch", refuse)
    with pytest.raises(
        MissingError, match=r"Read-only file system .*another folder for the cache: EDGECLS_CACHE="
    ):
        download.download(f"{published.url}/w.bin", tmp_path / "w.bin")


def test_a_full_disk(server, tmp_path) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full on this system")
    (tmp_path / "w.bin.part").symlink_to("/dev/full")
    with pytest.raises(MissingError, match="no disk space left"):
        download.download(f"{server.url}/w.bin", tmp_path / "w.bin")
    assert not (tmp_path / "w.bin").exists()


def test_two_processes_download_once(server, tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    both = [
        context.Process(target=download.download, args=(f"{server.url}/w.bin", tmp_path / "w.bin"))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0] and len(server.asked) == 1
    assert (tmp_path / "w.bin").read_bytes() == BYTES


def test_the_first_good_download_counts(published, tmp_path) -> None:
    teacher = edgecls.build_model(NETWORK, 7, 32)
    published.content = pdparams(teacher)
    student = edgecls.build_model(NETWORK, 7, 32, weights="imagenet")
    for a, b in zip(teacher.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    url = catalog.get(NETWORK).weights["imagenet"].url
    assert published.asked == [("/mirror" + url.partition(".com")[2], "")]
    known = json.loads((tmp_path / "cache/weights/known.json").read_text())
    assert known == {url: hashlib.sha256(published.content).hexdigest()}

    cached = sources.locate("imagenet", NETWORK)
    cached.unlink()
    published.content = pdparams(edgecls.build_model(NETWORK, 7, 32))
    with pytest.raises(MissingError, match="the file was published anew"):
        sources.locate("imagenet", NETWORK)
    cached.write_bytes(published.content)
    with pytest.raises(MissingError, match="have changed since they were first loaded"):
        sources.locate("imagenet", NETWORK)


def test_a_download_that_is_no_weights_file_is_not_kept(published, tmp_path) -> None:
    model = edgecls.build_model(NETWORK, 7, 32)
    with pytest.raises(WeightsError, match="the download was removed: run again"):
        edgecls.load_weights(model, "imagenet")
    assert not list((tmp_path / "cache/weights").glob("*.pdparams"))
    published.content = pdparams(model)
    assert not edgecls.load_weights(model, "imagenet").differences()


def test_nearly_every_network_has_published_weights() -> None:
    without = [name for name in catalog.names() if not catalog.get(name).weights]
    assert len(without) <= 10, without
    assert set(catalog.get("ResNet50_vd").weights) == {"imagenet", "10w"}

"""The page of ``edgecls export --format web`` in headless Chromium: pixels, answers, camera, and no other host."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import variants
from browser import CHROMIUM, Browser
from quantization import BLOCKS, EQUAL, SIZE, network, settled
from served import until
from variants import VARIANTS

import edgecls
from edgecls import quantize
from edgecls.data.preprocess import Preprocess
from edgecls.errors import MissingError, UsageError
from edgecls.export import npm, web
from edgecls.export.tflite import to_tflite
from edgecls.infer import Classifier

LABELS = ["a", "b & b", "<i>ç</i>", "d", "e", "f"]
in_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")


@contextmanager
def hosting(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a plain file server, and the paths that it is asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def litert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """LiteRT.js in one cache for all tests: it is 12 MB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECLS_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            for name, digest in web._DIGESTS.items():
                npm.archive(name, web.RUNTIME, digest)
        except MissingError as error:
            pytest.skip(str(error))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network in fp32 with probabilities, in int8, and in int8 with uint8 logits, for photos of any kind."""
    folder, preprocess = tmp_path_factory.mktemp("models"), Preprocess(SIZE, SIZE + 6, antialias=True)
    pixels = np.stack([preprocess.load(path) for path in variants.twenty()])
    model = settled(network(BLOCKS["conv"], **EQUAL, classes=len(LABELS)), pixels)
    twin = quantize.quantize_model(model)
    quantize.calibrate(twin, [pixels.astype(np.float32)])
    quantize.finalize(twin)

    def write(name: str, *of: str) -> Path:
        made = twin if "int8" in of else model
        return to_tflite(made, folder / f"{name}.tflite", of[0], LABELS, preprocess, *of[1:])  # type: ignore[arg-type]

    return {
        "fp32": write("fp32", "fp32", "float", "softmax"),
        "int8": write("int8", "int8", "float", "softmax"),
        "bytes": write("bytes", "int8", "uint8", "logits"),
    }


@pytest.fixture(scope="module")
def pages(files: dict[str, Path], litert: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each file."""
    folders = {name: tmp_path_factory.mktemp("pages") / name for name in files}
    for name, folder in folders.items():
        web.write_web(files[name], folder)
    return folders


def opened(browser: Browser) -> None:
    """Wait for the network."""
    until(lambda: "classes" in (browser.run("document.getElementById('about')?.innerText") or ""), 60)


@in_browser
def test_the_pixels_are_those_of_preprocess(tmp_path: Path) -> None:
    shutil.copyfile(web.TEMPLATES / "web/preprocess.js", tmp_path / "preprocess.js")
    photos = variants.photographs()
    for number, photo in enumerate(photos):
        opaque = np.full((*photo.shape[:2], 1), 255, np.uint8)
        (tmp_path / f"{number}.rgba").write_bytes(np.concatenate([photo, opaque], 2).tobytes())
    (tmp_path / "index.html").write_text("<!doctype html><title>pixels</title>")
    settings = json.dumps([preprocess.to_dict() for preprocess in VARIANTS.values()])
    with hosting(tmp_path) as (address, _), Browser(address) as browser:
        until(lambda: browser.run("document.readyState === 'complete' && document.title === 'pixels'"))
        found: list[list[str]] = []
        for number, photo in enumerate(photos):
            found.append(
                browser.run(f"""(async () => {{
                  const {{ pixels }} = await import("{address}preprocess.js");
                  const data = new Uint8ClampedArray(await (await fetch("{address}{number}.rgba")).arrayBuffer());
                  const photo = {{ width: {photo.shape[1]}, height: {photo.shape[0]}, data }};
                  const text = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
                  return {settings}.map((settings) => text(pixels(photo, settings)));
                }})()""")
            )
    for name, texts in zip(VARIANTS, zip(*found, strict=True), strict=True):
        variants.check(name, photos, [np.frombuffer(base64.b64decode(text), np.uint8) for text in texts])


def drop(browser: Browser, paths: list[Path]) -> None:
    """Drop files on the page, as a hand does."""
    for path in paths:
        text = base64.b64encode(path.read_bytes()).decode()
        browser.run(f"""{{
          const files = new DataTransfer();
          const bytes = Uint8Array.from(atob("{text}"), (c) => c.charCodeAt(0));
          files.items.add(new File([bytes], "{path.name}"));
          document.dispatchEvent(new DragEvent("drop", {{dataTransfer: files, bubbles: true, cancelable: true}}));
        }}""")


SHOWN = """Object.fromEntries([...document.querySelectorAll("#photos > li")].map((item) => [
  item.querySelector(".name").textContent,
  [...item.querySelectorAll(".row")].map((row) => [...row.children].map((cell) => cell.textContent)),
]))"""


@in_browser
@pytest.mark.parametrize("name", ["fp32", "int8", "bytes"])
def test_twenty_photographs_get_the_answers_of_predict(
    name: str, files: dict[str, Path], pages: dict[str, Path]
) -> None:
    check_answers(files[name], pages[name])


def check_answers(file: Path, folder: Path) -> None:
    """The page of ``folder`` shows for each photograph what ``edgecls predict`` says of it."""
    photos = variants.twenty()
    answers = Classifier.load(file).predict(photos)
    assert len({answer["predictions"][0]["class"] for answer in answers}) > 1  # else any page would be right
    with hosting(folder) as (address, asked), Browser(address) as browser:
        opened(browser)
        drop(browser, photos)
        until(lambda: browser.run("document.querySelectorAll('#photos section').length") == len(photos), 60)
        shown = browser.run(SHOWN)
        fetched = browser.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(url.startswith((address, "blob:", "data:")) for url in fetched) and fetched, fetched
    assert "/model.tflite" in asked and all((folder / path.lstrip("/")).exists() for path in asked)
    assert len(shown) == 20
    for photo, answer in zip(photos, answers, strict=True):
        rows, expected = shown[photo.name], answer["predictions"]
        assert rows[0][0] == expected[0]["class"]
        shares = {best["class"]: best["probability"] for best in expected}
        assert len(rows) == 5 and len(rows) - len({label for label, _ in rows} & shares.keys()) <= 1
        for label, percent in rows:
            if label in shares:
                assert abs(float(percent.removesuffix(" %")) / 100 - shares[label]) < 0.002


@in_browser
@pytest.mark.slow
def test_photographs_through_a_network_that_knows_them(litert: None, tmp_path: Path) -> None:
    """EfficientNet-Lite0 with its published weights, in int8."""
    preprocess, photos = Preprocess(224, 256, "bicubic", antialias=True), variants.twenty()
    pixels = np.stack([preprocess.load(path) for path in photos]).astype(np.float32)
    twin = quantize.quantize_model(
        edgecls.build_model("EfficientNetLite0", weights="imagenet", include_preprocessing=True)
    )
    quantize.calibrate(twin, [pixels], "minmax")
    file, labels = tmp_path / "lite0.tflite", [str(i) for i in range(1000)]
    to_tflite(twin, file, "int8", labels, preprocess, scores="softmax")
    web.write_web(file, tmp_path / "web")
    check_answers(file, tmp_path / "web")


@in_browser
def test_the_camera_and_what_is_no_photo(pages: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("text")
    flags = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
    with hosting(pages["int8"]) as (address, _), Browser(address, flags=flags) as browser:
        opened(browser)
        drop(browser, [tmp_path / "text.jpg"])
        until(
            lambda: "not an image" in (browser.run("document.querySelector('#photos .bad')?.innerText") or "")
        )
        browser.run("document.getElementById('camera').click()")
        seen = "document.querySelector('#seen h2')"
        until(lambda: browser.run(f"{seen}?.innerText.endsWith(' ms')"))
        browser.run(f"globalThis.first = {seen}")
        until(lambda: browser.run(f"{seen} !== globalThis.first"))  # it goes on
        assert browser.run("document.querySelectorAll('#seen .row').length") == 5
        browser.run("document.getElementById('camera').click()")
        until(lambda: browser.run("document.getElementById('live').hidden"))
        assert not browser.run("document.getElementById('error').innerText")


def test_a_file_that_does_not_say_its_pixels(tmp_path: Path, tiny: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"no labels, or no preprocessing.*export it with edgecls"):
        web.write_web(next(iter(tiny.values())), tmp_path / "web")
    assert not (tmp_path / "web").exists()


def test_archives_of_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called npm that fails as the real one does, one that gives the file, and none."""
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    digest = hashlib.sha256(b"archive").hexdigest()

    def program(text: str) -> None:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "npm").chmod(0o755)

    program("echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1")
    with pytest.raises(MissingError, match=r"npm cannot fetch it: 404 Not Found \(@a/b@1.0\).*a-b-1\.0\.tgz"):
        npm.archive("@a/b", "1.0", digest)
    program('[ "$6" = @a/b@1.0 ] && printf archive > "$5/a-b-1.0.tgz"')
    path = npm.archive("@a/b", "1.0", digest)
    assert path.read_bytes() == b"archive"
    monkeypatch.setenv("PATH", "")
    assert npm.archive("@a/b", "1.0", digest) == path
    with pytest.raises(MissingError, match=f"has hash {digest}, not 00"):
        npm.archive("@a/b", "1.0", "00")
    path.unlink()
    with pytest.raises(
        MissingError, match=r"npm is not installed, and @a/b@1\.0 comes from there; install Node"
    ):
        npm.archive("@a/b", "1.0", digest)

"""``edgecls serve``: what it answers, to whom it does not, and how it stops and loads anew."""

import base64
import io
import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import brightest
import numpy as np
import pytest
from brightest import CLASSES, SIZE
from browser import CHROMIUM, Browser
from PIL import Image
from served import Process, multipart, serving, until

from edgecls.cli.main import cli
from edgecls.data.preprocess import Preprocess
from edgecls.infer.bodies import Limits
from edgecls.infer.classifier import Classifier
from edgecls.infer.counters import BUCKETS, Counters
from edgecls.infer.service import Service

BYTES, PIXELS, SECONDS = 400_000, 500_000, 1.0
LIMITS = ["--max-mb", "0.4", "--max-megapixels", "0.5", "--timeout", "1", "--workers", "2"]


def png(channel: int = 0, size: tuple[int, int] = (60, 45)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, tuple(230 if c == channel else 20 for c in range(3))).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with an int8 and a fp32 file (both made by hand), and a score of the int8 one."""
    from edgecls.files import sha256

    folder = tmp_path_factory.mktemp("runs") / "demo" / "1"
    int8 = brightest.write(folder / "export" / "model_int8.tflite", scale=0.01)
    brightest.write(folder / "export" / "model_fp32.tflite", scale=0.05)
    (folder / "recipe.yaml").write_text("name: demo\n")
    scores = {"int8": {"sha256": sha256(int8), "top1": 0.75, "count": 4}, "fp32": {"sha256": "x", "top1": 1}}
    (folder / "eval.json").write_text(json.dumps({"models": scores}))
    return folder


@pytest.fixture(scope="module")
def server(run):
    process = Process(str(run), *LIMITS)
    yield process
    code, err = process.stop()
    assert code == 0 and "Traceback" not in err


# What it answers -----------------------------------------------------------------------------------------------------


def bodies():
    images = [png(i) for i in range(3)]
    texts = [base64.b64encode(image).decode() for image in images]
    yield "raw", images[1], "image/png", [(0, "bee")]
    yield "octets", images[2], "application/octet-stream", [(0, "cat")]
    yield "one part", *multipart(("a.png", images[2])), [("a.png", "cat")]
    files = multipart(*((f"{i}.png", image) for i, image in enumerate(images)))
    yield "parts", *files, [(f"{i}.png", name) for i, name in enumerate(CLASSES)]
    yield "json", json.dumps({"image": texts[0]}).encode(), "application/json", [(0, "ant")]
    many = json.dumps({"images": texts}).encode()
    yield "json of many", many, "application/json; charset=utf-8", list(enumerate(CLASSES))
    url = json.dumps({"image": f"data:image/png;base64,{texts[1]}"}).encode()
    yield "data url", url, "application/json", [(0, "bee")]


@pytest.mark.parametrize(
    ("body", "kind", "expected"), [b[1:] for b in bodies()], ids=[b[0] for b in bodies()]
)
def test_images_come_in_every_kind_of_body(server, body, kind, expected):
    answer = server.predict(body, kind)
    assert answer.status == 200 and answer.json["model"] == "int8"
    results = answer.json["results"]
    assert [(r["image"], r["predictions"][0]["class"]) for r in results] == expected


def test_answers_are_those_of_the_classifier(server, run):
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    for kind in ("int8", "fp32"):
        (expected,) = Classifier.load(run, kind).predict([file.getvalue()], top=2)
        answer = server.predict(file.getvalue(), query=f"?model={kind}&top=2").json
        assert answer == {"schema": "edgecls.predict/1", "model": kind, "results": [expected]}


def test_an_error_of_ours_is_a_line_too(run, monkeypatch):
    loads = lambda: ({"int8": Classifier.load(run, workers=1)}, {})  # noqa: E731
    service = Service(loads, 1, 4, Limits())
    with serving(service) as client:
        for request in (client.predict, lambda body: client.get("/readyz")):
            with monkeypatch.context() as patch:
                patch.setattr(service, "admit", lambda: 1 / 0)
                answer = request(png())
                assert answer.status == 500 and "internal error: ZeroDivisionError" in answer.json["error"]
            assert request(png()).status == 200


def test_what_it_says_of_itself(server, run):
    assert server.started.startswith("serving int8, fp32 on http://")
    assert server.get("/labels").json["labels"] == CLASSES
    card = server.get("/model").json
    assert [m["name"] for m in card["models"]] == ["int8", "fp32"] and card["run"] == "demo/1"
    assert card["models"][0]["test"]["top1"] == 0.75
    assert card["models"][1]["test"] is None, "a score of another file must not be shown"
    assert card["models"][0]["preprocess"] == Preprocess(SIZE).to_dict()
    assert server.get("/healthz").body == server.get("/readyz").body == b"ok\n"
    document = server.get("/openapi.json").json
    assert {"/predict", "/labels", "/model", "/healthz", "/readyz", "/metrics"} == set(document["paths"])
    assert "multipart/form-data" in document["paths"]["/predict"]["post"]["requestBody"]["content"]


def test_metrics_count(server):
    names = [
        'edgecls_requests_total{status="200"}',
        'edgecls_requests_total{status="422"}',
        "edgecls_images_total",
    ]
    before = [server.metric(name) for name in names]
    server.predict(*multipart(("a", png()), ("b", png())))
    server.predict(b"text")
    assert [server.metric(name) - value for name, value in zip(names, before, strict=True)] == [1, 1, 2]
    assert server.metric('edgecls_request_seconds_bucket{le="+Inf"}') == server.metric(names[0])


def test_the_histogram_is_cumulative():
    counters = Counters()
    for seconds in (BUCKETS[0], 0.3, 99):
        counters.request(200, seconds, 1)
    counters.request(503, 1e-4, 0)
    lines = counters.text({"x": (2.5, "about")}).splitlines()
    counts = [int(line.split()[1]) for line in lines if "_bucket" in line]
    assert counts == [sum(s <= bound for s in (BUCKETS[0], 0.3, 99)) for bound in (*BUCKETS, np.inf)]
    assert "edgecls_x 2.5" in lines and 'edgecls_requests_total{status="503"} 1' in lines


def test_the_page_stands_alone(server):
    page = server.get("/")
    assert page.status == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    text = page.body.decode()
    for part in ("page/page.js", "page/page.css"):
        assert part in text and server.get(f"/{part}").status == 200
        text += server.get(f"/{part}").body.decode()
    assert "http://" not in text and "https://" not in text
    assert server.get("/page/index.html").status == server.get("/page/..%2fserver.py").status == 404


# Bad input -----------------------------------------------------------------------------------------------------------

BOMB = png(size=(1000, 501))  # a few bytes, and more pixels than are allowed
BAD = {
    "text": (b"this is no image", "image/jpeg", 422, "not an image"),
    "torn": (None, "image/jpeg", 422, "damaged image"),
    "bomb": (BOMB, "image/png", 422, "1000x501 pixels are more than the"),
    "empty": (b"", "image/png", 400, "empty"),
    "large": (b"x" * (BYTES + 1), "image/png", 413, "0.4 MB"),
    "form": (png(), "application/x-www-form-urlencoded", 415, "cannot hold a photo"),
    "video": (png(), "video/mp4", 415, "cannot hold a photo"),
    "no json": (b"{", "application/json", 400, "not JSON"),
    "deep json": (b"[" * 100_000, "application/json", 400, "not JSON"),
    "other json": (b'{"photo": "x"}', "application/json", 400, "the JSON is not"),
    "number": (b'{"images": [1]}', "application/json", 400, "the JSON is not"),
    "no base64": (b'{"image": "***"}', "application/json", 400, "image 0 is not base64"),
    "no images": (b'{"images": []}', "application/json", 400, "no image"),
    "one of two": (*multipart(("good.png", png()), ("bad\x1b.png", b"text")), 422, r"cannot read bad\x1b.png"),
    "no boundary": (b"x", "multipart/form-data", 400, "multipart"),
    "no parts": (b"x", "multipart/form-data; boundary=y", 400, "multipart"),
    "torn parts": (multipart(("a.png", png()))[0][:-10], "multipart/form-data; boundary=edge", 400, "last boundary"),
    "a field": (
        b'--y\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--y--\r\n',
        "multipart/form-data; boundary=y",
        400,
        "no image",
    ),
    "many": (*multipart(*[("a.png", b"x")] * 65), 413, "65 images in one request"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_bodies_get_one_line(server, name):
    body, kind, status, text = BAD[name]
    if name == "torn":
        file = io.BytesIO()
        Image.effect_noise((64, 64), 50).save(file, "jpeg")
        body = file.getvalue()[:400]
    answer = server.predict(body, kind)
    assert answer.status == status and answer.headers["content-type"] == "application/json"
    assert answer.json["schema"] == "edgecls.error/1"
    assert text in answer.json["error"] and "\n" not in answer.json["error"]
    assert server.predict(png()).status == 200
    assert server.metric("edgecls_body_bytes") == server.metric("edgecls_requests_taken") == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predict?top=0", 422),
        ("POST", "/predict?top=x", 422),
        ("POST", "/predict?model=int4", 404),
        ("GET", "/predict", 405),
        ("GET", "/nowhere", 404),
    ],
)
def test_bad_requests_get_one_line(server, method, path, status):
    answer = server.ask(method, path, png(), content_type="image/png")
    assert answer.status == status and "\n" not in answer.json["error"]


def head(length: int | str, kind: str = "image/png", more: str = "") -> bytes:
    size = "Transfer-Encoding: chunked" if length == "chunked" else f"Content-Length: {length}"
    return f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{size}\r\n{more}\r\n".encode()


def test_a_body_of_50_mb_is_refused_before_it_is_sent(server):
    with server.connect() as connection:
        connection.sendall(head(50_000_000))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    with server.connect() as connection:  # curl asks first
        connection.sendall(head(50_000_000, more="Expect: 100-continue\r\n"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_50_mb_before_it_listens_sees_the_answer(server):
    assert server.predict(b"x" * 50_000_000).status == 413


def test_a_body_of_unknown_length_is_refused_at_the_limit(server):
    with server.connect() as connection:
        connection.sendall(head("chunked"))
        for _ in range(BYTES // 50_000 + 1):
            connection.sendall(b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_slow_clients_are_let_go(server):
    """One that sends a part of its headers, one that sends a part of its body, one that sends nothing."""
    slow = [server.connect() for _ in range(3)]
    slow[0].sendall(head(1000)[:40])
    slow[1].sendall(head(1000) + b"x" * 10)
    assert server.predict(png()).status == 200, "others do not wait for them"
    assert slow[1].recv(1000).startswith(b"HTTP/1.1 408 ")
    for connection in slow:
        while connection.recv(1000):
            pass
        connection.close()
    assert server.metric("edgecls_body_bytes") == 0


def test_garbage_is_refused(server):
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert server.predict(png()).status == 200


def test_clients_that_go_away_leave_nothing(server):
    gone = 'edgecls_requests_total{status="499"}'
    before, open_files = server.metric(gone), server.open_files()
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(head(1000) + b"x" * 500)
    until(lambda: server.metric(gone) == before + 20)
    assert server.metric("edgecls_body_bytes") == server.metric("edgecls_requests_taken") == 0
    until(lambda: server.open_files() <= open_files + 1)


def test_a_thousand_connections_do_no_harm(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # of this process; the server raises its own
    idle = []
    try:
        idle += [server.connect() for _ in range(1000)]
        assert server.predict(png()).status == 200
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: server.open_files() < 100)


# A full queue, with a model that computes until it is told to stop -----------------------------------------------------


class Slow:
    """A model that waits."""

    def __init__(self) -> None:
        self.go, self.calls = threading.Event(), 0
        self.go.set()

    def __call__(self, images):
        self.calls += 1
        assert self.go.wait(20)
        return np.zeros((len(images), 3), np.float32)

    def load(self):
        return {"slow": Classifier(Path("slow.tflite"), self, CLASSES, Preprocess(SIZE))}, {"models": []}


@pytest.fixture
def slow():
    model = Slow()
    yield model
    model.go.set()


def test_a_full_queue_is_said_and_nothing_taken_is_lost(slow):
    service = Service(slow.load, workers=2, waiting=3, limits=Limits())
    with serving(service) as client, ThreadPoolExecutor(20) as pool:
        slow.go.clear()
        taken = [pool.submit(client.predict, png()) for _ in range(5)]
        until(lambda: client.metric("edgecls_requests_taken") == 5)
        for answer in (client.predict(png()), client.get("/readyz")):
            assert answer.status == 503 and answer.headers["retry-after"] == "1"
            assert "try again" in answer.json["error"]
        assert client.get("/healthz").status == 200
        slow.go.set()
        assert [answer.result().status for answer in taken] == [200] * 5
        until(lambda: client.metric("edgecls_requests_taken") == 0)
        assert client.get("/readyz").status == client.predict(png()).status == 200


def test_a_request_that_is_alone_gets_all_cores(slow):
    alone = Slow()

    def load():
        model = Classifier(Path("slow.tflite"), slow, CLASSES, Preprocess(SIZE), alone)
        return {"slow": model}, {"models": []}

    service = Service(load, workers=2, waiting=3, limits=Limits())
    begun = alone.calls, slow.calls
    assert begun == (1, 2), "each interpreter was tried"
    with serving(service) as client, ThreadPoolExecutor(2) as pool:
        alone.go.clear()
        first = pool.submit(client.predict, png())
        until(lambda: alone.calls == 2)
        assert client.predict(png()).status == 200 and slow.calls == 3
        alone.go.set()
        assert first.result().status == 200
        until(lambda: client.metric("edgecls_requests_taken") == 0)
        assert client.predict(*multipart(("a.png", png()), ("b.png", png()))).status == 200
    assert (alone.calls, slow.calls) == (2, 5), "several photos of one request leave a core to others"


def test_work_of_a_client_that_went_away_is_not_done(slow):
    service = Service(slow.load, workers=1, waiting=9, limits=Limits())
    with serving(service) as client, ThreadPoolExecutor(2) as pool:
        slow.go.clear()
        first = pool.submit(client.predict, png())
        until(lambda: client.metric("edgecls_requests_taken") == 1)
        calls, image = slow.calls, png()
        leaving = [client.connect() for _ in range(5)]
        for connection in leaving:
            connection.sendall(head(len(image)) + image)
        until(lambda: client.metric("edgecls_requests_taken") == 6)
        for connection in leaving:
            connection.close()
        until(lambda: client.metric("edgecls_requests_taken") == 1)
        slow.go.set()
        assert first.result().status == 200 and slow.calls == calls


def test_bodies_in_memory_are_limited_together(slow):
    service = Service(slow.load, workers=1, waiting=9, limits=Limits(bytes=100_000, memory=150_000))
    with serving(service) as client, client.connect() as first:
        first.sendall(head(100_000) + b"x" * 90_000)
        until(lambda: client.metric("edgecls_body_bytes") == 90_000)
        answer = client.predict(b"x" * 80_000)
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        assert client.predict(b"x" * 40_000).status == 422


# Signals --------------------------------------------------------------------------------------------------------------


def requests_for(client, seconds: float, keep: list) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = client.predict(png(1), query="?top=1")
        keep.append((answer.status, answer.json["results"][0]["predictions"][0]["class"]))


def test_a_signal_loads_the_file_anew_and_loses_no_request(tmp_path):
    path = brightest.write(tmp_path / "m.tflite")
    process = Process(str(path), "--workers", "2")
    answers: list = []
    threads = [threading.Thread(target=requests_for, args=(process, 2.5, answers)) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        brightest.write(path, classes=["x", "y", "z"])
        process.signal(signal.SIGHUP)
        until(lambda: process.metric('edgecls_reloads_total{result="ok"}') == 1)
        assert process.get("/labels").json["labels"] == ["x", "y", "z"]
        path.write_bytes(b"torn")  # in place, while the old content is in use
        process.signal(signal.SIGHUP)
        until(lambda: process.metric('edgecls_reloads_total{result="failed"}') == 1)
        assert process.predict(png(1)).json["results"][0]["predictions"][0]["class"] == "y"
    finally:
        for thread in threads:
            thread.join()
        code, err = process.stop()
    assert len(answers) > 10 and {status for status, _ in answers} == {200}
    assert {name for _, name in answers} == {"bee", "y"}
    lines = [line for line in err.splitlines() if not line.startswith("INFO:")]
    assert code == 0 and len(lines) == 2 and lines[0] == f"loaded {path}"
    assert lines[1].startswith("kept the old model: ") and str(path) in lines[1]


def test_it_finishes_what_it_took_before_it_stops(run):
    process = Process(str(run), "--workers", "1")
    image = png(2, (700, 700))
    with process.connect() as connection:
        connection.sendall(head(len(image)) + image[:1000])
        until(lambda: process.metric("edgecls_body_bytes") == 1000)
        process.signal(signal.SIGTERM)
        until(lambda: refused(process.port))
        connection.sendall(image[1000:])
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and b'"cat"' in answer
    assert process.process.wait(30) == 0


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


# Starting -------------------------------------------------------------------------------------------------------------


def test_what_it_cannot_start_with_is_one_line(call, run, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, _, err = call("serve", str(run), "--port", str(other.getsockname()[1]))
        assert code == 3 and "Address already in use" in err and "--port" in err
    (tmp_path / "bad.tflite").write_bytes(b"text")
    code, _, err = call("serve", str(tmp_path / "bad.tflite"), "--port", "0")
    assert code == 2 and "not a usable TFLite file" in err
    for name in [name for name in sys.modules if name.startswith("edgecls.infer.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("edgecls.infer.server", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, _, err = call("serve", str(run), "--port", "0")
    assert code == 3 and err.count("\n") == 1
    assert "'fastapi' is not installed; pip install '.[serve]'" in err


def test_a_server_of_a_tflite_file_imports_no_tensorflow(server):
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "litert" in maps and "/tensorflow/" not in maps


# docs/serve.md, and the page in a browser ---------------------------------------------------------------------------


def examples(language: str) -> list[str]:
    text = (Path(__file__).parents[1] / "docs/serve.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("language", ["bash", "python"])
def test_examples_of_the_docs_work(server, tmp_path, language):
    if language == "bash" and not shutil.which("curl"):
        pytest.skip("no curl")
    for channel, name in enumerate(("photo.jpg", "other.jpg")):
        brightest.photo(tmp_path / name, channel)
    blocks = examples(language)
    assert blocks
    for block in blocks:
        text = block.replace("127.0.0.1:9292", f"127.0.0.1:{server.port}")
        program = (
            ["bash", "-euo", "pipefail", "-c", f'curl() {{ command curl -sSf "$@"; }}\n{text}']
            if language == "bash"
            else [sys.executable, "-c", text]
        )
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("ant" in done.stdout) if "predict" in text or "labels" in text else done.stdout


def test_what_the_docs_say_of_statuses_is_so():
    text = (Path(__file__).parents[1] / "docs/serve.md").read_text(encoding="utf-8")
    told = {int(status) for status in re.findall(r"^\| (\d{3}) \|", text, re.MULTILINE)}
    assert told >= {status for _, _, status, _ in BAD.values()} | {404, 408, 503}
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in {flag for p in cli.get_command(None, "serve").params for flag in p.opts}, option


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_the_page_of_the_api_needs_no_network(server):
    with Browser(f"http://127.0.0.1:{server.port}/docs") as browser:
        until(lambda: "/predict" in (browser.run("document.body?.innerText") or ""))
        fetched = browser.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    hosts = {urlsplit(url).netloc for url in fetched if not url.startswith("data:")}
    assert hosts == {f"127.0.0.1:{server.port}"} and len(fetched) > 2, fetched


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_the_page_shows_what_each_model_says(server):
    """Two photos and a text file are dropped on the page, as a hand does."""
    photos = [base64.b64encode(png(channel)).decode() for channel in (0, 2)]
    drop = f"""
      const files = new DataTransfer();
      const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      files.items.add(new File([bytes("{photos[0]}")], "red.png", {{type: "image/png"}}));
      files.items.add(new File([bytes("{photos[1]}")], "<b>blue</b>.png", {{type: "image/png"}}));
      files.items.add(new File(["text"], "text.png", {{type: "image/png"}}));
      document.dispatchEvent(new DragEvent("drop", {{dataTransfer: files, bubbles: true, cancelable: true}}));
    """
    with Browser(f"http://127.0.0.1:{server.port}/") as browser:
        until(lambda: "model_fp32.tflite" in (browser.run("document.body?.innerText") or ""))
        browser.run(f"{{{drop}}}")
        until(lambda: browser.run("document.querySelector('#photos .bad')?.innerText"))
        shown = browser.run("[...document.querySelectorAll('#photos > li')].map((item) => item.innerText)")
    text, blue, red = (" ".join(item.split()) for item in shown)
    assert text == "text.png cannot read text.png: not an image"
    for kind in ("int8", "fp32"):
        assert re.search(rf"{kind} cat \d+\.\d %", blue) and re.search(rf"{kind} ant \d+\.\d %", red)
    assert blue.startswith("<b>blue</b>.png") and "differ" not in blue + red

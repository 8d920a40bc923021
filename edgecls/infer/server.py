"""HTTP around a ``Service``: FastAPI for the routes, uvicorn for the connections."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from edgecls.infer import counters
from edgecls.infer.bodies import JSON, MULTIPART, Refusal, media_type
from edgecls.infer.classifier import Classifier
from edgecls.infer.service import Service
from edgecls.text import escape

LINGER_S = 2.0
STOP_S = 30
CLIENT_GONE = 499  # nobody reads it; nginx counts such requests under this number
_PAGE = Path(__file__).with_name("page")
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_IMAGE = {"type": "string", "format": "binary"}
_TEXTS = {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}}
_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": _IMAGE},
        "application/octet-stream": {"schema": _IMAGE},
        MULTIPART: {
            "schema": {"type": "object", "properties": {"image": {"type": "array", "items": _IMAGE}}}
        },
        JSON: {
            "schema": {"type": "object", "properties": {"image": _TEXTS["items"], "images": _TEXTS}},
        },
    },
}
_PARAMETERS = [  # read by hand: with these two, FastAPI takes a tenth more of the time of its thread
    {
        "name": "top",
        "in": "query",
        "description": "Classes to name for each image.",
        "schema": {"type": "integer", "minimum": 1, "default": 5},
    },
    {
        "name": "model",
        "in": "query",
        "description": "A name that /model lists; the first by default.",
        "schema": {"type": "string"},
    },
]
_STATUSES = {
    400: "The body is empty or not of its type.",
    408: "The body did not arrive in time.",
    413: "Too many bytes or images.",
    415: "A type that cannot hold a photo.",
    422: "An image cannot be decoded, or has too many pixels.",
    503: "Too many requests; try again after the seconds of Retry-After.",
}


class _Refused(JSONResponse):
    """A one-line error as JSON.

    Args:
        refusal: What is wrong.
        unread: The client may still be sending. A connection that is closed then is reset, and the client does not see
            the answer. So what still comes is thrown away for a moment, and the connection closed after that.
    """

    def __init__(self, refusal: Refusal, unread: bool = False) -> None:
        headers = {} if refusal.retry_s is None else {"Retry-After": str(refusal.retry_s)}
        content = {"schema": "edgecls.error/1", "error": refusal.text}
        super().__init__(content, refusal.status, headers | ({"Connection": "close"} if unread else {}))
        self._unread = unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._unread:
            return await super().__call__(scope, receive, send)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})


def create_app(service: Service, started: Callable[[], None] = lambda: None) -> ASGIApp:
    """The application: FastAPI's, with a short way to ``POST /predict``.

    Args:
        service: Answers requests.
        started: Called when requests and signals are taken.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        started()
        yield

    app = FastAPIOffline(
        title="edgecls serve",
        description="Classifies photos.",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        favicon_url="data:,",
        swagger_ui_parameters={
            "validatorUrl": None
        },  # else it would send the API's address to a host of Swagger's
    )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return _Refused(Refusal(error.status_code, str(error.detail)))

    app.add_exception_handler(Exception, _internal_error)

    @app.post(
        "/predict",
        openapi_extra={"requestBody": _BODY, "parameters": _PARAMETERS},
        responses={status: {"description": text} for status, text in _STATUSES.items()},
    )
    async def predict(request: Request) -> Response:
        """Classify the images of the body: one image, several as multipart/form-data, or base64 in JSON."""
        started, body, status, images = time.perf_counter(), _Body(request, service), 500, 0
        try:
            top, model = _arguments(request)
            name, classifier = service.model(model)
            service.admit()
            content_type = request.headers.get("content-type")
            media_type(content_type)
            content = await body.read()
            results = await _unless_gone(request, service.submit(content_type, content, top, classifier))
            status, images = 200, len(results)
            return JSONResponse({"schema": "edgecls.predict/1", "model": name, "results": results})
        except Refusal as refusal:
            status = refusal.status
            return _Refused(refusal, unread=not body.whole)
        finally:
            body.release()
            service.counters.request(status, time.perf_counter() - started, images)

    @app.get("/labels")
    async def labels() -> dict[str, Any]:
        """The class names, in the order of the model's outputs."""
        return {"schema": "edgecls.labels/1", "labels": _first(service).classes}

    @app.get("/model")
    async def about() -> Response:
        """What the models are: files, preprocessing and, of a run, how good they are."""
        return JSONResponse(service.card)

    @app.get("/healthz", response_class=PlainTextResponse)
    async def alive() -> str:
        """The server runs."""
        return "ok\n"

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: {"description": "Busy."}})
    async def ready() -> Response:
        """The server would take a request now."""
        try:
            service.admit()
        except Refusal as refusal:
            return _Refused(refusal)
        return PlainTextResponse("ok\n")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts in the text format of Prometheus."""
        gauges = {
            "requests_taken": (service.taken, "Requests that have a thread or wait for one."),
            "body_bytes": (service.held, "Bytes of all bodies that are in memory."),
            "model_loaded_timestamp_seconds": (service.loaded_at, "When the model was loaded."),
        }
        return Response(service.counters.text(gauges), media_type=counters.TYPE)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers={"Content-Security-Policy": _PAGE_POLICY})

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in ("page.js", "shared.js", "page.css"):
            raise HTTPException(404, "Not Found")
        return FileResponse(_PAGE / name)

    return _shortened(app, "POST", "/predict", predict)


def _internal_error(request: Request, error: Exception) -> Response:
    return _Refused(Refusal(500, f"internal error: {type(error).__name__}; the server's log has more"))


def _shortened(
    app: FastAPI, method: str, path: str, answer: Callable[[Request], Awaitable[Response]]
) -> ASGIApp:
    """``app`` without its layers for one route, of which it has the description.

    For a request of one photo they take a tenth to a third of the time of the thread that does the network.
    """

    async def shortened(scope: Scope, receive: Receive, send: Send) -> None:
        if (scope.get("method"), scope.get("path")) != (method, path):
            return await app(scope, receive, send)
        request = Request(scope, receive, send)
        try:
            response = await answer(request)
        except Exception as error:
            await _internal_error(request, error)(scope, receive, send)
            raise  # for the log
        await response(scope, receive, send)

    return shortened


def _arguments(request: Request) -> tuple[int, str | None]:
    """``top`` and ``model`` of a request; raises Refusal."""
    text = request.query_params.get("top", "5")
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise Refusal(422, f"top is not a whole number of at least 1: {escape(text[:40])}")
    return int(text), request.query_params.get("model")


def _first(service: Service) -> Classifier:
    return service.model(None)[1]


class _Body:
    """The body of a request, within the limits of a service.

    Attributes:
        whole: Whether nothing more will come.
    """

    def __init__(self, request: Request, service: Service) -> None:
        self._request, self._service = request, service
        self._held = 0
        self.whole = False

    async def read(self) -> bytes:
        """All of it.

        Raises:
            Refusal: 408, 413 or 503; 499 if the client went away.
        """
        limits, declared = self._service.limits, self._request.headers.get("content-length", "")
        too_large = Refusal(413, f"more than {limits.bytes / 1e6:g} MB in one request; send a smaller photo")
        if declared.isdecimal() and int(declared) > limits.bytes:
            raise too_large
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(limits.seconds):
                async for part in self._request.stream():
                    self._service.hold(len(part))
                    self._held += len(part)
                    parts.append(part)
                    if self._held > limits.bytes:
                        raise too_large
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {limits.seconds:g} s") from None
        except ClientDisconnect:
            self.whole = True
            raise Refusal(CLIENT_GONE, "the client went away") from None
        self.whole = True
        return b"".join(parts)

    def release(self) -> None:
        """The request is answered: nothing of its body is in memory any more."""
        self._service.hold(-self._held)


async def _unless_gone(request: Request, work: Future[Any]) -> Any:
    """The result of the work. If the client goes away before a thread took it, it is not done at all."""
    result = asyncio.wrap_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body was read, so this is the end of the connection
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise Refusal(CLIENT_GONE, "the client went away")
        return result.result()
    finally:
        gone.cancel()
        result.cancel()


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def run(
    app: ASGIApp,
    service: Service,
    listener: socket.socket,
    say: Callable[[str], None] = lambda line: None,
    server: uvicorn.Server | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests that were taken are answered first. SIGHUP loads the models anew.

    Args:
        app: From ``create_app``.
        service: The one of ``app``.
        listener: From ``listen``.
        say: Called with a line about a reload.
        server: From ``configure``, for who must stop it without a signal. Signals are for the main thread alone.
    """
    server = server or configure(app)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner, suppress(KeyboardInterrupt):
        runner.run(_run(server, service, listener, say))


def configure(app: ASGIApp) -> uvicorn.Server:
    """The server that ``run`` runs."""
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
        ws="none",
    )
    return uvicorn.Server(config)


async def _run(
    server: uvicorn.Server, service: Service, listener: socket.socket, say: Callable[[str], None]
) -> None:
    tasks: set[asyncio.Task[Any]] = {
        asyncio.create_task(_close_silent(server.server_state.connections, service.limits.seconds)),
    }

    def reload() -> None:
        task = asyncio.create_task(service.reload(say))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread, or no such signal
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        service.close()


async def _close_silent(connections: set[Any], seconds: float) -> None:
    """Close connections whose next request has not begun, or has sent only a part of its headers, for so long.

    uvicorn has a limit for the time between requests, and none for connections that send nothing or little.
    """
    since: dict[tuple[Any, Any], float] = {}
    while True:
        await asyncio.sleep(min(1.0, seconds / 4))
        now = time.monotonic()
        idle = [(c, c.cycle) for c in connections if c.cycle is None or c.cycle.response_complete]
        since = {key: since.get(key, now) for key in idle}
        for (connection, _), first in since.items():
            if now - first > seconds:
                connection.transport.close()

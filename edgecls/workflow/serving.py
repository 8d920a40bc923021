"""A trained model at work: photos classified once, or over HTTP. Nothing here imports TensorFlow for a .tflite file."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2

from edgecls.allocator import keep_freed_memory
from edgecls.data.resizing import describe_preprocess
from edgecls.errors import MissingError
from edgecls.files import read_json, sha256
from edgecls.infer.bodies import Limits
from edgecls.infer.classifier import KINDS, Classifier
from edgecls.infer.opening import is_saved_model
from edgecls.run import Run

SERVED = ("int8", "fp32")
_FIGURES = ("count", "top1", "top1_ci95", "balanced_accuracy", "balanced_accuracy_ci95")


def predict(
    target: Path | None,
    images: Sequence[Path],
    top: int = 5,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The likeliest classes of photos, by a run's int8 file (or float network), or by a model file.

    Returns:
        ``{"schema", "model", "results", "skipped"}``; see ``Classifier.predict``.
    """
    classifier = Classifier.load(target or Run.find(None).path)
    skipped: list[dict[str, str]] = []
    results = classifier.predict(images, top, skipped, progress)
    return {
        "schema": "edgecls.predict/1",
        "model": str(classifier.path),
        "results": results,
        "skipped": skipped,
    }


def serve(
    find: Callable[[], Path],
    host: str,
    port: int,
    *,
    workers: int,
    waiting: int,
    limits: Limits,
    started: Callable[[dict[str, Any]], None] = lambda result: None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Answer HTTP requests until SIGTERM or Ctrl-C; SIGHUP loads the models anew.

    Args:
        find: The run folder or the model file. It is asked again at SIGHUP.
        host: Address to listen on.
        port: 0 for a free one.
        workers: Threads that decode and compute.
        waiting: Requests that may wait for a thread.
        limits: What a request may cost.
        started: Called with ``{"schema", "url", "models"}`` when connections are taken.
        say: Called with a line about each reload.

    Raises:
        MissingError: The extra ``serve`` is not installed, the port is taken, or there is no model.
        UsageError: The model is broken.
    """
    try:
        from edgecls.infer import server
        from edgecls.infer.service import Service
    except ModuleNotFoundError as error:
        what = f"package {error.name!r} is not installed"
        raise MissingError(what, fix="pip install '.[serve]' in the checkout brings it") from None
    try:
        listener = server.listen(host, port)
    except OSError as error:
        what, fix = f"cannot listen: {error.strerror}", "choose another --port or --host"
        raise MissingError(what, where=f"{host}:{port}", fix=fix) from None
    keep_freed_memory()
    # Photos are resized in parallel, each by one thread; others of OpenCV's would wait awake.
    cv2.setNumThreads(1)
    with listener:
        service = Service(lambda: load_models(find(), workers), workers, waiting, limits)
        _allow_connections()
        port = listener.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        result = {"schema": "edgecls.serve/1", "url": url, "models": service.card["models"]}
        server.run(server.create_app(service, lambda: started(result)), service, listener, say)


def load_models(path: Path, workers: int) -> tuple[dict[str, Classifier], dict[str, Any]]:
    """The classifiers of a run (its int8 and fp32 files; without any, its float network) or of one model file.

    Returns:
        The classifiers by name, and their card: ``{"schema", "run", "models": [{"name", "file", ...}]}``.
    """
    run = None if path.is_file() or is_saved_model(path) else path
    if run is None:
        models = {path.stem: Classifier.load(path, workers=workers)}
    else:
        kinds = [kind for kind in SERVED if (run / KINDS[kind][0]).is_file()] or ["float"]
        models = {kind: Classifier.load(run, kind, workers) for kind in kinds}
    scores = _scores(run) if run else {}
    entries = [_entry(name, model, scores) for name, model in models.items()]
    return models, {
        "schema": "edgecls.model_card/1",
        "run": None if run is None else f"{run.parent.name}/{run.name}",
        "models": entries,
    }


def _entry(name: str, model: Classifier, scores: dict[str, Any]) -> dict[str, Any]:
    """A model's part of the card. A score that was measured on another file is left out."""
    settings = model.preprocess.to_dict()
    file = model.path
    digest = sha256(file) if file.is_file() else None
    score = next((s for s in scores.values() if digest is not None and s.get("sha256") == digest), None)
    return {
        "name": name,
        "file": file.name,
        "bytes": file.stat().st_size if file.is_file() else None,
        "sha256": digest,
        "classes": len(model.classes),
        "preprocess": settings,
        "preprocess_text": describe_preprocess(settings),
        "test": score and {key: score.get(key) for key in _FIGURES},
    }


def _scores(run: Path) -> dict[str, Any]:
    content = read_json(run / "eval.json") if (run / "eval.json").is_file() else {}
    return content.get("models", {})


def _allow_connections() -> None:
    """As many open files as the system allows: each connection is one, and the usual limit is 1024."""
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

"""Many models: measured in groups, each kept as soon as it is done, so that a killed batch goes on where it was.

Figures are kept under ``<cache>/edgecls/measured``, one file a model, found again by the hash of the model, the
protocol, the thread counts and the device. A failed or interrupted model is measured again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from android_bench.binary import cache_folder
from android_bench.errors import DeviceLost, DeviceMissing, Interrupted
from android_bench.models import ModelFile
from android_bench.output import SCHEMA, atomic, to_json
from android_bench.protocol import Backend, Listener, Protocol
from android_bench.session import GROUP, Session

_GROUP_BYTES = 600 * 2**20  # memory of files that are loaded together
_VOLATILE = ("notes", "program")  # what a device only tells once something ran on it


class Kept:
    """Figures of earlier batches on one device by one protocol.

    Args:
        device: The device's description.
        secret: What else tells it from others and must not be told, such as its serial: only a hash is stored.
    """

    def __init__(
        self, device: dict[str, Any], protocol: Protocol, threads: Sequence[int], secret: str = ""
    ) -> None:
        lasting = {name: value for name, value in device.items() if name not in _VOLATILE}
        self._setting = json.dumps([SCHEMA, lasting, dataclasses.asdict(protocol), list(threads), secret])
        own = os.environ.get("EDGECLS_CACHE")
        self.folder = (Path(own) if own else cache_folder().parent) / "measured"

    def get(self, model: ModelFile) -> list[dict[str, Any]] | None:
        """The results of a model by thread count; None where there are none."""
        try:
            results = json.loads(self._path(model).read_text(encoding="utf-8"))["results"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return [{**result, "model": model.name} for result in results]

    def put(self, model: ModelFile, results: list[dict[str, Any]]) -> None:
        """Keeps a model's results if they are whole. Raises DeviceMissing when the disk is full."""
        if any(result["status"] == "failed" for result in results):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(self._path(model)) as part:
            part.write_text(to_json({"results": results}), encoding="utf-8")

    def _path(self, model: ModelFile) -> Path:
        key = hashlib.sha256(f"{self._setting} {model.sha256}".encode()).hexdigest()
        return self.folder / f"{key[:32]}.json"


def run_batch(
    backend: Backend,
    models: Sequence[ModelFile],
    threads: Sequence[int],
    protocol: Protocol,
    kept: Kept,
    *,
    fresh: bool = False,
    on_event: Listener | None = None,
) -> dict[str, Any]:
    """As ``Session.run`` for any number of models; those that ``kept`` has are not measured again.

    Args:
        fresh: Measure them all the same.
        on_event: As of ``Session``; ``plan`` comes once and has the number of models ``kept``.

    Returns:
        The document of bench.json; a result has ``measured``, the time its group was started.

    Raises:
        Interrupted: Ctrl-C; the document has the figures so far.
        DeviceLost: The device was there and is gone; likewise.
        DeviceMissing: There is no runtime to measure with.
    """
    tell: Listener = on_event or (lambda event: None)
    results = {} if fresh else {model.name: found for model in models if (found := kept.get(model))}
    missing = [model for model in models if model.name not in results]
    cases = len(missing) * len(threads)
    tell({"event": "plan", "cases": cases, "rounds": protocol.rounds, "kept": len(results)})
    document = Session(backend, [], threads, protocol).run()
    document["protocol"]["interleaved"] = min(GROUP, cases)

    def tell_but_plans(event: dict[str, Any]) -> None:
        if event["event"] != "plan":
            tell(event)

    def add(part: dict[str, Any]) -> None:
        for row in part["results"]:
            results.setdefault(row["model"], []).append(row | {"measured": part["started"]})

    def whole(complete: bool) -> dict[str, Any]:
        rows = [row for model in models for row in results.get(model.name, [])]
        end = {"device": backend.describe(), "complete": complete, "after": backend.state(), "results": rows}
        return document | end

    for group in _groups(missing, len(threads)):
        try:
            add(Session(backend, group, threads, protocol, tell_but_plans).run())
        except Interrupted as stop:
            add(stop.document)
            stop.document = whole(complete=False)
            raise
        except DeviceMissing as error:
            if not results:
                raise
            raise DeviceLost(whole(complete=False), error) from None
        for model in group:
            kept.put(model, results[model.name])
    return whole(complete=True)


def _groups(models: Sequence[ModelFile], threads: int) -> Iterator[list[ModelFile]]:
    """Models that are loaded together and take turns: as many as a session interleaves, and not too big."""
    group: list[ModelFile] = []
    for model in models:
        size = sum(m.bytes for m in group) + model.bytes
        if group and ((len(group) + 1) * threads > GROUP or size * threads > _GROUP_BYTES):
            yield group
            group = []
        group.append(model)
    if group:
        yield group

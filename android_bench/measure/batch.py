"""Many models: measured in groups, each kept as soon as it is done, so that a killed batch goes on where it was.

Figures are kept under ``<cache>/measured``, one file a model. They are found again only where all that made them is
the same: the model's content, the device with its program or runtime, delegate and cores, the protocol, the thread
counts, and the code of this package. A model with a result that is unsure or failed is measured again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from android_bench.errors import BenchError, DeviceLost, DeviceMissing, Interrupted
from android_bench.folders import cache_dir
from android_bench.measure.protocol import Backend, Listener, Protocol
from android_bench.measure.session import GROUP, Session
from android_bench.models import ModelFile
from android_bench.output.documents import SCHEMA, atomic, to_json

_GROUP_BYTES = 600 * 2**20  # of memory, for files that are loaded together


class Kept:
    """Figures of earlier batches on one device by one protocol.

    Args:
        identity: Of the device, see ``Backend.identity``. Only a hash of it is stored.
        protocol: How it is measured.
        threads: The thread counts.
    """

    def __init__(self, identity: dict[str, Any], protocol: Protocol, threads: Sequence[int]) -> None:
        made_by = [SCHEMA, _code_digest(), identity, dataclasses.asdict(protocol), list(threads)]
        self._setting = json.dumps(made_by, sort_keys=True)
        self.folder = cache_dir() / "measured"

    def get(self, model: ModelFile) -> list[dict[str, Any]] | None:
        """The results of a model by thread count; None where there are none, or not all of them are sure."""
        try:
            results = json.loads(self._path(model).read_text(encoding="utf-8"))["results"]
            if not _sure(results):
                return None
            return [{**result, "model": model.name} for result in results]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, model: ModelFile, results: list[dict[str, Any]]) -> None:
        """Keeps a model's results if all are sure.

        Raises:
            BenchError: The cache cannot be written, or the disk is full.
        """
        if not _sure(results):
            return
        with atomic(self._path(model), parents=True) as part:
            part.write_text(to_json({"results": results}), encoding="utf-8")

    def _path(self, model: ModelFile) -> Path:
        key = hashlib.sha256(f"{self._setting} {model.sha256}".encode()).hexdigest()
        return self.folder / f"{key[:32]}.json"


def _sure(results: list[dict[str, Any]]) -> bool:
    return all(result["status"] == "ok" for result in results)


@functools.cache
def _code_digest() -> str:
    """Hash of this package's code: other code may measure otherwise."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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
        on_event: As of ``Session``; ``plan`` comes once and has the number of models ``kept``. ``unkept`` comes when
            figures cannot be written to the cache: the batch goes on, but would start anew after a kill.

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
        try:
            for model in group:
                kept.put(model, results[model.name])
        except BenchError as error:
            tell({"event": "unkept", "why": str(error)})
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

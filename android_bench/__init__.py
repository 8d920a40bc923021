"""android_bench: latencies of TFLite models that others can repeat, on phones and on this computer.

>>> from android_bench import bench
>>> document = bench(["model_int8.tflite"], "host", [1, 2])          # doctest: +SKIP
>>> document["results"][0]["median_ms"], document["results"][0]["ci95_ms"]   # doctest: +SKIP

Usable alone (``python -m android_bench``); imports neither TensorFlow nor edgecls.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from android_bench.errors import (
    BenchError,
    BenchUsageError,
    DeviceBusy,
    DeviceLost,
    DeviceMissing,
    Interrupted,
)
from android_bench.measure.protocol import Backend, Listener, Protocol

__all__ = [
    "BenchError",
    "BenchUsageError",
    "DeviceBusy",
    "DeviceLost",
    "DeviceMissing",
    "Interrupted",
    "bench",
    "exit_code",
]


def bench(
    models: Iterable[str | Path],
    device: str = "host",
    threads: str | Iterable[int | str] = (1,),
    *,
    warmup: int = Protocol.warmup,
    runs: int = Protocol.runs,
    rounds: int = Protocol.rounds,
    spacing_s: float = Protocol.spacing_s,
    warmup_s: float = Protocol.warmup_s,
    run_s: float = Protocol.run_s,
    repeats: int = Protocol.repeats,
    protocol: str = Protocol.name,
    profile: bool = False,
    delegate: str = "cpu",
    binary: str | Path | None = None,
    wait: bool = False,
    cool_c: float = Protocol.cool_c,
    cool_s: float = Protocol.cool_s,
    seed: int = Protocol.seed,
    resume: bool = False,
    fresh: bool = False,
    compare: bool = False,
    on_event: Listener | None = None,
) -> dict[str, Any]:
    """Measures the latency of TFLite models, batch 1, on random input.

    Args:
        models: TFLite files, or folders of them.
        device: ``"host"`` for this computer, a key of devices.yaml, a serial, ``host:port``, or a Snapdragon such as
            ``"sd855"``.
        threads: Thread counts, ``[1, 2]`` or ``"1,2"``.
        warmup: Minimum number of warm-up runs before each round (Paddle-Lite's manual of 2020: 10).
        runs: Minimum number of measured runs in each round (the same manual: 30).
        rounds: Number of rounds; all models and thread counts take turns in each.
        spacing_s: Minimum number of seconds from the start of a model's round to the start of its next.
        warmup_s: Minimum number of seconds of warm-up before each round.
        run_s: Minimum number of seconds of measured runs in each round.
        repeats: How often disturbed rounds are measured again before the result is marked unsure.
        protocol: ``"standard"``, or ``"mlperf"``: at least 1,024 runs and 60 s a round.
        profile: Times of the single operators too, from a run of their own.
        delegate: What is asked to compute on a phone: ``"cpu"`` (XNNPACK), ``"gpu"``, ``"nnapi"`` or ``"npu"``, if
            the program has it. A result tells what was used.
        binary: The user's ``benchmark_model`` for the phone; None: ``EDGECLS_BENCHMARK_MODEL``, then a cache.
        wait: Whether to wait for a phone on which somebody else measures.
        cool_c: A phone warmer than this (Celsius) is waited for before each round.
        cool_s: After this many seconds of waiting a hot phone is measured nevertheless, and the result is unsure.
        seed: Seed of the input and of the bootstrap.
        resume: Rounds are kept as they come, and those that were measured before in the very same way are not
            measured again (see ``android_bench.measure.kept``), unless the figures were unsure or failed.
        fresh: With ``resume``, measure them again.
        compare: Is the second of two models faster? They take turns in each round, so that both meet the same clocks
            and heat. The document then has ``compare``, the verdict of ``android_bench.measure.baseline.duel``.
        on_event: Called with a dict at the events of ``android_bench.events``.

    Returns:
        The document of bench.json (schema ``android_bench/2``, described in ``android_bench.output.documents``). A model
        that cannot be measured has the status ``failed`` and the others go on: see ``exit_code``.

    Raises:
        BenchUsageError: A missing or wrong file, thread count, number or device name (exit code 2).
        DeviceMissing: The device is not attached, or no TFLite runtime is installed (exit code 3).
        DeviceBusy: A DeviceMissing too: somebody else measures on the phone.
        BenchError: The device cannot be measured on (exit code 1).
        Interrupted: Ctrl-C (exit code 130); ``.document`` has the figures so far.
        DeviceLost: An Interrupted too: the phone went away in mid-run (exit code 3).
    """
    from android_bench.devices.naming import resolve
    from android_bench.models import find_models, parse_threads

    counts = parse_threads(threads)
    plan = Protocol(
        name=protocol, warmup=warmup, warmup_s=warmup_s, runs=runs, run_s=run_s, rounds=rounds,
        spacing_s=spacing_s, repeats=repeats, cool_c=cool_c, cool_s=cool_s, seed=seed,
    )  # fmt: skip
    files = find_models(models)
    target = resolve(device)
    from android_bench.measure.history import remember
    from android_bench.measure.kept import Kept
    from android_bench.measure.session import Session

    if compare and len(files) != 2:
        raise BenchUsageError(f"compares two files, not {len(files)}", where="--compare")

    def run(backend: Backend) -> dict[str, Any]:
        kept = Kept(backend, plan, turns=files if compare else (), fresh=fresh) if resume else None
        document = Session(backend, files, counts, plan, on_event, kept=kept, turns=compare).run()
        if resume:
            remember(document)
        return _compared(document, [file.name for file in files]) if compare else document

    if target.kind != "host":
        from android_bench.adb.link import open_link
        from android_bench.measure.phone import PhoneBackend

        tell: Listener = on_event or (lambda event: None)
        link = open_link(target.serial, target.via, on_auth=lambda: tell({"event": "authorize"}))
        try:
            return run(
                PhoneBackend(
                    link, target, binary, profile=profile, delegate=delegate, wait=wait, on_event=on_event
                )
            )
        finally:
            link.close()
    if delegate != "cpu":
        raise BenchUsageError(
            f"this computer is measured on its CPU, not on its {delegate}", fix="leave --delegate out"
        )
    from android_bench.measure.host import HostBackend

    return run(HostBackend(profile=profile))


def _compared(document: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The document with the verdict on its two models, if there is a thread count with which neither failed."""
    from android_bench.measure.baseline import duel

    a, b = (
        [r for r in document["results"] if r["model"] == name and r["status"] != "failed"] for name in names
    )
    if {r["threads"] for r in a} & {r["threads"] for r in b}:
        document["compare"] = duel({**document, "results": a}, {**document, "results": b})
    return document


def exit_code(document: dict[str, Any]) -> int:
    """1 when a result of the document failed, else 0: unsure figures are shown and marked, not an error."""
    return int(any(result["status"] == "failed" for result in document["results"]))

"""The fields of bench.json, with their types and what they mean.

``docs/bench.md`` is written from here by ``scripts/make_bench_docs.py``, and the tests hold real documents against it: a
field that is added to a document is added here. A ``NotRequired`` field is not in every document.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

Ms = float | None
"""A latency in ms, None where it is not known."""


class HostState(TypedDict):
    """This computer at one moment."""

    time: Annotated[str, "when"]
    load_1min: Annotated[float | None, "load average over a minute"]
    khz: Annotated[list[int], "clock of each core, where the system tells it"]


class PhoneState(TypedDict):
    """A phone at one moment; empty when it is gone."""

    time: Annotated[str, "when"]
    temperature_c: Annotated[dict[str, float], "temperatures by the names of the phone's sensors"]
    thermal_status: Annotated[int | None, "Android's: 0 is none, 1 and more mean that it throttles"]
    khz: Annotated[list[int], "clock of each core"]
    cap_khz: Annotated[list[int], "highest clock that each core may have now"]
    governors: Annotated[list[str], "what steers the clocks"]
    battery_percent: Annotated[int | None, "charge"]
    battery: Annotated[str | None, "what it does: `charging`, `discharging`, ..."]
    doubts: Annotated[list[str], "readings that cannot be, which were not used"]


class Device(TypedDict):
    """The device, without serial, address and host name."""

    kind: Annotated[Literal["host", "phone"], "this computer, or a phone or board"]
    name: Annotated[str, "as the maker calls it"]
    cpu: Annotated[str, "the chip"]
    cores: Annotated[int, "number of cores"]
    memory_mib: Annotated[int | None, "main memory"]
    machine: Annotated[str, "kind of processor; of a phone its ABI"]
    os: Annotated[str, "system and version"]
    notes: Annotated[list[str], "what to know about all figures of this device"]


class Host(Device):
    """This computer has also:"""

    usable_cores: Annotated[int, "cores that we may use"]
    python: Annotated[str, "version of Python"]
    governor: Annotated[str | None, "what steers the clock"]
    max_khz: Annotated[int | None, "highest clock"]
    vnni: Annotated[
        bool | None, "whether an x86 processor has instructions for int8; null for other processors"
    ]


class Cluster(TypedDict):
    """Cores with the same highest clock."""

    mask: Annotated[str, "the cores as bits, in hex"]
    max_khz: Annotated[int | None, "highest clock"]


class Phone(Device):
    """A phone has also:"""

    profile: Annotated[str | None, "key of its chip in devices.yaml"]
    soc_model: Annotated[str, "model number of its chip, as Android tells it"]
    platform: Annotated[str, "name of its board, as Android tells it"]
    clusters: Annotated[list[Cluster], "its cores, slowest first, as `mask` (bits, in hex) and `max_khz`"]
    abis: Annotated[list[str], "ABIs that it runs, the best one first"]
    program: Annotated[
        str, "which program measured: `tflite`, `litert` (benchmark_model) or `edgecls` (ours)"
    ]


class Operator(TypedDict):
    """An operator of the profile, in the order of the file."""

    type: Annotated[str, "kind of operator"]
    name: Annotated[str, "name of its output"]
    avg_ms: Annotated[float, "mean time in one inference"]
    percent: Annotated[float, "share of the whole time"]
    memory_kb: Annotated[float, "memory"]
    calls: Annotated[int, "number of calls in one inference"]


class Profile(TypedDict):
    """With `--profile`, from a run of its own. These are means: one disturbed inference makes a layer look slow."""

    by_type_ms: Annotated[dict[str, float], "time of one inference by kind of operator"]
    layers: Annotated[list[Operator], "every operator, see below"]


class RoundStat(TypedDict):
    """What a program printed that tells no single run."""

    count: Annotated[int, "number of runs"]
    first_ms: Annotated[float, "the first run"]
    min_ms: Annotated[float, "the shortest"]
    max_ms: Annotated[float, "the longest"]
    mean_ms: Annotated[float, "mean"]
    std_ms: Annotated[float, "standard deviation"]
    p5_ms: Annotated[Ms, "5th percentile"]
    median_ms: Annotated[Ms, "median"]
    p95_ms: Annotated[Ms, "95th percentile"]


class Round(TypedDict):
    """A round."""

    used: Annotated[bool, "whether the figures of the result are made of it"]
    why: Annotated[str, "what disturbed it; empty for a clean one"]
    median_ms: Annotated[float, "median of its runs"]
    n: Annotated[int, "number of runs"]
    warmup_runs: Annotated[int, "number of runs before them"]
    seconds: Annotated[float, "how long it took"]
    foreign_cores: Annotated[float | None, "cores that other programs used meanwhile"]
    wait: Annotated[float | None, "share of the time in which our threads were ready but had no core"]
    switches: Annotated[int | None, "involuntary context switches"]
    power_mw: Annotated[float | None, "power of the whole phone"]
    session: Annotated[str, "when its session began"]
    turn: Annotated[int, "rounds of the same session and turn were measured one right after the other"]
    samples_ms: Annotated[list[float], "the runs; of more than 1,024 every second, third, ..."]
    stat: NotRequired[Annotated[RoundStat, "instead, where the program tells no single run"]]
    init_ms: NotRequired[Annotated[float, "of a phone: time to load the model in this round"]]
    before: NotRequired[Annotated[PhoneState, "of a phone: its state when the round began"]]
    after: Annotated[HostState | PhoneState, "the device's state when it was done"]


class Result(TypedDict):
    """One model with one thread count."""

    model: Annotated[str, "name of the file, or its path where two have the same name"]
    sha256: Annotated[str, "hash of the file"]
    bytes: Annotated[int, "size of the file"]
    threads: Annotated[int, "number of threads"]
    status: Annotated[
        Literal["ok", "unsure", "failed"], "`unsure`: do not trust the figures; `failed`: there are none"
    ]
    why: Annotated[str, "the reason, and what else there is to know (not pinned, one round only, ...)"]
    median_ms: Annotated[Ms, "median of the runs of the rounds used"]
    ci95_ms: Annotated[list[float] | None, "its 95 % interval, see below"]
    p90_ms: Annotated[Ms, "90th percentile; null where the program tells no single run"]
    p95_ms: NotRequired[Annotated[Ms, "95th percentile, where the program tells no single run"]]
    p99_ms: Annotated[Ms, "99th percentile; null where the program tells no single run"]
    min_ms: Annotated[Ms, "shortest run"]
    max_ms: Annotated[Ms, "longest run"]
    mean_ms: Annotated[Ms, "mean"]
    std_ms: Annotated[Ms, "standard deviation"]
    n: Annotated[int, "number of runs"]
    init_ms: Annotated[Ms, "time to load and prepare the model"]
    first_ms: Annotated[Ms, "time of the first inference"]
    peak_mib: Annotated[float | None, "peak of memory above what the process had before loading"]
    peak_total_mib: Annotated[float | None, "whole peak of memory"]
    energy_mj: Annotated[
        float | None,
        "energy of one inference of the whole phone with screen and services, from the battery's current and voltage; "
        "known only while it runs from its battery",
    ]
    measured: NotRequired[Annotated[str, "when the (last) session with rounds of this result began"]]
    runtime: NotRequired[Annotated[str, "library or program that computed"]]
    partitions: NotRequired[
        Annotated[int | None, "of this computer: in how many parts the delegate took the graph"]
    ]
    mask: NotRequired[
        Annotated[str | None, "of a phone: cores that the program was pinned to, in hex; null: not pinned"]
    ]
    delegate: NotRequired[Annotated[str, "of a phone: delegate that was asked for"]]
    delegates: NotRequired[Annotated[list[str], "of a phone: delegates that were used"]]
    profile: NotRequired[Annotated[Profile, "times of the operators, see below"]]
    rounds: Annotated[list[Round], "every round, see below"]
    network: NotRequired[Annotated[str, "network of the zoo that the file is named after"]]
    top1: NotRequired[Annotated[float | None, "published ImageNet top-1 of that network, in float"]]
    published_sd855_ms: NotRequired[
        Annotated[
            Ms,
            "its published latency on a Snapdragon 855 (Paddle-Lite, fp32, as many threads); fp32 files only",
        ]
    ]


class Measured(TypedDict):
    """What one side of a comparison is."""

    device: Annotated[str, "name of the device"]
    cpu: Annotated[str | None, "its chip"]
    started: Annotated[str, "when it was measured"]


class Pair(TypedDict):
    """A model and thread count that both sides have."""

    model: Annotated[str, "name, or both names"]
    threads: Annotated[int, "number of threads"]
    a_ms: Annotated[float, "median of A"]
    b_ms: Annotated[float, "median of B"]
    by_turns: Annotated[bool, "whether the two took turns in one session"]
    drift: Annotated[
        float | None,
        "standard deviation between sessions on this device that was allowed for; null where they took turns",
    ]
    ratio: Annotated[
        float, "B over A, of the geometric means of the rounds' medians (0.8: B needs 20 % less time)"
    ]
    ci95: Annotated[
        list[float | None] | None, "interval of the ratio; an end is null where it is open (a factor of 1000)"
    ]
    sure: Annotated[float | None, "probability that B is faster"]
    verdict: Annotated[
        str, "`faster`, `slower`, `no difference shown` (the interval contains 1) or `not known`"
    ]


class Comparison(TypedDict):
    """Is B faster than A?"""

    schema: Annotated[str, '`"android_bench.compare/2"`']
    a: Annotated[Measured, "device and start of A: `device cpu started`"]
    b: Annotated[Measured, "the same of B"]
    notes: Annotated[list[str], "what makes the two hard to compare"]
    pairs: Annotated[list[Pair], "one for each model and thread count in both, see below"]


class Rules(TypedDict):
    """Beside the protocol's own rules."""

    foreign_limit: Annotated[float, "a round is disturbed when other programs use more cores"]
    interleaved: Annotated[int, "number of models and thread counts that took turns, at most"]


class Document(TypedDict):
    """bench.json."""

    schema: Annotated[str, '`"android_bench/2"`']
    device: Annotated[Host | Phone, "see below"]
    protocol: Annotated[Rules, "the rules of the measurement, see below"]
    started: Annotated[str, "when the session began"]
    complete: Annotated[bool, "false when it was interrupted, or the phone went away"]
    before: Annotated[HostState | PhoneState, "the device when the session began"]
    after: Annotated[HostState | PhoneState, "and when it ended"]
    results: Annotated[list[Result], "one for each model and thread count, see below"]
    compare: NotRequired[Annotated[Comparison, "with `--compare`: the verdict on the two models"]]

"""docs/bench.md is what its script writes, and real documents have the fields that are told there, and no others."""

from __future__ import annotations

import importlib.util
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd

from android_bench import bench
from android_bench.measure.protocol import Protocol
from android_bench.output import fields
from android_bench.output.documents import to_json
from android_bench.output.figures import Stat
from android_bench.output.operators import Operator
from edgecls.workflow.benching import add_published

ROOT = Path(__file__).parents[1]
TYPES = {name: kind for name, kind in vars(fields).items() if typing.is_typeddict(kind)}
Seen = set[tuple[str, str]]


def check(value: Any, hint: Any, where: str) -> tuple[list[str], Seen]:
    """What of a value is not as its type says, and the fields that it has."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Annotated, typing.NotRequired):
        return check(value, inner[0], where)
    if origin in (types.UnionType, typing.Union):
        return min((check(value, one, where) for one in inner), key=lambda found: len(found[0]))
    if origin is typing.Literal:
        return ([] if value in inner else [f"{where} is {value!r}"]), set()
    if origin in (list, dict):
        if not isinstance(value, origin):
            return [f"{where} is no {origin.__name__}"], set()
        items = value.items() if origin is dict else enumerate(value)
        parts = [check(item, inner[-1], f"{where}.{key}") for key, item in items]
    elif typing.is_typeddict(hint):
        if not isinstance(value, dict):
            return [f"{where} is no object"], set()
        hints = typing.get_type_hints(hint, include_extras=True)
        needed = {name for name, kind in hints.items() if typing.get_origin(kind) is not typing.NotRequired}
        wrong = [f"{where} has no {name}" for name in needed - value.keys()]
        wrong += [f"{where}.{name} is not told of" for name in value.keys() - hints.keys()]
        parts = [check(value[name], hints[name], f"{where}.{name}") for name in hints.keys() & value.keys()]
        parts.append((wrong, {(hint.__name__, name) for name in hints.keys() & value.keys()}))
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return ([] if type(value) is hint or (hint is float and number) else [f"{where} is {value!r}"]), set()
    return [line for wrong, _ in parts for line in wrong], set().union(*(seen for _, seen in parts))


def problems(document: dict[str, Any]) -> tuple[list[str], Seen]:
    """As ``check``, of a document as a file holds it."""
    document = json.loads(to_json(document))
    rules = {name: document["protocol"].pop(name) for name in Protocol.__dataclass_fields__}
    assert rules["name"] == "standard"
    return check(document, fields.Document, "bench.json")


def page() -> str:
    spec = importlib.util.spec_from_file_location("make_bench_docs", ROOT / "scripts" / "make_bench_docs.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.page((ROOT / "docs" / "bench.md").read_text(encoding="utf-8"))


def test_the_tables_are_what_the_script_writes() -> None:
    text = page()
    assert (ROOT / "docs" / "bench.md").read_text(encoding="utf-8") == text, (
        "run python scripts/make_bench_docs.py"
    )
    shown = {"Cluster", "Measured"}  # told in one line where they stand
    for name in TYPES.keys() - shown:
        assert text.count(f"<!-- fields of {name}:") == (name != "Rules"), name
    for name in Protocol.__dataclass_fields__:
        assert f"\n| `{name}` | " in text


def test_types_of_the_code_have_the_fields_that_are_told() -> None:
    assert list(fields.Operator.__annotations__) == list(Operator.__dataclass_fields__)
    assert list(fields.RoundStat.__annotations__) == list(Stat.__dataclass_fields__)


@pytest.mark.usefixtures("alone")
def test_documents_have_the_fields_that_are_told(
    tiny: dict[str, Path], pixel: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tmp_path / "MobileNetV1_fp32.tflite"
    network.write_bytes(tiny["fp32"].read_bytes())
    quick: dict[str, Any] = {
        "warmup": 1,
        "runs": 5,
        "run_s": 0.0,
        "rounds": 2,
        "spacing_s": 0.0,
        "repeats": 0,
    }
    host = bench([network, tiny["torn"]], "host", [1], profile=True, **quick)
    add_published(host)
    phone = bench(["a.tflite", "c.tflite"], pixel.where, [1], profile=True, compare=True, **quick)
    failed = bench(["b.tflite"], pixel.where, [1], **quick)
    there: Seen = set()
    for document in (host, phone, failed):
        wrong, seen = problems(document)
        assert not wrong
        there |= seen
    told = {(name, field) for name, kind in TYPES.items() for field in kind.__annotations__}
    never = {(name, field) for name, field in told - there if name != "Device"}
    assert not never, "told of, but in no document"


def test_the_check_sees_what_is_wrong() -> None:
    good: dict[str, Any] = {"time": "now", "load_1min": 1.5, "khz": [1]}
    assert check(good, fields.HostState, "x") == ([], {("HostState", name) for name in good})
    for change, says in (
        ({"khz": [1.5]}, "x.khz.0 is 1.5"),
        ({"time": None}, "x.time is None"),
        ({"more": 1}, "x.more is not told of"),
    ):
        assert check(good | change, fields.HostState, "x")[0] == [says]
    del good["khz"]
    assert check(good, fields.HostState, "x")[0] == ["x has no khz"]

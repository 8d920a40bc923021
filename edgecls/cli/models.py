"""``edgecls models``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgecls import model_cost
from edgecls.cli.common import cli_command, number, percent, table
from edgecls.cli.completers import complete_family, complete_model
from edgecls.console import Console
from edgecls.errors import UsageError
from edgecls.quiet import import_tensorflow
from edgecls.text import plural

if TYPE_CHECKING:
    from edgecls.zoo.entry import Entry


@cli_command(
    "edgecls models", "edgecls models 'MobileNetV3_small*'", "edgecls models EfficientNetLite0 --json"
)
@click.argument("name", required=False, shell_complete=complete_model)
@click.option("--family", shell_complete=complete_family, help="Only one family, e.g. MobileNetV3.")
@click.option("--input-size", type=click.IntRange(32), help="Cost at this input, pixels (with one NAME).")
def command(console: Console, name: str | None, family: str | None, input_size: int | None) -> None:
    """List the networks with their cost and published accuracy, or show one.

    NAME may be a pattern with * and ?.
    """
    from edgecls.zoo import catalog

    if name is not None and not set(name) & set("*?["):
        entry = catalog.get(name)
        shown = {"schema": "edgecls.model/1", **asdict(entry), "published_input_size": entry.input_size}
        if input_size is not None:
            import_tensorflow()
            shown |= {
                "input_size": input_size,
                "crop": round(entry.crop * input_size / entry.input_size),
                "resize_short": round(entry.resize_short * input_size / entry.input_size),
                **model_cost(name, input_size),
            }
        console.emit(shown, _one)
        return
    if input_size is not None:
        raise UsageError(
            "the cost at another input is for one network", where="--input-size", fix="give its NAME"
        )
    entries = [catalog.get(n) for n in catalog.names(name or "*")]
    if family is not None:
        families = sorted({e.family for e in map(catalog.get, catalog.names())})
        if family.lower() not in map(str.lower, families):
            raise UsageError(
                f"no family {family!r}", where="--family", fix=f"there are: {', '.join(families)}"
            )
        entries = [e for e in entries if e.family.lower() == family.lower()]
    if not entries:
        raise UsageError(f"no network is called like {name!r}", fix="edgecls models lists the names")
    result = {"schema": "edgecls.models/1", "models": [asdict(e) for e in entries]}
    console.emit(result, lambda _: _list(entries))


def _list(entries: list[Entry]) -> str:
    columns: dict[str, list[Any]] = {
        "name": [e.name for e in entries],
        "input px": [e.input_size for e in entries],
        "params M": [number(e.params / 1e6) for e in entries],
        "MMACs": [number(e.macs / 1e6, 0) for e in entries],
        "peak M": [number(e.peak_activations / 1e6) for e in entries],
        "top-1 %": [percent(e.top1) for e in entries],
        "SD855 ms": [number(e.sd855_ms.get(1)) for e in entries],
        "weights": [", ".join(e.weights) or None for e in entries],
    }
    notes = {
        "peak M": "peak M: most values of feature maps alive at once, millions; ",
        "top-1 %": "top-1 %: published, ImageNet; ",
        "SD855 ms": "SD855 ms: published, fp32, 1 thread; ",
        "weights": "weights: what model.weights can name; -: none, or not published",
    }
    width = shutil.get_terminal_size().columns
    if max(map(len, _table(columns).splitlines())) > width:
        del columns["peak M"], notes["peak M"]  # `edgecls models NAME` and --json have it
    return f"{_table(columns)}\n{textwrap.fill(''.join(notes.values()), width)}"


def _table(columns: Mapping[str, list[Any]]) -> str:
    return table(tuple(columns), list(zip(*columns.values(), strict=True)))


def _one(model: Mapping[str, Any]) -> str:
    latency = ", ".join(f"{ms:g} ({plural(threads, 'thread')})" for threads, ms in model["sd855_ms"].items())
    weights = ", ".join(f"{name} ({w['package'] or w['url']})" for name, w in model["weights"].items())
    size, published_size = model["input_size"], model["published_input_size"]
    at = "" if size == published_size else f", published at {published_size} px"
    published = {
        "top-1, %": percent(model["top1"]),
        "top-5, %": percent(model["top5"]),
        "SD855 fp32, ms": latency,
        "file fp32, MB": number(model["storage_mb"], 1),
    }
    rows = {
        "family": model["family"],
        "architecture": model["architecture"],
        "input": f"{size} px, RGB",
        "resize": f"shorter side to {model['resize_short']} px ({model['interpolation']}), center crop {model['crop']} px",
        "mean, of x/255": " ".join(f"{v:g}" for v in model["mean"]),
        "std, of x/255": " ".join(f"{v:g}" for v in model["std"]),
        "parameters": f"{model['params']:,}",
        "multiply-adds": f"{model['macs']:,}",
        "values moved": f"{model['memory_access']:,}: weights and feature maps of convolutions and dense layers",
        "values at once": f"{model['peak_activations']:,} in feature maps; a byte each in int8, four in fp32",
        **{key: value + at if value else value for key, value in published.items()},
        "figures from": model["source"],
        "weights": weights or "none to download; give a file with model.weights",
    }
    indent = 18
    width = max(shutil.get_terminal_size().columns, 2 * indent)
    lines = (
        textwrap.fill(
            f"  {key:<{indent - 2}}{value}",
            width,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for key, value in rows.items()
        if value
    )
    return "\n".join([model["name"], *lines])

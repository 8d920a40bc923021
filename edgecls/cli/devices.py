"""``edgecls devices``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from edgecls.cli.common import cli_command, number, table
from edgecls.console import Console
from edgecls.errors import MissingError


@cli_command("edgecls devices", "edgecls devices 192.168.1.7:5555 --json")
@click.argument("addresses", metavar="[HOST:PORT]...", nargs=-1)
def command(console: Console, addresses: tuple[str, ...]) -> None:
    """List the phones that are attached, or at an address, and whether one can measure on them now.

    Exit code 3 if there is none.
    """
    from android_bench.devices.survey import survey
    from android_bench.devices.target import PLUG_IN

    result = survey(list(addresses))
    if not result["devices"]:
        raise MissingError("no phone is attached", fix=PLUG_IN)
    console.emit(result, _text)


def _text(result: Mapping[str, Any]) -> str:
    rows = [
        (
            d["serial"] + (f" ({d['entry']})" if d["entry"] else ""),
            d["via"],
            d["name"],
            d["soc"],
            d["abi"],
            "yes" if d["fit"] else "no",
            d["android"],
            d["cores"],
            d["battery_percent"],
            number(d["temperature_c"], 1),
        )
        for d in result["devices"]
    ]
    header = ("serial", "via", "phone", "SoC", "ABI", "fit", "Android", "cores", "battery %", "C")
    notes = [f"{d['serial']}: {why}" for d in result["devices"] for why in d["why"]]
    return "\n".join([table(header, rows, left=6), *notes])

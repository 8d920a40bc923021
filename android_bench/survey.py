"""What is attached, what it is, and whether one can measure on it now; asks each phone once, changes nothing."""

from __future__ import annotations

import contextlib
from typing import Any

from android_bench.attached import Attached, answers_adb, attached, split_address
from android_bench.entries import entries
from android_bench.errors import BenchError
from android_bench.link import Link, open_link
from android_bench.probe import State, facts, state
from android_bench.protocol import Protocol
from android_bench.target import Target, require_ready

SCHEMA = "android_bench.devices/1"
_LOW_BATTERY = 20


def survey(addresses: list[str] | None = None) -> dict[str, Any]:
    """The phones of the adb server and of USB, those at ``addresses`` (``host:port``), and those of devices.yaml that
    answer at theirs.

    Returns:
        ``{"schema", "devices": [...]}``; a device has ``serial via state``, its ``entry`` in devices.yaml, what
        ``facts`` and ``state`` tell (null when it does not answer), ``fit`` and ``why`` not.

    Raises:
        BenchUsageError: devices.yaml cannot be used.
    """
    phones = attached()
    own = {entry.serial: entry.key for entry in entries().values() if entry.serial}
    asked = dict.fromkeys(addresses or [])
    known = asked | dict.fromkeys(
        s for s in own if (at := split_address(s)) and s not in asked and answers_adb(at)
    )
    there = {phone.serial for phone in phones}
    phones += [Attached(address, "device", "network") for address in known if address not in there]
    rows = [look(phone) for phone in phones]
    return {"schema": SCHEMA, "devices": [row | {"entry": own.get(row["serial"])} for row in rows]}


def look(phone: Attached) -> dict[str, Any]:
    """One phone's row of ``survey``; ``cores`` is None when it does not answer."""
    row: dict[str, Any] = {"serial": phone.serial, "via": phone.via, "state": phone.state}
    unknown = dict.fromkeys(
        (
            "name",
            "soc",
            "profile",
            "profiles",
            "cores",
            "android",
            "abi",
            "battery_percent",
            "temperature_c",
            "clusters",
        )
    )
    try:
        require_ready(phone)
        target = Target("phone", phone.serial, via=phone.via)
        with contextlib.closing(open_link(target)) as link:
            return {**row, **_ask(link)}
    except BenchError as error:
        why = error.what + (f"; {error.fix}" if error.fix else "")
        return {**row, **unknown, "fit": False, "why": [why]}


def _ask(link: Link) -> dict[str, Any]:
    what, now = facts(link), state(link)
    clusters = now.clusters()
    known = what.profile(clusters)
    why = reasons(now)
    return {
        "name": what.name,
        "soc": known.name if known else what.soc or what.platform or None,
        "profile": known.key if known else None,
        "profiles": [chip.key for chip in what.chips(clusters)],
        "cores": what.cores,
        "clusters": [{"mask": f"{c.mask:02x}", "max_khz": c.max_khz} for c in clusters],
        "android": what.android or None,
        "abi": what.abis[0] if what.abis else None,
        "battery_percent": now.battery_percent,
        "temperature_c": now.warmth,
        "fit": not why,
        "why": why,
    }


def reasons(now: State, limit_c: float = Protocol.cool_c) -> list[str]:
    """Why a phone in this state gives doubtful figures; empty when nothing is known against it."""
    why = []
    if now.warmth is not None and now.warmth > limit_c:
        why.append(f"{now.warmth:.1f} C warm, more than {limit_c:g}: let it cool down")
    if now.thermal_status:
        why.append(f"it throttles (thermal status {now.thermal_status}): let it cool down")
    if capped := now.capped(-1):
        why.append(f"{capped}: switch battery saving off, or let it cool down")
    if now.battery_percent is not None and now.battery_percent < _LOW_BATTERY:
        why.append(f"the battery is at {now.battery_percent} %: charge it")
    return why

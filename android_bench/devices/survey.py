"""Lists the attached phones: what they are, and whether one can measure on them now. Nothing is changed there."""

from __future__ import annotations

import contextlib
from typing import Any

from android_bench.adb.address import port_hint, split_address
from android_bench.adb.link import Link, open_link
from android_bench.devices.attached import Attached, answers_adb, attached
from android_bench.devices.cores import cores_named
from android_bench.devices.probe import State, facts, state
from android_bench.devices.profiles import entries
from android_bench.devices.target import COOL_C, Target, require_ready
from android_bench.errors import BenchError, BenchUsageError

SCHEMA = "android_bench.devices.naming/1"
_LOW_BATTERY = 20


def survey(addresses: list[str] | None = None) -> dict[str, Any]:
    """Looks at the phones of the adb server and of USB, at ``addresses`` (``host:port``) and at those of devices.yaml.

    Returns:
        ``{"schema", "devices": [...]}``; a device has ``serial via state``, its ``entry`` in devices.yaml, what
        ``facts`` and ``state`` tell (null when it does not answer), ``fit`` and ``why`` not, with readings that cannot
        be true.

    Raises:
        BenchUsageError: devices.yaml cannot be used, or an address has no port.
    """
    phones = attached()
    for text in addresses or []:
        if not split_address(text) and all(phone.serial != text for phone in phones):
            fix = f"write {port_hint(text) or 'HOST:PORT, for example 192.168.1.7:5555'}"
            raise BenchUsageError("not an address with its port", where=text, fix=fix)
    key_of = {entry.serial: entry.key for entry in entries().values() if entry.serial}
    given = dict.fromkeys(addresses or [])
    answering = [
        s for s in key_of if s not in given and (address := split_address(s)) and answers_adb(address)
    ]
    serials = {phone.serial for phone in phones}
    phones += [Attached(s, "device", "network") for s in (*given, *answering) if s not in serials]
    rows = [look(phone) for phone in phones]
    return {"schema": SCHEMA, "devices": [row | {"entry": key_of.get(row["serial"])} for row in rows]}


def look(phone: Attached) -> dict[str, Any]:
    """The row of one phone in ``survey``; ``cores`` is None when it does not answer."""
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
        with contextlib.closing(open_link(target.serial, target.via)) as link:
            return {**row, **_ask(link)}
    except BenchError as error:
        why = error.what + (f"; {error.fix}" if error.fix else "")
        return {**row, **unknown, "fit": False, "why": [why]}


def _ask(link: Link) -> dict[str, Any]:
    about, now = facts(link), state(link)
    clusters = now.clusters()
    chip = about.profile(clusters)
    why = reasons(now, about.cores)
    return {
        "name": about.name,
        "soc": chip.name if chip else about.soc or about.platform or None,
        "profile": chip.key if chip else None,
        "profiles": [candidate.key for candidate in about.chips(clusters)],
        "cores": about.cores,
        "clusters": [{"mask": f"{c.mask:02x}", "max_khz": c.max_khz} for c in clusters],
        "android": about.android or None,
        "abi": about.abis[0] if about.abis else None,
        "battery_percent": now.battery_percent,
        "temperature_c": now.warmth,
        "fit": not why,
        "why": [*why, *now.doubts],
    }


def reasons(now: State, cores: int, limit_c: float = COOL_C) -> list[str]:
    """Reasons why a phone with so many cores in this state gives doubtful figures; empty when there is none."""
    why = []
    if absent := now.absent(cores):
        why.append(f"{cores_named(absent)} offline: wake the phone, switch battery saving off")
    if now.warmth is not None and now.warmth > limit_c:
        why.append(f"{now.warmth:.1f} C warm, more than {limit_c:g}: let it cool down")
    if now.thermal_status:
        why.append(f"it throttles (thermal status {now.thermal_status}): let it cool down")
    if capped := now.capped(-1):
        why.append(f"{capped}: switch battery saving off, or let it cool down")
    if now.battery_percent is not None and now.battery_percent < _LOW_BATTERY:
        why.append(f"the battery is at {now.battery_percent} %: charge it")
    return why

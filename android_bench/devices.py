"""Device names: ``host``, a built-in Snapdragon profile, a serial, or host:port; and whether it is really there."""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from android_bench.attached import Attached, answers_adb, attached, split_address
from android_bench.errors import BenchError, BenchUsageError, DeviceMissing

_PLUG_IN = (
    "enable USB debugging on the phone, plug it in and look at `adb devices`, or use --device host to measure "
    "on this computer"
)
_STATES = {
    "unauthorized": "accept the USB debugging prompt on the phone",
    "authorizing": "accept the USB debugging prompt on the phone",
    "offline": "unlock the phone, or unplug it and plug it in again",
    "no permissions": "add a udev rule for the phone (Debian: apt install android-sdk-platform-tools-common)",
}


@dataclass(frozen=True)
class Cluster:
    """Cores that share a clock: affinity mask, and their highest clock in kHz (None: not confirmed)."""

    mask: int
    max_khz: int | None


@dataclass(frozen=True)
class Profile:
    """A known SoC. ``clusters`` are ordered from the slowest; ``rounded`` clocks are known to the MHz only."""

    key: str
    name: str
    soc_model: str
    platform: str
    clusters: tuple[Cluster, ...]
    rounded: bool = False
    note: str = ""


@dataclass(frozen=True)
class Target:
    """What ``--device`` means: ``kind`` is ``"host"`` or ``"phone"``; a phone has a serial, maybe a profile.

    ``via`` is the way to the phone: ``"adb server"``, ``"USB"`` or ``"network"``.
    """

    kind: str
    serial: str = ""
    profile: Profile | None = None
    via: str = ""


@functools.cache
def profiles() -> dict[str, Profile]:
    """The built-in SoC profiles by key, e.g. ``"sd855"``."""
    table: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("devices.yaml").read_text("utf-8"))
    return {
        key: Profile(
            key=key,
            name=row["name"],
            **row["match"],
            clusters=tuple(Cluster(int(mask, 16), khz) for mask, khz in row["clusters"]),
            rounded=row.get("rounded", False),
            note=row.get("note", ""),
        )
        for key, row in table.items()
    }


def resolve(device: str) -> Target:
    """The attached device that ``device`` names.

    Args:
        device: ``"host"``, a profile's key in any case, a serial, or ``host:port``.

    Raises:
        BenchUsageError: The name is empty or has blanks in it.
        DeviceMissing: It is not attached, or attached and not ready.
        BenchError: A profile was named and several phones are attached, so that it is not clear which is meant.
    """
    if not re.fullmatch(r"[\x21-\x7e]+", device):
        raise BenchUsageError(
            f"not a device name: {device!r}", fix="use host, a serial, or a name like sd855"
        )
    key = device.lower()
    if key == "host":
        return Target("host")
    phones = attached()
    profile = profiles().get(key)
    if profile is not None:
        phone = _only(profile, phones)
        return Target("phone", phone.serial, profile, phone.via)
    for phone in phones:
        if phone.serial == device:
            return Target("phone", require_ready(phone).serial, via=phone.via)
    address = split_address(device)
    if address is not None:
        if answers_adb(address):
            return Target("phone", device, via="network")
        fix = "connect the phone to the same network and start wireless debugging (`adb tcpip 5555`)"
        raise DeviceMissing("no phone answers at this address", where=device, fix=fix)
    near = difflib.get_close_matches(key, ["host", *profiles()], n=2, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}? Else " if near else ""
    have = ", ".join(p.serial for p in phones)
    what = f"no device {device!r} is attached" + (f", only {have}" if have else "")
    raise DeviceMissing(what, fix=hint + _PLUG_IN)


def _only(profile: Profile, phones: list[Attached]) -> Attached:
    if not phones:
        raise DeviceMissing(
            f"no phone is attached to measure on {profile.name} ({profile.key})", fix=_PLUG_IN
        )
    if len(phones) > 1:
        serials = ", ".join(p.serial for p in phones)
        raise BenchError(
            f"several phones are attached: {serials}", fix="name one by its serial with --device"
        )
    return require_ready(phones[0])


def require_ready(phone: Attached) -> Attached:
    """The phone itself. Raises DeviceMissing when adb says that it cannot be used yet."""
    if phone.state not in ("device", "usb"):
        state = phone.state.split(";")[0].strip()
        fix = next((f for name, f in _STATES.items() if state.startswith(name)), "look at `adb devices`")
        raise DeviceMissing(f"the phone is attached, but adb says {state!r}", where=phone.serial, fix=fix)
    return phone

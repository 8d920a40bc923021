"""The phone that a measurement is for, and whether it is ready and the right one.

A leaf of the package: the link to a phone, the probe, the survey and the reading of device names all build on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from android_bench.errors import ACCEPT_PROMPT, DeviceMissing

if TYPE_CHECKING:
    from android_bench.devices.attached import Attached
    from android_bench.devices.profiles import Profile

COOL_C = 40.0
"""A phone warmer than this (Celsius, of its skin or else its battery) is too warm to measure on."""
PLUG_IN = "enable USB debugging on the phone, plug it in and look at `adb devices`"
_STATES = {
    "unauthorized": ACCEPT_PROMPT,
    "authorizing": ACCEPT_PROMPT,
    "offline": "unlock the phone, or unplug it and plug it in again",
    "no permissions": "add a udev rule for the phone (Debian: apt install android-sdk-platform-tools-common)",
}


@dataclass(frozen=True)
class Target:
    """The device that ``--device`` means.

    Attributes:
        kind: ``"host"`` or ``"phone"``.
        serial: Serial or ``host:port`` of the phone.
        socs: The phone must have one of these chips; none: any chip will do.
        via: The way to the phone: ``"adb server"``, ``"USB"`` or ``"network"``.
        binary: The phone's benchmark_model, where devices.yaml names one.
    """

    kind: str
    serial: str = ""
    socs: tuple[Profile, ...] = ()
    via: str = ""
    binary: str = ""


def chip_names(chips: Sequence[Profile]) -> str:
    """Chips as a person reads them: ``"Snapdragon 855 (sd855)"``."""
    return " or ".join(f"{chip.name} ({chip.key})" for chip in chips) or "any phone"


def require_ready(phone: Attached) -> Attached:
    """The phone itself. Raises DeviceMissing when adb says that it cannot be used yet."""
    if phone.state not in ("device", "usb"):
        state = phone.state.split(";")[0].strip()
        fix = next((f for name, f in _STATES.items() if state.startswith(name)), "look at `adb devices`")
        raise DeviceMissing(f"the phone is attached, but adb says {state!r}", where=phone.serial, fix=fix)
    return phone


def require_chip(target: Target, chips: Sequence[Profile], reported: str) -> None:
    """Raises DeviceMissing when a phone has none of the chips that were asked for.

    Args:
        target: What was asked for.
        chips: The chips of devices.yaml that the phone's can be.
        reported: The name that the phone gives its chip.
    """
    if not target.socs or set(chips) & set(target.socs):
        return
    found = chip_names(chips) if chips else f"phone with the chip {reported!r}"
    fix = f"use --device {chips[0].key if chips else target.serial}, or attach the other phone"
    raise DeviceMissing(
        f"the attached phone is a {found}, not a {chip_names(target.socs)}", where=target.serial, fix=fix
    )

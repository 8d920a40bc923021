"""From the name of a device to the device: ``host``, a key of devices.yaml, a serial, host:port, or a chip."""

from __future__ import annotations

import difflib
import os

from android_bench.adb.address import port_hint, split_address
from android_bench.devices.attached import Attached, answers_adb, attached
from android_bench.devices.profiles import Entry, Profile, called, entries
from android_bench.devices.survey import look
from android_bench.devices.target import PLUG_IN, Target, chip_names, require_ready
from android_bench.errors import BenchError, BenchUsageError, DeviceMissing

_PLUG_IN = f"{PLUG_IN}, or use --device host to measure on this computer"


def resolve(device: str) -> Target:
    """The attached device that ``device`` names.

    Args:
        device: ``"host"``; a key of devices.yaml; a serial or ``host:port``; or a chip by its key, name or model
            number, which stands for the one attached phone that has it.

    Raises:
        BenchUsageError: The name is empty, or devices.yaml cannot be used.
        DeviceMissing: It is not attached, or attached and not ready, or no attached phone has the chip.
        BenchError: Several attached phones are meant by it.
    """
    if not device.strip() or not (device.isascii() and device.isprintable()):
        raise BenchUsageError(
            f"not a device name: {device!r}", fix="use host, a serial, or a name like sd855"
        )
    if device.lower() == "host":
        return Target("host")
    entry_of, phones = entries(), attached()
    entry = entry_of.get(device.lower()) or Entry("")
    serial = entry.serial or ("" if entry.key else device)
    for phone in phones:
        if phone.serial == serial:
            return _target(require_ready(phone), _chips(entry), entry)
    address = split_address(serial)
    if address is not None:
        if answers_adb(address):
            return _target(Attached(serial, "device", "network"), _chips(entry), entry)
        fix = "connect the phone to the same network and start wireless debugging (`adb tcpip 5555`)"
        raise DeviceMissing("no phone answers at this address", where=serial, fix=fix)
    chips = _chips(entry) if entry.key else called(device)
    if not entry.serial and (entry.key or chips):
        return _target(_the_one(chips, phones), chips, entry)
    serials = ", ".join(p.serial for p in phones)
    source = f" ({entry.key} in devices.yaml)" if entry.key else ""
    what = f"no device {serial!r}{source} is attached" + (f", only {serials}" if serials else "")
    near = (
        [] if entry.key else difflib.get_close_matches(device.lower(), ["host", *entry_of], n=2, cutoff=0.7)
    )
    if address_with_port := port_hint(serial):
        raise DeviceMissing(what, fix=f"an address needs its port, for example {address_with_port}")
    hint = f"did you mean {' or '.join(near)}? Else " if near else ""
    raise DeviceMissing(what, fix=hint + _PLUG_IN)


def _named(serial: str, phones: list[Attached]) -> Attached:
    """The phone of ``ANDROID_SERIAL``, attached or at an address."""
    for phone in phones:
        if phone.serial == serial:
            return require_ready(phone)
    if (address := split_address(serial)) and answers_adb(address):
        return Attached(serial, "device", "network")
    raise DeviceMissing(
        "the phone of ANDROID_SERIAL is not attached",
        where=f"ANDROID_SERIAL={serial}",
        fix=f"attach it, or unset the variable; attached: {', '.join(p.serial for p in phones) or 'none'}",
    )


def _target(phone: Attached, chips: tuple[Profile, ...], entry: Entry) -> Target:
    return Target("phone", phone.serial, chips, phone.via, entry.binary)


def _chips(entry: Entry) -> tuple[Profile, ...]:
    """The chips of which an entry's phone must have one; none: any chip will do."""
    if not entry.soc:
        return (entry.profile,) if entry.profile else ()
    found = called(entry.soc)
    if not found:
        raise BenchUsageError(f"no chip is called {entry.soc!r}", where=f"{entry.key} in devices.yaml")
    return found


def _the_one(chips: tuple[Profile, ...], phones: list[Attached]) -> Attached:
    """The attached phone that has one of the chips. A single phone is taken: its chip is checked when it is opened.

    As with adb, ``ANDROID_SERIAL`` says which phone is meant where the name does not.
    """
    if serial := os.environ.get("ANDROID_SERIAL"):
        return _named(serial, phones)
    wanted = chip_names(chips)
    if not phones:
        raise DeviceMissing(f"no phone is attached to measure on {wanted}", fix=_PLUG_IN)
    if len(phones) == 1:
        return require_ready(phones[0])
    rows = [look(phone) for phone in phones]
    seen = ", ".join(f"{row['serial']} ({row['soc'] or row['why'][0].split(';')[0]})" for row in rows)
    keys = {chip.key for chip in chips}
    fitting = [
        phone
        for phone, row in zip(phones, rows, strict=True)
        if row["cores"] is not None and (not keys or keys & set(row["profiles"]))
    ]
    if not fitting:
        raise DeviceMissing(f"no attached phone is a {wanted}: {seen}", fix="attach it, or name another chip")
    if len(fitting) > 1:
        raise BenchError(
            f"several attached phones could be meant: {seen}", fix="name one by its serial with --device"
        )
    return fitting[0]

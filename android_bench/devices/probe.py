"""What a phone is, and its state at this moment. Both are asked through its shell; nothing is changed there.

Sources: ``getprop``, ``/proc``, ``/sys/devices/system/cpu`` (clocks), ``/sys/class/thermal``, ``dumpsys battery`` and
``dumpsys thermalservice`` (since Android 10). A phone may deny some of them. What it does not tell, and what cannot be
true, is None or left out; ``State.doubts`` says so.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from android_bench.adb.link import Link
from android_bench.devices.binary import LINUX
from android_bench.devices.profiles import Cluster, Profile, profiles

_CPU = "/sys/devices/system/cpu"
_FREQ = f"{_CPU}/cpu[0-9]*/cpufreq"
_ZONE = "/sys/class/thermal/thermal_zone*"
_FACTS = {
    "props": "getprop",
    "cpuinfo": "cat /proc/cpuinfo",
    "memory": "head -n 1 /proc/meminfo",
    "cores": f"cat {_CPU}/present || cat {_CPU}/possible",
    "system": "uname -smr",
}
_STATE = {
    "freq": f"grep -H . {_FREQ}/cpuinfo_max_freq {_FREQ}/scaling_max_freq {_FREQ}/scaling_min_freq "
    f"{_FREQ}/scaling_cur_freq {_FREQ}/scaling_governor",
    "zones": f"grep -H . {_ZONE}/type {_ZONE}/temp",
    "online": f"cat {_CPU}/online",
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
}
CLOCKS_NOW = f"grep -H . {_FREQ}/scaling_cur_freq 2>/dev/null"
"""A shell command whose output ``clocks_now`` reads."""
_HOLDING = {"performance", "powersave", "userspace"}  # governors that do not change a clock
# BatteryManager.BATTERY_STATUS_*
_CHARGE = {2: "charging", 3: "discharging", 4: "not charging", 5: "full"}
_KHZ = (50_000, 20_000_000)  # clocks that a core can have
_CELSIUS = (
    0.0,
    110.0,
)  # temperatures between which a phone works; a sensor that is not connected says 0 or -40
_MOST_THERMAL = 6  # PowerManager.THERMAL_STATUS_SHUTDOWN
_CPU_ZONE = re.compile(r"cpu|tsens|mtktscpu|soc|big|little|apc", re.IGNORECASE)


@dataclass(frozen=True)
class State:
    """The state of a phone at one moment: clocks in kHz by core, temperatures in Celsius, battery.

    ``online`` cores are None where the phone does not tell them. ``doubts`` says which readings are missing or impossible
    and so not used.
    """

    max_khz: dict[int, int] = field(default_factory=dict)
    cap_khz: dict[int, int] = field(default_factory=dict)
    floor_khz: dict[int, int] = field(default_factory=dict)
    khz: dict[int, int] = field(default_factory=dict)
    governor: dict[int, str] = field(default_factory=dict)
    temperature_c: dict[str, float] = field(default_factory=dict)
    battery_percent: int | None = None
    battery: str | None = None
    thermal_status: int | None = None
    online: frozenset[int] | None = None
    doubts: tuple[str, ...] = ()

    def absent(self, cores: int) -> list[int]:
        """Which of a phone's cores 0 ... ``cores`` - 1 are offline: it says so, or they alone do not tell their clocks."""
        told = set(self.max_khz) or set(range(cores))
        here = told if self.online is None else told & self.online
        return [core for core in range(cores) if core not in here]

    @property
    def held(self) -> set[int]:
        """The cores whose clock does not change: the governor holds it, or the lowest allowed is the highest allowed."""
        alike = {core for core, floor in self.floor_khz.items() if floor == self.cap_khz.get(core)}
        return alike | {core for core, governor in self.governor.items() if governor in _HOLDING}

    @property
    def warmth(self) -> float | None:
        """The temperature that phones throttle by: of the skin, else of the battery."""
        return self.temperature_c.get("skin", self.temperature_c.get("battery"))

    def capped(self, mask: int) -> str:
        """A sentence about the first core of ``mask`` that may not run at its highest clock now; empty when all may."""
        for core, top in self.max_khz.items():
            cap = self.cap_khz.get(core, top)
            if mask >> core & 1 and cap < top:
                return f"the clock of core {core} is capped at {cap // 1000} of {top // 1000} MHz"
        return ""

    def clusters(self) -> tuple[Cluster, ...]:
        """Cores grouped by their highest clock, slowest first; empty when the phone does not tell the clocks."""
        clocks = sorted(set(self.max_khz.values()))
        return tuple(Cluster(sum(1 << c for c, top in self.max_khz.items() if top == k), k) for k in clocks)

    def to_json(self) -> dict[str, Any]:
        """For bench.json; clocks and governors of core 0, 1, ..."""
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "temperature_c": self.temperature_c,
            "thermal_status": self.thermal_status,
            "khz": [self.khz[core] for core in sorted(self.khz)],
            "cap_khz": [self.cap_khz[core] for core in sorted(self.cap_khz)],
            "governors": sorted(set(self.governor.values())),
            "battery_percent": self.battery_percent,
            "battery": self.battery,
            "doubts": list(self.doubts),
        }


@dataclass(frozen=True)
class Facts:
    """What a phone is: its names, ABIs in its order of preference, number of cores.

    A computer with Linux and no Android has one ABI, such as ``aarch64-linux``. ``build`` names the version of the
    whole system.
    """

    name: str
    soc: str
    platform: str
    android: str
    abis: tuple[str, ...]
    cores: int
    memory_mib: int | None
    hardware: str = ""
    serial: str = ""
    build: str = ""

    def profile(self, clusters: tuple[Cluster, ...]) -> Profile | None:
        """The chip of devices.yaml that this phone has; None when none or several fit."""
        found = self.chips(clusters)
        return found[0] if len(found) == 1 else None

    def chips(self, clusters: tuple[Cluster, ...]) -> list[Profile]:
        """The chips of devices.yaml that this phone can have.

        ``ro.soc.model`` decides, then the kernel's hardware name, then the platform, which several chips share. The
        clocks decide between chips of one model number (855 and 855+).
        """
        every_chip = list(profiles().values())
        for fits in (
            lambda p: p.soc_model.lower() == self.soc.lower(),
            lambda p: bool(re.search(rf"\b{p.soc_model}\b", self.hardware, re.IGNORECASE)),
            lambda p: p.platform == self.platform,
        ):
            found = [p for p in every_chip if fits(p)]
            if len(found) > 1 and clusters:
                found = [p for p in found if _same_clocks(p, clusters)] or found
            if found:
                return found
        return []


def facts(link: Link) -> Facts:
    """Asks the phone what it is. Raises DeviceMissing when it is gone."""
    answers = _ask(link, _FACTS)
    props = dict(re.findall(r"^\[([^]]+)\]: \[(.*)\]$", answers["props"], re.MULTILINE))
    hardware = re.search(r"^Hardware\s*:\s*(.+)$", answers["cpuinfo"], re.MULTILINE)
    processors = len(re.findall(r"^processor\s*:", answers["cpuinfo"], re.MULTILINE))
    highest = re.search(r"(\d+)\s*$", answers["cores"])
    memory = re.search(r"(\d+) kB", answers["memory"])
    maker, model = (props.get(f"ro.product.{key}", "") for key in ("manufacturer", "model"))
    kernel, _, machine = [*answers["system"].split(), "", "", ""][:3]  # Linux 5.10.66 aarch64
    abis = props.get("ro.product.cpu.abilist") or props.get("ro.product.cpu.abi") or ""
    if not abis and kernel == "Linux" and machine:
        abis = machine + LINUX
    return Facts(
        name=f"{maker} {model}".strip() or ("Linux computer" if abis.endswith(LINUX) else "Android device"),
        soc=props.get("ro.soc.model", ""),
        platform=props.get("ro.board.platform", ""),
        android=props.get("ro.build.version.release", ""),
        abis=tuple(filter(None, abis.split(","))),
        cores=int(highest[1]) + 1 if highest else max(processors, 1),
        memory_mib=int(memory[1]) // 1024 if memory else None,
        hardware=hardware[1].strip() if hardware else "",
        serial=props.get("ro.serialno") or props.get("ro.boot.serialno") or "",
        build=props.get("ro.build.fingerprint") or answers["system"].strip(),
    )


def state(link: Link) -> State:
    """Asks the phone how it is now. Raises DeviceMissing when it is gone."""
    answers = _ask(link, _STATE)
    clocks = _clocks(answers["freq"])
    battery = dict(re.findall(r"^\s*([\w ]+): (-?\d+)\s*$", answers["battery"], re.MULTILINE))
    status = re.search(r"Thermal Status: (\d+)", answers["thermal"])
    temperatures, doubts = _temperatures(answers["zones"], answers["thermal"], battery.get("temperature"))
    khz = {name: _integers(values) for name, values in clocks.items()}
    for name, values in khz.items():
        wrong = [core for core, value in values.items() if not _KHZ[0] <= value <= _KHZ[1]]
        if wrong:
            doubts.append(f"the phone's {name} is impossible ({values[wrong[0]]} kHz, core {wrong[0]})")
        khz[name] = {core: value for core, value in values.items() if core not in wrong}
    throttling = int(status[1]) if status else None
    if throttling is not None and throttling > _MOST_THERMAL:
        doubts.append(f"the phone's thermal status is impossible ({throttling})")
        throttling = None
    level = int(battery["level"]) if "level" in battery else None
    return State(
        max_khz=khz.get("cpuinfo_max_freq", {}),
        cap_khz=khz.get("scaling_max_freq", {}),
        floor_khz=khz.get("scaling_min_freq", {}),
        khz=khz.get("scaling_cur_freq", {}),
        governor=clocks.get("scaling_governor", {}),
        temperature_c=temperatures,
        battery_percent=level if level is not None and 0 <= level <= 100 else None,
        battery=_CHARGE.get(int(battery.get("status", 0))),
        thermal_status=throttling,
        online=_core_list(answers["online"]),
        doubts=tuple(doubts),
    )


def clocks_now(text: str) -> dict[int, int]:
    """The current clocks in kHz by core in the output of ``CLOCKS_NOW``, without those that cannot be."""
    khz = _integers(_clocks(text).get("scaling_cur_freq", {}))
    return {core: value for core, value in khz.items() if _KHZ[0] <= value <= _KHZ[1]}


def big_mask(clusters: tuple[Cluster, ...], threads: int) -> int | None:
    """The cores to pin to, as a mask: all but the slowest, or all where these are fewer than threads; None: not known."""
    everything = sum(cluster.mask for cluster in clusters)
    big = everything - clusters[0].mask if len(clusters) > 1 else 0
    mask = big if big.bit_count() >= threads else everything
    return mask or None


def _temperatures(zones: str, thermal: str, battery: str | None) -> tuple[dict[str, float], list[str]]:
    """The battery's temperature and the warmest of the skin's and of the processor's sensors, and what is not used."""
    names: dict[str, str] = {}
    found: list[tuple[str, float]] = []
    for zone, name, value in re.findall(r"/thermal_zone(\d+)/(type|temp):(.*)", zones):
        if name == "type":
            names[zone] = value.strip()
        elif re.fullmatch(r"-?\d+", value.strip()):
            kind = names.get(zone, "")
            kind = "skin" if "skin" in kind.lower() else "cpu" if _CPU_ZONE.search(kind) else ""
            found.append((kind, _celsius(int(value))))
    # What the thermal service has now; its list of thresholds and cached values comes under other headings.
    current = thermal.partition("Current temperatures")[2].partition("Current cooling")[0]
    for value, kind in re.findall(r"mValue=(-?\d+(?:\.\d+)?), mType=(\d+)", current):
        found.append(({"0": "cpu", "3": "skin"}.get(kind, ""), float(value)))
    if battery is not None:
        found.append(("battery", int(battery) / 10))
    result: dict[str, float] = {}
    wrong: dict[str, float] = {}
    for kind, degrees in found:
        if kind and _CELSIUS[0] < degrees < _CELSIUS[1]:
            result[kind] = max(result.get(kind, degrees), degrees)
        elif kind:
            wrong[kind] = degrees
    doubts = [
        f"the {kind}'s temperature is impossible ({degrees:.1f} C)"
        for kind, degrees in wrong.items()
        if kind not in result
    ]
    if not result.keys() & {"skin", "battery"}:
        doubts.append("the phone does not tell how warm it is")
    return result, doubts


def _core_list(text: str) -> frozenset[int] | None:
    """The kernel's ``0-3,6`` as a set of cores; None where there is no such list."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text.strip()):
        return None
    spans = [[int(end) for end in span.split("-")] for span in text.strip().split(",")]
    return frozenset(core for span in spans for core in range(span[0], span[-1] + 1))


def _clocks(text: str) -> dict[str, dict[int, str]]:
    """What grep found in the folders ``cpufreq``: by file, then by core."""
    clocks: dict[str, dict[int, str]] = {}
    for core, name, value in re.findall(r"/cpu(\d+)/cpufreq/(\w+):(.*)", text):
        clocks.setdefault(name, {})[int(core)] = value.strip()
    return clocks


def _celsius(value: int) -> float:
    """Sensors count in degrees, tenths or thousandths."""
    return value / 1000 if abs(value) >= 1000 else value / 10 if abs(value) > 130 else float(value)


def _integers(values: dict[int, str]) -> dict[int, int]:
    return {core: int(value) for core, value in values.items() if value.isdigit()}


def _same_clocks(profile: Profile, clusters: tuple[Cluster, ...]) -> bool:
    def close(a: Cluster, b: Cluster) -> bool:
        # Some profiles know their clocks to the MHz only.
        return (
            a.max_khz is None
            or b.max_khz is None
            or abs(a.max_khz - b.max_khz) < 1000 * (1 + profile.rounded)
        )

    # Of a phone with cores that are offline only some clusters are seen.
    return all(any(close(own, seen) for own in profile.clusters) for seen in clusters)


def _ask(link: Link, parts: dict[str, str]) -> dict[str, str]:
    script = "; ".join(f"echo '@@{name}'; {command} 2>/dev/null" for name, command in parts.items())
    sections = re.split(r"^@@(\w+)\n", link.run(script, 30.0).output, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    return {name: found.get(name, "") for name in parts}

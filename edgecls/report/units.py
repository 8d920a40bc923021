"""Figures as text, with their units. Each function takes any value, and writes "–" for what is no number."""

from __future__ import annotations

from typing import Any

from edgecls.report.values import number


def fixed(value: Any, digits: int = 2) -> str:
    """A number with so many decimals."""
    value = number(value)
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: Any, digits: int = 1) -> str:
    """A share of 1 in percent."""
    value = number(value)
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval of shares in percent."""
    return "–" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f} %"


def points(value: Any) -> str:
    """Percentage points, signed as given."""
    value = number(value)
    if value is None:
        return "–"
    value = round(value, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f} points"


def milliseconds(value: Any) -> str:
    """Milliseconds with three figures, at most three decimals."""
    value = number(value)
    if value is None:
        return "–"
    decimals = next((digits for digits, least in enumerate((100, 10, 1)) if value >= least), 3)
    return f"{value:.{decimals}f} ms"


def megabytes(value: Any) -> str:
    """The size of a file: bytes as MB (10^6 bytes), or kB (10^3 bytes) below one."""
    value = number(value)
    if value is None:
        return "–"
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def mebibytes(value: Any) -> str:
    """Memory that is given in MiB (2^20 bytes)."""
    value = number(value)
    return "–" if value is None else f"{value:.1f} MiB"


def duration(seconds: Any) -> str:
    """Seconds as a person says them."""
    value = number(seconds)
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

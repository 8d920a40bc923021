"""What a person reads while a measurement is under way."""

from __future__ import annotations

from typing import Any

from android_bench.errors import ACCEPT_PROMPT
from android_bench.words import count


def remark(event: dict[str, Any]) -> str:
    """The line to show for an event of ``bench``; empty for events that need none.

    Example:
        >>> remark({"event": "cool", "why": "44.0 C warm", "seconds": 0})
        'waiting for the phone to cool down: 44.0 C warm'
    """
    kind = event["event"]
    if kind == "authorize":
        return ACCEPT_PROMPT
    if kind == "cool" and not event["seconds"]:
        return f"waiting for the phone to cool down: {event['why']}"
    if kind == "plan" and event.get("kept"):
        return f"{count(event['kept'], 'model')} measured before and not again; --fresh measures them again"
    if kind == "unkept":
        return f"the figures are not kept for another time: {event['why']}"
    if kind == "settle":
        return "disturbed rounds: waiting for other programs to rest"
    return ""

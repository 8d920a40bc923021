"""The events of a measurement, and what a person reads while it is under way.

An event is a dict with ``event``, its name. Those of one model and thread count have ``model`` and ``threads``.

- ``plan``: the measurement begins; number of ``cases`` (a model with a thread count), ``rounds`` of each, and how many
  of all these rounds were ``kept`` from before and are not measured again.
- ``load``: a model was loaded; ``init_ms``, ``first_ms``.
- ``measure``: a round begins; its number ``round``, and whether it is a ``repeat`` of a disturbed one.
- ``round``: it is done; also ``median_ms``, ``why`` it is disturbed (or empty), and the device's ``state`` after it.
- ``settle``: rounds of so many ``cases`` were disturbed; other programs are waited for.
- ``result``: all rounds are done; ``status``, ``why`` and the indices of the rounds ``used``.
- ``unkept``: rounds cannot be written to the cache, and ``why``; the measurement goes on.
- ``authorize``: the user of a phone is asked whether to trust this computer.
- ``busy``: somebody else measures on the phone; it is waited for since so many ``seconds``, and ``why``.
- ``cool``: a phone is waited for since so many ``seconds``, and ``why``.
"""

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
    if kind == "busy" and not event["seconds"]:
        return f"waiting: {event['why']}"
    if kind == "plan" and event["kept"]:
        rounds = count(event["cases"] * event["rounds"], "round")
        return f"{event['kept']} of {rounds} measured before and not again; --fresh measures them again"
    if kind == "unkept":
        return f"the rounds are not kept for another time: {event['why']}"
    if kind == "settle":
        return "disturbed rounds: waiting for other programs to rest"
    return ""

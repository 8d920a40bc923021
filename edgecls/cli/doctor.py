"""``edgecls doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecls.cli.common import cli_command, table
from edgecls.console import Console
from edgecls.errors import MissingError


@cli_command("edgecls doctor", "edgecls doctor --json")
def command(console: Console) -> None:
    """Check versions, TensorFlow, LiteRT, adb, disk and memory; say what to do about what is missing."""
    from edgecls.doctor import examine

    console.log("importing TensorFlow, which takes some seconds ...")
    result = examine()
    console.emit(result, _text)
    missing = [c["name"] for c in result["checks"] if c["status"] == "missing"]
    if missing:
        raise MissingError(f"missing: {', '.join(missing)}", fix="see the lines above")


def _text(result: Mapping[str, Any]) -> str:
    rows = [(c["status"], c["name"], c["found"], c["fix"]) for c in result["checks"]]
    return table(("", "what", "found", "what to do"), rows, left=4)

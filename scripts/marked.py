"""The part of a page that a script writes: what stands between two of its lines."""

from __future__ import annotations

from pathlib import Path

from edgecls.errors import UsageError
from edgecls.files import write_text


def rewrite(page: Path, begin: str, end: str, text: str) -> None:
    """Put ``text`` between two markers of a page, in place of what stands there.

    Args:
        page: A Markdown file.
        begin: A marker that the page has once.
        end: The first such marker behind ``begin`` ends the part.
        text: Lines without the last line break.

    Raises:
        UsageError: The page does not have the markers; it is left as it is.
    """
    before, *others = page.read_text(encoding="utf-8").split(begin)
    if len(others) != 1 or end not in others[0]:
        raise UsageError(f"no markers '{begin}' and '{end}'", where=str(page))
    write_text(page, f"{before}{begin}\n{text}\n{end}{others[0].partition(end)[2]}")

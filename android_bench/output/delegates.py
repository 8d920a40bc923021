"""Which delegates computed, as the programs' lines tell."""

from __future__ import annotations

import re

# "Created TensorFlow Lite XNNPACK delegate for CPU.", "Created TensorFlow Lite delegate for GPU."
_CREATED = re.compile(r"Created TensorFlow Lite (?:(\w+) delegate for CPU|delegate for (\w+))")
_APPLIED = re.compile(r"[Aa]pplied (\w+) delegate(.*partially executed)?")
_UNUSED = re.compile(
    r"Though (\w+) delegate is (?:explicitly )?applied, the model graph will not be executed"
)
# Older versions do not say out of how many. The name is the delegate's own, and may have blanks.
_REPLACED = re.compile(
    r"Replacing (\d+)(?: out of (\d+))? node\(s\) with delegate \(([^)]+)\)(?: node, yielding (\d+) partition)?"
)
_NAMES = {
    "xnnpack": "XNNPACK",
    "gpu": "GPU",
    "litert_cl": "GPU",
    "nnapi": "NNAPI",
    "hexagon": "Hexagon",
    "dispatch": "NPU",
}
_EXTERNAL = "EXTERNAL"


class Delegates:
    """Reads line by line.

    Attributes:
        found: The delegates that took the graph, and whether each took a part of it only.

    Example:
        >>> delegates = Delegates()
        >>> delegates.read("INFO: Replacing 5 out of 58 node(s) with delegate (TfLiteGpuDelegateV2) node")
        >>> delegates.used, delegates.partly
        (('GPU',), ('GPU',))
    """

    def __init__(self) -> None:
        self.found: dict[str, bool] = {}
        self._created: set[str] = set()  # those of which nothing else is known
        self._last = ""  # what took nodes and was not said to be applied yet

    @property
    def used(self) -> tuple[str, ...]:
        """Their names. One that was merely created counts only where no other is known to have taken nodes."""
        taken = self.found.keys() - self._created
        return tuple(n for n in self.found if n == "XNNPACK" or n in taken or not taken)

    @property
    def partly(self) -> tuple[str, ...]:
        """The names of those that took a part only."""
        return tuple(name for name in self.used if self.found[name])

    def read(self, line: str) -> None:
        """Reads one line of the output."""
        if "delegate" not in line:
            return
        if match := _UNUSED.search(line):
            self.found.pop(_name(match[1]), None)
        elif match := _CREATED.search(line):
            name = _name(match[1] or match[2])
            if name not in self.found:
                self._created.add(name)
                self.found[name] = False
        elif match := _APPLIED.search(line):
            self._apply(_name(match[1]), bool(match[2]))
        elif match := _REPLACED.search(line):
            # Several parts of a graph are never the whole.
            part = match[1] != match[2] if match[2] else int(match[4] or 1) > 1
            self._replace(_name(match[3]), part)

    def _apply(self, name: str, part: bool) -> None:
        if name == _EXTERNAL and self._last:
            part = self.found.pop(self._last) or part
            name = f"{_EXTERNAL} ({self._last})"
        self._take(name, part)
        self._last = ""

    def _replace(self, name: str, part: bool) -> None:
        if _EXTERNAL in self.found and name not in _NAMES.values():
            part = self.found.pop(_EXTERNAL) or part
            name = f"{_EXTERNAL} ({name})"
        elif name != "XNNPACK":
            self._last = name
        self._take(name, self.found.get(name, False) or part)

    def _take(self, name: str, part: bool) -> None:
        self._created.discard(name)
        self.found[name] = part


def _name(own: str) -> str:
    """The name that we call a delegate by; the first of two, as one may say more about itself than that."""
    return next((name for key, name in _NAMES.items() if key in own.lower()), own)

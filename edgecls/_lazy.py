"""Packages that are imported at their first use.

A file can then hold the options of a thing, which the recipe's schema is made of, beside the TensorFlow code that they
steer, and reading a recipe still imports no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """Stands for a package until something of it is asked for.

    Type checkers are shown the real one:

    >>> from typing import TYPE_CHECKING
    >>> if TYPE_CHECKING:
    ...     import json
    ... else:
    ...     json = Lazy("json")
    >>> json.dumps([1])
    '[1]'
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)

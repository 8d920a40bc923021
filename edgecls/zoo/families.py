"""The files of the zoo: each family of networks is one module, found by its file. No TensorFlow.

A family's module has

- ``MODELS``: a table whose keys are the names of its networks;
- ``build(name, x, head)``: builds one of them on the tensor ``x``; returns its feature maps and its logits;
- ``PUBLISHED``, if anything of a network differs from the defaults of ``entry.Published``: name to ``Published``;
- ``torch_name(name)``, if its weights come from PyTorch: an array's name there to its name in our state.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

PACKAGE = __name__.rpartition(".")[0]


def family_module(family: str) -> ModuleType:
    """The module of a family."""
    return importlib.import_module(module_name(family))


def module_name(family: str) -> str:
    """The name of a family's module, which is not imported: ``edgecls.zoo.mobilenet_v3`` for MobileNetV3."""
    modules = {_folded(name): name for name in _modules()}
    return f"{PACKAGE}.{modules[_folded(family)]}"


def unlisted_families(listed: Iterable[str]) -> list[str]:
    """The families whose module is there and whose name is not in ``listed``: ``TinyNet`` for ``tiny_net``.

    A module's text is searched for its table ``MODELS``, because importing the module would import TensorFlow.
    """
    folded = set(map(_folded, listed))
    new = {name: path for name, path in _modules().items() if _folded(name) not in folded}
    return [
        "".join(part.capitalize() for part in name.split("_"))
        for name, path in sorted(new.items())
        if re.search(r"^MODELS\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]


def _modules() -> dict[str, Path]:
    """Names of the package's modules to their files."""
    folders = importlib.import_module(PACKAGE).__path__
    return {
        module.name: Path(folder) / f"{module.name}.py"
        for folder in folders
        for module in pkgutil.iter_modules([folder])
        if not module.ispkg
    }


def _folded(name: str) -> str:
    return name.replace("_", "").lower()

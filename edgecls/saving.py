"""Saved networks open in Keras: ``import edgecls`` and ``keras.models.load_model("float.keras")``.

A ``.keras`` file names the class of each layer, such as ``edgecls>Normalize``, and Keras looks the name up among the
custom objects that were registered with it. Our layers register themselves when their modules are imported, but
importing those modules imports TensorFlow. So ``import edgecls`` registers a ``Deferred`` for each name instead: it
imports the module when Keras makes a layer of that name. Where Keras is not imported yet, this waits until it is.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgecls.errors import MissingError, UsageError
from edgecls.quiet import import_tensorflow
from edgecls.text import first_line

if TYPE_CHECKING:
    import keras

_PACKAGE = "edgecls"
_SERIALIZABLE_CLASS = re.compile(r"^@\S*serializable.*\nclass (\w+)", re.MULTILINE)


def load_model(path: str | Path) -> keras.Model:
    """Load a ``.keras`` file; see ``edgecls.load_model``."""
    path = Path(path)
    if not path.is_file():
        raise MissingError("no such file", where=str(path), fix="check the path")
    import_tensorflow()
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # damaged zip, JSON and HDF5 parts raise a dozen types
        raise UsageError(
            f"cannot load the network: {first_line(error)}",
            where=str(path),
            fix="give a .keras that edgecls saved",
        ) from error


class Deferred:
    """Stands for a class in Keras' registry until the class's module is imported, which registers the class itself.

    Keras asks a registered object only for ``from_config``.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, not imported yet>"

    def from_config(self, config: Mapping[str, Any]) -> Any:
        """Import the class and make an object of it."""
        return getattr(importlib.import_module(self.module), self.name).from_config(config)


def register_layers() -> None:
    """Tell Keras the names of our layers: now if it is imported, else as soon as it is."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    elif not any(isinstance(finder, _KerasWatch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasWatch())


def _register(keras: ModuleType) -> None:
    registry = keras.saving.get_custom_objects()
    for module, name in _serializable_classes():
        registry.setdefault(f"{_PACKAGE}>{name}", Deferred(module, name))


def _serializable_classes() -> Iterator[tuple[str, str]]:
    """(module, class) of every layer that Keras can save; found in the sources, so that nothing is imported."""
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        module = ".".join((_PACKAGE, *path.relative_to(package).with_suffix("").parts))
        for name in _SERIALIZABLE_CLASS.findall(path.read_text(encoding="utf-8")):
            yield module, name


class _KerasWatch(MetaPathFinder):
    """An import hook that registers our layers when Keras has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(module)
                sys.meta_path.remove(self)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

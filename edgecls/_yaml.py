"""YAML with memory: plain values plus, for every key, the place it was written at.

Only the safe loader is used, with three changes to how PyYAML reads YAML 1.1: ``1e-3`` is a number, not a text; a key
that is written twice is an error, where PyYAML silently takes the last one; and the bytes of a file name that is not
UTF-8 pass, as Python keeps them in a text (``surrogateescape``).
"""

from __future__ import annotations

import bisect
import copy
import math
import re
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgecls.errors import UsageError

Key = tuple[str | int, ...]

_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
_MAX_NODES = 100_000  # aliases of aliases grow exponentially; no recipe comes near this


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the changes that the module's text names."""

    NON_PRINTABLE = re.compile(  # type: ignore[misc]
        "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\udc80-\udcff\ue000-\ufffd\U00010000-\U0010ffff]"
    )


class Dumper(yaml.SafeDumper):
    """The safe dumper that knows what ``Loader`` would read as a number, so that it quotes such texts."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        """Unicode's own line breaks only survive in double quotes (PyYAML folds them elsewhere)."""
        style = '"' if set(data) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


Dumper.add_representer(str, Dumper.text)
for _cls in (Loader, Dumper):
    _cls.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def dotted(key: Key) -> str:
    """A key for a person: ``data.extra[0].path``."""
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in key).removeprefix(".")


@dataclass(frozen=True)
class Origin:
    """Where a value was written: the text for error messages and the folder that relative paths start from."""

    text: str
    folder: Path


@dataclass
class Tree:
    """Plain nested values and the origin of every key in them (``()`` is the whole)."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, Origin] = field(default_factory=dict)

    def origin(self, key: Key) -> Origin:
        """The origin of ``key`` or of the nearest parent that was written."""
        while key and key not in self.origins:
            key = key[:-1]
        return self.origins.get(key, Origin("", Path()))

    def below(self, key: Key) -> Tree:
        """The part at ``key`` as a tree of its own."""
        values: Any = self.values
        for name in key:
            values = values[name]
        length = len(key)
        origins = {k[length:]: origin for k, origin in self.origins.items() if k[:length] == key}
        return Tree(copy.deepcopy(values), origins)

    def put(self, key: Key, part: Tree) -> None:
        """Replace what is at ``key``: the inverse of ``below``."""
        *parents, last = key
        values: Any = self.values
        for name in parents:
            values = values[name]
        values[last] = part.values
        self.origins = {k: origin for k, origin in self.origins.items() if k[: len(key)] != key}
        self.origins |= {(*key, *k): origin for k, origin in part.origins.items()}

    def merge(self, other: Tree, kinds: Set[Key] = frozenset()) -> None:
        """Lay ``other`` over this: mappings merge key by key, everything else is replaced.

        Args:
            other: The later tree.
            kinds: Keys of mappings that their ``name`` tells apart (a bare name is short for such a mapping). One of
                another name replaces the earlier one, whose other keys it need not have.
        """
        self.origins.setdefault((), other.origin(()))
        self._merge(self.values, other.values, (), other, kinds)

    def _merge(
        self, into: dict[str, Any], new: dict[str, Any], at: Key, other: Tree, kinds: Set[Key]
    ) -> None:
        for name, value in new.items():
            key = (*at, name)
            if key in kinds and isinstance(into.get(name), str):
                into[name] = {"name": into[name]}
            old = into.get(name)
            if (
                isinstance(value, dict)
                and isinstance(old, dict)
                and not (key in kinds and _renamed(old, value))
            ):
                self._merge(old, value, key, other, kinds)
                continue
            into[name] = value
            for gone in [k for k in self.origins if k[: len(key)] == key]:
                del self.origins[gone]
            self.origins.update({k: o for k, o in other.origins.items() if k[: len(key)] == key})


def _renamed(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether both mappings have a ``name``, and not the same one."""
    return "name" in old and "name" in new and old["name"] != new["name"]


def read(path: Path, what: str = "recipe") -> Tree:
    """Read one YAML file whose top level is a mapping.

    Args:
        path: The file.
        what: What it holds, for error texts.

    Raises:
        UsageError: The file is missing, empty, no text, no valid YAML or no mapping; with the line where there is one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"no such {what}", where=str(path), fix="give the path of a YAML file") from None
    except IsADirectoryError:
        raise UsageError(
            f"the {what} is a folder", where=str(path), fix="give the path of a YAML file"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"the {what} is not UTF-8 text", where=f"{path}:{line}") from None
    except OSError as error:
        raise UsageError(f"cannot read the {what}: {error.strerror}", where=str(path)) from None
    tree = parse(text, str(path), path.parent)
    if not isinstance(tree.values, dict):
        raise UsageError(f"a {what} is a mapping (key: value)", where=f"{path}:1")
    if not tree.values:
        raise UsageError(f"the {what} is empty", where=str(path), fix="see recipes/ for examples")
    return tree


def parse(text: str, name: str, folder: Path, *, lines: bool = True) -> Tree:
    """Parse YAML text; origins are ``name:line``, or only ``name`` without ``lines``."""
    places = _Places(name, text if lines else None)
    try:
        loader = Loader(text)
        reader = _Reader(loader, places, folder)
        node = loader.get_single_node()
        return Tree({} if node is None else reader.value(node, ()), reader.origins)
    except yaml.reader.ReaderError as error:
        reason = f"the character U+{error.character:04X} is not allowed"
        raise UsageError(f"not valid YAML: {reason}", where=places.at(error.position)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = places.at(mark.index) if mark else name
        raise UsageError(f"not valid YAML: {error.problem or error.context}", where=where) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"not valid YAML: {reason}", where=name) from None


class _Places:
    """Says where a position in a text is: ``name:line``, with lines as editors count them.

    Args:
        name: File or override.
        text: None: places are ``name`` alone.
    """

    def __init__(self, name: str, text: str | None) -> None:
        self.name = name
        self.line_ends = None if text is None else [m.start() for m in re.finditer("\n", text)]

    def at(self, index: int) -> str:
        if self.line_ends is None:
            return self.name
        return f"{self.name}:{bisect.bisect_left(self.line_ends, index) + 1}"


class _Reader:
    """Walks the node graph once and records each key's line."""

    def __init__(self, loader: Loader, places: _Places, folder: Path) -> None:
        self.loader, self.places, self.folder = loader, places, folder
        self.origins: dict[Key, Origin] = {}
        self.open: set[int] = set()
        self.count = 0

    def where(self, node: yaml.Node) -> str:
        return self.places.at(node.start_mark.index)

    def value(self, node: yaml.Node, key: Key) -> Any:
        self.count += 1
        if self.count > _MAX_NODES or id(node) in self.open:
            raise UsageError("YAML aliases go in a circle or grow too large", where=self.where(node))
        self.origins.setdefault(key, Origin(self.where(node), self.folder))
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, key)
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return [self.value(item, (*key, i)) for i, item in enumerate(node.value)]
            return self.loader.construct_object(node, deep=True)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        written: set[Any] = set()
        for name_node, _ in node.value:
            if name_node.tag != "tag:yaml.org,2002:merge" and isinstance(name_node, yaml.ScalarNode):
                if name_node.value in written:
                    raise UsageError(f"key {name_node.value!r} is written twice", where=self.where(name_node))
                written.add(name_node.value)
        self.loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for name_node, value_node in node.value:
            # Keys are always names, so a key such as `on` or `1` is taken by its text, not by its YAML type.
            if not isinstance(name_node, yaml.ScalarNode):
                raise UsageError("a key must be a plain name", where=self.where(name_node))
            name = str(name_node.value)
            self.origins[(*key, name)] = Origin(self.where(name_node), self.folder)
            values[name] = self.value(value_node, (*key, name))
        return values


def dump(values: dict[str, Any]) -> str:
    """YAML text that ``parse`` reads back to the same values."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def line(name: str, value: Any) -> str:
    """One line ``name: value`` that ``parse`` reads back; text is quoted where it must be."""
    flow = yaml.dump([value], Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return f"{name}: {flow.strip()[1:-1]}"

"""Find one network in a checkpoint as people keep it.

A network may stand in a wrapper (``module.``, ``backbone.``, ``Student.``), its state in a dictionary beside an optimizer's
(``state_dict``), and its averaged weights beside the others (``ema``). Readers join the names of all of these with dots,
so each is a prefix. The network is where the names behind a prefix are its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from edgecls.weights.readers import State, WeightsError

PREFERRED = ("ema", "student")
"""Of several networks that fit, the one with this word in its prefix is taken: the averaged one, or the one that learned."""


def network_of(
    arrays: State,
    shapes: Mapping[str, tuple[int, ...]],
    convert: Callable[[State], State],
) -> tuple[State, str]:
    """The part of a checkpoint that is a network's state.

    Args:
        arrays: What a file holds.
        shapes: The network's state names and their shapes.
        convert: Turns names and layouts of the file's framework into ours.

    Returns:
        The state, and the prefix of its names in the file. Where nothing fits it is the whole file.

    Example:
        >>> arrays = {"epoch": np.ones(1), "model.fc.bias": np.ones(2)}
        >>> network_of(arrays, {"fc.bias": (2,)}, dict)
        ({'fc.bias': array([1., 1.])}, 'model.')

    Raises:
        WeightsError: Several networks fit, or the state is of whole numbers.
    """
    states = {prefix: convert(_behind(arrays, prefix)) for prefix in _prefixes(arrays, len(shapes) // 2)}
    fits = {
        prefix: sum(shapes.get(name) == value.shape for name, value in state.items())
        for prefix, state in states.items()
    }
    best = (
        [prefix for prefix, fit in fits.items() if fit == max(fits.values())] if any(fits.values()) else [""]
    )
    prefix = _only(best)
    _refuse_integers(states[prefix], shapes)
    return states[prefix], prefix


def _prefixes(arrays: State, least: int) -> list[str]:
    """No prefix, and those of at least so many names."""
    count: Counter[str] = Counter()
    for name in arrays:
        parts = name.split(".")
        count.update(".".join(parts[:i]) + "." for i in range(1, len(parts)))
    return ["", *(prefix for prefix, names in count.items() if names >= max(least, 1))]


def _behind(arrays: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _only(prefixes: list[str]) -> str:
    for word in PREFERRED:
        chosen = [p for p in prefixes if word in p.lower().replace(".", "_").split("_")]
        prefixes = chosen or prefixes
    if len(prefixes) > 1:
        found = ", ".join(prefix.rstrip(".") for prefix in prefixes)
        raise WeightsError(f"several networks fit: {found}; keep one of them in the file")
    return prefixes[0]


def _refuse_integers(state: State, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in shapes:
        if name in state and state[name].dtype.kind in "iu":
            raise WeightsError(
                f"{name} is of whole numbers ({state[name].dtype}), as in a quantized network: the float network's file is needed"
            )

"""The registry of augmentations: a function and its options, under the name of the recipe's key.

A new operation is one function with one options class in a file that ``edgecls.augment.settings`` imports. The recipe's
schema, ``docs/recipe.md``, the pipeline and the tests follow from its registration.

The files of operations are read with every recipe, so they import NumPy and OpenCV inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field

from edgecls._explain import Wrong
from edgecls._schema import Section

Where = Literal["image", "pixels", "batch"]
"""Where an operation applies, in the order of application.

``image``: the image as it is, uint8 [S, S, 3]. ``pixels``: the same array after all ``image`` operations, for those that
hide a part. ``batch``: an image and another one of its batch, [S, S, 3] both, together with their targets.
"""
OFF = (None, False, "none")
"""Values of a recipe's key that switch its operation off."""


Range = Annotated[list[float], Field(min_length=2, max_length=2)]
"""An option's lowest and highest value."""


def check_range(key: str, value: list[float], top: float) -> None:
    """Refuse an option that is not ``[low, high]`` with 0 < low <= high <= top.

    Raises:
        Wrong: Pydantic and ``_explain`` make it an error with file and line.
    """
    if not 0 < value[0] <= value[1] <= top:
        raise Wrong(f"{key} must be [low, high] with 0 < low <= high <= {top:g}, got {value}", key)


class Moment(NamedTuple):
    """What an operation is told besides its image, options and random numbers.

    Attributes:
        epoch: Number of the epoch, from 0.
        epochs: Epochs of the whole training.
        fill: Color of pixels that have none, 0..255: the mean color that the network's normalization subtracts.
    """

    epoch: int = 0
    epochs: int = 1
    fill: tuple[int, ...] = (124, 116, 104)  # ImageNet's


@dataclass(frozen=True)
class Operation:
    """A registered augmentation.

    Attributes:
        name: Key of the recipe's ``augment`` section, and name of the operation's random numbers.
        where: Where it applies.
        function: ``(image, options, rng, moment) -> image``; for a batch
            ``(image, partner, options, rng, out) -> share``, which writes float32 into ``out`` and returns the share of
            ``image`` in it (``edgecls.augment.mix``). It may change its arguments in place.
        annotation: Type of the key.
        default: Value where the key is not written.
        off: Value that switches it off.
        description: What it does, for ``docs/recipe.md``.
    """

    name: str
    where: Where
    function: Callable[..., Any]
    annotation: Any
    default: Any
    off: Any
    description: str

    @property
    def field(self) -> tuple[Any, Any]:
        """The recipe's key, as ``pydantic.create_model`` takes it."""
        return self.annotation, Field(default=self.default, description=self.description)


START = Moment()
"""The first epoch."""
OPERATIONS: dict[str, Operation] = {}
"""Every operation by name. Those of one place are applied in this order."""

Function = TypeVar("Function", bound=Callable[..., Any])


def operation(
    name: str, where: Where, options: Any, *, paper: str = "", default: Any = None, description: str = ""
) -> Callable[[Function], Function]:
    """Register the decorated function as an augmentation.

    Args:
        name: Key of the recipe.
        where: Where it applies.
        options: Class of its options, a ``Section`` whose docstring says what the operation does. It is off where
            the key is null or absent. An old key without a section of its own gives the type of its value.
        paper: Where it was published.
        default: Value where the key is not written.
        description: In place of the docstring of ``options``.

    Raises:
        ValueError: The name is taken.
    """
    is_section = isinstance(options, type) and issubclass(options, Section)
    if is_section:
        text = (options.__doc__ or "").partition("\n")[0].rstrip(".")
        description = (
            f"{text[:1].lower()}{text[1:]}{f' ({paper})' if paper else ''}; null: off, `{{}}`: as published"
        )

    def register(function: Function) -> Function:
        if name in OPERATIONS:
            raise ValueError(f"two operations are named {name!r}")
        annotation = options | None if is_section else options
        off = None if is_section else False if options is bool else "none"
        OPERATIONS[name] = Operation(name, where, function, annotation, default, off, description)
        return function

    return register

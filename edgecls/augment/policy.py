"""Operations that change color and geometry at random: AutoAugment, RandAugment, TrivialAugment, 3-Augment, jitter.

Each decides for one image and computes only what it has chosen. A transform that draws a number takes it from a
``Scale``: from the end that changes nothing (at strength 0) to the end that changes most (at strength 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from edgecls._schema import Section
from edgecls.augment.registry import Moment, Range, check_range, operation

if TYPE_CHECKING:
    import numpy as np

Flavor = Literal["standard", "paddle"]
_PADDLE_FILL = (128, 128, 128)


class Scale(NamedTuple):
    """Amounts of a transform by strength.

    Attributes:
        weakest: Amount at strength 0.
        strongest: Amount at strength 1.
        signed: The amount is negative as often as positive.
    """

    weakest: float
    strongest: float
    signed: bool = False

    def at(self, strength: float, rng: np.random.Generator) -> float:
        """The amount at a strength of 0..1; its sign is drawn."""
        amount = self.weakest + strength * (self.strongest - self.weakest)
        return -amount if self.signed and rng.random() < 0.5 else amount


Scales = Mapping[str, Scale]
"""Scales by the name of a transform."""

# posterize drops the fraction of its amount, so these half bits round.
_AUTOAUGMENT: Scales = {
    "shear_x": Scale(0, 0.3, signed=True),
    "shear_y": Scale(0, 0.3, signed=True),
    "translate_x": Scale(0, 150 / 331, signed=True),
    "translate_y": Scale(0, 150 / 331, signed=True),
    "rotate": Scale(0, 30, signed=True),
    "brightness": Scale(0, 0.9, signed=True),
    "color": Scale(0, 0.9, signed=True),
    "contrast": Scale(0, 0.9, signed=True),
    "sharpness": Scale(0, 0.9, signed=True),
    "posterize": Scale(8.5, 4.5),
    "solarize": Scale(256, 0),
    "autocontrast": Scale(1, 1),
    "equalize": Scale(1, 1),
    "invert": Scale(1, 1),
}
_AUTOAUGMENT_PADDLE: Scales = {**_AUTOAUGMENT, "rotate": Scale(0, 30)}
_RANDAUGMENT: Scales = {
    "identity": Scale(0, 0),
    **{name: scale for name, scale in _AUTOAUGMENT.items() if name != "invert"},
    "autocontrast": Scale(0, 1),
    "equalize": Scale(0, 1),
}
_RANDAUGMENT_PADDLE: Scales = {
    **_AUTOAUGMENT_PADDLE,
    "posterize": Scale(0, 4),
    "solarize": Scale(0, 256),
}
_TRIVIALAUGMENT: Scales = {
    "identity": Scale(0, 0),
    **{name: scale for name, scale in _AUTOAUGMENT.items() if name != "invert"},
    "shear_x": Scale(0, 0.99, signed=True),
    "shear_y": Scale(0, 0.99, signed=True),
    "translate_x": Scale(0, 32 / 224, signed=True),
    "translate_y": Scale(0, 32 / 224, signed=True),
    "rotate": Scale(0, 135, signed=True),
    **{name: Scale(0, 0.99, signed=True) for name in ("brightness", "color", "contrast", "sharpness")},
    "posterize": Scale(8.5, 2.5),
}
_AUTOAUGMENT_LEVELS, _TRIVIALAUGMENT_LEVELS = 10, 31

#: The sub-policies that were found on ImageNet. Each has two steps: transform, probability and level of 0..9.
IMAGENET_POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


class AutoAugment(Section):
    """One of 25 pairs of transforms that were found on ImageNet."""

    flavor: Flavor = Field(
        default="standard",
        description="`paddle`: as PaddleClas, which turns in one direction only and fills with gray 128",
    )


@operation("autoaugment", "image", AutoAugment, paper="https://arxiv.org/abs/1805.09501")
def autoaugment(
    image: np.ndarray, options: AutoAugment, rng: np.random.Generator, moment: Moment
) -> np.ndarray:
    """Draw a sub-policy; each of its two steps happens with its probability, at its level."""
    paddle = options.flavor == "paddle"
    scales, fill = (_AUTOAUGMENT_PADDLE, _PADDLE_FILL) if paddle else (_AUTOAUGMENT, moment.fill)
    for name, probability, level in IMAGENET_POLICY[rng.integers(len(IMAGENET_POLICY))]:
        if rng.random() < probability:
            image = _transformed(image, name, scales, level / (_AUTOAUGMENT_LEVELS - 1), rng, fill)
    return image


class RandAugment(Section):
    """Several transforms out of 14, all of the same strength."""

    num_layers: int = Field(default=2, ge=1, le=14, description="transforms that an image goes through")
    magnitude: float = Field(
        default=5, ge=0, le=10, description="strength of the transforms, of 10; 0 changes nothing"
    )
    flavor: Flavor = Field(
        default="standard",
        description="`paddle`: the ranges of PaddleClas, where `posterize` and `solarize` get weaker as the"
        " magnitude grows (images are black at 2 and below), turns have one direction, and gray 128 fills",
    )


@operation("randaugment", "image", RandAugment, paper="https://arxiv.org/abs/1909.13719")
def randaugment(
    image: np.ndarray, options: RandAugment, rng: np.random.Generator, moment: Moment
) -> np.ndarray:
    """Draw ``num_layers`` transforms, each anew from all of them."""
    paddle = options.flavor == "paddle"
    scales, fill = (_RANDAUGMENT_PADDLE, _PADDLE_FILL) if paddle else (_RANDAUGMENT, moment.fill)
    names = list(scales)
    for number in rng.integers(len(names), size=options.num_layers):
        image = _transformed(image, names[number], scales, options.magnitude / 10, rng, fill)
    return image


class TrivialAugment(Section):
    """One transform out of 14 at a random strength (TrivialAugmentWide); nothing to tune."""


@operation("trivialaugment", "image", TrivialAugment, paper="https://arxiv.org/abs/2103.10158")
def trivialaugment(
    image: np.ndarray, options: TrivialAugment, rng: np.random.Generator, moment: Moment
) -> np.ndarray:
    """Draw a transform and one of 31 levels."""
    names = list(_TRIVIALAUGMENT)
    name, level = names[rng.integers(len(names))], rng.integers(_TRIVIALAUGMENT_LEVELS)
    return _transformed(image, name, _TRIVIALAUGMENT, level / (_TRIVIALAUGMENT_LEVELS - 1), rng, moment.fill)


class ThreeAugment(Section):
    """Gray, solarized or blurred, one of the three (3-Augment)."""

    solarize_threshold: float = Field(
        default=128, ge=0, le=256, description="values from here on are inverted; 256: none"
    )
    blur_sigma: Range = Field(
        default=[0.1, 2.0],
        description="lowest and highest deviation of the Gaussian blur, pixels of an image of 224",
    )

    @model_validator(mode="after")
    def _ordered(self) -> ThreeAugment:
        check_range("blur_sigma", self.blur_sigma, 100)
        return self


@operation("three_augment", "image", ThreeAugment, paper="https://arxiv.org/abs/2204.07118")
def three_augment(
    image: np.ndarray, options: ThreeAugment, rng: np.random.Generator, moment: Moment
) -> np.ndarray:
    """Draw one of the three, each as often."""
    from edgecls.augment import transforms

    match rng.integers(3):
        case 0:
            return transforms.gray(image)
        case 1:
            return transforms.solarize(image, options.solarize_threshold, moment.fill)
        case _:
            low, high = options.blur_sigma
            return transforms.blur(image, rng.uniform(low, high) * len(image) / 224)


Deviation = Annotated[float, Field(ge=0, le=1)]


class ColorJitter(Section):
    """Random brightness, contrast, saturation and hue, in random order."""

    brightness: Deviation = Field(default=0.3, description="the factor is drawn from 1 - b to 1 + b; 0: off")
    contrast: Deviation = Field(default=0.3, description="as `brightness`")
    saturation: Deviation = Field(default=0.3, description="as `brightness`")
    hue: float = Field(
        default=0.0, ge=0, le=0.5, description="the turn of the color circle is drawn from -h to h; 0: off"
    )


@operation("color_jitter", "image", ColorJitter, paper="https://arxiv.org/abs/2204.07118")
def color_jitter(
    image: np.ndarray, options: ColorJitter, rng: np.random.Generator, moment: Moment
) -> np.ndarray:
    """Draw the four amounts and their order."""
    from edgecls.augment import transforms

    widths = (options.brightness, options.contrast, options.saturation, options.hue)
    amounts = [rng.uniform(-width, width) for width in widths]
    for number in rng.permutation(4):
        if widths[number]:
            if number == 3:
                image = transforms.hue(image, amounts[3])
            else:
                change = (transforms.brightness, transforms.contrast, transforms.color)[number]
                image = change(image, amounts[number], moment.fill)
    return image


def _transformed(
    image: np.ndarray,
    name: str,
    scales: Scales,
    strength: float,
    rng: np.random.Generator,
    fill: tuple[int, ...],
) -> np.ndarray:
    from edgecls.augment import transforms

    return transforms.TRANSFORMS[name](image, scales[name].at(strength, rng), fill)

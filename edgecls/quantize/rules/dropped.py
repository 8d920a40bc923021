"""Layers that act in training alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras import layers

from edgecls.quantize.registry import lowers

if TYPE_CHECKING:
    from edgecls.quantize.lower import Lowering

NAMES = [
    "ActivityRegularization",
    "AlphaDropout",
    "AugMix",
    "CutMix",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "SpatialDropout1D",
    "SpatialDropout2D",
]
CLASSES = tuple(getattr(layers, name) for name in NAMES if hasattr(layers, name))


@lowers(*CLASSES)
def _dropped(lowering: Lowering, layer: Any, inputs: Any) -> Any:
    return inputs

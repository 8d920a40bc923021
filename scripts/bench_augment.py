"""Speed of the augmentations in one run, side by side: ours, Pillow's and plain OpenCV's.

    python scripts/bench_augment.py [--rounds 7] [--write]

The images are 224 x 224 pixels, those of the whole chain 500 x 375 and decoded. A figure is images a second and core: of
the processor time of one thread, the best of the rounds, in which all candidates take turns. ``--write`` puts the tables
into docs/augment.md. The exit code is 1 if the whole chain makes less than 610 images a second and core (twice what
torchvision publishes) or is less than twice as fast as the same chain in Pillow.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import marked
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from edgecls.augment import OPERATIONS, Augment, Chain, Mixer, policy, transforms
from edgecls.augment.compose import generator
from edgecls.augment.registry import START
from edgecls.augment.settings import only
from edgecls.environment import cpu_model

PAGE = Path(__file__).parents[1] / "docs" / "augment.md"
BEGIN, END = "<!-- measured by scripts/bench_augment.py -->", "<!-- end -->"
SIZE, PHOTO, COUNT = 224, (375, 500), 64
BATCH = 32
TORCHVISION = 305  # images/s and core that torchvision publishes for the whole chain, on another processor
MIN_SPEED, MIN_RATIO = 2 * TORCHVISION, 2.0
FILL = START.fill
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
Work = Callable[[int], Any]
"""Makes the image of a number."""

AMOUNTS = {
    "identity": 0, "shear_x": 0.15, "shear_y": 0.15, "translate_x": 0.2, "translate_y": 0.2, "rotate": 15,
    "brightness": 0.45, "color": 0.45, "contrast": 0.45, "sharpness": 0.45, "posterize": 6, "solarize": 128,
    "invert": 1, "autocontrast": 1, "equalize": 1,
}  # fmt: skip


def pillow_affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL
    )


PILLOW: dict[str, Callable[[Image.Image, float, Any], Image.Image]] = {
    "identity": lambda image, amount, fill: image,
    "shear_x": lambda image, amount, fill: pillow_affine(image, 1, amount, 0, 0, 1, 0),
    "shear_y": lambda image, amount, fill: pillow_affine(image, 1, 0, 0, amount, 1, 0),
    "translate_x": lambda image, amount, fill: pillow_affine(image, 1, 0, amount * image.width, 0, 1, 0),
    "translate_y": lambda image, amount, fill: pillow_affine(image, 1, 0, 0, 0, 1, amount * image.height),
    "rotate": lambda image, amount, fill: image.rotate(amount, Image.Resampling.BILINEAR, fillcolor=FILL),
    "brightness": lambda image, amount, fill: ImageEnhance.Brightness(image).enhance(1 + amount),
    "contrast": lambda image, amount, fill: ImageEnhance.Contrast(image).enhance(1 + amount),
    "color": lambda image, amount, fill: ImageEnhance.Color(image).enhance(1 + amount),
    "sharpness": lambda image, amount, fill: ImageEnhance.Sharpness(image).enhance(1 + amount),
    "posterize": lambda image, amount, fill: ImageOps.posterize(image, int(amount)),
    "solarize": lambda image, amount, fill: ImageOps.solarize(image, int(amount)),
    "invert": lambda image, amount, fill: ImageOps.invert(image),
    "autocontrast": lambda image, amount, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, amount, fill: ImageOps.equalize(image),
}


def opencv_blend(image: np.ndarray, other: np.ndarray, amount: float) -> np.ndarray:
    return cv2.addWeighted(image, 1 + amount, other, -amount, 0)


def opencv_warp(image: np.ndarray, matrix: Any) -> np.ndarray:
    matrix = np.asarray(matrix, np.float64)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR, borderValue=FILL)


def opencv_gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


OPENCV: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "identity": lambda image, amount: image,
    "shear_x": lambda image, amount: opencv_warp(image, [[1, amount, 0], [0, 1, 0]]),
    "shear_y": lambda image, amount: opencv_warp(image, [[1, 0, 0], [amount, 1, 0]]),
    "translate_x": lambda image, amount: opencv_warp(image, [[1, 0, amount * SIZE], [0, 1, 0]]),
    "translate_y": lambda image, amount: opencv_warp(image, [[1, 0, 0], [0, 1, amount * SIZE]]),
    "rotate": lambda image, amount: opencv_warp(
        image, cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), amount, 1)
    ),
    "brightness": lambda image, amount: cv2.convertScaleAbs(image, alpha=1 + amount),
    "contrast": lambda image, amount: opencv_blend(
        image, np.full_like(image, opencv_gray(image).mean()), amount
    ),
    "color": lambda image, amount: opencv_blend(image, opencv_gray(image), amount),
    "sharpness": lambda image, amount: opencv_blend(
        image, cv2.filter2D(image, -1, transforms._SMOOTH), amount
    ),
    "posterize": lambda image, amount: image & np.uint8(256 - 2 ** (8 - amount)),
    "solarize": lambda image, amount: np.where(image < amount, image, 255 - image),
    "invert": lambda image, amount: cv2.bitwise_not(image),
    "autocontrast": lambda image, amount: cv2.merge(
        [cv2.normalize(c, None, 0, 255, cv2.NORM_MINMAX) for c in cv2.split(image)]
    ),
    "equalize": lambda image, amount: cv2.merge([cv2.equalizeHist(c) for c in cv2.split(image)]),
}


def main() -> int:
    """Measure, print, and say whether the whole chain is fast enough."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/augment.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    images, photos = pictures(rng, (SIZE, SIZE)), pictures(rng, PHOTO)
    whole = chain_table(photos, options.rounds)
    speeds = [row[1] for row in whole]
    text = "\n".join(
        [
            f"{cpu_model()}, one thread, OpenCV {cv2.__version__}, Pillow {Image.__version__}. Images a second and core.",
            "",
            "| crop, flip, AutoAugment, erase and normalize, decoding left out | images/s |",
            "|---|---|",
            *(f"| {name} | {speed:,.0f} |" for name, speed in whole),
            "",
            "| transform | ours | Pillow | OpenCV |",
            "|---|---|---|---|",
            *transform_rows(images, options.rounds),
            "",
            "| operation, draws included | ours | Pillow |",
            "|---|---|---|",
            *operation_rows(images, options.rounds),
        ]
    )
    print(text)
    if options.write:
        marked.rewrite(PAGE, BEGIN, END, text)
    ratio = speeds[0] / speeds[-1]
    print(f"ours: {speeds[0]:,.0f} images/s and core (at least {MIN_SPEED}), {ratio:.1f} times Pillow's")
    return 0 if speeds[0] >= MIN_SPEED and ratio >= MIN_RATIO else 1


def pictures(rng: np.random.Generator, shape: tuple[int, int]) -> list[np.ndarray]:
    """Images with large forms, fine structure and some noise, as photographs have."""
    made = []
    for _ in range(COUNT):
        layers = [
            cv2.resize(rng.normal(0, width, (n, n, 3)), shape[::-1], interpolation=cv2.INTER_CUBIC)
            for n, width in ((4, 50), (16, 25), (64, 12), (200, 5))
        ]
        made.append(np.clip(120 + sum(layers), 0, 255).astype(np.uint8))
    return made


def fastest(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """Images a second of the process's time, the best of ``rounds``; all take turns."""
    best = dict.fromkeys(works, 0.0)
    for _ in range(rounds):
        for name, work in works.items():
            started = time.process_time()
            for number in range(COUNT):
                work(number)
            best[name] = max(best[name], COUNT / max(time.process_time() - started, 1e-9))
    return best


def transform_rows(images: list[np.ndarray], rounds: int) -> list[str]:
    pillows = [Image.fromarray(image) for image in images]
    rows = []
    for name, amount in AMOUNTS.items():
        if name == "identity":
            continue
        ours, pillow, opencv = transforms.TRANSFORMS[name], PILLOW[name], OPENCV[name]
        works: dict[str, Work] = {
            "ours": lambda i, f=ours, a=amount: f(images[i], a, FILL),
            "pillow": lambda i, f=pillow, a=amount: f(pillows[i], a, FILL),
            "opencv": lambda i, f=opencv, a=amount: f(images[i], a),
        }
        rows.append(row(name, fastest(works, rounds)))
    return rows


def row(name: str, speeds: dict[str, float], columns: int = 3) -> str:
    cells = [f"{speed:,.0f}" for speed in speeds.values()]
    return f"| `{name}` | " + " | ".join(cells + ["-"] * (columns - len(cells))) + " |"


def operation_rows(images: list[np.ndarray], rounds: int) -> list[str]:
    """Each registered operation with its defaults, through ``Chain`` or ``Mixer``, as training runs it."""
    pillows = [Image.fromarray(image) for image in images]
    batch = np.stack(images[:BATCH])
    targets = np.eye(BATCH, dtype=np.float32)
    rows = []
    for name, op in OPERATIONS.items():
        on = {"flip": "horizontal", "rotate90": True}.get(name, {})
        settings = Augment.model_validate(only(**{name: on}))
        if op.where == "batch":
            mixer = Mixer(settings)
            speeds = fastest({"ours": lambda i, m=mixer: m(batch, targets, i)}, rounds)
            rows.append(row(name, {"ours": speeds["ours"] * BATCH}, 2))
            continue
        chain = Chain(settings)
        works: dict[str, Work] = {"ours": lambda i, c=chain: c(images[i], i)}
        if name in ("autoaugment", "randaugment", "trivialaugment", "color_jitter"):
            options = getattr(settings, name)
            works["pillow"] = lambda i, o=op, v=options: on_pillow(o.function, pillows[i], v, i)
        rows.append(row(name, fastest(works, rounds), 2))
    return rows


def on_pillow(function: Callable[..., Any], image: Image.Image, options: Any, number: int) -> Image.Image:
    """An operation of ours with Pillow's transforms: the same decisions."""
    with ExitStack() as patched:
        patched.enter_context(mock.patch.object(transforms, "TRANSFORMS", PILLOW))
        if function is policy.color_jitter:
            for name in ("brightness", "contrast", "color"):
                patched.enter_context(mock.patch.object(transforms, name, PILLOW[name]))
        return function(image, options, generator(0, 0, number, "bench"), START)


# The whole chain -------------------------------------------------------------------------------------------------

SETTINGS = {"crop_scale": [0.08, 1.0], "flip": "horizontal", "autoaugment": {}, "random_erasing": {}}
_NORMALIZED = ((np.arange(256, dtype=np.float32)[:, None] / 255 - MEAN) / STD)[None].astype(np.float32)


def chain_table(photos: list[np.ndarray], rounds: int) -> list[tuple[str, float]]:
    """Speed of the whole chain: ours, ours inside tf.data, Pillow's."""
    chain = Chain(Augment.model_validate(only(**SETTINGS)))
    pillows = [Image.fromarray(photo) for photo in photos]
    speeds = fastest(
        {
            "ours": lambda i: ours(chain, photos[i], i),
            "pillow": lambda i: as_torchvision(chain, pillows[i], i),
        },
        rounds,
    )
    return [
        ("ours", speeds["ours"]),
        ("ours in the pipeline, with tf.data and batches of float32", in_pipeline(photos, rounds)),
        ("Pillow and NumPy, as torchvision does it", speeds["pillow"]),
    ]


def ours(chain: Chain, photo: np.ndarray, number: int) -> np.ndarray:
    top, left, height, width = chain.window(*photo.shape[:2], number).tolist()
    window = photo[top : top + height, left : left + width]
    image = chain(cv2.resize(window, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), number)
    return cv2.LUT(image, _NORMALIZED)


def as_torchvision(chain: Chain, photo: Image.Image, number: int) -> np.ndarray:
    """The same decisions in torchvision's way: Pillow on the image, then floats [3, S, S], normalized and erased."""
    top, left, height, width = chain.window(photo.height, photo.width, number).tolist()
    box = (left, top, left + width, top + height)
    image = photo.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    rng = generator(0, 0, number, "bench")
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = on_pillow(policy.autoaugment, image, policy.AutoAugment(), number)
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32) / 255
    pixels = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    if rng.random() < 0.5:
        side = int(SIZE * rng.uniform(0.14, 0.6))
        top, left = rng.integers(SIZE - side, size=2)
        pixels[:, top : top + side, left : left + side] = 0
    return pixels


def in_pipeline(photos: list[np.ndarray], rounds: int) -> float:
    """Images a second and core of ``edgecls.data.pipeline`` on photos in memory."""
    from edgecls.data.pipeline import Batches
    from edgecls.data.preprocess import Preprocess
    from edgecls.data.split import Split

    names = [str(i) for i in range(4 * COUNT)]
    shapes = np.full((len(names), 3), (*PHOTO, 3))
    split = Split(names, np.zeros(len(names), int), names, shapes, images=np.stack(photos * 4))
    augment = Augment.model_validate(only(**SETTINGS))
    feed = Batches(split, Preprocess(SIZE), BATCH, training=True, augment=augment, classes=10, epochs=99)
    best = 0.0
    for epoch in range(rounds + 1):
        started = time.process_time()
        count = sum(len(pixels) for pixels, _ in feed.epoch(epoch))
        best = max(best, count / (time.process_time() - started)) if epoch else best
    return best


if __name__ == "__main__":
    raise SystemExit(main())

"""The input pipeline in one run, side by side with what others do, on real-size JPEGs on disk; and its memory.

    python scripts/bench_pipeline.py [--photos FOLDER] [--images 2000] [--rounds 5] [--memory] [--write]

Every way makes the same batches: decode, random resized crop to 224 pixels, mirror, normalize to float32, 64 images a
batch, with a thread or process for each core. ``tf.io.decode_and_crop_jpeg`` only decodes the windows: it is the limit.
The pipeline of edgecls gives bytes, which the network normalizes: one row is without that and one with it.
The ways take turns in each round, so that a disturbance slows all of them; a ratio is the median of the rounds' ratios.

The files are cut from mosaics of real photographs in ``--photos``, 500 x 375 pixels as ImageNet has them, so that their
detail, and with it the work of decoding, is that of photographs.

``--memory`` measures, in place of that, a training from a list of 1.3 million lines: the time until the list is read and
until the first batch, and how much memory 200,000 images add. Its files are small, so that this takes minutes, and
come again and again under other numbers. A few are torn.

Its times are processor times of all threads, so that it may run beside other work. ``--write`` puts what was measured
into docs/time_and_memory.md.

The exit code is 1 if edgecls is below 85 % of bare decoding, not faster than Pillow in processes and OpenCV in threads,
or if memory grows by more than 200 MiB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import marked
import numpy as np
from PIL import Image

PAGE = Path(__file__).parents[1] / "docs" / "time_and_memory.md"
SPEED_MARKS = "<!-- speed: scripts/bench_pipeline.py --write -->", "<!-- end of speed -->"
MEMORY_MARKS = "<!-- memory: scripts/bench_pipeline.py --memory --write -->", "<!-- end of memory -->"
SIZE, BATCH = 224, 64
SMALL, SMALLER = 32, 0.128  # size of the input and of the files where memory is measured: 64 x 48 pixels
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SHAPE = (375, 500)
LEAST_OF_BARE = 0.85
LINES, SEEN, MOST_GROWTH = 1_300_000, 200_000, 200  # images and MiB
Way = Callable[[list[str], np.ndarray, int], Iterator[int]]
"""(files, windows, workers) to the number of images in each batch."""


def make_photos(source: Path, folder: Path, count: int, scale: float = 1.0) -> list[str]:
    """Write ``count`` JPEGs that are cut from mosaics of the photographs in ``source``, and made smaller by ``scale``."""
    rng = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in sorted(source.glob("*.jpg"))]
    if not photos:
        raise SystemExit(f"no .jpg files in {source}: name a folder of photographs with --photos")
    height, width = SHAPE
    files = []
    for number in range(count):
        mosaic = Image.new("RGB", (width, height))
        for top in range(0, height, 188):
            for left in range(0, width, 250):
                photo = photos[rng.integers(len(photos))]
                photo = photo if min(photo.size) >= 250 else photo.resize((250, 250))
                x, y = (int(rng.integers(side - 250 + 1)) for side in photo.size)
                mosaic.paste(photo.crop((x, y, x + 250, y + 188)), (left, top))
        files.append(str(folder / f"{number:05}.jpg"))
        mosaic.resize((round(width * scale), round(height * scale))).save(files[-1], quality=92)
    return files


def windows(count: int) -> np.ndarray:
    """Random crops: top, left, height, width."""
    rng = np.random.default_rng(1)
    area = rng.uniform(*SCALE, count) * np.prod(SHAPE)
    ratio = rng.uniform(*RATIO, count)
    height = np.clip(np.sqrt(area / ratio), 1, SHAPE[0]).astype(np.int32)
    width = np.clip(np.sqrt(area * ratio), 1, SHAPE[1]).astype(np.int32)
    top, left = (
        (rng.random(count) * (side - part + 1)).astype(np.int32)
        for side, part in zip(SHAPE, (height, width), strict=True)
    )
    return np.stack([top, left, height, width], 1)


def bare(files: list[str], crops: np.ndarray, workers: int) -> Iterator[int]:
    """TensorFlow's decoder alone."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((files, crops[: len(files)]))
    data = data.map(
        lambda file, crop: tf.shape(tf.io.decode_and_crop_jpeg(tf.io.read_file(file), crop, channels=3)),
        workers,
        deterministic=True,
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    for _ in data.with_options(options):
        yield 1


def edgecls(files: list[str], crops: np.ndarray, workers: int) -> Iterator[int]:
    """Our pipeline as a training uses it: batches of bytes. It draws its own windows."""
    for pixels, _ in _feed(files):
        yield len(pixels)


_batch = np.empty((BATCH, SIZE, SIZE, 3), np.float32)  # memory that every way has: fresh memory costs time


def edgecls_normalized(files: list[str], crops: np.ndarray, workers: int) -> Iterator[int]:
    """Our pipeline, and what the network's first layer does added here, as all others do it."""
    for pixels, _ in _feed(files):
        rows = np.asarray(memoryview(pixels)).reshape(-1, SIZE, 3)
        _normalized(rows, _batch.reshape(-1, SIZE, 3)[: len(rows)])
        yield len(pixels)


_feeds: dict[int, Any] = {}


def _feed(files: list[str]) -> Iterator[tuple[Any, Any]]:
    from edgecls.data.pipeline import Batches
    from edgecls.data.preprocess import Preprocess
    from edgecls.data.split import Split
    from edgecls.recipe import Augment

    if len(files) not in _feeds:
        count = len(files)
        split = Split(
            names=files,
            labels=np.zeros(count, np.int64),
            digests=files,
            shapes=np.tile(np.array([*SHAPE, 3], np.int32), (count, 1)),
            files=files,
            jpeg=np.ones(count, bool),
            in_memory=False,
        )
        augment = Augment(crop_scale=list(SCALE), crop_ratio=list(RATIO), flip="horizontal")
        feed = Batches(
            split, Preprocess(SIZE), BATCH, training=True, augment=augment, drop_remainder=False, cast=False
        )
        _feeds[count] = feed.dataset()  # one pass: an endless one would have its first batches ready
    return iter(_feeds[len(files)])


_LEVELS = ((np.arange(256, dtype=np.float32)[:, None] / 255 - MEAN) / STD)[None]  # float32 [1, 256, 3]


def _normalized(pixels: np.ndarray, out: np.ndarray) -> None:
    """Normalize rows of pixels in one pass; NumPy would need three."""
    cv2.LUT(pixels, _LEVELS, out)


def opencv(files: list[str], crops: np.ndarray, workers: int) -> Iterator[int]:
    """OpenCV in threads, each of which makes images of one batch."""
    cv2.setNumThreads(1)

    def make(number: int, out: np.ndarray) -> None:
        top, left, height, width = crops[number].tolist()
        photo = cv2.cvtColor(
            cv2.imdecode(np.fromfile(files[number], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
        )
        pixels = cv2.resize(
            photo[top : top + height, left : left + width], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR
        )
        _normalized(cv2.flip(pixels, 1) if number % 2 else pixels, out)

    with ThreadPoolExecutor(workers) as pool:
        for numbers in _batches(len(files)):
            list(pool.map(make, numbers, _batch[: len(numbers)]))
            yield len(numbers)


_memory: list[SharedMemory] = []
_PATIENCE_S = 120  # for a batch of a worker: an error is better than a wait without end


def _attach(names: list[str]) -> None:
    _memory[:] = [SharedMemory(name) for name in names]


def _pillow_batch(slot: int, files: list[str], crops: np.ndarray, numbers: list[int]) -> int:
    """One batch as a worker of a DataLoader with torchvision's transforms makes it, into shared memory."""
    batch = np.ndarray((len(numbers), SIZE, SIZE, 3), np.float32, _memory[slot].buf)
    for k, number in enumerate(numbers):
        top, left, height, width = crops[k].tolist()
        photo = Image.open(files[k]).convert("RGB").crop((left, top, left + width, top + height))
        photo = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else photo
        _normalized(np.asarray(photo), batch[k])
    return len(numbers)


def pillow(files: list[str], crops: np.ndarray, workers: int) -> Iterator[int]:
    """Pillow in processes, each of which makes whole batches."""
    jobs = _batches(len(files))
    size = 4 * BATCH * SIZE * SIZE * 3
    memory = [SharedMemory(create=True, size=size) for _ in range(2 * workers)]
    context = multiprocessing.get_context(
        "spawn"
    )  # a forked child would have threads of OpenCV that do not run
    try:
        with ProcessPoolExecutor(workers, context, _attach, ([m.name for m in memory],)) as pool:
            list(pool.map(_ready, range(workers), timeout=_PATIENCE_S))  # starting is not measured
            yield 0
            parts = [([files[n] for n in numbers], crops[numbers], numbers) for numbers in jobs]
            waiting = [
                pool.submit(_pillow_batch, k % len(memory), *part)
                for k, part in enumerate(parts[: len(memory)])
            ]
            for k in range(len(parts)):
                yield waiting[k].result(_PATIENCE_S)
                if len(waiting) < len(parts):
                    waiting.append(
                        pool.submit(_pillow_batch, len(waiting) % len(memory), *parts[len(waiting)])
                    )
    finally:
        for each in memory:
            each.close()
            each.unlink()


def _ready(_: int) -> None:
    time.sleep(0.2)


def _batches(count: int) -> list[list[int]]:
    return [list(range(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]


WAYS: dict[str, Way] = {
    "bare tf.io.decode_and_crop_jpeg": bare,
    "edgecls, bytes": edgecls,
    "edgecls, normalized": edgecls_normalized,
    "OpenCV in threads": opencv,
    "Pillow in processes": pillow,
}


def speed(way: Way, files: list[str], crops: np.ndarray, workers: int) -> float:
    """Images a second of one pass over the files; the start of processes is not counted."""
    made, started = 0, time.perf_counter()
    for count in way(files, crops, workers):
        if count == 0:
            started = time.perf_counter()
        made += count
    return made / (time.perf_counter() - started)


def compare(files: list[str], rounds: int) -> tuple[str, bool]:
    """Measure all ways by turns: a table, and whether edgecls is fast enough."""
    from edgecls.data.images import threads
    from edgecls.environment import cpu_model

    workers, crops = threads(), windows(len(files))
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    for way in WAYS.values():
        speed(way, files[: 2 * BATCH], crops, workers)  # files are in the page cache, functions are traced
    for _ in range(rounds):
        for name, way in WAYS.items():
            speeds[name].append(speed(way, files, crops, workers))
    first = next(iter(WAYS))
    ratios, rows = {}, []
    for name, values in speeds.items():
        ratios[name] = statistics.median(a / b for a, b in zip(values, speeds[first], strict=True))
        rows.append(
            f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} to {max(values):,.0f} "
            f"| {ratios[name]:.2f} |"
        )
    table = "\n".join(
        [
            f"{cpu_model()}, {workers} cores, {len(files):,} JPEGs of {SHAPE[1]} x {SHAPE[0]} pixels, {rounds} rounds.",
            "",
            "| | images/s, median | from, to | of bare decoding |",
            "|---|--:|--:|--:|",
            *rows,
        ]
    )
    del ratios[first], ratios["edgecls, bytes"]
    ours = ratios.pop("edgecls, normalized")
    return table, ours >= LEAST_OF_BARE and ours > max(ratios.values())


def memory(files: list[str], folder: Path) -> tuple[str, bool]:
    """Train on a long list without a network: times and memory as text, and whether memory stays flat."""
    from edgecls.data.pipeline import Batches
    from edgecls.data.preprocess import Preprocess
    from edgecls.data.sources import load_dataset
    from edgecls.recipe import Augment, Data

    for file in files[::200]:
        content = Path(file).read_bytes()
        Path(file).write_bytes(content[: len(content) // 2])
    paths = _long_lists(files, folder)
    started = time.process_time()
    data = load_dataset(Data(source="list", max_bad_fraction=0.05, **paths))
    read = time.process_time()
    augment = Augment(crop_scale=list(SCALE), flip="horizontal")
    feed = Batches(data.train, Preprocess(SMALL), BATCH, training=True, augment=augment, cast=False)
    at_start = _resident()
    seen, first, least, most = 0, 0.0, 0.0, 0.0
    for pixels, _ in feed.epoch(0):
        seen += len(pixels)
        first = first or time.process_time()
        if seen % (250 * BATCH) == 0:
            now = _resident()
            least, most = least or now, max(most, now)
            print(f"{seen} images: {now:.0f} MiB", flush=True)
        if seen >= SEEN:
            break
    for note in data.notes:
        print(f"data: {note}")
    growth = most - least
    text = (
        f"A list of {LINES:,} lines was read in {read - started:.1f} s of processor time, and the first batch came "
        f"{first - read:.1f} s later. The process had {at_start:,.0f} MiB when the list was read, and grew by "
        f"{growth:.0f} MiB from image {250 * BATCH:,} to image {seen:,}. {len(data.train.bad):,} torn photos were met "
        "and replaced on the way."
    )
    return text, growth <= MOST_GROWTH


def _long_lists(files: list[str], folder: Path) -> dict[str, str]:
    """Lists to train on and to validate with, as paths of ``recipe.Data``; the last files are held out."""
    held_out = files[-20:]
    lists = {"path": folder / "train.txt", "val_path": folder / "val.txt"}
    rows = ((files[number % (len(files) - 20)], number % 1000) for number in range(LINES))
    lists["path"].write_text("".join(f"{file} {label}\n" for file, label in rows), "utf-8")
    lists["val_path"].write_text(
        "".join(f"{file} {number % 2}\n" for number, file in enumerate(held_out)), "utf-8"
    )
    return {key: str(path) for key, path in {**lists, "test_path": lists["val_path"]}.items()}


def _resident() -> float:
    """Memory of this process that is in use, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = os.environ.get("EDGECLS_SHARED") or Path(__file__).parents[2] / "shared"
    parser.add_argument("--photos", type=Path, default=Path(shared) / "photos", help="folder of real JPEGs")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure memory in place of speed")
    parser.add_argument("--write", action="store_true", help="put the result into docs/time_and_memory.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench_pipeline_") as folder:
        scale = SMALLER if options.memory else 1.0
        files = make_photos(options.photos, Path(folder), options.images, scale)
        text, good = memory(files, Path(folder)) if options.memory else compare(files, options.rounds)
    print(text)
    if options.write:
        marked.rewrite(PAGE, *(MEMORY_MARKS if options.memory else SPEED_MARKS), text)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())

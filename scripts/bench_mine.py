"""What ``edgecls mine`` costs for so many photos: seconds of each step, memory, and what it finds of planted copies.

    python scripts/bench_mine.py --images 20000 --folder /tmp/mine --write

Drawn photos of 160 x 120 pixels, JPEG: of 100 unlabeled ones 5 are copies of an evaluation photo, cut, of another
brightness and compression; 5 are copies of another unlabeled one, of another brightness and compression. The teacher is a product of numbers, so that its
network's time is not in it. ``--write`` writes the table into docs/mine.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import marked
import numpy as np
from PIL import Image, ImageEnhance

from edgecls.data import images, near_duplicates
from edgecls.data.rows import Part
from edgecls.data.split import check
from edgecls.search import mine as search
from edgecls.search.mine_store import open_store

PAGE = Path(__file__).parent.parent / "docs" / "mine.md"
BEGIN, END = "<!-- figures: scripts/bench_mine.py -->", "<!-- end of figures -->"
SIZE = (160, 120)
OF_EVALUATION, OF_OTHERS = range(5), range(5, 10)  # the last two digits of a number that is a copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="unlabeled photos")
    parser.add_argument("--evaluation", type=int, default=1000, help="evaluation photos")
    parser.add_argument("--folder", type=Path, help="where the photos are drawn, or are from before")
    parser.add_argument("--write", action="store_true", help="write the table into docs/mine.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        result = measure(folder, arguments.images, arguments.evaluation)
    print(json.dumps(result, indent=2))
    if arguments.write:
        marked.rewrite(PAGE, BEGIN, END, f"\n{table(result)}\n")


def photo(number: int) -> Image.Image:
    """A drawn photo that no other number gives: soft shapes with a fine texture."""
    rng = np.random.default_rng(number)
    soft = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(
        SIZE, Image.Resampling.BICUBIC
    )
    grains = rng.integers(-40, 41, (SIZE[1] // 4, SIZE[0] // 4, 1)).repeat(4, axis=0).repeat(4, axis=1)
    return Image.fromarray((np.asarray(soft).astype(int) + grains).clip(0, 255).astype(np.uint8))


def changed(original: Image.Image, number: int, most_cut: float) -> Image.Image:
    """A copy of another brightness, with up to a share of its side cut off each border."""
    rng = np.random.default_rng(number)
    left, top, right, bottom = rng.uniform(0, most_cut, 4) * [*SIZE, *SIZE]
    cut = original.crop((int(left), int(top), int(SIZE[0] - right), int(SIZE[1] - bottom)))
    return ImageEnhance.Brightness(cut).enhance(rng.uniform(0.7, 1.2))


def unlabeled(number: int, evaluation: int) -> Image.Image:
    """An unlabeled photo; ``evaluation`` photos have the first numbers."""
    kind = number % 100
    if kind in OF_EVALUATION:
        return changed(photo(number % evaluation), number, most_cut=0.1)
    if kind in OF_OTHERS:
        return changed(photo(evaluation + number + 50), number, most_cut=0)
    return photo(evaluation + number)


def draw(folder: Path, count: int, evaluation: int) -> tuple[list[str], list[str]]:
    """Draw what is not there yet; paths of the evaluation photos and of the others."""
    held = [folder / "evaluation" / f"{i:07}.jpg" for i in range(evaluation)]
    others = [folder / "new" / f"{i // 1000:04}" / f"{i:07}.jpg" for i in range(count)]
    for parent in {path.parent for path in (*held, *others)}:
        parent.mkdir(parents=True, exist_ok=True)

    def make(item: tuple[int, Path, bool]) -> None:
        number, path, is_held = item
        if not path.is_file():
            drawn = photo(number) if is_held else unlabeled(number, evaluation)
            drawn.save(path, quality=50 + number % 45)

    items = [(i, path, True) for i, path in enumerate(held)] + [
        (i, path, False) for i, path in enumerate(others)
    ]
    with ThreadPoolExecutor(images.threads()) as pool:
        list(pool.map(make, items))
    return list(map(str, held)), list(map(str, others))


def measure(folder: Path, count: int, evaluation: int) -> dict[str, Any]:
    """Seconds of each step, memory, and what was found."""
    held, files = draw(folder, count, evaluation)
    before = peak_mib()
    part = Part(held, np.zeros(len(held), np.int64), files=held)
    split = check(part, f"bench_mine:{folder}", None)
    thumbnails = near_duplicates.read_thumbnails([split], f"bench_mine:{folder}")
    seconds: dict[str, float] = {}
    weights = np.random.default_rng(0).normal(size=(3, 100))

    def answer(pixels: np.ndarray) -> np.ndarray:
        scores = np.exp(pixels.mean(axis=(1, 2)) / 64 @ weights)
        return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)

    teacher = search.Teacher("bench", lambda pixels: pixels[:96, :96], answer)
    database = folder / "bench.sqlite"
    database.unlink(missing_ok=True)
    with open_store(database) as store:
        started = time.perf_counter()
        found = search.Evaluation({"test": split}, thumbnails)
        digests, unreadable = search.look(files, store, silent)
        seconds["read and hash"] = time.perf_counter() - started
        started = time.perf_counter()
        drops = search.Copies(files, digests, found, store).find(silent)
        seconds["find copies"] = time.perf_counter() - started
        rest = [i for i in range(count) if i not in drops]
        started = time.perf_counter()
        search.score([files[i] for i in rest], [digests[i] for i in rest], teacher, store, silent)
        seconds["read for the teacher"] = time.perf_counter() - started
    reasons = {
        name: {i for i, drop in drops.items() if drop.reason == name} for name in ("evaluation", "duplicate")
    }
    planted = {
        "evaluation": {i for i in range(count) if i % 100 in OF_EVALUATION},
        "duplicate": {i for i in range(count) if i % 100 in OF_OTHERS and i + 50 < count},
    }
    # of an unlabeled photo and its copy that with the first path is kept: the copy comes first here
    planted["duplicate"] = {i + 50 for i in planted["duplicate"]}
    assert not unreadable
    return {
        "images": count,
        "evaluation": evaluation,
        "seconds": seconds,
        "peak_mib": peak_mib(),
        "peak_mib_before": before,
        "store_mib": database.stat().st_size / 2**20,
        "planted": {name: len(numbers) for name, numbers in planted.items()},
        "found": {name: len(numbers & reasons[name]) for name, numbers in planted.items()},
        "wrong": len(set(drops) - set().union(*planted.values())),
    }


def silent(done: int, total: int) -> None:
    pass


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{result['images']:,} drawn photos of {SIZE[0]} x {SIZE[1]} pixels against {result['evaluation']:,} evaluation"
        " photos, on two cores that others used, too:",
        "",
        "| step | seconds | ms a photo |",
        "|---|--:|--:|",
    ]
    for name, value in result["seconds"].items():
        lines.append(f"| {name} | {value:.0f} | {1000 * value / result['images']:.1f} |")
    planted, found = result["planted"], result["found"]
    return "\n".join(
        [
            *lines,
            "",
            f"Peak memory {result['peak_mib']:.0f} MiB ({result['peak_mib_before']:.0f} MiB before the search); the kept"
            f" file has {result['store_mib']:.0f} MiB. Found: {found['evaluation']:,} of {planted['evaluation']:,} changed"
            f" copies of evaluation photos, {found['duplicate']:,} of {planted['duplicate']:,} of other photos;"
            f" {result['wrong']:,} other photos were dropped.",
        ]
    )


if __name__ == "__main__":
    main()

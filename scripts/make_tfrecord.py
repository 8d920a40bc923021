"""Write a folder or list of images as sharded TFRecord files.

    python scripts/make_tfrecord.py photos/flowers flowers_records --shards 16

Writes ``train-00000-of-00016.tfrecord`` and so on (``val-*`` and ``test-*`` where the source has these splits) with the
features ``image/encoded``, ``image/class/label`` and ``image/filename``, and ``labels.txt``. The bytes of the images stay
as they are. Images are put into a fixed random order, so that each shard has images of every class. A recipe reads the
folder with

    data: {source: tfrecord, path: flowers_records, labels: flowers_records/labels.txt}
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgecls.data import images
from edgecls.data.readers import guess_source, read
from edgecls.data.rows import Part
from edgecls.data.tfrecord import write_tfrecords
from edgecls.errors import EdgeclsError, UsageError
from edgecls.labels import write_labels
from edgecls.recipe import Data


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of class folders, or list file")
    parser.add_argument("output", type=Path, help="empty or new folder")
    parser.add_argument("--shards", type=int, default=8, help="files of each split")
    parser.add_argument("--image-column", help="as data.image_column")
    parser.add_argument("--label-column", help="as data.label_column")
    arguments = parser.parse_args()
    try:
        settings = Data(
            source=guess_source(arguments.source),
            path=str(arguments.source),
            image_column=arguments.image_column,
            label_column=arguments.label_column,
        )
        for line in make(settings, arguments.output, arguments.shards):
            print(line)
    except EdgeclsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def make(settings: Data, output: Path, shards: int) -> Iterator[str]:
    """Write the files; says what was written.

    Raises:
        UsageError: ``output`` has files.
        EdgeclsError: An image cannot be read.
    """
    if output.exists() and any(output.iterdir()):
        raise UsageError("the folder is not empty", where=str(output), fix="name a new one")
    contents = read(settings)
    yield from contents.notes
    for purpose, part in contents.parts.items():
        count = min(shards, max(1, len(part.names)))
        write_tfrecords(output / purpose, _examples(part), count)
        yield f"{len(part.names)} images to {purpose}-* ({count} files)"
    write_labels(output / "labels.txt", contents.classes)


def _examples(part: Part) -> Iterator[dict[str, bytes | int]]:
    if part.files is None:
        raise UsageError("only image files can be written")
    for i in np.random.default_rng(0).permutation(len(part.files)):
        try:
            data = images.read_file(part.files[i])
        except (OSError, ValueError) as error:
            raise EdgeclsError(f"cannot be read: {error}", where=part.names[i]) from None
        name = part.names[i].encode("utf-8", "surrogateescape")
        yield {"image/encoded": data, "image/class/label": int(part.labels[i]), "image/filename": name}


if __name__ == "__main__":
    main()

"""Our files in MediaPipe's ImageClassifier: labels, ranks and scores of 20 photographs must be those of our own runtime.

    python -m venv mp && mp/bin/pip install mediapipe      # by its pins it does not install beside edgecls
    python scripts/check_mediapipe.py PHOTOS --python mp/bin/python

Makes fp32 and int8 of EfficientNetLite0 with its published weights, with probabilities as ``edgecls export`` does.
Exit code 1 if a score differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

NETWORK, SIZE, SHORT, COUNT = "EfficientNetLite0", 224, 256, 20
PRECISIONS = ("fp32", "int8")
LIMIT = 1e-5


def make(photos: Path, folder: Path) -> None:
    """The files, the pixels, and what our runtime makes of them."""
    from edgecls.quiet import import_tensorflow

    import_tensorflow()
    import edgecls
    from edgecls.data.listing import list_photos
    from edgecls.data.preprocess import Preprocess
    from edgecls.export.inspect import Runner
    from edgecls.export.tflite import to_tflite

    model = edgecls.build_model(NETWORK, weights="imagenet", include_preprocessing=True)
    preprocess = Preprocess(SIZE, SHORT)
    pixels = np.stack([preprocess.load(str(path)) for path in list_photos(photos)[:COUNT]])
    labels = [f"class {i}" for i in range(model.output_shape[-1])]
    twin = edgecls.quantize_model(model)
    edgecls.calibrate(twin, [pixels.astype(np.float32)], "minmax")
    scores = {}
    for precision, network in zip(PRECISIONS, (model, twin), strict=True):
        path = to_tflite(
            network, folder / f"{precision}.tflite", precision, labels, preprocess, scores="softmax"
        )
        scores[precision] = Runner(path).outputs(pixels)
    np.savez(folder / "expected.npz", pixels=pixels, labels=labels, **scores)


def compare(folder: Path) -> None:
    """Run the files in MediaPipe; this is called by its own Python."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    expected, failed = np.load(folder / "expected.npz"), False
    for precision in PRECISIONS:
        base = BaseOptions(model_asset_path=str(folder / f"{precision}.tflite"))
        options = vision.ImageClassifierOptions(base_options=base, max_results=-1)
        worst, same = 0.0, 0
        with vision.ImageClassifier.create_from_options(options) as classifier:
            for image, scores in zip(expected["pixels"], expected[precision], strict=True):
                answer = classifier.classify(mediapipe.Image(mediapipe.ImageFormat.SRGB, image))
                named = {c.category_name: c.score for c in answer.classifications[0].categories}
                found = np.array([named[label] for label in expected["labels"]])
                worst = max(worst, float(np.abs(found - scores).max()))
                same += int(found.argmax() == scores.argmax())
        count = len(expected["pixels"])
        failed |= worst > LIMIT or same < count
        print(f"{precision}: scores differ by at most {worst:.1e}, same first class on {same} of {count}")
    sys.exit(int(failed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has mediapipe")
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compare:
        compare(args.photos)
    with tempfile.TemporaryDirectory() as name:
        make(args.photos, Path(name))
        sys.exit(subprocess.run([args.python, __file__, name, "--compare"], check=False).returncode)


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""What each ingredient of post-training quantization brings: agreement with the float network on photos that
calibration did not see.

    python scripts/experiment_ptq.py --photos PHOTOS --model EfficientNetLite0 --weights efficientnet-lite0.pth

Every other photo calibrates, the others judge. ``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

from edgecls.precisions import WEIGHT_SCALES
from edgecls.quiet import import_tensorflow

CORRECTION_IMAGES = 48
ROUNDINGS = ("nearest", "adaround")
BATCH = 25


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", default="EfficientNetLite0")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, default=None, help="input size; the network's own by default")
    parser.add_argument("--methods", nargs="+", default=["minmax", "percentile", "mse"])
    parser.add_argument("--weights-of", nargs="+", choices=WEIGHT_SCALES, default=list(WEIGHT_SCALES))
    parser.add_argument("--rounding", nargs="+", choices=ROUNDINGS, default=list(ROUNDINGS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import_tensorflow()
    import edgecls
    from edgecls.data.images import read_all
    from edgecls.data.listing import list_photos
    from edgecls.data.preprocess import Preprocess
    from edgecls.quantize import (
        calibrate,
        correct_biases,
        equalize,
        fake_quantization,
        learn_rounding,
        quantize_model,
    )
    from edgecls.zoo import catalog

    entry = catalog.get(options.model)
    model = edgecls.build_model(
        options.model, input_size=options.size, weights=options.weights, include_preprocessing=True
    )
    size = model.input_shape[1]
    short = entry.resize_short and round(entry.resize_short * size / entry.input_size)
    preprocess = Preprocess(size, short, entry.interpolation)
    _, photos, skipped = read_all(list_photos(options.photos), preprocess.array)
    assert not skipped, skipped
    pixels = np.stack(photos).astype(np.float32)
    seen, unseen = pixels[::2], pixels[1::2]
    batches = [seen[i : i + BATCH] for i in range(0, len(seen), BATCH)]

    def logits(network) -> np.ndarray:
        parts = [unseen[i : i + BATCH] for i in range(0, len(unseen), BATCH)]
        return np.concatenate([np.asarray(network(part, training=False)) for part in parts])

    expected, rows = logits(model), []
    print(f"{options.model}, {size} px, {len(seen)} photos calibrate, {len(unseen)} judge")
    floats = {
        "no": model,
        "yes": equalize(model),
        "relu6": equalize(model, seen[:CORRECTION_IMAGES]),  # across ReLU6, too
    }
    choices = itertools.product(options.weights_of, floats, options.methods, options.rounding)
    for weights, equalized, method, rounding in choices:
        network = quantize_model(floats[equalized], weights=weights)
        if equalized != "relu6":  # across ReLU6 it holds for the photos that were measured
            with fake_quantization(network, on=False):
                assert (logits(network).argmax(1) == expected.argmax(1)).all()
        calibrate(network, batches, method)
        if rounding == "adaround":
            learn_rounding(network, seen[:CORRECTION_IMAGES])
        for correction in (False, True):
            started = time.perf_counter()
            if correction:
                correct_biases(network, seen[:CORRECTION_IMAGES])
            found = logits(network)
            noise = float(10 * np.log10(np.mean(expected**2) / np.mean((found - expected) ** 2)))
            agreement = float(np.mean(found.argmax(1) == expected.argmax(1)))
            row = {"weights": weights, "equalized": equalized, "ranges": method, "rounding": rounding}
            rows.append(row | {"bias_correction": correction, "sqnr_db": noise, "agreement": agreement})
            taken = time.perf_counter() - started
            print(
                f"{weights:<12} equalized {equalized:<6} {method:<11} {rounding:<9} correction {correction!s:<6} "
                f"{noise:6.2f} dB  {agreement:.3f}  {taken:.0f} s"
            )
            sys.stdout.flush()
    if options.json:
        options.json.write_text(
            json.dumps({"model": options.model, "size": size, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()

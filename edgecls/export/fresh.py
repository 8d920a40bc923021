"""A network of the catalog with fresh weights as TFLite files: ``python -m edgecls.export.fresh NAME FOLDER PRECISION...``

Latency does not depend on the weights, so any network can be measured before it is trained. Prints a line
``PRECISION<tab>REASON`` for each file that cannot be made.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

_SEED = 0
_IMAGES = 4


def write_fresh(
    name: str, folder: Path, precisions: Sequence[str], input_size: int | None = None
) -> dict[str, str]:
    """Write ``<folder>/<name>_<precision>.tflite``: from pixels to 1000 logits.

    Args:
        name: Catalog name.
        precisions: ``fp32``, ``fp16``, ``int8``; int8 ranges are calibrated on noise.
        input_size: Side of the input, pixels; None: as published.

    Returns:
        The reason for each precision that cannot be made.
    """
    from edgecls.quiet import import_tensorflow

    import_tensorflow()
    import keras
    import numpy as np

    from edgecls.data.preprocess import Preprocess
    from edgecls.export.tflite import to_tflite
    from edgecls.quantize import calibrate, quantize_model
    from edgecls.reparam import fuse
    from edgecls.zoo import build_model, catalog

    entry = catalog.get(name)
    keras.utils.set_random_seed(_SEED)
    size = input_size or entry.input_size
    model = fuse(build_model(name, input_size=size, include_preprocessing=True))
    short = round(entry.resize_short * size / entry.input_size)
    preprocess = Preprocess(size, short, entry.interpolation, entry.mean, entry.std)
    labels = [str(index) for index in range(model.output_shape[-1])]
    shape = (_IMAGES, 1, size, size, 3)
    noise = np.random.default_rng(_SEED).integers(0, 256, shape).astype(np.float32)
    failed = {}
    for precision in precisions:
        try:
            network = model
            if precision == "int8":
                network = quantize_model(model)
                calibrate(network, list(noise), "minmax")
            to_tflite(network, folder / f"{name}_{precision}.tflite", precision, labels, preprocess)  # type: ignore[arg-type]
        except Exception as error:  # a layer without a quantization rule, or whatever the converter raises
            failed[precision] = " ".join(str(error).split()) or type(error).__name__
    return failed


if __name__ == "__main__":
    reasons = write_fresh(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    for kind, reason in reasons.items():
        print(f"{kind}\t{reason}")
    sys.exit(bool(reasons))

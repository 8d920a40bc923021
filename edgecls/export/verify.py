"""The ladder from the float network to the file on the phone: each rung is compared on the same pixels.

    float.keras = model_fp32.tflite     the converter and the runtime's float kernels
    qat.keras   = model_int8.tflite     training has seen the arithmetic of the file
    float.keras ~ model_int8.tflite     what quantization costs
    float.keras ~ model_fp16.tflite     what rounding the weights alone costs
    model.tflite = model.tflite on a phone      the kernels of its processor

Every .tflite runs in the same runtime (ai_edge_litert with XNNPACK), because kernels of different runtimes differ by a few
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edgecls.errors import UsageError
from edgecls.export import heads, inspect
from edgecls.export.inspect import output_step
from edgecls.quantize import floats
from edgecls.quantize.quantizers import STEPS

BATCH = 20
FLOAT_LIMIT = 1e-4  # of the logits' range
STEP_LIMIT = 1
FLOAT_STEP_LIMIT = 4  # of a file that computes float operations between grids

Logits = Callable[[np.ndarray], np.ndarray]


def ladder(
    images: np.ndarray,
    float_model: keras.Model | None = None,
    fp32: str | Path | None = None,
    qat_model: keras.Model | None = None,
    int8: str | Path | None = None,
    rounded: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Compare whatever is given.

    Args:
        images: uint8 [N, size, size, 3], resized and cropped as the metadata says.
        float_model: float.keras.
        fp32: model_fp32.tflite.
        qat_model: qat.keras.
        int8: model_int8.tflite.
        rounded: Files of float arithmetic with rounded weights, as model_fp16.tflite.

    Returns:
        verify.json: schema, images, rungs (each with its limit and whether it holds), files, size_ratio.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise UsageError(f"images must be uint8 [N, size, size, 3], got {images.dtype} {images.shape}")
    files = {Path(path).name: inspect.describe(path) for path in (fp32, *rounded, int8) if path}
    runners = {path: inspect.Runner(path) for path in (fp32, *rounded, int8) if path}
    float_logits = _keras(float_model, images) if float_model else None
    rungs = []
    if float_logits is not None and fp32:
        fp32_logits = runners[fp32](images)
        expected = _as_told(float_logits, runners[fp32].head)
        rungs.append(_float_rung(expected, fp32_logits, f"float.keras = {Path(fp32).name}"))
    if float_logits is not None:
        rungs += [_cost_rung(float_logits, runners[path](images), Path(path).name) for path in rounded]
    if int8:
        int8_logits, step, name = runners[int8](images), output_step(int8), Path(int8).name
        if qat_model:
            qat_logits = _as_told(_keras(qat_model, images), runners[int8].head)
            limit, rung = _step_limit(files[name]), f"qat.keras = {name}"
            if step:
                rungs.append(_step_rung(qat_logits, int8_logits, step, rung, limit))
            else:  # its classifier is kept in float, and its logits lie on no grid
                rungs.append(_float_rung(qat_logits, int8_logits, rung, limit / STEPS))
        if float_logits is not None:
            rungs.append(_cost_rung(float_logits, int8_logits, name))
    result: dict[str, Any] = {
        "schema": "edgecls.verify/1",
        "images": len(images),
        "rungs": rungs,
        "files": files,
    }
    if int8 and qat_model:
        about, in_float = files[Path(int8).name], floats.in_float(qat_model)
        about |= {"kept_float": bool(in_float), "in_float": in_float, "returns": floats.returns(qat_model)}
    if fp32 and int8:
        result["size_ratio"] = round(files[Path(int8).name]["bytes"] / files[Path(fp32).name]["bytes"], 4)
    return result


def device_rung(
    path: str | Path, runner: inspect.Runner, images: np.ndarray, answer: bytes, device: str
) -> dict[str, Any]:
    """Compare what a file computes here with what it computed on a device.

    Args:
        path: The file.
        runner: Runs the file on this computer.
        images: uint8 [N, size, size, 3].
        answer: The bytes of its N outputs on the device.
        device: The device's name.

    Returns:
        A rung of verify.json with ``device``. int8 files may differ by ``STEP_LIMIT`` steps, or ``FLOAT_STEP_LIMIT``
        with float operations inside, others by ``FLOAT_LIMIT`` of the logits' range. So the answers differ only for
        images whose two best classes are that close.
    """
    on_host, on_device = runner(images), runner.decode(answer)
    name, step = f"{Path(path).name} = {Path(path).name} on {device}", output_step(path)
    if step:
        rung = _step_rung(on_host, on_device, step, name, _step_limit(inspect.describe(path)))
    else:
        rung = _float_rung(on_host, on_device, name)
    return rung | {"device": device}


def _step_limit(about: Mapping[str, Any]) -> int:
    """How many steps a file's logits may be off.

    Two runtimes sum floats in another order. A value in some ten thousands then falls to the neighboring step where it
    returns to a grid, and later layers carry that on.
    """
    return FLOAT_STEP_LIMIT if about["float_ops"] else STEP_LIMIT


def _keras(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """The logits of a network, also of one that ends in probabilities."""
    kind = heads.split(model)[1]
    batches = (images[i : i + BATCH].astype(np.float32) for i in range(0, len(images), BATCH))
    outputs = np.concatenate([np.asarray(model(batch, training=False)) for batch in batches])
    return inspect.HEADS[heads.OPERATORS[kind]](outputs) if kind else outputs


def _as_told(logits: np.ndarray, head: str | None) -> np.ndarray:
    """``logits`` as far as a file's probabilities tell them: up to a summand for each image, and not below a least one."""
    if head != "SOFTMAX":
        return logits
    apart = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs = apart - np.log(np.exp(apart).sum(axis=1, keepdims=True))
    return np.maximum(logs, np.log(inspect.LEAST)).astype(np.float32)


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    return round(float(np.mean(a.argmax(1) == b.argmax(1))), 4)


def _cost_rung(float_logits: np.ndarray, file_logits: np.ndarray, file: str) -> dict[str, Any]:
    """How often a file with rounded weights answers as the float network; it has no limit to hold."""
    return {"name": f"float.keras ~ {file}", "top1_agreement": _agreement(float_logits, file_logits)}


def _float_rung(keras_logits: Any, file_logits: Any, name: str, limit: float = FLOAT_LIMIT) -> dict[str, Any]:
    error = float(np.abs(keras_logits - file_logits).max())
    relative = error / max(float(np.ptp(keras_logits)), 1e-12)
    return {
        "name": name,
        "max_abs": error,
        "of_range": relative,
        "top1_agreement": _agreement(keras_logits, file_logits),
        "limit": limit,
        "ok": bool(relative <= limit),
    }


def _step_rung(qat: Any, file_logits: np.ndarray, step: float, name: str, limit: int) -> dict[str, Any]:
    steps = np.abs(qat - file_logits) / step
    return {
        "name": name,
        "max_steps": round(float(steps.max()), 3),
        "mean_steps": round(float(steps.mean()), 4),
        "within_limit": round(float(np.mean(np.rint(steps) <= limit)), 5),
        "top1_agreement": _agreement(qat, file_logits),
        "limit": limit,
        "ok": bool(np.rint(steps.max()) <= limit),
    }

"""What a file computes before its first convolution can be cut off, and the rest computes the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from harness import answer
from quantization import BLOCKS, IMAGENET, SIZE, network, photos

import edgecls

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import bench_input


def test_what_is_left_takes_what_the_convolution_took(tmp_path: Path) -> None:
    model, images = network(BLOCKS["conv"], **IMAGENET), photos(SIZE, 4)
    twin = edgecls.quantize_model(model)
    edgecls.calibrate(twin, [images.astype(np.float32)])
    fp32 = edgecls.export_tflite(model, tmp_path / "fp32.tflite").read_bytes()
    int8 = edgecls.export_tflite(twin, tmp_path / "int8.tflite").read_bytes()
    mean, std = (np.array(IMAGENET[key]) * 255 for key in ("mean", "std"))

    bare, operators = bench_input.without_input(fp32)
    assert "CAST" in operators and "CONV_2D" not in operators
    normalized = ((images - mean) / std).astype(np.float32)
    np.testing.assert_allclose(answer(bare, normalized[:1]), answer(fp32, images[:1]), rtol=1e-4, atol=1e-5)

    bare, operators = bench_input.without_input(int8)
    assert operators == ["QUANTIZE"]
    shifted = (images.astype(int) - 128).astype(np.int8)
    np.testing.assert_array_equal(answer(bare, shifted[:1]), answer(int8, images[:1]))

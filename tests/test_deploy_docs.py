"""The Python code of docs/deploy.md answers as edgecls does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quantization import BLOCKS, EQUAL, SIZE, network, photos, settled

from edgecls.data.preprocess import Preprocess
from edgecls.export import apps, web
from edgecls.export.onnx import to_onnx
from edgecls.export.tflite import to_tflite
from edgecls.infer import Classifier

PAGE = Path(__file__).parents[1] / "docs/deploy.md"
LABELS = ["a", "b b", "ç", "d", "e", "f"]


def code(word: str) -> str:
    """The one block of Python that has this word."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (text for text in blocks if word in text)
    return block


@pytest.fixture(scope="module")
def model():
    model, images = network(BLOCKS["conv"], **EQUAL, classes=len(LABELS)), photos(SIZE, 12)
    settled(model, images)
    return model


@pytest.mark.parametrize("antialias", [False, True])
def test_the_script_for_a_board(model, tmp_path: Path, antialias: bool) -> None:
    preprocess = Preprocess(SIZE, SIZE + 6, antialias=antialias)
    path = to_tflite(model, tmp_path / "m.tflite", "fp32", LABELS, preprocess, scores="softmax")
    for i, pixels in enumerate(photos(SIZE, 5)):
        Image.fromarray(pixels).resize((3 * SIZE, 2 * SIZE + i)).save(tmp_path / f"{i}.png")
    files = [str(file) for file in sorted(tmp_path.glob("*.png"))]
    (tmp_path / "tensorflow.py").write_text("raise ImportError")  # found first: the script must not need it
    (tmp_path / "edgecls.py").write_text("raise ImportError")
    (tmp_path / "classify.py").write_text(code("PHOTO..."), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "classify.py", path, *files],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [re.fullmatch(r"(\S+) (.+) (\S+)", line).groups() for line in done.stdout.splitlines()]  # type: ignore[union-attr]
    answers = Classifier.load(path).predict(files, top=len(LABELS))
    for i, answer in enumerate(answers):
        expect = {best["class"]: best["probability"] for best in answer["predictions"]}
        lines = found[3 * i : 3 * i + 3]
        assert {file for file, _, _ in lines} == {answer["image"]}
        for (_, label, score), least in zip(lines, sorted(expect.values())[:2:-1], strict=True):
            assert abs(float(score) - expect[label]) < 0.02  # pixels may be a level apart
            assert expect[label] > least - 0.02
    assert len(found) == 3 * len(files)


def test_the_code_for_onnx(model, tmp_path: Path, capsys, monkeypatch) -> None:
    images = photos(SIZE, 4)
    to_onnx(model, tmp_path / "model.onnx", LABELS, Preprocess(SIZE).to_dict(), images)
    monkeypatch.chdir(tmp_path)
    for pixels in images:
        exec(code("onnxruntime"), {"pixels": pixels})
    best = model.predict(images.astype(np.float32), verbose=0).argmax(1)
    assert capsys.readouterr().out.split("\n")[:-1] == [LABELS[i] for i in best]


def test_the_browser() -> None:
    """test_export_web runs the page; what the docs say of it stands in the folder's own README, too."""
    (block,) = re.findall(r"```js\n.*?```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block in (apps.TEMPLATES / "web.md").read_text(encoding="utf-8")
    assert f"LiteRT.js {web.RUNTIME} " in PAGE.read_text(encoding="utf-8")

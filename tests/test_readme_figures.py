"""README's figures are what a run measured, each with its unit, its interval and the kind of computer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecls.environment import int8_instructions
from edgecls.run import Run

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import readme_figures

SCORE = {
    "balanced_accuracy": 0.75,
    "balanced_accuracy_ci95": [0.7, 0.8],
    "top1": 0.9125,
    "top1_ci95": [0.88, 0.9375],
}
FEWER = {"images": 594, "balanced_accuracy": 0.7312, "balanced_accuracy_ci95": [0.68, 0.79], "top1": 0.9}
ALONE = {model: {"all": {"images": 656}, "without near-copies": FEWER} for model in ("int8", "float")}
ROW = {
    "model": "model_int8.tflite",
    "threads": 1,
    "median_ms": 0.2149,
    "ci95_ms": [0.21, 0.22],
    "status": "ok",
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    int8 = {"partitions": 1, "float_ops": []}
    write(tmp_path, "eval.json", {"models": {"int8": SCORE, "float": SCORE}})
    write(tmp_path, "bench.json", {"results": [ROW | {"bytes": 2**21, "peak_mib": 15.125}]})
    ladder = {"images": 200, "rungs": [{"ok": True}, {"max_steps": 1.0}], "size_ratio": 0.2981}
    write(tmp_path, "verify.json", ladder | {"files": {"model_int8.tflite": int8}})
    write(tmp_path, "env.json", {"cpu": "AMD EPYC", "cores": 2, "int8_instructions": None})
    run = Run(tmp_path)
    run.stage("teacher", {}, []).finish()
    return run


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def test_figures_of_a_run(run: Run) -> None:
    text = readme_figures.figures(run, ALONE)
    assert "| network | balanced accuracy, 594 photographs | 95 % interval | top-1 | all 656 |" in text
    assert (
        "| float student | 0.731 | 0.680 - 0.790 | 0.900 | 0.750 | 0.700 - 0.800 |\n| int8 .tflite |" in text
    )
    assert "file size MB | peak memory MiB" in text
    assert "| model_int8.tflite | 1 | 0.21 | 0.21 - 0.22 | 2.10 | 15.1 | ok |" in text
    assert "int8 file / fp32 file: 0.298." in text and "at most 1 quantization steps apart" in text
    assert "Stages: teacher 0 s. Measured on" in text
    assert text.endswith("Measured on AMD EPYC, 2 cores, no GPU, no int8 instructions (AVX-512 VNNI).")


def test_what_was_not_measured_has_no_figure(run: Run) -> None:
    row = ROW | {"ci95_ms": None, "bytes": 2_000_000, "peak_mib": None}
    write(run.path, "bench.json", {"results": [row]})
    assert "| 0.21 | - | 2.00 | - | ok |" in readme_figures.figures(run, ALONE)


def test_kind_of_computer() -> None:
    env = {"cpu": "A", "cores": 4}
    assert readme_figures.computer(env) == "A, 4 cores, no GPU"
    vnni = env | {"int8_instructions": int8_instructions({"sse2", "avx512_vnni"})}
    assert readme_figures.computer(vnni) == "A, 4 cores, no GPU, AVX-512 VNNI"
    assert int8_instructions({"sse2", "avx2"}) is None


def test_only_the_marked_part_of_the_readme_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{readme_figures.BEGIN}\nold\n{readme_figures.END}\nafter\n")
    monkeypatch.setattr(readme_figures, "README", readme)
    monkeypatch.setattr(sys, "argv", ["readme_figures.py", str(run.path)])
    monkeypatch.setattr(readme_figures, "scores_of", lambda run: {"scores": ALONE})
    monkeypatch.setattr(Run, "find", classmethod(lambda cls, path: cls(path)))
    readme_figures.main()
    text = readme.read_text()
    assert text.startswith(f"before\n{readme_figures.BEGIN}\n| network") and text.endswith(
        f"{readme_figures.END}\nafter\n"
    )
    assert "old" not in text

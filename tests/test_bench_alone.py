"""android_bench installed alone: what `pip install ".[bench]"` brings, and that it is enough to measure.

The install has an environment of its own, outside of the checkout. Only the model files come from this one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from adbd import Adbd
from arm64 import ArmPhone, missing_tools, program

REPO = Path(__file__).parents[1]
HEAVY = ("tensorflow", "keras", "matplotlib", "h5py", "PIL")
QUICK = ("--threads", "1", "--warmup", "1", "--runs", "5", "--rounds", "1", "--repeats", "0")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with `.[bench]` alone."""
    work = tmp_path_factory.mktemp("alone")
    source = work / "checkout"  # a build leaves files beside setup.py
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "constraints.txt"):
        shutil.copy(REPO / name, source)
    for name in ("android_bench", "edgecls", "recipes"):
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    found = work / "venv/bin/python"
    install = "-m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt .[bench]"
    done = subprocess.run([found, *install.split()], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return found


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name in ("EDGECLS_CONFIG", "EDGECLS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_is_installed(python: Path) -> None:
    code = f"import importlib.util as u; print([n for n in {HEAVY} if u.find_spec(n)])"
    assert run(python, "-c", code).strip() == "[]"
    run(python, "-m", "pip", "check")
    done = subprocess.run([python.with_name("edgecls"), "train", "mv3_ssld"], capture_output=True, text=True)
    assert done.returncode == 3 and "pip install '.[all]'" in done.stderr and done.stderr.count("\n") == 1


def test_this_computer_is_measured(python: Path, tiny: dict[str, Path]) -> None:
    assert "--device" in run(python, "-m", "android_bench", "--help")
    run(python, "-m", "android_bench", tiny["int8"], *QUICK, "--json", "a.json")
    run(python.with_name("edgecls"), "bench", tiny["int8"], "--device", "host", *QUICK, "--save", "b.json")
    for name in ("a.json", "b.json"):
        document = json.loads(Path(name).read_text())
        (result,) = document["results"]
        assert result["n"] >= 5 and result["runtime"].startswith("ai-edge-litert ")
        assert result["partitions"] == 1 and result["status"] in ("ok", "unsure")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Adbd]:
    daemon = Adbd(ArmPhone(tmp_path / "board")).start()
    yield daemon
    daemon.stop()


@pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {', '.join(missing_tools())}")
def test_a_board_is_measured(python: Path, tiny: dict[str, Path], board: Adbd) -> None:
    """From the command line to inference on ARM, as in test_bench_e2e.py, and no TensorFlow anywhere."""
    run(
        python, "-m", "android_bench", tiny["fp32"], tiny["int8"], "--device", board.where,
        "--binary", program(), *QUICK, "--json", "b.json",
    )  # fmt: skip
    document = json.loads(Path("b.json").read_text())
    assert document["device"]["machine"] == "aarch64-linux"
    for result in document["results"]:
        assert result["status"] == "ok" and result["delegates"] == ["XNNPACK"], result["why"]
        assert 0 < result["min_ms"] <= result["median_ms"] <= result["max_ms"]

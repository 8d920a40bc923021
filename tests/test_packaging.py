"""What travels with the package, and what it says it needs."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROGRAMS = [path for folder in ("tests", "scripts") for path in (ROOT / folder).glob("*.py")]
OURS = {"edgecls", "android_bench", *(path.stem for path in PROGRAMS)}
DISTRIBUTIONS = packages_distributions()


def requirements(*lists: str) -> dict[str, Requirement]:
    """What these lists of setup.py ask for, by the distribution's canonical name."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    values = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    found = [Requirement(text) for name in lists for text in ast.literal_eval(values[name])]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pins() -> dict[str, str]:
    """The versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level names of the modules that a program imports and cannot do without."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif not (isinstance(node, ast.Try) and "ImportError" in ast.unparse(node.handlers)):
            yield from imported(node)


@functools.cache
def third_party(folder: str) -> dict[str, str]:
    """Modules that are neither Python's nor ours, each with one file of ``folder`` that imports it."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        modules = set(imported(ast.parse(path.read_text(encoding="utf-8")))) - sys.stdlib_module_names - OURS
        found |= dict.fromkeys(modules, str(path.relative_to(ROOT)))
    return found


def undeclared(folders: list[str], declared: set[str]) -> dict[str, str]:
    """The modules that programs in ``folders`` import from no distribution of ``declared``."""
    return {
        module: path
        for folder in folders
        for module, path in third_party(folder).items()
        if not {canonicalize_name(name) for name in DISTRIBUTIONS.get(module, [module])} & declared
    }


def test_every_import_is_declared() -> None:
    bench, whole = set(requirements("BENCH")), set(requirements("BENCH", "CORE", "SERVE", "ONNX"))
    assert undeclared(["android_bench"], bench) == {}
    whole |= set(requirements("TUNE"))
    assert undeclared(["edgecls"], whole) == {}
    elsewhere = {"mediapipe": "scripts/check_mediapipe.py"}  # runs in an environment of its own
    assert undeclared(["tests", "scripts"], whole | set(requirements("DEV", "DEMO"))) == elsewhere
    assert list(undeclared(["edgecls"], whole - {"numpy"})) == ["numpy"]  # the search itself works


def test_the_whole_kit_is_in_every_extra_but_that_of_benchmarks(library: Path) -> None:
    """`pip install ".[bench]"` brings no TensorFlow; the extras that the scripts install bring all."""
    about = next(library.parent.rglob("requires.txt")).read_text(encoding="utf-8")
    always, *sections = about.split("\n[")
    extras = {name: body.split() for name, _, body in (section.partition("]\n") for section in sections)}
    wanted = {str(requirement) for requirement in requirements("CORE").values()}
    assert not wanted & set(always.split()) and not extras.get("bench")
    for name in ("all", "demo", "tune", "dev"):
        assert {str(Requirement(line)) for line in extras[name]} >= wanted


def test_constraints_are_within_the_ranges() -> None:
    versions = pins()
    for name, requirement in requirements("BENCH", "CORE", "DEMO", "DEV", "SERVE", "ONNX", "TUNE").items():
        assert versions[name] in requirement.specifier, requirement
    assert all(re.fullmatch(r"[0-9][\w.]*", version) for version in versions.values())


def test_a_package_with_overridden_private_parts_is_pinned() -> None:
    """``android_bench.adb.direct`` overrides what adb-shell does not promise to keep."""
    assert str(requirements("BENCH")["adb-shell"].specifier) == f"=={pins()['adb-shell']}"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel would hold, made from the checkout without writing into it."""
    work = tmp_path_factory.mktemp("build")
    command = f"setup.py -q egg_info -e {work} build -b {work} --build-lib {work / 'lib'}"
    subprocess.run([sys.executable, *command.split()], cwd=ROOT, check=True, capture_output=True)
    return work / "lib"


def test_every_file_travels(library: Path) -> None:
    places = {"edgecls": "edgecls", "android_bench": "android_bench", "recipes": "edgecls/recipes"}
    for source, target in places.items():
        files = [path for path in (ROOT / source).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        missing = [p for p in files if not (library / target / p.relative_to(ROOT / source)).is_file()]
        assert files and not missing


def test_works_without_the_checkout(library: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(library), "EDGECLS_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import edgecls; print(edgecls.__file__)").strip() == str(
        library / "edgecls/__init__.py"
    )
    assert "MobileNetV3_small_x0_35" in run("-m", "edgecls", "models", "MobileNetV3_small_x0_35")
    find = "from edgecls.recipe import find_recipe; print(find_recipe('base'))"
    assert run("-c", find).strip() == str(library / "edgecls/recipes/base.yaml")


def test_setup_installs_the_constraints_once(tmp_path: Path) -> None:
    """scripts/setup.sh, with programs in place of pip and python that only write down how they were called."""
    for name in ("scripts/setup.sh", "setup.py", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name in ("pip", "python"):
        program = tmp_path / "venv/bin" / name
        program.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n')
        program.chmod(0o755)

    def installs() -> list[str]:
        command = f"set -euo pipefail; . '{tmp_path}/scripts/setup.sh' demo"
        environment = os.environ | {"EDGECLS_VENV": "venv", "PYTHON": sys.executable}
        subprocess.run(["bash", "-c", command], env=environment, check=True, capture_output=True)
        calls = (tmp_path / "venv/bin/calls").read_text().splitlines()
        return [call for call in calls if call.startswith("install")]

    assert "--constraint constraints.txt --editable .[demo]" in installs()[0]
    assert len(installs()) == 1
    for count, name in enumerate(("constraints.txt", "setup.py"), start=2):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "# changed\n")
        assert len(installs()) == count

"""Which module imports which: no circles, and android_bench stands alone."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


def modules(package: str, repo: Path = REPO) -> dict[str, Path]:
    """The files of a package by the names under which they are imported."""
    paths = {".".join(p.relative_to(repo).with_suffix("").parts): p for p in (repo / package).rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imported(path: Path) -> set[str]:
    """All names that a file imports, inside functions too: a late import only hides a circle.

    What is imported for type hints alone (``if TYPE_CHECKING:``) is left out.
    """
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            nodes += ast.iter_child_nodes(node)
    return names


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Each module with the modules of the same package that it imports."""

    def module(name: str) -> str:
        """The module that ``name`` is, or from which ``name`` is taken."""
        return name if name in files else name.rpartition(".")[0]

    return {
        own: {module(name) for name in imported(path)} & files.keys() - {own} for own, path in files.items()
    }


@pytest.mark.parametrize("package", ["android_bench", "edgecls"])
def test_no_module_imports_itself_through_others(package: str) -> None:
    try:
        graphlib.TopologicalSorter(graph(modules(package))).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports in a circle: {' <- '.join(error.args[1])}")


def test_the_floors_of_android_bench_stand_on_each_other() -> None:
    """A folder of android_bench imports only from the ones below it; the package's own file is the roof."""
    files = modules("android_bench")
    floors: dict[str, set[str]] = {}
    for own, others in graph(files).items():
        floor = own.split(".")[1:-1] or [own]
        floors.setdefault(floor[0], set()).update((other.split(".")[1:-1] or [other])[0] for other in others)
    order = {name: above - {name} for name, above in floors.items()}
    try:
        graphlib.TopologicalSorter(order).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"folders that need each other: {' <- '.join(error.args[1])}")
    assert {"adb", "devices", "measure", "output"} <= floors.keys()


def test_a_hidden_circle_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("def f():\n    from package import b\n")
    (folder / "b.py").write_text("from package.a import f\n")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph(modules("package", tmp_path))).prepare()


def test_android_bench_stands_alone() -> None:
    for name, path in modules("android_bench").items():
        used = {other.partition(".")[0] for other in imported(path)}
        assert not used & {"edgecls", "tensorflow", "keras"}, name

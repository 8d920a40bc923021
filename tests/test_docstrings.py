"""The examples in docstrings run, and every public function has one."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgecls

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def modules_with_examples() -> Iterator[str]:
    package = Path(edgecls.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            yield ".".join(("edgecls", *path.relative_to(package).with_suffix("").parts))


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name.removesuffix(".__init__"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save("photo.jpg")
    failures: list[str] = []
    globs = {**vars(module), "edgecls": edgecls, "np": np}
    for example in doctest.DocTestFinder().find(module, name, globs=globs):
        doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(example, out=failures.append)
    assert not failures, "".join(failures)


def test_every_public_function_has_an_example() -> None:
    for name in edgecls.__all__:
        assert ">>> " in (getattr(edgecls, name).__doc__ or ""), name

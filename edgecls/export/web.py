"""A ``.tflite`` file for a browser: a folder with a page, its labels, and a class that makes the pixels it takes.

LiteRT.js runs the file by WebAssembly on the CPU, fp32 as well as int8. It is no part of edgecls: ``npm`` fetches one
version of it, and its files are copied into the folder as they are, so that the page needs no other host.
"""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import fields
from pathlib import Path

from edgecls.data.preprocess import Preprocess
from edgecls.export import npm
from edgecls.export.apps import TEMPLATES, describe_file, render
from edgecls.files import write_json

RUNTIME = "2.5.3"
"""The release of LiteRT.js."""
_CORE, _UTILS = "@litertjs/core", "@litertjs/wasm-utils"
_DIGESTS = {
    _CORE: "a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd",
    _UTILS: "ce2a1f8379c067be49e59752e5a7f40db6be09f6e497f0f11e59f17b515366a7",
}
# One build for browsers with relaxed SIMD and one for the others: a browser loads one of them. Those with threads and for
# WebGPU's switching of stacks need response headers that a plain file server does not send.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")
_FILES = {
    _CORE: {
        "dist/index.js": "core.js",
        "package.json": "package.json",
        "README.md": "README.md",
        **{f"wasm/{name}.{suffix}": f"wasm/{name}.{suffix}" for name in _BUILDS for suffix in ("js", "wasm")},
    },
    _UTILS: {"dist/index.js": "wasm-utils.js"},
}
_SHARED = Path(__file__).parents[1] / "infer/page"  # with the page of ``edgecls serve``
_KEYS = ("name", "labels", "scores", "scale", "zero_point", "text")


def write_web(model: Path, folder: Path) -> None:
    """Write ``index.html`` with its scripts, ``model.tflite``, ``model.json``, ``litert/`` and ``README.md``.

    Args:
        model: A ``.tflite`` file with labels and preprocessing in its metadata, and uint8 input.
        folder: Where to; made.

    Raises:
        UsageError: The file does not say how photos become its pixels.
        MissingError: LiteRT.js cannot be fetched.

    Example:
        >>> write_web(Path("model_int8.tflite"), Path("web"))  # doctest: +SKIP
    """
    facts = describe_file(model)
    archives = {name: npm.archive(name, RUNTIME, digest) for name, digest in _DIGESTS.items()}
    shutil.copytree(TEMPLATES / "web", folder)
    for name in ("page.css", "shared.js"):
        shutil.copyfile(_SHARED / name, folder / name)
    shutil.copyfile(model, folder / "model.tflite")
    preprocess = {field.name: facts[field.name] for field in fields(Preprocess)}
    write_json(folder / "model.json", {**{key: facts[key] for key in _KEYS}, "preprocess": preprocess})
    readme = render("web.md", {**facts, "runtime": RUNTIME})
    (folder / "README.md").write_text(readme, encoding="utf-8")
    for name, path in archives.items():
        _unpack(path, _FILES[name], folder / "litert")


def _unpack(archive: Path, files: dict[str, str], folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for member, name in files.items():
            content = tar.extractfile(f"package/{member}")
            assert content is not None  # the archive's hash was checked
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.read())

"""One row of docs/int8.md: a network quantized, exported and compared; and the code that its figures depend on.

``scripts/verify_int8.py`` starts ``check`` in a process for each network.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PREFIX = "keras.applications."
SIZES = (64, 96, 128, 224)  # the first that a network takes
IMAGES, CLASSES = 8, 1000
SOFTWARE = ("tensorflow", "keras", "ai-edge-litert")
CORE = (
    *(f"edgecls.quantize.{part}" for part in ("emit", "calibrate", "control", "finalize")),
    *(f"edgecls.export.{part}" for part in ("tflite", "verify")),
    "edgecls.reparam",
)
FOLLOWED = ("edgecls.quantize.", "edgecls.export.", "edgecls.zoo.", "edgecls.graph", "edgecls.precisions")
REMARKS = {"edgecls.export.reasons"}  # words about a file that is made already


def check(name: str) -> dict[str, Any]:
    """The figures of one network, and ``modules``: those of the rules and layers that it has."""
    import keras
    import numpy as np

    import edgecls
    from edgecls.errors import EdgeclsError
    from edgecls.export import inspect, verify
    from edgecls.export.gates import gates
    from edgecls.reparam import fuse

    start = time.monotonic()
    keras.utils.set_random_seed(0)
    model, size = build(name)
    model = fuse(model)
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8)
    pixels = noise.astype(np.float32)
    settle(model, pixels)
    row: dict[str, Any] = {"params": model.count_params(), "size": size}
    try:
        with noted_rules() as modules:
            twin = edgecls.quantize_model(model)
    except EdgeclsError as error:
        return row | {"error": str(error)}
    modules |= {type(layer).__module__ for layer in (*model.layers, *twin.layers)}
    row["modules"] = sorted(module for module in modules if module.startswith("edgecls."))
    edgecls.calibrate(twin, [pixels])
    with tempfile.TemporaryDirectory() as folder:
        int8 = edgecls.export_tflite(twin, Path(folder) / "int8.tflite")
        fp32 = edgecls.export_tflite(model, Path(folder) / "fp32.tflite")
        ladder = verify.ladder(noise, qat_model=twin, int8=int8)
        rung, file = ladder["rungs"][0], ladder["files"][int8.name]
        ratio = int8.stat().st_size / fp32.stat().st_size
        beside = channel_bytes(int8.read_bytes()) / fp32.stat().st_size
        spread = np.ptp(inspect.Runner(int8)(noise), axis=0).max() / inspect.output_step(int8)
    return row | {
        "float_ops": file["float_ops"],
        "partitions": file["partitions"],
        "undelegated": file["undelegated"],
        "reasons": [reason for gate in gates(ladder) for reason in gate.get("reasons", ())],
        "in_float": sorted({reason.split(",")[0] for reason in file["in_float"].values()}),
        "steps": rung["max_steps"],
        "most_steps": rung["limit"],
        "spread": round(float(spread)),
        "size_ratio": round(ratio, 4),
        "channels_ratio": round(beside, 4),
        "seconds": round(time.monotonic() - start),
    }


def build(name: str) -> tuple[Any, int]:
    """The network at the smallest input that it takes."""
    import keras

    import edgecls

    errors = []
    for size in SIZES:
        try:
            if name.startswith(PREFIX):
                make = getattr(keras.applications, name.removeprefix(PREFIX))
                return make(input_shape=(size, size, 3), weights=None, classes=CLASSES), size
            return edgecls.build_model(name, CLASSES, size, include_preprocessing=True), size
        except ValueError as error:  # too small
            errors.append(error)
    raise errors[-1]


def settle(model: Any, pixels: Any) -> None:
    """Make running statistics those of the images, so that values have a healthy size everywhere."""
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(pixels, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def channel_bytes(content: bytes) -> int:
    """Bytes of a file's biases, scales and zero points: what each channel has beside its weights."""
    from ai_edge_litert.schema_py_generated import TensorType

    from edgecls.export import flatbuffer

    model = flatbuffer.unpack(content)
    size, zeros = 0, set()
    for tensor in model.subgraphs[0].tensors:
        data, grid = model.buffers[tensor.buffer].data, tensor.quantization
        size += len(data) if data is not None and tensor.type == TensorType.INT32 else 0
        size += 4 * len(grid.scale) if grid and grid.scale is not None else 0
        zeros.add(grid.zeroPoint.tobytes() if grid and grid.zeroPoint is not None else b"")
    return size + sum(map(len, zeros))  # equal ones are in the file once


@contextmanager
def noted_rules() -> Iterator[set[str]]:
    """The names of the modules whose rules are found for a layer meanwhile."""
    from edgecls.quantize import registry

    find, modules = registry.find, set[str]()

    def noting(rules: Any, layer: Any) -> Any:
        rule = find(rules, layer)
        modules.update((rule.__module__,) if rule else ())
        return rule

    registry.find = noting
    try:
        yield modules
    finally:
        registry.find = find


class Fingerprint:
    """Hashes of the code that rows depend on, as it is when the object is made.

    A row depends on what every conversion runs, on the rules and layers of its own network, on what those import, and
    on the versions of ``SOFTWARE``. Words do not count: docstrings, comments, how lines are broken.

    Args:
        root: The folder with the packages.
    """

    def __init__(self, root: Path = ROOT) -> None:
        versions = {name: importlib.metadata.version(name) for name in SOFTWARE}
        self.software = repr(sorted(versions.items()))
        paths = [*sorted((root / "edgecls").rglob("*.py")), Path(__file__)]
        self.trees = {_module(path, root): _without_words(path.read_text("utf-8")) for path in paths}
        self._dump = cache(lambda module: ast.dump(self.trees[module]))

    def of(self, row: dict[str, Any], family: str = "") -> str:
        """The hash that ``row`` has if it is made of the code as it is.

        Args:
            row: What ``check`` gives. One that failed depends on all rules.
            family: The module of the zoo that builds the network, if it is one of the zoo's.
        """
        own = [name for name in self.trees if name.startswith("edgecls.quantize.rules.")]
        roots = {*CORE, *(own if "error" in row else row.get("modules", ())), family}
        text = "".join(self._dump(module) for module in sorted({*self.closure(roots), Path(__file__).stem}))
        return hashlib.sha256((self.software + text).encode()).hexdigest()[:12]

    def closure(self, roots: Iterable[str]) -> set[str]:
        """Modules, and those that they import when they are imported."""
        found: set[str] = set()
        ahead = [module for module in roots if module in self.trees]
        while ahead:
            module = ahead.pop()
            if module not in found:
                found.add(module)
                ahead += [name for name in _imports(self.trees[module]) if self._followed(name)]
        return found

    def _followed(self, module: str) -> bool:
        return module in self.trees and module.startswith(FOLLOWED) and module not in REMARKS


def _module(path: Path, root: Path) -> str:
    if not path.is_relative_to(root / "edgecls"):
        return path.stem
    return ".".join(path.relative_to(root).with_suffix("").parts)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Names that could be modules, of the imports at the top of a module."""
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)


def _without_words(text: str) -> ast.Module:
    """What a module computes."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


Report = Callable[[dict[str, Any]], None]


def in_process(context: Any, name: str, seconds: float) -> dict[str, Any]:
    """``check(name)`` in a process of its own, because the converter leaks memory.

    Args:
        context: Of ``multiprocessing``; see ``forks``.
        name: Of the network.
        seconds: The longest that it may take.
    """
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, name))
    process.start()
    theirs.close()
    try:
        row = ours.recv() if ours.poll(seconds) else {"error": f"more than {seconds:g} s"}
    except EOFError:
        process.join()
        row = {"error": f"its process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return row


def _send(connection: Any, name: str) -> None:
    try:
        row = check(name)
    except Exception as error:  # whatever a network brings up is its row
        row = {"error": f"{type(error).__name__}: {str(error).strip()}"[:300]}
    connection.send(row)


def forks(modules: Collection[str] = ("edgecls.quantize", "edgecls.export.tflite")) -> Any:
    """A context whose processes have TensorFlow already.

    They are copies of a process that has imported it and run nothing, which therefore has one thread and can be forked.
    """
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["edgecls.quiet", *modules])
    return context

"""What the commands do: the stages of a run in their order, each stamped so that done work is not done again.

A stage's module is imported when its function is first asked for: a benchmark needs no package of the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecls.workflow.augmenting import preview
    from edgecls.workflow.benching import bench
    from edgecls.workflow.converting import convert_onnx, export_onnx
    from edgecls.workflow.deploying import explain, export, export_apps, verify
    from edgecls.workflow.mining import mine
    from edgecls.workflow.quantizing import explain_file, quantize_file, sensitivity_file
    from edgecls.workflow.scoring import evaluate, report
    from edgecls.workflow.serving import predict, serve
    from edgecls.workflow.training import plan, quantize, train
    from edgecls.workflow.tuning import tune

__all__ = [
    "bench",
    "convert_onnx",
    "evaluate",
    "explain",
    "explain_file",
    "export",
    "export_apps",
    "export_onnx",
    "mine",
    "plan",
    "predict",
    "preview",
    "quantize",
    "quantize_file",
    "report",
    "sensitivity_file",
    "serve",
    "train",
    "tune",
    "verify",
]

_MODULES = {
    "augmenting": ("preview",),
    "benching": ("bench",),
    "converting": ("convert_onnx", "export_onnx"),
    "deploying": ("explain", "export", "export_apps", "verify"),
    "mining": ("mine",),
    "quantizing": ("explain_file", "quantize_file", "sensitivity_file"),
    "scoring": ("evaluate", "report"),
    "serving": ("predict", "serve"),
    "training": ("plan", "quantize", "train"),
    "tuning": ("tune",),
}


def __getattr__(name: str) -> Any:
    for module, functions in _MODULES.items():
        if name in functions:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

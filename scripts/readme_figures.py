"""Write a run's figures into README.md, between its two markers, so that none is typed by hand.

Usage: python scripts/readme_figures.py [RUN]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edgecls.files import write_text
from edgecls.run import Run

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures: scripts/readme_figures.py -->", "<!-- end of figures -->"
MODELS = {"teacher": "teacher", "float": "float student", "qat": "QAT student", "int8": "int8 .tflite"}


def main() -> None:
    run = Run.find(sys.argv[1] if len(sys.argv) > 1 else None)
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(README, f"{before}{BEGIN}\n{figures(run)}\n{END}{after}")


def figures(run: Run) -> str:
    """Markdown of what one run measured."""

    def read(name: str) -> Any:
        return json.loads(run.file(name).read_text(encoding="utf-8"))

    scores, ladder, bench, env = read("eval.json"), read("verify.json"), read("bench.json"), read("env.json")
    int8 = ladder["files"]["model_int8.tflite"]
    lines = ["| network | balanced accuracy | 95 % interval | top-1 |", "|---|---|---|---|"]
    for kind, label in MODELS.items():
        if kind in scores["models"]:
            s = scores["models"][kind]
            low, high = s["balanced_accuracy_ci95"]
            lines.append(
                f"| {label} | {s['balanced_accuracy']:.3f} | {low:.3f} - {high:.3f} | {s['top1']:.3f} |"
            )
    lines += ["", "| file | threads | median ms | 95 % interval | size MB | peak memory MiB | status |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for r in bench["results"]:
        interval = "{:.2f} - {:.2f}".format(*r["ci95_ms"]) if r["ci95_ms"] else "-"
        lines.append(
            f"| {r['model']} | {r['threads']} | {r['median_ms']:.2f} | {interval} "
            f"| {r['bytes'] / 1e6:.2f} | {r['peak_mib']:.1f} | {r['status']} |"
        )
    steps = next(rung["max_steps"] for rung in ladder["rungs"] if "max_steps" in rung)
    stages = [json.loads(p.read_text()) for p in run.file("stamps").glob("*.json")]
    seconds = ", ".join(
        f"{s['stage']} {s['seconds']:.0f} s" for s in sorted(stages, key=lambda s: s["finished"])
    )
    lines += [
        "",
        f"int8 file / fp32 file: {ladder['size_ratio']:.3f}. int8 against its QAT network on {ladder['images']} "
        f"photographs: at most {steps:g} quantization steps apart. XNNPACK partitions: {int8['partitions']}; "
        f"float operations left: {len(int8['float_ops'])}.",
        "",
        f"Stages: {seconds}. Measured on {env['cpu']}, {env['cores']} cores, no GPU.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
